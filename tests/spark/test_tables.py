"""The Delta tables, as several jobs write them at once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tests.spark.versions import run_at, similar_rows

from lookalike import schemas
from lookalike.spark.tables import Tables, spark_schema

SCHEMA = schemas.SIMILAR_ITEMS


def rows_of(tables: Tables, *versions: str, step: int) -> Any:
    rows = [row for version in versions for row in similar_rows("a", version, step)]
    return tables.spark.createDataFrame([tuple(row[n] for n in SCHEMA.names) for row in rows], spark_schema(SCHEMA))


def test_new_are_rows_of_versions_that_are_not_there(spark: Any, tmp_path: Path) -> None:
    tables = run_at(spark, tmp_path).tables
    tables.append_new("similar_items", rows_of(tables, "v1", step=1), schemas.VERSION_KEY)
    tables.append_new("similar_items", rows_of(tables, "v1", "v2", step=2), schemas.VERSION_KEY)
    tables.append_new("similar_items", rows_of(tables, "v2", step=3), schemas.VERSION_KEY)
    there = [row.asDict() for row in tables.read("similar_items").collect()]
    expected = similar_rows("a", "v1", 1) + similar_rows("a", "v2", 2)
    assert sorted(there, key=str) == sorted(({n: row[n] for n in SCHEMA.names} for row in expected), key=str)


def test_of_several_at_once_one_adds_a_version(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without our lock, as on HDFS; threads of one JVM are what Delta guards on a local disk too."""
    monkeypatch.setattr(Tables, "_only_writer", lambda *_: nullcontext())
    tables = run_at(spark, tmp_path).tables
    writers = [("both", "v0"), ("both", "v1"), ("both", "v2"), ("both", "v3")]
    frames = [rows_of(tables, *versions, step=step) for step, versions in enumerate(writers, 1)]
    with ThreadPoolExecutor(len(frames)) as pool:
        list(pool.map(lambda rows: tables.append_new("similar_items", rows, schemas.VERSION_KEY), frames))
    there = [row.asDict() for row in tables.read("similar_items").collect()]
    keys = [(row["version"], row["product_id"], row["rank"]) for row in there]
    assert len(keys) == len(set(keys)) == 5 * len(similar_rows("a", "both", 1))
    steps = {
        int(row["similar_product_id"][1:]) - int(row["product_id"][1:]) - row["rank"]
        for row in there
        if row["version"] == "both"
    }
    assert len({step % 6 for step in steps}) == 1, "rows of several writers are mixed"
