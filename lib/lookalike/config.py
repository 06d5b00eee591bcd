"""Settings: typed, frozen, from TOML and `--set key=value`. All problems are listed at once, with place and mend."""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lookalike import __version__
from lookalike.allowed import check_folders, check_hosts, check_schemes
from lookalike.errors import ConfigInvalid

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IngestSettings(Section):
    read_threads: Count = Field(16, description="images that one task reads at the same time")
    max_image_bytes: Count = Field(
        64 * 2**20, description="largest image that is read, bytes; a larger one is rejected"
    )
    schemes: Annotated[tuple[str, ...], AfterValidator(check_schemes)] = Field(
        ("file", "http", "https", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "hdfs"),
        description="schemes of the uris from which images are read; `file` includes paths without a scheme",
    )
    hosts: Annotated[tuple[str, ...], AfterValidator(check_hosts)] = Field(
        (),
        description="hosts and buckets from which images are read, such as `*.shop.example`; "
        "empty: any, but over http(s) only public addresses",
    )
    folders: Annotated[tuple[str, ...], AfterValidator(check_folders)] = Field(
        (), description="absolute paths of folders; image files are read only from below them; empty: any folder"
    )
    connect_timeout_s: Seconds = Field(10.0, description="longest wait for a connection to an http(s) server, seconds")
    read_timeout_s: Seconds = Field(20.0, description="longest wait for the next bytes of an http(s) server, seconds")
    max_left_out: Fraction = Field(
        0.2, description="largest share of the catalog's images that a manifest may leave out with --complete"
    )
    placeholder_products: int = Field(
        5,
        ge=2,
        description="a picture is a placeholder if it is the only one of so many products of different titles",
    )
    image_timeout_s: Seconds = Field(
        120.0,
        description="longest time to read one image, all tries together, without the wait for the two limits below, "
        "seconds",
    )
    host_requests: Count = Field(
        64, description="most requests to one http(s) host at the same time, by all tasks of an executor together"
    )
    host_requests_per_s: float = Field(
        500.0,
        gt=0.0,
        description="most requests per second to one http(s) host, by all tasks of an executor together; "
        "a host that answers 429 or 503 gets fewer",
    )
    user_agent: str = Field(
        f"lookalike/{__version__}",
        min_length=1,
        pattern=r"^[\x20-\x7e]+$",
        description="how requests over http(s) name themselves, such as `my-shop-search/1.0 (+https://shop.example/bot)`",
    )


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


MODEL_FILE_SUFFIX = ".safetensors"
Precision = Literal["float32", "bfloat16"]
DEFAULT_MODEL = "default"
"""Stands for the default model that is live, or in a new catalog for the newest."""

DEFAULT_MODELS = ("default-1", "default-2")
"""Names of the default models that come with the library, oldest first."""

NEWEST_DEFAULT = DEFAULT_MODELS[-1]


class ModelSettings(Section):
    name: str = Field(
        DEFAULT_MODEL,
        description="`default` (the default model that is live under the root; in a new catalog the newest one), "
        "`default-2`, `default-1`, `efficientnet_lite0` (their network, not fine-tuned), `torchvision/NAME`, "
        "`timm/NAME`, `open_clip/NAME`, or the path or URI of a `.safetensors` file that fit_pca or fine_tune wrote. "
        "Beside a default model and a file, only `model.precision` may be set",
    )
    weights: str = Field(
        "official",
        description="`official` (the architecture's own; those of `efficientnet_lite0` come with the packages, others "
        "are downloaded on first use) or the path or URI of a state dict",
    )
    layer: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        ("features",),
        min_length=1,
        description="`features` (the input of the classifier) or names of submodules; several layers are each pooled "
        "and "
        "normalised, then joined",
    )
    pooling: Literal["avg", "max", "gem"] = Field(
        "avg", description="how a layer's output (channels, height, width) is reduced to (channels,)"
    )
    size_px: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="side of the network's input, pixels; unset: the side it was trained at. A somewhat larger side "
        "often finds more; the time grows with the number of pixels",
    )
    flip: bool = Field(False, description="add the embedding of the mirrored picture; takes twice the time")
    colour_weight: Fraction = Field(0.0, description="weight of a colour histogram in the score; 0: no histogram")
    precision: Precision = Field(
        "float32",
        description="precision of the network on a CPU; bfloat16 is less exact, and faster on CPUs that support it",
    )

    @property
    def is_file(self) -> bool:
        """Whether `name` is the path or URI of a model file."""
        return self.name.endswith(MODEL_FILE_SUFFIX)

    @property
    def is_default(self) -> bool:
        """Whether `name` is that of a default model."""
        return self.name in (DEFAULT_MODEL, *DEFAULT_MODELS)


class EmbedSettings(Section):
    engine: Literal["auto", "torch", "openvino"] = Field(
        "auto",
        description="engine of the forward pass; `auto`: torch on a GPU, else the fastest engine that agrees with "
        "torch",
    )
    batch_images: Count = Field(32, description="images in one forward pass")
    batch_bytes: Count = Field(64 * 2**20, description="most encoded images that wait for the forward pass, bytes")
    decode_threads: int = Field(
        0, ge=0, description="threads that decode ahead of the forward pass; 0: chosen from the task's cores"
    )
    max_pixels: int = Field(
        89_478_485,
        ge=1,
        le=178_956_970,
        description="largest image, pixels; one that declares more is rejected without being decoded",
    )
    min_side_px: Count = Field(16, description="shortest side, pixels; an image with a shorter one is rejected")
    decode_timeout_s: Seconds = Field(
        20.0, description="longest time to decode one image, CPU seconds; then it is rejected"
    )
    task_images: Count = Field(256, description="images in one Spark task")
    commit_images: Count = Field(
        50_000, description="images embedded between two commits; a crash loses at most this many"
    )


class IndexSettings(Section):
    exact_below: Count = Field(20_000, description="a category with fewer images gets an exact index")
    pq_above: Count = Field(
        100_000, description="a category with more images gets an IVF-PQ index; categories in between get IVF-SQ8"
    )
    pack_below: Count = Field(
        1_000, description="a category with fewer images and an exact index shares one file with others"
    )
    shard_images: Count = Field(1_000_000, description="most images in one shard; a larger category is split")
    train_images_per_list: Count = Field(
        64, description="size of the random training sample, images per coarse centroid"
    )
    knn_recall_target: Fraction = Field(
        0.98,
        description="knn_recall@10 that the search aims at: nprobe and candidates are chosen for it. What a version "
        "must reach is `gate.min_knn_recall`",
    )
    candidates: int = Field(
        50,
        ge=10,
        description="images of each shard that the exact re-rank scores, for each image that a product has on average; "
        "up to 8 times as many if recall needs it",
    )
    retrain_error_growth: float = Field(
        0.1,
        ge=0.0,
        description="a quantizer is retrained if its mean quantization error grew by more than this share",
    )
    retrain_recall_drop: Fraction = Field(
        0.02,
        description="a quantizer is also retrained if knn_recall@10, with the search chosen at its training, fell by "
        "more "
        "than this",
    )
    seed: int = Field(0, description="seed of the random choices of index training, evaluation and `fit_categories`")


class FineTuneSettings(Section):
    labels: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        ("product",),
        min_length=1,
        description="pictures with the same value are alike: `product`, `category` or an attribute's name; with "
        "several, "
        "batches use each in turn",
    )
    split_by: str = Field(
        "",
        description="attribute, such as the sender, whose values are split into training and validation; empty: "
        "products "
        "are split",
    )
    validation_share: float = Field(
        0.1, gt=0.0, lt=1.0, description="share of the products, or of the values of `split_by`, that is held out"
    )
    classes_per_batch: int = Field(16, ge=2, description="classes in one batch")
    pictures_per_class: int = Field(
        4, ge=2, description="pictures of each class in one batch; more if there are fewer classes"
    )
    clicks: str | None = Field(
        None,
        description="click log: Parquet file, folder or glob with a row for each product shown; unset: no click log",
    )
    triplets_per_query: Count = Field(10, description="triplets taken from one query of the click log")
    click_reach: int = Field(
        1, ge=0, description="products count as seen down to this many places below the last clicked one"
    )
    clicked_within: float = Field(
        1.0,
        gt=0.0,
        description="a click counts if the product is at most this unlike the query; 1: the average of the shown "
        "products",
    )
    unclicked_beyond: float = Field(
        0.4,
        ge=0.0,
        description="a product that was not clicked is a negative if it is at least this unlike the query and every "
        "clicked "
        "product; in the unit of `clicked_within`",
    )
    dim: Count = Field(320, description="dimensions of the new model, at most those of the original one")
    original_share: Fraction = Field(
        0.5,
        description="share of the score that comes from the network as it was before any training, so that the new "
        "model still knows what that one knew; 0: none. A model that has such a share keeps it",
    )
    original_dim: Count = Field(384, description="dimensions for that share, beside `dim`")
    max_forgotten: Fraction = Field(
        0.03,
        description="no model is written if its recall@1 on photos of groceries, which no training sees, is more than "
        "this below that of the network before training",
    )
    layers: tuple[str, ...] = Field(
        (),
        description="submodules of the network to train too, such as `blocks.6`; empty: only a projection is trained",
    )
    size_px: int | None = Field(
        None, ge=32, le=1024, description="side of the pictures to train on, pixels; unset: that of the model's input"
    )
    augmentation: float = Field(
        1.0,
        ge=0.0,
        le=2.0,
        description="how strongly training pictures are changed to look like photos; 0: not at all",
    )
    learning_rate: float = Field(
        1e-3, gt=0.0, description="learning rate of the projection; layers of the network get 0.3 times as much"
    )
    processes: Count = Field(1, description="processes that train together; with GPUs, each has one of its own")
    epochs: Count = Field(20, description="most passes over the training pictures")
    patience: Count = Field(
        5, description="training ends after this many epochs without a better recall@1 on held-out pictures"
    )
    seed: int = Field(0, description="seed of the random choices of `fine_tune`")


class SimilarItemsSettings(Section):
    k: Count = Field(20, description="similar products per product")
    leave_out_placeholders: bool = Field(
        False,
        description="whether products whose only picture is a placeholder have no similar items, and are in no result",
    )


class CategoriesSettings(Section):
    images: Count = Field(
        50_000,
        description="most random images that `fit_categories` uses. Six of ten are stored in the predictor's file, "
        "2 bytes x dim each, and take twice that in a reader's memory",
    )
    images_per_category: Count = Field(1_000, description="most random images of each category")
    neighbours: Count = Field(30, description="nearest stored images that vote on a query's category")


class MatchSettings(Section):
    k: Count = Field(20, description="products per query")
    category_share: Fraction = Field(
        0.9, description="the most probable categories are searched, until their probabilities sum to this"
    )
    exact_probability: Fraction = Field(
        0.5, description="a match is exact if it shows the same product with at least this probability"
    )


class EvaluateSettings(Section):
    queries: Count = Field(
        1_000, description="random products and images of each category that the stage `evaluate` measures"
    )


class GateSettings(Section):
    min_knn_recall: Fraction = Field(0.95, description="least knn_recall@10 of each category")
    min_recall_at_10: Fraction = Field(0.0, description="least recall@10 by same product_id of each category")
    min_coverage: Fraction = Field(
        0.99, description="least share of products with similar items, of those whose category has another product"
    )
    max_rejected: Fraction = Field(0.5, description="largest share of rejected rows in the ledger")
    max_placeholders: Fraction = Field(
        1.0, description="largest share of the products whose only picture is a placeholder"
    )
    max_churn: Fraction = Field(
        0.7,
        description="largest churn: the mean share of a product's 10 nearest in the live version that are no longer "
        "among "
        "its 10 nearest. This limit and the next two are compared with the lower end of the 95 % interval, so that "
        "chance in a small category fails no gate",
    )
    max_recall_drop: Fraction = Field(
        0.05, description="largest drop of knn_recall@10 and of recall@10 from the live version"
    )
    max_size_drop: Fraction = Field(0.5, description="largest share of the live version's products that are missing")


class CleanupSettings(Section):
    retention_days: float = Field(
        7.0,
        ge=0.0,
        description="days that a version is kept after it stopped being live, and a file that no version names. "
        "A reader that keeps a version open must refresh or end within this time",
    )


class ReportSettings(Section):
    queries: Count = Field(12, description="query products on the report page")
    similar: Count = Field(6, description="similar items shown for each query product")


class Settings(Section):
    root: str = Field("catalog", min_length=1, description="URI of the folder for tables, shards and the report")
    manifest: str | None = Field(None, description="Parquet file, folder or glob; unset: the sample catalog")
    log_file: str | None = Field(
        None, description="local file to append the log to; unset: stderr, unless that is a terminal"
    )
    metrics_file: str | None = Field(
        None,
        description="local file for Prometheus metrics, such as `/var/lib/node_exporter/lookalike.prom`; unset: no "
        "metrics",
    )
    ingest: IngestSettings = IngestSettings()
    model: ModelSettings = ModelSettings()
    embed: EmbedSettings = EmbedSettings()
    index: IndexSettings = IndexSettings()
    fine_tune: FineTuneSettings = FineTuneSettings()
    similar_items: SimilarItemsSettings = SimilarItemsSettings()
    categories: CategoriesSettings = CategoriesSettings()
    match: MatchSettings = MatchSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    gate: GateSettings = GateSettings()
    cleanup: CleanupSettings = CleanupSettings()
    report: ReportSettings = ReportSettings()
    spark: dict[str, str] = Field(
        {},
        description="Spark's own settings, which spark-submit.sh passes on with --conf; on the command line they go "
        "after `--`, not with --set",
    )


def load(path: Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Settings of the TOML file at `path`, with `key=value` overrides (`index.exact_below=100`) laid over it.

    Raises ConfigInvalid with every problem of file and overrides.
    """
    problems: list[str] = []
    values = _read(path) if path else {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            problems.append(f"--set {override}: write it as key=value, such as --set index.seed=1")
            continue
        if key.startswith("spark."):
            problems.append(f"--set {override}: Spark's own settings go after `--`, as in: -- --conf {override}")
            continue
        try:
            _assign(values, key.split("."), _parse(text))
        except TypeError:
            problems.append(f"--set {key}: {key.rpartition('.')[0]} is not a section")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [_explain(problem, path, overrides) for problem in error.errors()]
    if problems:
        raise ConfigInvalid("the configuration has problems:\n" + "\n".join(f"  {p}" for p in problems))
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigInvalid(f"no configuration file {path}; give one with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path} is not TOML: {error}") from None


def _parse(text: str) -> Any:
    """A TOML value, or the text itself where it isn't one, so that strings need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise TypeError
    values[keys[-1]] = value


def _explain(problem: Any, path: Path | None, overrides: Sequence[str]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    place = "--set" if any(o.startswith(f"{key}=") for o in overrides) else str(path)
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, [name for name, _ in list_fields()], n=1)
        mend = f"did you mean {close[0]}?" if close else "see docs/settings.md for all keys"
        return f"{place}: {key}: unknown key; {mend}"
    given = "" if key.startswith("spark") else f", got {problem['input']!r}"  # Spark's settings may hold secrets
    return f"{place}: {key}: {problem['msg']}{given}"


def list_fields(section: type[BaseModel] = Settings, prefix: str = "") -> list[tuple[str, Any]]:
    """Every setting as (dotted key, pydantic field), depth first."""
    fields: list[tuple[str, Any]] = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            fields += list_fields(field.annotation, f"{prefix}{name}.")
        else:
            fields.append((f"{prefix}{name}", field))
    return fields
