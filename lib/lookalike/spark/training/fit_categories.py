"""Fit what predicts the category of a query, and what a score says of the same product, for the live catalog.

One task fits on a bounded random sample of images; what it wrote stands below `<root>/categories`, and a row of
`category_predictors` names it. The predictor fitted last serves its model.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F
from rich.table import Table

from lookalike import FORMAT_VERSION, files, schemas
from lookalike.config import CategoriesSettings, Settings
from lookalike.errors import NotPredictable, PredictorDamaged
from lookalike.kernels.categories import same_product
from lookalike.kernels.categories.predictor import open_predictor, write_predictor
from lookalike.kernels.categories.same_product import Pair, SameProduct
from lookalike.spark.catalog.audit import read_live
from lookalike.spark.catalog.category_predictors import PredictorRow, read_latest_predictor
from lookalike.spark.catalog.gallery import fingerprint, select_live
from lookalike.spark.catalog.model_id import read_live_model_id
from lookalike.spark.open_galleries import keep_galleries_open
from lookalike.spark.run import Run, console
from lookalike.spark.tables import make_arrow_rows, select_versions, to_spark_schema, version_key_of
from lookalike.spark.tasks import TASK_IMAGES, group_by_size, run_tasks

if TYPE_CHECKING:  # only the one task that fits needs scikit-learn
    from lookalike.kernels.categories.fit import Figure, FitResult

PAIRS = 10_000
"""Random images, at most, of which the nearest of the same and of another product are compared."""

_FITTED = pa.schema([field for field in schemas.CATEGORY_PREDICTORS if field.name not in ("fitted_at", "run_id")])


_PAIRS = pa.schema({"product_id": pa.string(), "same": pa.float64(), "other": pa.float64()})


@dataclass(frozen=True)
class Draw:
    """`count` random images of one of a version's shards."""

    shards: tuple[Row, ...]  # the version's rows of `shards`
    place: int
    count: int


@dataclass(frozen=True)
class Order:
    """What the task that fits is given besides its images."""

    root: str
    run_id: str
    model_id: str
    inputs: str
    k: int
    seed: int
    pairs: Sequence[Pair]


def fit_categories(run: Run) -> None:
    """Fit on what is live, unless that was done, and print the figures.

    Raises NotPublished, ModelMismatch, NotPredictable.
    """
    with run.stage("fit_categories") as figures:
        model_id = read_live_model_id(run)
        versions = read_live(run.tables).select("category", "version")
        images = select_live(run.tables.read("images"), model_id)
        images = images.join(F.broadcast(versions.select("category")), "category", "left_semi")
        inputs = _inputs(run.settings, images, versions, model_id)
        row = _fitted_before(run, model_id, inputs)
        figures.counts = {"fitted": int(row is None)}
        if row is None:
            pairs = draw_pairs(run.tables.read("shards"), versions, PAIRS, run.settings.root, run.settings.index.seed)
            order = Order(
                run.settings.root, run.run_id, model_id, inputs, run.settings.categories.neighbours,
                run.settings.index.seed, pairs,
            )  # fmt: skip
            ours = run.tables.read("embeddings").where(F.col("model_id") == model_id)
            row = _fit(run, sample_images(images, ours, run.settings.categories), order)
            figures.counts |= {"images": row["images"], "pairs": len(pairs)}
            figures.images = row["images"]
        figures.counts |= {"categories": row["categories"], "voted_only": row["voted_only"]}
    _print(row, fitted=bool(figures.counts["fitted"]))


def _inputs(settings: Settings, images: DataFrame, versions: DataFrame, model_id: str) -> str:
    """Fingerprint of all that decides what is fitted."""
    parts = [
        str(FORMAT_VERSION),
        model_id,
        settings.categories.model_dump_json(),
        str(settings.index.seed),
        _of_all(images, F.xxhash64("image_id", "product_id", "category", "content_hash")),
        _of_all(versions, F.xxhash64("category", "version")),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _of_all(rows: DataFrame, hashed: Column) -> str:
    row = rows.agg(fingerprint(hashed).alias("fingerprint")).head()
    assert row is not None
    return str(row["fingerprint"])


def _fitted_before(run: Run, model_id: str, inputs: str) -> PredictorRow | None:
    """The predictor that serves, where it is of these inputs and whole."""
    try:
        row = read_latest_predictor(run.tables, model_id)
        if row["inputs"] != inputs:
            return None
        open_predictor(run.settings.root, row)
    except (NotPredictable, PredictorDamaged):
        return None
    return row


def sample_images(images: DataFrame, embeddings: DataFrame, settings: CategoriesSettings) -> DataFrame:
    """(category, product_id, image_id, embedding) of random products' images, at most as the settings say."""
    sizes = [row["count"] for row in images.groupBy("category").count().collect()]
    by_hash = Window.partitionBy("category").orderBy(F.xxhash64("product_id"), "product_id", "image_id")
    most = limit_per_category(sizes, settings)
    chosen = images.withColumn("place", F.row_number().over(by_hash)).where(F.col("place") <= most)
    chosen = chosen.select("category", "product_id", "image_id", "content_hash")
    return embeddings.select("content_hash", "embedding").join(F.broadcast(chosen), "content_hash").drop("content_hash")


def limit_per_category(sizes: Sequence[int], settings: CategoriesSettings) -> int:
    """How many images of each category there may be, so that of categories of these `sizes` not too many come."""
    counts = np.sort(np.asarray(sizes, np.int64))
    low, high = 1, settings.images_per_category
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(counts, middle).sum() <= settings.images:
            low = middle
        else:
            high = middle - 1
    return low


def draw_pairs(shards: DataFrame, versions: DataFrame, count: int, root: str, seed: int) -> list[Pair]:
    """Pairs of up to `count` random images of the live `versions`, found by searching their whole `shards`."""
    rows = select_versions(shards, [version_key_of(row) for row in versions.collect()])
    draws = _draws(rows.collect(), count, seed)
    tasks = list(group_by_size(draws, lambda draw: sum(row["ntotal"] for row in draw.shards), TASK_IMAGES))
    if not tasks:
        return []
    drawn = run_tasks(shards.sparkSession, tasks, partial(_draw_task_pairs, root, seed), _PAIRS)
    return [Pair(*row) for row in drawn.collect()]


def _draws(rows: Sequence[Row], count: int, seed: int) -> Iterator[Draw]:
    """`count` images dealt out over shards by their sizes; shards that get none are not opened for it."""
    versions: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["category"], row["shard"])):
        versions.setdefault(row["category"], []).append(row)
    places = [(tuple(shards), place) for shards in versions.values() for place in range(len(shards))]
    sizes = np.array([shards[place]["ntotal"] for shards, place in places], np.float64)
    if not len(sizes):
        return
    dealt = np.random.default_rng(seed).multinomial(count, sizes / sizes.sum())
    for (shards, place), share in zip(places, dealt.tolist(), strict=True):
        if share:
            yield Draw(shards, place, share)


def _draw_task_pairs(root: str, seed: int, draws: Sequence[Draw]) -> Iterator[pa.RecordBatch]:
    """Rows of _PAIRS."""
    faiss.omp_set_num_threads(1)
    for draw in draws:
        (gallery,) = keep_galleries_open(root, [[row.asDict() for row in draw.shards]])
        pairs = same_product.draw_pairs(gallery, draw.place, draw.count, seed)
        yield pa.RecordBatch.from_pylist([pair._asdict() for pair in pairs], _PAIRS)


def _fit(run: Run, sample: DataFrame, order: Order) -> PredictorRow:
    """Fit in one task, register what it wrote, and give its row."""
    rows = sample.repartition(1).mapInArrow(partial(_fitted, order), to_spark_schema(_FITTED)).collect()
    row = {**rows[0].asDict(recursive=True), "run_id": run.run_id, "fitted_at": datetime.now(UTC)}
    values = tuple(row[name] for name in schemas.CATEGORY_PREDICTORS.names)
    run.tables.append_rows("category_predictors", make_arrow_rows([values], schemas.CATEGORY_PREDICTORS))
    return row


def _fitted(order: Order, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    held = list(batches)
    if not held:
        raise NotPredictable("no live image has an embedding, so there is nothing to fit categories on")
    # Here, as only the one task that fits needs scikit-learn.
    from lookalike.kernels.categories.fit import fit, fit_same_product

    table = pa.Table.from_batches(held)
    keys = ("category", "product_id", "image_id")
    # Sorted, as the rows of a shuffle come in any order.
    rows = pc.sort_indices(table, [(name, "ascending") for name in keys])
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    embeddings = flat.reshape(table.num_rows, -1)[rows.to_numpy()]
    category, product = (table[name].take(rows).to_pylist() for name in keys[:2])
    fitted = fit(embeddings, category, product, order.k, order.seed)
    same = fit_same_product(order.pairs, order.seed)
    path = f"categories/{order.inputs}-{order.run_id}.npz"
    with files.write_atomically(files.join(order.root, path)) as temporary:
        write_predictor(temporary, fitted.predictor)
        described = {"sha256": files.sha256(temporary), "size_bytes": temporary.stat().st_size}
    row = described | {"path": path} | _describe(order, fitted, same)
    yield from pa.Table.from_pylist([row], _FITTED).to_batches()


def _describe(order: Order, fitted: "FitResult", same: "tuple[SameProduct, Figure] | str") -> dict[str, Any]:
    """The columns of `category_predictors` that say what was fitted, and how good it is."""
    predictor = fitted.predictor
    return {
        "format_version": FORMAT_VERSION,
        "model_id": order.model_id,
        "inputs": order.inputs,
        "dim": predictor.dim,
        "k": predictor.k,
        "categories": len(predictor.categories),
        "voted_only": fitted.voted_only,
        "images": fitted.images,
        "classifier_temperature": predictor.classifier_temperature,
        "vote_temperature": predictor.vote_temperature,
        "weight": predictor.weight,
        "temperature": predictor.temperature,
        "figures": [asdict(figure) for figure in [*fitted.figures, *([] if isinstance(same, str) else [same[1]])]],
        "same_product_slope": None if isinstance(same, str) else same[0].slope,
        "same_product_intercept": None if isinstance(same, str) else same[0].intercept,
        "same_product_reason": same if isinstance(same, str) else None,
    }


def _print(row: PredictorRow, fitted: bool) -> None:
    """The figures, on stdout."""
    table = Table("metric", "value", "95 % interval", "images", title=f"{row['path']}, model {row['model_id']}")
    for figure in row["figures"]:
        interval = "" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"
        table.add_row(figure["metric"], f"{figure['value']:.3f}", interval, f"{figure['n']:,}")
    out = console()
    out.print(table)
    known = row["categories"] - row["voted_only"]
    out.print(
        f"{row['categories']:,} categories: {known:,} classified, {row['voted_only']:,} voted only", highlight=False
    )
    if row["same_product_reason"]:
        out.print(f"only equal content will be exact: {row['same_product_reason']}", highlight=False)
    if not fitted:
        out.print("nothing changed since this was fitted, so nothing was written", highlight=False)
