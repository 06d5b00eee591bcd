"""Read a manifest: Parquet in a file, a folder or a glob, with its schema checked before any work."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DoubleType, FloatType, StructField, StructType, TimestampNTZType

from lookalike import schemas
from lookalike.errors import ManifestInvalid
from lookalike.spark.tables import spark_schema


@dataclass(frozen=True)
class Contract:
    """The columns that a Parquet input has. `one_of`: columns of which one must be there, and what to say of none."""

    required: StructType
    optional: StructType
    one_of: Sequence[tuple[frozenset[str], str]]

    @property
    def fields(self) -> list[StructField]:
        return self.required.fields + self.optional.fields


MANIFEST = Contract(
    spark_schema(schemas.MANIFEST_REQUIRED),
    spark_schema(schemas.MANIFEST_OPTIONAL),
    [(frozenset({"uri", "content", "embedding"}), "uri, content: both missing; an image needs one of them")],
)


def read_manifest(spark: SparkSession, uri: str, contract: Contract = MANIFEST) -> DataFrame:
    """All columns of the contract, absent ones as null. Raises ManifestInvalid naming every problem of the schema."""
    try:
        raw = spark.read.option("mergeSchema", True).parquet(uri)
    except Exception as error:  # Spark hands some unreadable files on as the JVM's own exception
        raise ManifestInvalid(f"{uri}: {_unreadable(error)}") from None
    problems = _schema_problems(raw.schema, contract)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ManifestInvalid(f"{uri}: the manifest's columns are not as they must be:\n{lines}")
    if raw.isEmpty():
        raise ManifestInvalid(f"{uri}: the manifest has no rows; give one with a row per image")
    present = set(raw.columns)
    return raw.select(
        [(F.col(f.name) if f.name in present else F.lit(None)).cast(f.dataType).alias(f.name) for f in contract.fields]
    )


def given_dim(manifest: DataFrame) -> int | None:
    """Dimensions of most of the embeddings that the manifest brings; None where it brings none."""
    sizes = manifest.where(F.size("embedding") > 0).groupBy(F.size("embedding").alias("dim")).count()
    most = sizes.orderBy(F.desc("count"), "dim").first()
    return int(most["dim"]) if most else None


def _schema_problems(schema: StructType, contract: Contract) -> list[str]:
    present = {field.name: field.dataType for field in schema.fields}
    unknown = [name for name in present if name not in {field.name for field in contract.fields}]
    problems = []
    for field in contract.required.fields:
        if field.name not in present:
            problems.append(f"{field.name}: missing{_similar(field.name, unknown)}")
    for field in contract.optional.fields:
        if field.name not in present and (hint := _similar(field.name, unknown)):
            problems.append(f"{field.name}: absent{hint}")
    problems += [problem for names, problem in contract.one_of if not names & set(present)]
    for field in contract.fields:
        if field.name in present and not _fits(present[field.name], field.dataType):
            found = present[field.name].simpleString()
            problems.append(f"{field.name}: is {found}, must be {field.dataType.simpleString()}")
    return problems


def _similar(name: str, unknown: list[str]) -> str:
    close = difflib.get_close_matches(name, unknown, n=1, cutoff=0.75)
    return f"; rename column {close[0]!r} to {name!r}" if close else ""


def _fits(found: object, wanted: object) -> bool:
    if isinstance(wanted, ArrayType):
        return isinstance(found, ArrayType) and isinstance(found.elementType, FloatType | DoubleType)
    if type(found) is type(wanted):
        return not hasattr(wanted, "keyType") or found.simpleString() == wanted.simpleString()  # type: ignore[attr-defined]
    return isinstance(found, TimestampNTZType) and wanted.typeName() == "timestamp"  # type: ignore[attr-defined]


def _unreadable(error: Exception) -> str:
    text = str(getattr(error, "java_exception", None) or error).strip()
    if "PATH_NOT_FOUND" in text:
        return "no such file or folder; give the manifest's path, or a glob"
    if "CANNOT_READ_FILE_FOOTER" in text:
        return "not a Parquet file; of a CSV or a folder of images, make_manifest makes a manifest"
    return f"can't be read as Parquet: {text.splitlines()[0]}"
