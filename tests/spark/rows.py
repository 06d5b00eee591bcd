"""Manifests of a few rows, and what a run made of them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from lookalike.config import Settings
from lookalike.selection import Selection
from lookalike.spark.run import Run, new_run_id


def image(image_id: str | None = "a", **columns: Any) -> dict[str, Any]:
    return {"image_id": image_id, "product_id": "p", "category": "women/dresses", "content": b"x", **columns}


def manifest_file(path: Path, rows: list[dict[str, Any]], **kinds: pa.DataType) -> str:
    names = dict.fromkeys(name for row in rows for name in row)
    known = {"content": pa.binary(), "attributes": pa.map_(pa.string(), pa.string()), "available": pa.bool_()}
    known |= {"updated_at": pa.timestamp("us", tz="UTC"), "deleted": pa.bool_(), "embedding": pa.list_(pa.float32())}
    schema = pa.schema([(name, kinds.get(name, known.get(name, pa.string()))) for name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return str(path)


def run_of(
    spark: Any,
    root: Path,
    manifest: str,
    selection: Selection | None = None,
    model_id: str | None = None,
    **settings: Any,
) -> Run:
    """By the model of the settings, or as if that were `model_id`."""
    known = Settings(root=f"file://{root}", manifest=manifest, **settings)
    run = Run(spark, known, new_run_id(), Console(quiet=True), selection=selection or Selection())
    return run if model_id is None else with_model(run, model_id)


def with_model(run: Run, model_id: str) -> Run:
    """`run`, as if `model_id` were its model, whatever its settings and its manifest say."""
    vars(run)["model_id"] = model_id  # where the cached property would keep it
    return run


def ledger(run: Run) -> list[dict[str, Any]]:
    return [row.asDict() for row in run.tables.read("images").orderBy("image_id", "occurrence").collect()]
