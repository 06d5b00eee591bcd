"""Read what users bring: Parquet files or a Delta table, the schema checked before any work."""

import difflib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import NullType

from lookalike import delta_log, files
from lookalike.errors import LookalikeError
from lookalike.spark.parquet_columns import FileColumns, read_columns, spark_type
from lookalike.spark.parquet_listing import InputUnusable, is_delta_table, list_parquet_files
from lookalike.spark.tables import to_spark_schema
from lookalike.spark.uri_columns import clean_uris

_AT_VERSION = re.compile(r"@v\d+$")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class ParquetInput:
    """An input's columns, and how its errors are worded."""

    name: str
    required: pa.Schema
    optional: pa.Schema
    one_of: tuple[tuple[tuple[str, ...], str], ...]  # columns of which one must be there, and what to say of none
    a_row: str
    not_parquet: str
    invalid: type[LookalikeError]

    @property
    def columns(self) -> pa.Schema:
        return pa.schema([*self.required, *self.optional])


def pin_version(uri: str) -> str:
    """`uri`; of a Delta table with its latest version, as in `path@v3`, if one was ever committed."""
    commits = delta_log.list_commits(uri) if is_delta_table(uri) else []
    return f"{uri}@v{max(commits)}" if commits else uri


def read_input(spark: SparkSession, uri: str, contract: ParquetInput) -> DataFrame:
    """All columns of `contract`, absent ones null, uris clean. Raises its error naming all problems of the schema."""
    try:
        pinned = uri if _AT_VERSION.search(uri) else pin_version(uri)
        table = _AT_VERSION.sub("", pinned)
        is_pinned_table = table != pinned and is_delta_table(table)
        rows = _read_delta(spark, pinned, contract) if is_pinned_table else _read_files(spark, uri, contract)
    except InputUnusable as error:
        raise contract.invalid(str(error)) from None
    except OSError as error:
        raise contract.invalid(f"{uri}: can't be read: {error}") from None
    return rows.withColumn("uri", clean_uris(F.col("uri")))


def _read_delta(spark: SparkSession, uri: str, contract: ParquetInput) -> DataFrame:
    table = spark.read.format("delta").load(uri)
    present = [f.name for f in table.schema if not isinstance(f.dataType, NullType)]
    rows = table.select(*[F.col(f"`{name}`") for name in present if name in contract.columns.names])
    types = {field.name: field.type for field in to_arrow_schema(rows.schema)}
    _check(uri, [FileColumns(uri, types, frozenset(table.columns), 1)], {}, contract)
    if rows.isEmpty():
        raise InputUnusable(f"{uri}: the {contract.name} has no rows; give one with {contract.a_row}")
    return rows.select(_converted(types, contract))


def _read_files(spark: SparkSession, uri: str, contract: ParquetInput) -> DataFrame:
    uris = list_parquet_files(uri)
    names = frozenset(contract.columns.names)
    columns = read_columns(uris, contract.columns, contract.not_parquet)
    folders = {one: _partition_names(one, uri, names) for one in uris}
    _check(uri, columns, folders, contract)
    if not sum(one.rows for one in columns):
        raise InputUnusable(f"{uri}: the {contract.name} has no rows; give one with {contract.a_row}")
    alike: dict[tuple[Any, ...], list[FileColumns]] = {}
    for one in columns:
        types = tuple(sorted((name, str(kind)) for name, kind in one.types.items()))
        alike.setdefault((types, folders[one.uri]), []).append(one)
    frames = [_read_alike(spark, some, partitions, contract) for (_, partitions), some in alike.items()]
    return reduce(DataFrame.unionByName, frames)


def _partition_names(uri: str, base: str, wanted: frozenset[str]) -> tuple[str, ...]:
    """Columns whose values the folders below `base` name, as in `category=shoes/`."""
    below = uri[len(base.rstrip("/")) :] if uri.startswith(base) else uri
    parts = [part.partition("=") for part in below.split("/")[:-1]]
    return tuple(sorted({name for name, equals, _ in parts if equals and name in wanted}))


def _read_alike(
    spark: SparkSession, some: Sequence[FileColumns], partitions: Sequence[str], contract: ParquetInput
) -> DataFrame:
    """Rows of files whose columns have the same types."""
    types = {name: kind for name, kind in some[0].types.items() if name not in partitions}
    wanted = {field.name: field.type for field in contract.columns}
    schema = ", ".join(f"`{name}` {spark_type(kind, wanted[name])}" for name, kind in types.items())
    # Folders are read by `_metadata` below: Spark would take 0123 for a number.
    reader = spark.read.option("recursiveFileLookup", True).schema(schema)
    rows = reader.parquet(*[_escape(_visible(one.uri)) for one in some])
    for name in partitions:
        rows = rows.withColumn(name, _folder_value(name))
    return rows.select(_converted(types | dict.fromkeys(partitions, pa.string()), contract))


def _escape(uri: str) -> str:
    """`uri` with a backslash before each sign that Hadoop takes for a pattern."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", uri)


def _visible(uri: str) -> str:
    """Where Spark can read the file, as it skips files whose name begins with `_` or `.`."""
    name = uri.rpartition("/")[2]
    if not name.startswith(("_", ".")):
        return uri
    if not files.is_local(uri):
        raise InputUnusable(f"{uri}: Spark reads no file whose name begins with _ or a dot; rename it")
    link = Path(tempfile.mkdtemp(prefix="lookalike-")) / f"link{name}"
    link.symlink_to(files.filesystem(uri)[1])
    return f"file://{link}"


def _folder_value(name: str) -> Column:
    """What the file's folder names, as text. Its escapes are decoded twice: Spark's of the path, and Hive's."""
    value = F.regexp_extract(F.col("_metadata.file_path"), f"^.*/{re.escape(name)}=([^/]*)/", 1)
    for _ in range(2):
        value = F.coalesce(F.try_url_decode(F.replace(value, F.lit("+"), F.lit("%2B"))), value)
    return F.when(value != _NO_VALUE, value)


def _converted(types: Mapping[str, pa.DataType], contract: ParquetInput) -> list[Column]:
    """The contract's columns, with its types, of rows that were read as `spark_type` says."""
    wanted = {field.name: field.type for field in contract.columns}
    columns = []
    for field in to_spark_schema(contract.columns):
        column = _plain(field.name, types[field.name], wanted[field.name]) if field.name in types else F.lit(None)
        columns.append(column.cast(field.dataType).alias(field.name))
    return columns


def _plain(name: str, actual: pa.DataType, wanted: pa.DataType) -> Column:
    """The column as something that Spark can cast."""
    read_as = spark_type(actual, wanted)
    if read_as == "bigint" and pa.types.is_timestamp(wanted):  # nanoseconds
        return F.expr(f"timestamp_micros((`{name}` - pmod(`{name}`, 1000)) div 1000)")
    if read_as == "array<binary>":
        widen: Any = F.arrow_udf(_widen_halves, "array<float>")  # type: ignore[attr-defined]  # the stubs lack it
        widened: Column = widen(F.col(name))
        return widened
    if pa.types.is_map(wanted) and pa.types.is_struct(actual):
        return _map_of_struct(F.col(name), [field.name for field in actual])
    if pa.types.is_map(wanted) and not pa.types.is_map(actual):
        return _map_of_pairs(F.col(name))
    return F.col(f"`{name}`")


def _map_of_struct(struct: Column, names: Sequence[str]) -> Column:
    """The fields that have a value: pandas writes a field for every key that any of the dicts has."""
    every = F.create_map(*[part for name in names for part in (F.lit(name), struct.getField(name))])
    return F.when(struct.isNotNull(), F.map_filter(every, lambda _, value: value.isNotNull()))


def _map_of_pairs(pairs: Column) -> Column:
    """Of pairs with one key the last, as in a dict; Spark would fail. None without a key."""
    keyed = F.filter(pairs, lambda pair: pair["key"].isNotNull())
    keys = F.transform(keyed, lambda pair: pair["key"])

    def is_last(pair: Column, place: Column) -> Column:
        return ~F.array_contains(F.slice(keys, place + 2, F.size(keys)), pair["key"])

    return F.map_from_entries(F.filter(keyed, is_last))


def _widen_halves(halves: pa.Array) -> pa.Array:
    """float16, which Spark reads as two bytes each, as float32; NaN for null."""
    flat = pc.fill_null(halves.flatten(), np.float16("nan").tobytes())
    values = np.frombuffer(b"".join(flat.to_pylist()), "<f2").astype(np.float32)
    lengths = pc.fill_null(pc.list_value_length(halves), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(values), mask=halves.is_null())


def _check(
    uri: str, columns: Sequence[FileColumns], folders: Mapping[str, Sequence[str]], contract: ParquetInput
) -> None:
    """Raises InputUnusable with every problem of the columns."""
    present = {name for one in columns for name in (*one.names, *folders.get(one.uri, ()))}
    unknown = sorted(present - set(contract.columns.names))
    problems = [f"{name}: missing{_similar(name, unknown)}" for name in contract.required.names if name not in present]
    for name in contract.optional.names:
        if name not in present and (hint := _similar(name, unknown)):
            problems.append(f"{name}: absent{hint}")
    problems += [said for names, said in contract.one_of if not set(names) & present]
    problems += [said for field in contract.columns if (said := _type_problem(field, columns, folders))]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise InputUnusable(f"{uri}: the {contract.name}'s columns are not as they must be:\n{lines}")


def _similar(name: str, unknown: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, unknown, n=1, cutoff=0.75)
    return f"; rename column {close[0]!r} to {name!r}" if close else ""


def _type_problem(field: pa.Field, columns: Sequence[FileColumns], folders: Mapping[str, Sequence[str]]) -> str | None:
    """What is wrong with the column's types, with a file of each type."""
    named = next((one.uri for one in columns if field.name in folders.get(one.uri, ())), None)
    if named and not pa.types.is_string(field.type):
        return f"{field.name}: is the name of a folder in {named}; only texts can be, write it as a column"
    by_type: dict[pa.DataType, str] = {}
    for one in columns:
        if field.name in one.types and field.name not in folders.get(one.uri, ()):
            by_type.setdefault(one.types[field.name], one.uri)
    if all(spark_type(actual, field.type) for actual in by_type):
        return None
    said = ", ".join(f"{actual} in {uri}" for actual, uri in by_type.items())
    is_number = any(pa.types.is_integer(actual) or pa.types.is_floating(actual) for actual in by_type)
    hint = "; write it as text: numbers lose leading zeros" if is_number and pa.types.is_string(field.type) else ""
    (wanted,) = to_spark_schema(pa.schema([field]))
    return f"{field.name}: is {said}, must be {wanted.dataType.simpleString()}{hint}"
