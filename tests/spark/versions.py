"""Versions made by hand, whole with files and rows, for tests of what happens to versions once they are built."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from rich.console import Console
from tests.spark.rows import with_model

from lookalike import schemas
from lookalike.config import Settings
from lookalike.kernels.index import shards
from lookalike.spark.catalog import audit as audits
from lookalike.spark.catalog.versions import Version
from lookalike.spark.run import Run, new_run_id
from lookalike.spark.tables import to_spark_schema

MODEL = "m"
PRODUCTS = 6
DIM = 8

FIGURES = {
    "knn_recall@10": (1.0, 0.9, 1.0),
    "recall@10": (0.8, 0.75, 0.85),
    "coverage": (1.0, 0.9, 1.0),
    "dangling": (0.0, None, None),
    "products": (float(PRODUCTS), None, None),
    "images": (float(PRODUCTS), None, None),
}

Figures = dict[str, tuple[float, float | None, float | None]]


def run_at(spark: Any, root: Path, model_id: str = MODEL, **settings: Any) -> Run:
    known = Settings(root=f"file://{root}", **settings)
    return with_model(Run(spark, known, new_run_id(), Console(quiet=True)), model_id)


def append(run: Run, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """Without Spark, which would take most of a test's time. Not where another process writes the table."""
    write_deltalake(run.tables.path(table), pa.Table.from_pylist(list(rows), schemas.TABLES[table]), mode="append")


def product(number: int) -> str:
    return f"p{number:02d}"


def write_shard(run: Run, category: str, version: str, seed: int) -> dict[str, Any]:
    vectors = np.random.default_rng(seed).normal(size=(PRODUCTS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(PRODUCTS)
    index = faiss.index_factory(DIM, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
    index.add_with_ids(vectors, ids)
    names = pa.array([product(i) for i in range(PRODUCTS)])
    rows = shards.ShardRows(ids, names, names, np.ones(PRODUCTS, bool), vectors.astype(np.float16))
    described = shards.write_shard(run.settings.root, category, version, run.run_id, 0, index, rows, MODEL)
    own = {"category": category, "version": version, "shard": 0, "factory": "IDMap,Flat", "nprobe": 0}
    return {**described, **own, "candidates": 100, "run_id": run.run_id}


def similar_rows(category: str, version: str, step: int) -> list[dict[str, Any]]:
    """Three similar items for each product: those `step` places further, and the two after it."""
    rows = []
    for query in range(PRODUCTS):
        for rank in (1, 2, 3):
            other = product((query + step + rank - 1) % PRODUCTS)
            row: dict[str, Any] = {"category": category, "version": version, "product_id": product(query), "rank": rank}
            row |= {"similar_product_id": other, "image_id": product(query), "similar_image_id": other, "score": 0.5}
            rows.append(row)
    return rows


def measured_rows(category: str, version: str, against: str | None, **figures: Any) -> list[dict[str, Any]]:
    known: Figures = {**FIGURES, **({"churn": (0.1, 0.05, 0.2)} if against else {}), **figures}
    return [
        {
            "category": category, "version": version, "metric": metric, "value": value, "low": low, "high": high,
            "n": 6, "run_id": "r", "against": against if metric == "churn" else None,
        }
        for metric, (value, low, high) in known.items()
    ]  # fmt: skip


def build(run: Run, *versions: tuple[str, str, str | None]) -> None:
    """Build and measure versions, each a category, its version, and the live version to compare it with.

    Their categories have an image in the ledger from now on.
    """
    ledger(run, **dict.fromkeys((category for category, _, _ in versions), "embedded"))
    described = [write_shard(run, category, version, seed) for seed, (category, version, _) in enumerate(versions)]
    append(run, "shards", described)
    append(run, "similar_items", [row for c, v, _ in versions for row in similar_rows(c, v, 1)])
    append(run, "evaluations", [row for c, v, against in versions for row in measured_rows(c, v, against)])


def candidate(run: Run, category: str, version: str) -> Version:
    live = {row["category"]: row for row in audits.read_live(run.tables).collect()}.get(category)
    replaces = (live["version"], live["run_id"]) if live else (None, None)
    return Version(category, version, PRODUCTS, True, *replaces)


def went_live(run: Run, days_ago: Sequence[float] = (), **categories: Sequence[str]) -> None:
    """Rows as if these versions of each category had gone live one after the other, `days_ago`, or all just now."""
    said = []
    for category, names in categories.items():
        for number, name in enumerate(names):
            ago = timedelta(days=days_ago[number]) if days_ago else timedelta(seconds=len(names) - number)
            row = {"at": datetime.now(UTC) - ago, "action": "publish", "category": category, "version": name}
            row |= {"replaced_version": names[number - 1] if number else None, "model_id": MODEL, "who": "ann"}
            said.append(row | {"run_id": f"run-{number}"})
    append(run, "audit", said)
    last = {row["category"]: row for row in said}
    tables = {"format_version": 1, "shards_table_version": 0, "similar_items_table_version": 0}
    append(run, "publications", [{**row, **tables, "published_at": row["at"]} for row in last.values()])


def image_row(category: str | None, status: str | None, number: int = 0, reason: str | None = None) -> dict[str, Any]:
    """A row of the ledger; of status deleted, it is an embedded one that left the catalog."""
    deleted = status == "deleted"
    name = f"i-{category}-{number}"
    row = {"image_id": name, "occurrence": 0, "product_id": "p", "category": category, "available": True}
    row |= {"deleted": deleted, "vector_id": 1, "content_hash": name, "model_id": MODEL, "run_id": "r"}
    return row | {"status": "embedded" if deleted else status, "reason": reason}


def ledger(run: Run, **categories: str) -> None:
    """An image for each category, with the status given, in place of the one that was there."""
    schema = to_spark_schema(schemas.IMAGES)
    rows = [image_row(category, status) for category, status in categories.items()]
    values = [tuple(row.get(name) for name in schema.names) for row in rows]
    run.tables.upsert("images", run.spark.createDataFrame(values, schema), ["image_id"])


def live(run: Run) -> dict[str, str]:
    return {row["category"]: row["version"] for row in run.tables.read("publications").collect()}


def audit(run: Run) -> list[tuple[str, str | None, str | None, str | None]]:
    """(action, category, version, replaced_version) of every audit row, oldest first."""
    rows = run.tables.read("audit").orderBy("at", "category", "version")
    return [tuple(row) for row in rows.select("action", "category", "version", "replaced_version").collect()]
