"""Make Spark load the classes that jobs use. spark-submit.sh stores them, so that later starts take half the time."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from delta.tables import DeltaTable
from pyspark.sql import Window
from pyspark.sql import functions as F

from lookalike.spark.session import session


def warm_up(folder: Path) -> None:
    """Write, merge and read a few rows below `folder`, as the stages do."""
    spark = session("warm-up")
    table = f"file://{folder}/table"
    rows = spark.range(8).selectExpr("id", "id % 2 AS bucket", "string(id) AS name", "array(float(id)) AS embedding")
    rows.write.format("delta").partitionBy("bucket").save(table)
    first = F.row_number().over(Window.partitionBy("bucket").orderBy(F.desc("name")))
    new = rows.withColumn("first", first).where("first > 1").drop("first").mapInArrow(_pass_on, rows.schema).persist()
    merge = DeltaTable.forPath(spark, table).alias("old").merge(new.alias("new"), "old.id <=> new.id")
    merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    new.write.parquet(f"file://{folder}/parquet")
    known = spark.read.format("delta").load(table).groupBy("bucket").agg(F.count("*").alias("count"))
    spark.read.parquet(f"file://{folder}/parquet").join(known, "bucket", "left").orderBy("id").collect()
    spark.stop()
    jvm = spark.sparkContext._gateway.proc  # type: ignore[union-attr]
    jvm.stdin.close()  # at which it ends, and stores the classes; Python would not wait for that
    jvm.wait()


def _pass_on(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as scratch:
        warm_up(Path(scratch))
