"""Which files an input names, and what their footers say: without Spark."""

from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from lookalike.spark.parquet_columns import INT96, read_columns, spark_type
from lookalike.spark.parquet_input import pin_version
from lookalike.spark.parquet_listing import InputUnusable, is_delta_table, list_parquet_files

TEXT, TIME, FLOATS = pa.string(), pa.timestamp("us", tz="UTC"), pa.list_(pa.float32())
TEXTS = pa.map_(TEXT, TEXT)
WANTED = pa.schema({"image_id": TEXT, "uri": TEXT, "title": TEXT, "attributes": TEXTS, "embedding": FLOATS})


def write(path: Path, **columns: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns or {"image_id": ["a"]}), path)
    return str(path)


def names(uri: str, base: Path) -> list[str]:
    return [str(Path(one).relative_to(base)) for one in list_parquet_files(uri)]


def test_a_folder_is_its_files_without_marks(tmp_path: Path) -> None:
    kept = ["category=a/1.parquet", "_dt=1/2.parquet", "b.parquet"]
    for name in [*kept, "_x.parquet", ".b.parquet.crc", "_temporary/0/c.parquet", "d.parquet._COPYING_"]:
        write(tmp_path / name)
    (tmp_path / "_SUCCESS").touch()
    assert names(str(tmp_path), tmp_path) == sorted(kept)
    assert list_parquet_files(f"file://{tmp_path}")[-1] == f"file://{tmp_path}/category=a/1.parquet"


@pytest.mark.parametrize("name", ["_x.parquet", ".x.parquet", "x [2026].parquet", "{a,b}*.parquet", "a%20b#?.parquet"])
def test_a_file_is_taken_by_its_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert list_parquet_files(path) == [path]


def test_a_glob_takes_files_and_folders(tmp_path: Path) -> None:
    for name in ("2026-01/a.parquet", "2026-02/b.parquet", "2027-01/c.parquet", "x1.parquet", "x2.parquet"):
        write(tmp_path / name)
    assert names(f"{tmp_path}/2026-*", tmp_path) == ["2026-01/a.parquet", "2026-02/b.parquet"]
    assert names(f"{tmp_path}/{{x1,2027-01/c}}.parquet", tmp_path) == ["2027-01/c.parquet", "x1.parquet"]
    assert names(f"{tmp_path}/x[2-9].parquet", tmp_path) == ["x2.parquet"]


@pytest.mark.parametrize(
    ("made", "asked", "said"),
    [
        ("x.parquet", "y.parquet", "no such file or folder"),
        ("x.parquet", "y*.parquet", "no file is like this pattern"),
        ("t/_SUCCESS", "t", "the folder holds no file"),
    ],
)
def test_what_is_no_input_is_said(tmp_path: Path, made: str, asked: str, said: str) -> None:
    write(tmp_path / made)
    with pytest.raises(InputUnusable, match=said):
        list_parquet_files(str(tmp_path / asked))


def table_of(kind: str, folder: Path) -> None:
    """What tells a table's kind, and a file of its rows in a partition."""
    mark = {
        "Delta": "_delta_log/00000000000000000000.json",
        "Hudi": ".hoodie/hoodie.properties",
        "Iceberg": "metadata/v1.metadata.json",
        "Iceberg, compressed": "metadata/v1.metadata.json.gz",
    }[kind]
    (folder / mark).parent.mkdir(parents=True)
    (folder / mark).touch()
    write(folder / "data" / "category=c" / "a.parquet")
    write(folder / "b.parquet")


KINDS = ("Delta", "Hudi", "Iceberg", "Iceberg, compressed")


@pytest.mark.parametrize(
    "asked",
    [
        *("lake", "lake/", "", "l*", "lake/*", "lake/*/*.parquet", "lake/t/*.parquet", "lake/t/b.parquet", "lake/t/*"),
        *("lake/t/data", "lake/t/data/*/*.parquet", "lake/t/data/category=c", "lake/t/data/category=*", "lake/{t,u}"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_a_table_are_not_taken_for_its_rows(tmp_path: Path, kind: str, asked: str) -> None:
    table_of(kind, tmp_path / "lake" / "t")
    mend = "give its own address" if kind == "Delta" else "export it as Parquet or as a Delta table"
    said = rf"^(file://)?{tmp_path}/lake/t: is an? {kind.split(',')[0]} table, whose .*; {mend}$"
    for prefix in ("", "file://"):
        with pytest.raises(InputUnusable, match=said):
            list_parquet_files(f"{prefix}{tmp_path}/{asked}")


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_table_that_is_no_delta_table_is_refused_by_its_own_address(tmp_path: Path, kind: str) -> None:
    table_of(kind, tmp_path / "t")
    with pytest.raises(InputUnusable, match=f"^{tmp_path}/t: is an? {kind.split(',')[0]} table"):
        list_parquet_files(f"{tmp_path}/t")


def test_what_lies_beside_tables_is_read(tmp_path: Path) -> None:
    for kind in KINDS:
        table_of(kind, tmp_path / "lake" / kind)
    write(tmp_path / "lake" / "plain" / "metadata" / "a.parquet")
    for asked in ("lake/plain", "lake/pl*", "lake/plain/*/*.parquet", "lake/plain/metadata/a.parquet"):
        assert names(f"{tmp_path}/{asked}", tmp_path) == ["lake/plain/metadata/a.parquet"]


def test_a_table_in_a_store_is_named_by_its_uri() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/lake/t/_delta_log/00000000000000000000.json": b"", "/lake/t/a=1/b=2/x.parquet": b""})
    for asked in ("lake", "lake/t/a=1", "lake/t/a=1/b=*", "lake/t/a=1/b=2/x.parquet"):
        with pytest.raises(InputUnusable, match=r"^memory://lake/t: is a Delta table"):
            list_parquet_files(f"memory://{asked}")


def test_folders_above_that_nobody_may_look_into_are_no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "own" / "a.parquet")
    isdir = LocalFileSystem.isdir

    def is_allowed(self: LocalFileSystem, path: str) -> bool:
        if not path.startswith(f"{tmp_path}/own"):
            raise PermissionError(path)
        return bool(isdir(self, path))

    monkeypatch.setattr(LocalFileSystem, "isdir", is_allowed)
    assert list_parquet_files(f"{tmp_path}/own") == [path]


def test_a_delta_table_is_known_by_its_log(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.parquet")
    assert not is_delta_table(str(tmp_path / "t"))
    (tmp_path / "t" / "_delta_log").mkdir()
    assert is_delta_table(str(tmp_path / "t"))


def test_a_delta_table_without_a_commit_is_refused(tmp_path: Path) -> None:
    """Writers make the log, then the files, then the commit: without it, its files may be those of a failed write."""
    table = str(tmp_path / "t")
    write(tmp_path / "t" / "a.parquet")
    (tmp_path / "t" / "_delta_log").mkdir()
    assert pin_version(table) == table
    with pytest.raises(InputUnusable, match=r"t: its _delta_log holds no commit, .* write the Delta table again"):
        list_parquet_files(table)


def test_columns_without_values_have_no_type(tmp_path: Path) -> None:
    """pandas writes a column of nothing but None as null, int or double, by what came before."""
    uri = write(
        tmp_path / "a.parquet",
        image_id=["a", "b"],
        uri=pa.nulls(2, pa.int64()),
        title=pa.nulls(2),
        other=pa.array([1, 2], pa.float16()),
    )
    (columns,) = read_columns([uri], WANTED, "no Parquet")
    assert columns.types == {"image_id": pa.string()}
    assert columns.names == {"image_id", "uri", "title", "other"}
    assert columns.rows == 2


@pytest.mark.parametrize("statistics", [True, False])
def test_columns_without_values_have_no_type_whatever_their_type(tmp_path: Path, statistics: bool) -> None:
    columns = {
        "image_id": ["a"] * 3,
        "uri": pa.nulls(3, pa.float64()),
        "title": pa.array([None, None, 1]),
        "embedding": pa.nulls(3, pa.list_(pa.null())),
        "attributes": pa.nulls(3, pa.list_(pa.null())),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", write_statistics=statistics, row_group_size=1)
    (read,) = read_columns([str(tmp_path / "a.parquet")], WANTED, "no Parquet")
    assert read.types == {"image_id": pa.string(), "title": pa.int64()}
    assert read.names == set(columns)


def test_int96_is_told_from_nanoseconds(tmp_path: Path) -> None:
    table = pa.table({"uri": pa.array([1], pa.timestamp("ns"))})
    for name, flag in (("old", True), ("new", False)):
        pq.write_table(table, tmp_path / name, use_deprecated_int96_timestamps=flag)
    old, new = read_columns([str(tmp_path / "old"), str(tmp_path / "new")], WANTED, "no Parquet")
    assert (old.types["uri"], new.types["uri"]) == (INT96, pa.timestamp("ns"))
    assert (spark_type(INT96, TIME), spark_type(pa.timestamp("ns"), TIME)) == ("timestamp", "bigint")


def test_files_that_are_no_sound_parquet_are_named_together(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet")
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "list.csv").write_text("image_id,uri\n" * 20)
    (tmp_path / "cut.parquet").write_bytes(Path(good).read_bytes()[:-20])
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "brotli.parquet", compression="brotli")
    pq.write_table(pa.table([["a"], ["b"]], ["uri", "uri"]), tmp_path / "twice.parquet")
    with pytest.raises(InputUnusable) as error:
        read_columns([str(path) for path in sorted(tmp_path.iterdir())], WANTED, "no Parquet")
    lines = [line.removeprefix(f"{tmp_path}/") for line in str(error.value).splitlines()]
    expected = [
        "brotli.parquet: the column image_id is compressed with BROTLI; write it with zstd or snappy",
        "cut.parquet: no Parquet (",
        "empty.parquet: an empty file",
        "list.csv: no Parquet (",
        "twice.parquet: has the column uri more than once",
    ]
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines


@pytest.mark.parametrize(
    ("actual", "wanted", "read_as"),
    [
        (pa.large_string(), TEXT, "string"),
        (pa.dictionary(pa.int8(), pa.string()), TEXT, "string"),
        (pa.int64(), TEXT, None),
        (pa.binary(), TEXT, None),  # in which encoding is not known
        (pa.large_binary(), pa.binary(), "binary"),
        (pa.binary(4), pa.binary(), "binary"),
        (pa.timestamp("ms"), TIME, "timestamp_ntz"),
        (pa.timestamp("us", tz="Asia/Tokyo"), TIME, "timestamp"),
        (pa.timestamp("ns", tz="UTC"), TIME, "bigint"),
        (pa.date32(), TIME, "date"),
        (pa.int64(), TIME, None),  # seconds or milliseconds is not known
        (pa.string(), TIME, None),  # in which zone is not known
        (pa.bool_(), pa.bool_(), "boolean"),
        (pa.int8(), pa.bool_(), None),
        (pa.large_list(pa.float64()), FLOATS, "array<double>"),
        (pa.list_(pa.float32(), 4), FLOATS, "array<float>"),
        (pa.list_(pa.float16()), FLOATS, "array<binary>"),
        (pa.list_(pa.int8()), FLOATS, None),
        (pa.map_(pa.string(), pa.large_string()), TEXTS, "map<string,string>"),
        (pa.map_(pa.string(), pa.int64()), TEXTS, None),
        (pa.struct({"a b": TEXT, "c`": pa.large_string()}), TEXTS, "struct<`a b`:string,`c```:string>"),
        (pa.struct({"a": TEXT, "b": pa.int64()}), TEXTS, None),  # in which form a number is a text is not known
        (pa.struct({"a": TEXT, "A": TEXT}), TEXTS, None),
        (pa.list_(pa.struct({"key": TEXT, "value": TEXT})), TEXTS, "array<struct<`key`:string,`value`:string>>"),
        (pa.list_(pa.struct({"value": TEXT, "key": TEXT})), TEXTS, None),
        (pa.list_(pa.struct({"key": TEXT, "value": pa.int64()})), TEXTS, None),
        (pa.uint32(), pa.int32(), "bigint"),
        (pa.uint64(), pa.int32(), "decimal(20,0)"),
        (pa.float64(), pa.int32(), None),
    ],
)
def test_types_that_mean_the_same_are_taken(actual: pa.DataType, wanted: pa.DataType, read_as: str | None) -> None:
    assert spark_type(actual, wanted) == read_as
