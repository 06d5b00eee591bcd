"""Uris, whichever way they come in: cleaned alike, and compared with ledgers that hold them as they were given."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F
from tests.spark.rows import image, ledger, manifest_file, run_of
from tests.uris import CLEAN, DIRTY

from lookalike import throttle
from lookalike.selection import Retry
from lookalike.spark import parquet_input
from lookalike.spark.catalog.ingest import _is_retried, ingest
from lookalike.spark.manifest import read_manifest
from lookalike.spark.queries import match_queries
from lookalike.spark.queries.query_manifest import query_contents
from lookalike.spark.training import clicks
from lookalike.spark.uri_columns import clean_uris
from lookalike.uris import clean_uri

DAY = datetime(2026, 1, 1, tzinfo=UTC)

TEXTS = [text for text, _ in DIRTY] + CLEAN


def test_columns_are_cleaned_as_one_uri_is(spark: Any) -> None:
    rows = spark.createDataFrame([(text,) for text in [*TEXTS, None]], "text string")
    cleaned = rows.select("text", clean_uris(F.col("text")).alias("uri")).collect()
    assert {row["text"]: row["uri"] for row in cleaned if row["text"] is not None} == {
        text: clean_uri(text) or None for text in TEXTS
    }
    assert [row["uri"] for row in cleaned if row["text"] is None] == [None]


def _of_matching(spark: Any, path: str) -> Any:
    return match_queries.clean(parquet_input.read_input(spark, path, match_queries._QUERIES)).collect()


@pytest.mark.parametrize(
    ("columns", "read"),
    [
        (("image_id", "product_id", "category"), lambda spark, path: read_manifest(spark, path).collect()),
        (("query_id", "product_id"), lambda spark, path: query_contents(spark, path, [str(n) for n in range(99)])),
        (("query_id",), _of_matching),
        (
            ("query_id", "product_id"),
            lambda spark, path: parquet_input.read_input(spark, path, clicks._CLICKS).collect(),
        ),
    ],
    ids=["manifest", "queries to evaluate", "queries to match", "clicks"],
)
def test_every_way_in_cleans_uris(
    spark: Any, tmp_path: Path, columns: tuple[str, ...], read: Callable[..., Any]
) -> None:
    keys = [str(number) for number in range(len(TEXTS))]
    table = {**dict.fromkeys(columns, keys), "uri": TEXTS, "clicked": [True] * len(TEXTS)}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    uris = sorted(row["uri"] or "" for row in read(spark, str(tmp_path / "in.parquet")))
    assert uris == sorted(clean_uri(text) for text in TEXTS)


def test_a_ledger_that_holds_uris_as_they_were_given_costs_no_read(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "case": "HTTPS://cdn.example/x.jpg",
        "slash": "file:/data/x.jpg",
        "signed": "HTTPS://cdn.example/x.jpg?sig=1",
        "plain": "https://cdn.example/y.jpg",
    }
    rows = [image(name, content=None, uri=uri, updated_at=DAY) for name, uri in given.items()]
    manifest = manifest_file(tmp_path / "m.parquet", rows)

    def run() -> Any:
        return run_of(spark, tmp_path / "root", manifest, model_id="model")

    with monkeypatch.context() as older:
        older.setattr(parquet_input, "clean_uris", lambda uri: uri)
        first = run()
        assert ingest(first).counts["waiting"] == 4
    assert {row["uri"] for row in ledger(first)} == {*given.values()} - {given["signed"]} | {
        "HTTPS://cdn.example/x.jpg?…"
    }
    embedded = first.tables.read("images").withColumns(
        {"status": F.lit("embedded"), "content_hash": F.lit(64 * "0"), "model_id": F.lit("model")}
    )
    first.tables.upsert("images", embedded, ("image_id", "occurrence"))
    assert ingest(run()).counts == {"rows": 4, "waiting": 0, "reused": 4, "rejected": 0}
    assert {row["uri"] for row in ledger(first)} == {
        "https://cdn.example/x.jpg", "file:///data/x.jpg", "https://cdn.example/x.jpg?…", "https://cdn.example/y.jpg",
    }  # fmt: skip


def test_a_uri_of_nothing_that_can_be_seen_is_none(spark: Any, tmp_path: Path) -> None:
    rows = [image("bytes", uri="\u00a0\t"), image("nothing", content=None, uri="\u200b")]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows), model_id="model")
    assert ingest(run).counts == {"rows": 2, "waiting": 1, "reused": 0, "rejected": 1}
    assert [row["reason"] for row in ledger(run)] == [None, "neither uri nor content"]


def test_reasons_of_older_ledgers_are_retried(spark: Any) -> None:
    older = ["OSError", "ValueError", "InvalidURL", "timed out", "no connection", "server error", "not found",
             "permission denied", "its bytes are not those of content_hash"]  # fmt: skip
    reasons = [*(f"unreadable uri: {error}" for error in older), "uri not allowed: host", "truncated or damaged"]
    rows = spark.createDataFrame([(reason,) for reason in reasons], "reason string")
    expected: dict[Retry, list[str]] = {"unreadable": reasons[:-2], "all": reasons}
    for retry, retried in expected.items():
        kept = rows.where(_is_retried(retry, F.lit("rejected"), F.col("reason"))).collect()
        assert [row["reason"] for row in kept] == retried


def test_the_tasks_of_an_executor_know_of_hosts_in_one_folder(spark: Any) -> None:
    def folders(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            yield pd.DataFrame({"folder": [str(throttle._folder())] * len(batch), "task": os.getpid()})

    rows = spark.range(8, numPartitions=4).mapInPandas(folders, "folder string, task long").collect()
    (folder,) = {row["folder"] for row in rows}
    assert Path(folder).is_dir()
    assert "blockmgr" in folder  # which Spark removes when the executor ends
