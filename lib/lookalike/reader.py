"""Read a published catalog: the products most similar to a product, to an embedding, to a picture. No Spark, no torch.

    from lookalike import reader

    catalog = reader.open("s3://shop/catalog", "women/dresses")
    for match in catalog.similar("MH01-Black", k=10):
        print(match.product_id, match.image_id, match.score)

A catalog stays with the version that was live when it was opened, until `refresh`. Shard files are memory-mapped; those
of a remote root are downloaded first, once. Every file is checked against its sha256 before its first use, and again
only when it changed: marks of what was checked stay in the cache folder, which may be deleted at any time. For a remote
root, fsspec and delta-rs take addresses and keys from the environment.
"""

import difflib
import functools
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.dataset  # noqa: F401  deltalake imports it on the first read, which would make the first open slow
from numpy.typing import ArrayLike, NDArray

from lookalike import FORMAT_VERSION, delta_log, files
from lookalike.boxes import WHOLE, Crop, read_box
from lookalike.errors import (
    FormatTooNew,
    ImageRejected,
    ModelInvalid,
    ModelMismatch,
    NotPublished,
    ProductUnknown,
    RootUnusable,
)
from lookalike.kernels.categories.predictor import Predictor, open_predictor, pick_latest, predict_among
from lookalike.kernels.index import search
from lookalike.kernels.index.shards import Shard, make_cache_folder, open_merged
from lookalike.locks import Lock

ShardRow = Mapping[str, Any]

if TYPE_CHECKING:
    from lookalike.config import ModelSettings
    from lookalike.kernels.models.embedder import Embedder


class Predicted(NamedTuple):
    """A category, and the probability that a query is of it."""

    category: str
    probability: float


class Match(NamedTuple):
    """A matching product, with its image that is closest to the query; `score` is their cosine similarity."""

    product_id: str
    image_id: str
    score: float


def open(  # noqa: A001  `reader.open` is how it is meant to be read
    root: str, category: str | None = None, version: str | None = None, cache: str | Path | None = None
) -> "Catalog":
    """The live version of `category` under `root`, or the given `version`, which then never moves.

    A category that was not published itself covers all published ones below it: `women` is all of `women/...`. Without
    a category all published ones are covered, and each is opened when a search first needs it.
    `cache` is a folder for downloaded files and marks of what was checked; by default `$XDG_CACHE_HOME/lookalike` or
    `~/.cache/lookalike`, or one below the system's temporary folder where that can't be written to.

    Raises RootUnusable, NotPublished, FormatTooNew, ShardDamaged, ModelMismatch (categories of different models).
    """
    category = (category or "").strip("/")
    if version and not category:
        raise ValueError("a version is one of a category: name that, too")
    files.check_path(root)
    folder = make_cache_folder(Path(cache)) if cache else _make_default_cache_folder()
    tables = _SmallTables(root)
    versions = {category: version} if version else _read_live_versions(tables, category)
    snapshot = _take_snapshot(root, folder, versions)
    if category:
        snapshot.open_all()  # now, so that what is damaged shows at once
    return Catalog(tables, category, folder, version is not None, snapshot)


def _make_default_cache_folder() -> Path:
    with suppress(OSError, RuntimeError):  # neither HOME nor a passwd entry, or a home that can't be written to
        folder = make_cache_folder(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lookalike")
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return make_cache_folder(None)


class Catalog:
    """An open catalog. Any number of threads may search it, and `refresh` it, at once."""

    def __init__(self, tables: "_SmallTables", category: str, cache: Path, pinned: bool, snapshot: "_Snapshot") -> None:
        self.root = tables.root
        self._tables = tables
        self.category = category
        self._cache = cache
        self._pinned = pinned
        self._snapshot = snapshot  # replaced whole by refresh, so that a search works on one from its start to its end
        self._refreshing = Lock()
        self._predicting = Lock()
        self._serving: dict[str, Mapping[str, Any]] = {}  # by model, its row of `category_predictors`
        self._read_predictor: tuple[str, Predictor] | None = None  # with the path of its file

    @property
    def version(self) -> str:
        """The open version; of several categories, a fingerprint of its categories' versions."""
        versions = self._snapshot.versions
        return versions.get(self.category) or hashlib.sha256(repr(sorted(versions.items())).encode()).hexdigest()[:16]

    @property
    def model_id(self) -> str:
        """Model of the embeddings; `search` takes those of this model only."""
        return self._snapshot.model_id

    @property
    def dim(self) -> int:
        """Dimensions of an embedding."""
        return self._snapshot.dim

    def similar(self, product_id: str, k: int = 10) -> list[Match]:
        """The k products most similar to `product_id`, best first; fewer where the category has fewer.

        Two products are as similar as their most similar pair of images. Unavailable products are left out. Raises
        ProductUnknown.
        """
        snapshot = self._snapshot
        places = [
            (gallery, place, number)
            for gallery in snapshot.open_all()
            for place, shard in enumerate(gallery.shards)
            if (number := shard.find_product(product_id)) is not None
        ]
        if not places:
            raise ProductUnknown(
                f"product {product_id!r} has no image in {self.category or self.root} version {self.version}"
            )
        if len(snapshot.open_all()) == 1:
            ((gallery, place, number),) = places
            return _to_matches(gallery, search.search_similar(gallery, place, range(number, number + 1), _check_k(k)))
        images = np.concatenate([_read_images(gallery.shards[place], number) for gallery, place, number in places])
        nearest = _search_all(snapshot.open_all(), images, _check_k(k) + 1)
        return [match for match in nearest if match.product_id != product_id][:k]

    def search(self, embedding: ArrayLike, k: int = 10, categories: int | None = None) -> list[Match]:
        """The k products most similar to `embedding` (dim,) of the catalog's model, of any length, best first.

        With `categories` only that many are searched, those that the embedding most probably is of, and no other is
        opened. Raises ModelMismatch where it can't be an embedding of that model; see also `predict_category`.
        """
        snapshot = self._snapshot
        return self._search(snapshot, _to_query(embedding, snapshot), k, categories)

    def _search(self, snapshot: "_Snapshot", query: NDArray[np.float32], k: int, categories: int | None) -> list[Match]:
        if categories is None:
            galleries = snapshot.open_all()
        else:
            galleries = snapshot.open_each([guess.category for guess in self._predict(snapshot, query, categories)])
        return _search_all(galleries, query, _check_k(k))[:k]

    def predict_category(self, embedding: ArrayLike, k: int = 3) -> list[Predicted]:
        """The k categories that `embedding` (dim,) most probably is of, best first, by what `fit_categories` fitted.

        Probabilities are those among the categories of this catalog. Raises NotPredictable where nothing was fitted,
        PredictorDamaged, FormatTooNew, ModelMismatch.
        """
        snapshot = self._snapshot
        return self._predict(snapshot, _to_query(embedding, snapshot), k)

    def _predict(self, snapshot: "_Snapshot", query: NDArray[np.float32], k: int) -> list[Predicted]:
        names, probabilities = predict_among(self._predictor(snapshot.model_id), query, snapshot.versions)
        best = np.argsort(-probabilities[0], kind="stable")[: _check_k(k)].tolist()
        return [Predicted(names[place], float(probabilities[0, place])) for place in best]

    def _predictor(self, model_id: str) -> Predictor:
        """Read when it is first needed, and again when `refresh` made way for another one."""
        with self._predicting:
            if model_id not in self._serving:
                self._serving[model_id] = pick_latest(
                    self._tables.read("category_predictors", missing_ok=True), model_id
                )
            row = self._serving[model_id]
            if self._read_predictor is None or self._read_predictor[0] != row["path"]:
                self._read_predictor = row["path"], open_predictor(self.root, row, self._cache)
            return self._read_predictor[1]

    def search_image(
        self,
        path: str | Path,
        k: int = 10,
        model: "ModelSettings | None" = None,
        categories: int | None = None,
        box: ArrayLike | None = None,
    ) -> list[Match]:
        """The k products most similar to the picture at `path`, local or a URI, best first; see `search`.

        With a `box` it is only about that part: left, top, right and bottom, as shares of the upright picture's sides.

        Needs the model extra. `model` are the settings that the catalog was made with; a default model is known by the
        catalog itself. The first call loads it. Raises ModelInvalid, ModelMismatch where it is another model than the
        catalog's, ImageRejected with the reason, BoxInvalid.
        """
        snapshot = self._snapshot
        uri = str(path)
        part = WHOLE if box is None else read_box(box)
        with _one_at_a_time:
            worker = _get_embedder(model, snapshot.model_id)
            if worker.model_id != snapshot.model_id:
                raise ModelMismatch(
                    f"{self.category or self.root} has embeddings of model {snapshot.model_id}, this is model "
                    f"{worker.model_id}: give the model settings that the catalog was made with"
                )
            (outcome,) = worker.embed([(uri, Crop(functools.partial(files.read_bytes, uri), part))])
        if outcome.embedding is None:
            raise ImageRejected(f"{uri}: {outcome.reason}")
        return self._search(snapshot, _to_query(outcome.embedding, snapshot), k, categories)

    def refresh(self) -> bool:
        """Move to the live version, if another one is live by now; says whether it moved. A pinned catalog stays.

        What predicts categories is looked up again when it is next needed. Searches under way keep the version that
        they began with. Where the new version can't be opened, the error is raised and the old one stays open.
        """
        if self._pinned:
            return False
        with self._refreshing:
            self._serving = {}
            versions = _read_live_versions(self._tables, self.category)
            if versions == self._snapshot.versions:
                return False
            snapshot = _take_snapshot(self.root, self._cache, versions)
            if self.category:
                snapshot.open_all()
            self._snapshot = snapshot
            return True


@dataclass(frozen=True)
class _Snapshot:
    """The versions that a catalog reads. Their galleries are opened when they are first needed."""

    root: str
    cache: Path
    rows: Mapping[str, Sequence[ShardRow]]  # of `shards`, by category
    versions: Mapping[str, str]
    model_id: str
    dim: int
    _opening: Lock = field(default_factory=Lock)
    _all: list[search.Gallery] = field(default_factory=list)
    _alone: dict[str, search.Gallery] = field(default_factory=dict)  # by category

    def open_all(self) -> list[search.Gallery]:
        """A gallery for each category, and one for all small categories that share files."""
        if not self._all:
            with self._opening:
                if not self._all:
                    self._all.extend(_open_galleries(self.root, self.cache, list(self.rows.values())))
        return self._all

    def open_each(self, categories: Iterable[str]) -> list[search.Gallery]:
        """A gallery for each of `categories`, opened when it is first needed."""
        return [self._open_gallery(category) for category in categories]

    def _open_gallery(self, category: str) -> search.Gallery:
        with self._opening:
            if category not in self._alone:
                (self._alone[category],) = search.open_galleries(self.root, [self.rows[category]], self.cache)
            return self._alone[category]


_one_at_a_time = Lock()  # a model is loaded once, and serves one stream of pictures


def _get_embedder(model: "ModelSettings | None", model_id: str) -> "Embedder":
    try:
        from lookalike import config
        from lookalike.default_models import find_settings
        from lookalike.kernels.models.embedder import get_embedder
    except ImportError as error:
        raise ModelInvalid(f"search_image needs the model extra ({error}): pip install 'lookalike[model]'") from None
    defaults = config.load()
    return get_embedder(model or find_settings(model_id) or defaults.model, defaults.embed, os.cpu_count() or 1, "cpu")


class _SmallTables:
    """Tables of a root that are read again only when their log has changed."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._rows: dict[str, tuple[Mapping[str, files.ListedFile], list[dict[str, Any]]]] = {}  # with the log

    def read(self, table: str, missing_ok: bool = False) -> list[dict[str, Any]]:
        log = files.list_files(files.join(self.root, "tables", table, "_delta_log"), depth=1)
        if table not in self._rows or self._rows[table][0] != log:
            self._rows[table] = log, _read_table(self.root, table, missing_ok=missing_ok)
        return self._rows[table][1]


def _read_live_versions(tables: _SmallTables, category: str) -> dict[str, str]:
    """The live version of `category`, or else of every category below it; of all where it is empty."""
    root = tables.root
    live = {row["category"]: row for row in tables.read("publications")}
    below = f"{category}/" if category else ""
    chosen = [category] if category in live else [name for name in live if name.startswith(below)]
    if not chosen:
        close = difflib.get_close_matches(category, live, n=3, cutoff=0.5) or sorted(live)[:3]
        hint = f"{len(live)} are, such as {', '.join(close)}" if live else "nothing is"
        raise NotPublished(f"category {category!r} is not published under {root}: {hint}")
    _check_format(root, [live[name] for name in chosen])
    return {name: live[name]["version"] for name in chosen}


def _take_snapshot(root: str, cache: Path, versions: Mapping[str, str]) -> _Snapshot:
    rows_by_version: dict[str, dict[str, list[dict[str, Any]]]] = {category: {} for category in versions}
    for row in _read_table(root, "shards", [("category", "in", list(versions))]):
        rows_by_version[row["category"]].setdefault(row["version"], []).append(row)
    for category, version in versions.items():
        if version not in rows_by_version[category]:
            known = ", ".join(rows_by_version[category]) or "none"
            raise NotPublished(f"category {category!r} has no version {version!r} under {root}: there is {known}")
    version_rows = [sorted(rows_by_version[c][v], key=lambda row: int(row["shard"])) for c, v in versions.items()]
    _check_format(root, [row for rows in version_rows for row in rows])
    models = {(row["model_id"], row["dim"]): row["category"] for rows in version_rows for row in rows}
    if len(models) > 1:
        named = "; ".join(f"{category}: {model_id}, dim {dim}" for (model_id, dim), category in models.items())
        raise ModelMismatch(f"the categories under {root} have several models, so open them one by one: {named}")
    ((model_id, dim),) = models
    return _Snapshot(root, cache, dict(zip(versions, version_rows, strict=True)), versions, model_id, dim)


def _open_galleries(root: str, cache: Path, version_rows: Sequence[Sequence[ShardRow]]) -> list[search.Gallery]:
    """Open a gallery for each version, but one gallery for all that stand in packs: their search is exact anyway."""
    packed = [row for rows in version_rows for row in rows if row["path"] is None]
    if len(packed) < 2:
        packed = []
    alone = [rows for rows in version_rows if rows[0]["path"] is not None or not packed]
    galleries = search.open_galleries(root, alone, cache)
    if packed:
        galleries.append(search.Gallery([open_merged(root, packed, cache)], search.SearchSpec.of(packed)))
    return galleries


def _read_table(
    root: str, table: str, filters: list[tuple[str, str, Any]] | None = None, missing_ok: bool = False
) -> list[dict[str, Any]]:
    """Rows of a table; `filters` are pushed down to the files."""
    uri = files.join(root, "tables", table)
    if not delta_log.list_commits(uri):
        if missing_ok:
            return []
        raise RootUnusable(f"{root} is not a catalog, as it has no table {table}: give the pipeline's root")
    rows: list[dict[str, Any]] = delta_log.read(uri, filters).to_pylist()
    return rows


def _check_format(root: str, rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        if row["format_version"] > FORMAT_VERSION:
            raise FormatTooNew(
                f"{row['category']} version {row['version']} under {root} has format {row['format_version']}, this "
                f"library reads up to {FORMAT_VERSION}: upgrade lookalike"
            )


def _to_query(embedding: ArrayLike, snapshot: _Snapshot) -> NDArray[np.float32]:
    """`embedding` (dim,) as one L2-normalised query (1, dim)."""
    query = np.asarray(embedding, dtype=np.float64)  # in which the square of no float32 is zero or infinite
    if query.shape != (snapshot.dim,):
        raise ModelMismatch(
            f"an embedding of the catalog's model {snapshot.model_id} has shape ({snapshot.dim},), "
            f"this one {query.shape}"
        )
    if not np.isfinite(query).all() or not query.any():
        raise ModelMismatch("the embedding is zero or not finite, so no model made it")
    query = query / np.abs(query).max()  # of which no square is infinite, and not every one zero
    return np.asarray(query / np.linalg.norm(query), np.float32)[None]


def _check_k(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return k


def _read_images(shard: Shard, number: int) -> NDArray[np.float32]:
    """Embeddings (images, dim) of a product of a shard."""
    return search.to_float32(shard.vectors[shard.product_starts[number] : shard.product_starts[number + 1]])


def _search_all(galleries: Iterable[search.Gallery], embeddings: NDArray[np.float32], k: int) -> list[Match]:
    """At least the k best products for any of `embeddings` (q, dim), each once, best first."""
    matches = [match for gallery in galleries for match in _to_matches(gallery, search.search(gallery, embeddings, k))]
    best: dict[str, Match] = {}
    for match in sorted(matches, key=lambda match: (-match.score, match.product_id)):
        best.setdefault(match.product_id, match)
    return list(best.values())


def _to_matches(gallery: search.Gallery, matches: search.Matches) -> list[Match]:
    product_ids: list[Any] = gallery.take("product_id", matches.row).to_pylist()
    image_ids: list[Any] = gallery.take("image_id", matches.row).to_pylist()
    return [Match(*columns) for columns in zip(product_ids, image_ids, matches.score.tolist(), strict=True)]
