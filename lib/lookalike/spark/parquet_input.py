"""Read what users bring: Parquet in a file, a folder or a glob, with its schema checked before any work."""

import difflib
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DoubleType, FloatType, IntegralType, StructType, TimestampNTZType

from lookalike.errors import LookalikeError


@dataclass(frozen=True)
class ParquetInput:
    """An input's columns, and how its errors are worded."""

    name: str
    required: StructType
    optional: StructType
    one_of: tuple[tuple[tuple[str, ...], str], ...]  # columns of which one must be there, and what to say of none
    a_row: str
    not_parquet: str
    invalid: type[LookalikeError]


def read_input(spark: SparkSession, uri: str, contract: ParquetInput) -> DataFrame:
    """All columns of `contract`, absent ones as null. Raises its error naming every problem of the schema."""
    try:
        raw = spark.read.option("mergeSchema", True).parquet(uri)
    except Exception as error:  # Spark hands some unreadable files on as the JVM's own exception
        raise contract.invalid(f"{uri}: {_unreadable(error, contract)}") from None
    problems = _schema_problems(raw.schema, contract)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise contract.invalid(f"{uri}: the {contract.name}'s columns are not as they must be:\n{lines}")
    if raw.isEmpty():
        raise contract.invalid(f"{uri}: the {contract.name} has no rows; give one with {contract.a_row}")
    present = set(raw.columns)
    known = contract.required.fields + contract.optional.fields
    return raw.select(
        [(F.col(f.name) if f.name in present else F.lit(None)).cast(f.dataType).alias(f.name) for f in known]
    )


def _schema_problems(schema: StructType, contract: ParquetInput) -> list[str]:
    known = contract.required.fields + contract.optional.fields
    present = {field.name: field.dataType for field in schema.fields}
    unknown = [name for name in present if name not in {field.name for field in known}]
    problems = []
    for field in contract.required.fields:
        if field.name not in present:
            problems.append(f"{field.name}: missing{_similar(field.name, unknown)}")
    for field in contract.optional.fields:
        if field.name not in present and (hint := _similar(field.name, unknown)):
            problems.append(f"{field.name}: absent{hint}")
    problems += [said for names, said in contract.one_of if not set(names) & set(present)]
    for field in known:
        if field.name in present and not _fits(present[field.name], field.dataType):
            actual = present[field.name].simpleString()
            problems.append(f"{field.name}: is {actual}, must be {field.dataType.simpleString()}")
    return problems


def _similar(name: str, unknown: list[str]) -> str:
    close = difflib.get_close_matches(name, unknown, n=1, cutoff=0.75)
    return f"; rename column {close[0]!r} to {name!r}" if close else ""


def _fits(actual: object, wanted: object) -> bool:
    if isinstance(wanted, ArrayType):
        return isinstance(actual, ArrayType) and isinstance(actual.elementType, FloatType | DoubleType)
    if type(actual) is type(wanted):
        return not hasattr(wanted, "keyType") or actual.simpleString() == wanted.simpleString()  # type: ignore[attr-defined]
    if isinstance(wanted, IntegralType):
        return isinstance(actual, IntegralType)
    return isinstance(actual, TimestampNTZType) and wanted.typeName() == "timestamp"  # type: ignore[attr-defined]


def _unreadable(error: Exception, contract: ParquetInput) -> str:
    text = str(getattr(error, "java_exception", None) or error).strip()
    if "PATH_NOT_FOUND" in text:
        return f"no such file or folder; give the {contract.name}'s path, or a glob"
    if "CANNOT_READ_FILE_FOOTER" in text:
        return contract.not_parquet
    return f"can't be read as Parquet: {text.splitlines()[0]}"
