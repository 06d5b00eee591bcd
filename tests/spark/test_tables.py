"""The Delta tables: read with Spark and without, and written by several jobs at once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame
from tests.spark.versions import append, measured_rows, run_at, similar_rows

from lookalike import delta_log, files, schemas
from lookalike.spark.catalog.measure_churn import CHURN_KEY
from lookalike.spark.tables import (
    VERSION,
    Tables,
    make_arrow_rows,
    make_local_frame,
    select_versions,
    write_and_read,
)

SCHEMA = schemas.SIMILAR_ITEMS


def rows_of(tables: Tables, *versions: str, step: int) -> Any:
    rows = [row for version in versions for row in similar_rows("a", version, step)]
    return make_local_frame(tables.spark, [tuple(row[n] for n in SCHEMA.names) for row in rows], SCHEMA)


def test_new_are_rows_of_versions_that_are_not_there(spark: Any, tmp_path: Path) -> None:
    tables = run_at(spark, tmp_path).tables
    tables.append_new("similar_items", rows_of(tables, "v1", step=1), schemas.VERSION_KEY)
    tables.append_new("similar_items", rows_of(tables, "v1", "v2", step=2), schemas.VERSION_KEY)
    tables.append_new("similar_items", rows_of(tables, "v2", step=3), schemas.VERSION_KEY)
    there = [row.asDict() for row in tables.read("similar_items").collect()]
    expected = similar_rows("a", "v1", 1) + similar_rows("a", "v2", 2)
    assert sorted(there, key=str) == sorted(({n: row[n] for n in SCHEMA.names} for row in expected), key=str)


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_table_is_searched_for_keys_only_if_another_job_wrote_to_it(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    tables = run_at(spark, tmp_path).tables
    lacking_at = tables.delta_version("similar_items")
    if meanwhile:
        tables.append_new("similar_items", rows_of(tables, "v1", step=1), schemas.VERSION_KEY)
    else:
        monkeypatch.delattr(Tables, "lacking")
    tables.append_new("similar_items", rows_of(tables, "v1", step=2), schemas.VERSION_KEY, lacking_at)
    there = [{**row.asDict()} for row in tables.read("similar_items").collect()]
    expected = similar_rows("a", "v1", 1 if meanwhile else 2)
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


@pytest.mark.parametrize("limit", ["_FEW_FILES", "_FEW_BYTES"])
def test_a_small_table_is_read_without_spark_and_a_large_one_with_it(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Both give the same rows, of every type that such a table has, and both can be joined with themselves."""
    run = run_at(spark, tmp_path)
    for number in range(2):
        at = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
        row = (f"r{number}", "embed", at, 0.5, {"é": number}, None, {"a": "b"}, "file:///m", "f00")
        run.tables.append("runs", make_local_frame(spark, [row], schemas.RUNS))
    here = run.tables.read("runs")
    monkeypatch.setattr("lookalike.spark.tables." + limit, 1)
    by_spark = run.tables.read("runs")
    assert [is_local(rows) for rows in (here, by_spark)] == [True, False]
    assert here.dtypes == by_spark.dtypes
    assert sorted(here.collect()) == sorted(by_spark.collect())
    assert here.join(run.tables.read("runs"), "run_id").count() == 2


@pytest.mark.parametrize("others", [0, 600])  # so many don't stand in a condition as literals
@pytest.mark.parametrize("large", [False, True])
def test_rows_of_versions_and_keys_that_lack(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, others: int
) -> None:
    """From a small table they come without a Spark job."""
    run = run_at(spark, tmp_path)
    rows = [*measured_rows("a", "v1", None), *measured_rows("a", "v2", "v1"), *measured_rows("b", "v1", None)]
    append(run, "evaluations", rows)
    if large:
        monkeypatch.setattr("lookalike.spark.tables._FEW_BYTES", 1)
    versions = [("a", "v2"), ("b", "v1"), ("b", "v2"), ("c", "v1"), *((f"o{n}", "v1") for n in range(others))]
    spark.sparkContext.setJobGroup("small", "")
    found = run.tables.rows_of("evaluations", versions)
    churns = [("a", "v2", "churn", "v1"), ("a", "v2", "churn", "v0"), ("a", "v1", "churn", "v0")]
    lacking = run.tables.lacking("evaluations", CHURN_KEY, churns)
    without = set(run.tables.lacking("evaluations", schemas.VERSION_KEY, versions))
    jobs = spark.sparkContext.statusTracker().getJobIdsForGroup("small")
    spark.sparkContext.setJobGroup("", "")
    expected = [row for row in rows if (row["category"], row["version"]) in versions]
    assert sorted(map(str, map(dict, found))) == sorted(str({n: r[n] for n in found[0]}) for r in expected)
    assert (lacking, without) == (churns[1:], set(versions[2:]))
    assert large or not jobs
    frame = select_versions(run.tables.read("evaluations"), versions)
    assert frame.count() == len(expected)


@pytest.mark.usefixtures("lock")
def test_rows_that_are_here_are_added(spark: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Once each where their key is what counts; where no other job can write, without a Spark job."""
    run = run_at(spark, tmp_path)
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    stages = [(f"r{number}", "embed", at, 0.5, {"é": number}, None, {"a": "b"}, "m", None) for number in range(2)]
    given = [measured_rows("a", version, None) for version in ("v1", "v2")]
    both = pa.Table.from_pylist(given[0] + given[1], schemas.EVALUATIONS)
    spark.sparkContext.setJobGroup("here", "")
    for stage in stages:
        run.tables.append_rows("runs", make_arrow_rows([stage], schemas.RUNS))
    for rows in (both.slice(0, len(given[0])), both, both):
        run.tables.append_new_rows("evaluations", rows, schemas.VERSION_KEY)
    jobs = spark.sparkContext.statusTracker().getJobIdsForGroup("here")
    spark.sparkContext.setJobGroup("", "")
    assert bool(jobs) == ("among others" in request.node.name)
    found = DeltaTable(tmp_path / "tables" / "runs").to_pyarrow_table().to_pylist(maps_as_pydicts="strict")
    assert sorted(tuple(row.values()) for row in found) == stages
    expected = [{name: row.get(name) for name in schemas.EVALUATIONS.names} for row in both.to_pylist()]
    there = [row.asDict() for row in run.tables.read("evaluations").collect()]
    assert sorted(there, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("name", schemas.TABLES)
def test_a_table_is_the_same_whoever_makes_it(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """delta-rs on a local disk, Spark elsewhere: columns, their comments, and the partition."""
    here, elsewhere = (run_at(spark, tmp_path / place).tables for place in ("here", "elsewhere"))
    assert here.delta_version(name) == -1, "to ask makes no table"
    here.create(name)
    assert here.delta_version(name) == 0
    with monkeypatch.context() as patched:
        patched.setattr(files, "is_local", lambda _: False)
        elsewhere.create(name)
        assert elsewhere.delta_version(name) == 0
    made = [spark.read.format("delta").load(tables.path(name)) for tables in (here, elsewhere)]
    fields = [[(f.name, f.dataType.simpleString(), f.nullable, f.metadata) for f in rows.schema] for rows in made]
    assert fields[0] == fields[1]
    assert all(field[-1]["comment"] for field in fields[0])
    assert [rows.count() for rows in made] == [0, 0]
    partitions = [DeltaTable(tables.path(name)).metadata().partition_columns for tables in (here, elsewhere)]
    assert partitions[0] == partitions[1]


def is_local(rows: DataFrame) -> bool:
    plan: str = rows._jdf.queryExecution().executedPlan().toString()
    return plan.startswith("LocalTableScan")


def test_a_small_table_that_lost_a_file_is_not_read_as_empty(spark: Any, tmp_path: Path) -> None:
    run = run_at(spark, tmp_path)
    run.tables.append(
        "runs",
        make_local_frame(spark, [("r", "embed", datetime.now(UTC), 0.5, {}, None, None, None, None)], schemas.RUNS),
    )
    for file in Path(tmp_path, "tables", "runs").glob("*.parquet"):
        file.unlink()
    with pytest.raises(Exception, match=r"part-.*\.parquet"):
        run.tables.read("runs").collect()


def test_an_odd_name_of_a_root_is_taken_as_it_is_written(spark: Any, tmp_path: Path) -> None:
    """By Spark, delta-rs and fsspec alike: what one writes the others read, and nothing stands beside it."""
    root = tmp_path / " a é#+&=;,:@$(!)'\"`~<%>日 100% "
    tables = run_at(spark, root).tables
    tables.append_new("similar_items", rows_of(tables, "v1", step=1), schemas.VERSION_KEY)
    tables.upsert("similar_items", rows_of(tables, "v1", step=2), ["category", "version", "product_id", "rank"])
    assert tables.read("similar_items").count() == len(similar_rows("a", "v1", 2))
    assert delta_log.open_table(tables.path("similar_items")).to_pyarrow_table()["version"].to_pylist() == ["v1"] * len(
        similar_rows("a", "v1", 2)
    )
    few = make_local_frame(spark, [("a", "b"), ("c", "d")], VERSION)
    staged = write_and_read(few, files.join(tables.root, "staging", "x"))
    assert sorted(map(tuple, staged.collect())) == [("a", "b"), ("c", "d")]
    tables.vacuum("similar_items", 168)
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
    assert sorted(path.name for path in root.iterdir()) == [".locks", "staging", "tables"]
