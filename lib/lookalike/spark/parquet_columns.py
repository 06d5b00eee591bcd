"""What Parquet footers say of an input's columns, and how Spark must read those that the contract names.

Spark is told what to read: it infers nothing, and columns that the contract does not name are not touched.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike import files
from lookalike.spark.parquet_listing import InputUnusable

_READ_THREADS = 16
_CODECS = {"UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "LZ4", "LZ4_RAW"}
INT96 = pa.timestamp("ns", tz="INT96")
"""Arrow reads Parquet's INT96 as nanoseconds; Spark reads it as a timestamp, and nanoseconds as a number."""


@dataclass(frozen=True)
class FileColumns:
    """Columns of a file by name, but for those without any value; and how many rows it has."""

    uri: str
    types: Mapping[str, pa.DataType]
    names: frozenset[str]  # with those without any value
    rows: int


def read_columns(uris: Sequence[str], wanted: pa.Schema, not_parquet: str) -> list[FileColumns]:
    """Of each file, by its footer, and by its values where a type is not usable.

    Raises InputUnusable naming the files that are no sound Parquet. `not_parquet`: what to say of those.
    """
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        read = list(pool.map(lambda uri: _read(uri, wanted, not_parquet), uris))
    if problems := [said for said in read if isinstance(said, str)]:
        raise InputUnusable("\n".join(problems))
    return [columns for columns in read if isinstance(columns, FileColumns)]


def _read(uri: str, wanted: pa.Schema, not_parquet: str) -> FileColumns | str:
    """The columns, or the problem."""
    fs, path = files.filesystem(uri)
    try:
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            return _columns(uri, parquet, wanted)
    except InputUnusable as error:
        return f"{uri}: {error}"
    except (pa.ArrowException, OSError) as error:
        if not fs.size(path):
            return f"{uri}: an empty file; write it anew, or remove it"
        return f"{uri}: {not_parquet} ({str(error).splitlines()[0]})"


def _columns(uri: str, parquet: Any, wanted: pa.Schema) -> FileColumns:
    schema, metadata = parquet.schema_arrow, parquet.metadata
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1 and name in wanted.names})
    if repeated:
        raise InputUnusable(f"has the column {repeated[0]} more than once; leave one")
    types = {}
    for field in schema:
        if field.name in wanted.names:
            leaves = _leaves(parquet.schema, field.name)
            _check_codecs(field.name, metadata, leaves)
            kind = INT96 if parquet.schema.column(leaves[0]).physical_type == "INT96" else field.type
            is_usable = spark_type(kind, wanted.field(field.name).type) is not None
            if _may_have_values(metadata, leaves) and (is_usable or _has_values(parquet, field.name)):
                types[field.name] = kind
    return FileColumns(uri, types, frozenset(schema.names), metadata.num_rows)


def _leaves(schema: Any, name: str) -> list[int]:
    """Places of what Parquet stores for the column: of a list its values, of a map its keys and its values."""
    return [i for i in range(len(schema)) if schema.column(i).path.split(".")[0] == name]


def _check_codecs(name: str, metadata: Any, leaves: Sequence[int]) -> None:
    for group in range(metadata.num_row_groups):
        for leaf in leaves:
            codec = metadata.row_group(group).column(leaf).compression
            if codec not in _CODECS:
                raise InputUnusable(f"the column {name} is compressed with {codec}; write it with zstd or snappy")


def _may_have_values(metadata: Any, leaves: Sequence[int]) -> bool:
    """Whether the footer leaves open that there is a value other than null."""
    for group in range(metadata.num_row_groups):
        for leaf in leaves:
            column = metadata.row_group(group).column(leaf)
            statistics = column.statistics
            if statistics is None or not statistics.has_null_count or statistics.null_count < column.num_values:
                return True
    return False


def _has_values(parquet: Any, name: str) -> bool:
    """Whether there is a value other than null, by reading up to the first, as not every writer leaves statistics."""
    return any(batch.column(0).null_count < len(batch) for batch in parquet.iter_batches(columns=[name]))


def spark_type(actual: pa.DataType, wanted: pa.DataType) -> str | None:
    """As what Spark must read a column of the type `actual`, so that it can be cast to `wanted`; None: not the same."""
    if pa.types.is_dictionary(actual):
        return spark_type(actual.value_type, wanted)
    if pa.types.is_string(wanted):
        return "string" if _is_text(actual) else None
    if pa.types.is_binary(wanted):
        return "binary" if _is_bytes(actual) else None
    if pa.types.is_boolean(wanted):
        return "boolean" if pa.types.is_boolean(actual) else None
    if pa.types.is_timestamp(wanted):
        return _spark_time(actual)
    if pa.types.is_integer(wanted):
        return _spark_integer(actual)
    if pa.types.is_map(wanted):
        return _spark_map(actual)
    return _spark_list(actual)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _spark_time(kind: pa.DataType) -> str | None:
    if kind == INT96:
        return "timestamp"
    if pa.types.is_date32(kind):
        return "date"
    if not pa.types.is_timestamp(kind):
        return None
    if kind.unit == "ns":
        return "bigint"
    return "timestamp" if kind.tz else "timestamp_ntz"


def _spark_integer(kind: pa.DataType) -> str | None:
    if not pa.types.is_integer(kind):
        return None
    if kind == pa.uint64():
        return "decimal(20,0)"
    signed = kind.bit_width * (2 if pa.types.is_unsigned_integer(kind) else 1)
    return {8: "tinyint", 16: "smallint", 32: "int", 64: "bigint"}[signed]


def _spark_map(kind: pa.DataType) -> str | None:
    """Maps, and structs and lists of pairs that mean the same. Spark does not tell `Size` from `size` in a struct."""
    if pa.types.is_map(kind):
        return "map<string,string>" if _is_text(kind.key_type) and _is_text(kind.item_type) else None
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        if len({name.lower() for name in names}) < len(names) or not all(_is_text(field.type) for field in kind):
            return None
        fields = ",".join(f"`{name.replace('`', '``')}`:string" for name in names)
        return f"struct<{fields}>"
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_struct(kind.value_type):
        is_pair = [field.name for field in kind.value_type] == ["key", "value"]
        pair = _spark_map(kind.value_type)
        return f"array<{pair}>" if is_pair and pair else None
    return None


def _spark_list(kind: pa.DataType) -> str | None:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return None
    values = {pa.float32(): "array<float>", pa.float64(): "array<double>", pa.float16(): "array<binary>"}
    return values.get(kind.value_type)
