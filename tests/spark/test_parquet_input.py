"""Manifests as people's tools write them, read by Spark."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from lookalike.errors import ManifestInvalid
from lookalike.spark.manifest import read_manifest
from lookalike.spark.parquet_input import pin_version

BASE = {"image_id": ["a"], "product_id": ["p"], "category": ["c"], "uri": ["u"]}


def write(path: Path, **columns: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(BASE | columns), path)
    return str(path)


def rows(spark: Any, uri: Any) -> list[dict[str, Any]]:
    return [row.asDict() for row in read_manifest(spark, str(uri)).orderBy("image_id").collect()]


def test_columns_of_other_names_are_not_touched(spark: Any, tmp_path: Path) -> None:
    others = {
        "seen": pa.array([1], pa.timestamp("ns")),
        "half": pa.array([1], pa.float16()),
        "URI": pa.array([1], pa.uint64()),
        "day": pa.array([1], pa.time64("ns")),
        "nothing": pa.nulls(1),
        "a.b `c`": pa.array([1], pa.duration("ns")),
    }
    (row,) = rows(spark, write(tmp_path / "m.parquet", **others))
    assert (row["image_id"], row["uri"], row["title"]) == ("a", "u", None)


def test_types_that_mean_the_same_are_taken_in_one_folder(spark: Any, tmp_path: Path) -> None:
    noon = datetime(2026, 11, 27, 12, tzinfo=UTC)
    nanoseconds = int(noon.timestamp()) * 1_000_000_000
    times = {
        "date": pa.array([date(2026, 11, 27)]),
        "milliseconds": pa.array([noon.replace(tzinfo=None)], pa.timestamp("ms")),
        "nanoseconds": pa.array([nanoseconds], pa.timestamp("ns", tz="UTC")),
        "before 1970": pa.array([-1_500], pa.timestamp("ns")),
        "none": pa.nulls(1, pa.float64()),
        "tokyo": pa.array([noon], pa.timestamp("us", tz="Asia/Tokyo")),
        "year 1": pa.array([datetime(1, 1, 1)], pa.timestamp("us")),
        "year 9999": pa.array([datetime(9999, 12, 31)], pa.timestamp("us")),
    }
    for name, values in times.items():
        write(tmp_path / "m" / f"{name}.parquet", image_id=[name], updated_at=values)
    manifest = read_manifest(spark, str(tmp_path / "m")).selectExpr("image_id", "string(updated_at) AS at").collect()
    assert {row["image_id"]: row["at"] for row in manifest} == {
        "before 1970": "1969-12-31 23:59:59.999998",
        "date": "2026-11-27 00:00:00",
        "milliseconds": "2026-11-27 12:00:00",
        "nanoseconds": "2026-11-27 12:00:00",
        "none": None,
        "tokyo": "2026-11-27 12:00:00",
        "year 1": "0001-01-01 00:00:00",
        "year 9999": "9999-12-31 00:00:00",
    }


@pytest.mark.parametrize(
    "kind", [pa.large_list(pa.float64()), pa.list_(pa.float32(), 2), pa.list_(pa.float16()), pa.list_(pa.float32())]
)
def test_embeddings_of_every_width(spark: Any, tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([[np.float16(0.5), np.float16(-2)], None, [np.float16(3), np.float16(1)]], pa.list_(pa.float16()))
    column = pa.array(values.to_pylist(), kind) if kind != values.type else values
    three = {name: [f"{one[0]}{i}" for i in range(3)] for name, one in BASE.items()}
    pq.write_table(pa.table(three | {"embedding": column}), tmp_path / "m.parquet")
    assert [row["embedding"] for row in rows(spark, tmp_path / "m.parquet")] == [[0.5, -2], None, [3, 1]]


def test_attributes_as_structs_and_as_pairs(spark: Any, tmp_path: Path) -> None:
    pairs = pa.list_(pa.struct({"key": pa.string(), "value": pa.string()}))
    given = {
        "1 dicts of pandas": pa.array([{"colour": "red", "a.b `c`": None}, {"a.b `c`": ""}, None]),
        "2 pairs": pa.array([[("a", "1"), ("b", "2"), ("a", "3")], [(None, "1"), None], None], pairs),
        "3 maps": pa.array([[("a", "1")], [], None], pa.map_(pa.string(), pa.string())),
    }
    three = {name: [f"{one[0]}{i}" for i in range(3)] for name, one in BASE.items()}
    for name, values in given.items():
        keys = [f"{name} {i}" for i in range(3)]
        write(tmp_path / "m" / f"{name}.parquet", **three | {"image_id": keys, "attributes": values})
        write_deltalake(f"{tmp_path}/{name[0]}", pa.table(three | {"attributes": values}))
    expected = {
        "1": [{"colour": "red"}, {"a.b `c`": ""}, None],
        "2": [{"b": "2", "a": "3"}, {}, None],
        "3": [{"a": "1"}, {}, None],
    }
    assert [row["attributes"] for row in rows(spark, tmp_path / "m")] == [
        one for some in expected.values() for one in some
    ]
    for table, attributes in expected.items():
        assert [row["attributes"] for row in rows(spark, tmp_path / table)] == attributes


def test_folders_name_categories_as_text(spark: Any, tmp_path: Path) -> None:
    parts = ("0123", "women%2Fdresses", "100%", "a+b c", "é", "__HIVE_DEFAULT_PARTITION__")
    for place, part in enumerate(parts):
        write(tmp_path / "m" / "dt=2026-13-45" / f"category={part}" / "x.parquet", image_id=[str(place)])
    write(tmp_path / "m" / "plain.parquet", image_id=["9"])
    categories = [row["category"] for row in rows(spark, tmp_path / "m")]
    assert categories == ["0123", "women/dresses", "100%", "a+b c", "é", None, "c"]


@pytest.mark.parametrize(
    "name", ["_x.parquet", ".x.parquet", "x [2026].parquet", "{a,b}*?.parquet", "a%20b#+é.parquet"]
)
def test_a_file_is_read_by_its_name(spark: Any, tmp_path: Path, name: str) -> None:
    write(tmp_path / "x2.parquet", image_id=["other"])
    assert [row["image_id"] for row in rows(spark, f"file://{write(tmp_path / name)}")] == ["a"]


def test_folders_name_texts_alone(spark: Any, tmp_path: Path) -> None:
    write(tmp_path / "m" / "available=maybe" / "1.parquet")
    with pytest.raises(ManifestInvalid, match=r"available: is the name of a folder in .*=maybe/1.parquet; only texts"):
        read_manifest(spark, str(tmp_path / "m"))


def test_types_that_differ_name_a_file_of_each(spark: Any, tmp_path: Path) -> None:
    write(tmp_path / "m" / "1.parquet", product_id=[1], updated_at=["2026-11-27"])
    write(tmp_path / "m" / "2.parquet")
    with pytest.raises(ManifestInvalid) as error:
        read_manifest(spark, str(tmp_path / "m"))
    one, two = (f"{tmp_path}/m/{number}.parquet" for number in (1, 2))
    said = f"product_id: is int64 in {one}, string in {two}, must be string; write it as text: numbers lose leading"
    assert said in str(error.value)
    assert f"updated_at: is string in {one}, must be timestamp" in str(error.value)


def test_a_delta_table_is_read_at_the_version_that_was_pinned(spark: Any, tmp_path: Path) -> None:
    table = f"{tmp_path}/table"
    for number in range(3):
        new = pa.table(BASE | {"image_id": [f"old {number}"], "seen": pa.array([1], pa.date32())})
        write_deltalake(table, new, mode="append")
    write_deltalake(table, pa.table(BASE | {"seen": pa.array([1], pa.date32())}), mode="overwrite")
    pinned = pin_version(table)
    assert pinned == f"{table}@v3"
    manifest = read_manifest(spark, pinned)
    write_deltalake(table, pa.table(BASE | {"image_id": ["new"], "seen": pa.array([1], pa.date32())}), mode="append")
    assert [row["image_id"] for row in manifest.collect()] == ["a"], "not of the files that older versions had"
    assert len(manifest.inputFiles()) == 1
    write_deltalake(f"{tmp_path}/wrong", pa.table(BASE | {"image_id": [1]}))
    with pytest.raises(ManifestInvalid, match=r"image_id: is int64 in .*/wrong@v0, must be string"):
        read_manifest(spark, pin_version(f"{tmp_path}/wrong"))
