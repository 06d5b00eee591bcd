"""The Delta tables below `<root>/tables/`, read and written by name under the schemas' contracts."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from lookalike import files, schemas


def spark_schema(schema: pa.Schema) -> StructType:
    """Spark's form of an Arrow schema, comments included."""
    converted = from_arrow_schema(schema)
    for field in converted.fields:
        metadata = schema.field(field.name).metadata or {}
        field.metadata = {key.decode(): value.decode() for key, value in metadata.items()}
    return converted


def conform(rows: DataFrame, schema: pa.Schema) -> DataFrame:
    """`rows` with the contract's columns in the contract's order and types."""
    return rows.select([rows[f"`{f.name}`"].cast(f.dataType).alias(f.name) for f in spark_schema(schema).fields])


@dataclass(frozen=True)
class Tables:
    """All tables of one root. A table that was never written reads as empty."""

    spark: SparkSession
    root: str

    def path(self, name: str) -> str:
        return files.join(self.root, "tables", name)

    def read(self, name: str) -> DataFrame:
        """The table as it is now.

        Without a version a DataFrame would follow later commits, and each would drop what was persisted of it.
        """
        if not DeltaTable.isDeltaTable(self.spark, self.path(name)):
            return self.spark.createDataFrame([], spark_schema(schemas.TABLES[name]))
        return self.spark.read.format("delta").option("versionAsOf", self.version(name)).load(self.path(name))

    def append(self, name: str, rows: DataFrame) -> None:
        """Add `rows` in one commit."""
        self._delta(name)
        conform(rows, schemas.TABLES[name]).write.format("delta").mode("append").save(self.path(name))

    def upsert(self, name: str, rows: DataFrame, key: Sequence[str]) -> None:
        """Insert `rows`, replacing those of the same key, in one commit. `rows` must be cheap to read twice."""
        same_key = " AND ".join(f"old.`{column}` <=> new.`{column}`" for column in key)
        source = conform(rows, schemas.TABLES[name]).alias("new")
        merge = self._delta(name).alias("old").merge(source, same_key)
        merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()

    def version(self, name: str) -> int:
        """Delta version of the table as it is now."""
        newest = self._delta(name).history(1).collect()[0]
        return int(newest["version"])

    def _delta(self, name: str) -> DeltaTable:
        """The table, created empty where it is missing, so that its comments and constraints stand."""
        path = self.path(name)
        if not DeltaTable.isDeltaTable(self.spark, path):
            empty = self.spark.createDataFrame([], spark_schema(schemas.TABLES[name]))
            empty.write.format("delta").mode("ignore").save(path)
        return DeltaTable.forPath(self.spark, path)
