"""The one SparkSession. Master, jars, memory and the like come from spark-submit and its properties file."""

import logging
import os
import signal
from types import FrameType

from pyspark.sql import SparkSession


def session(app: str) -> SparkSession:
    """The session of this process, with Delta's extension and UTC as its time zone. Ctrl-C raises KeyboardInterrupt."""
    spark = (
        SparkSession.builder.appName(f"lookalike {app}")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.session.timeZone", "UTC")
        # Manifests bring columns whose names differ by case alone, times in nanoseconds, and years before 1582.
        .config("spark.sql.caseSensitive", "true")
        .config("spark.sql.legacy.parquet.nanosAsLong", "true")
        .config("spark.sql.parquet.datetimeRebaseModeInRead", "CORRECTED")
        .config("spark.sql.parquet.int96RebaseModeInRead", "CORRECTED")
        .config("spark.sql.parquet.datetimeRebaseModeInWrite", "CORRECTED")
        # INT96, Spark's default, can't hold every year in other readers.
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        # Else cleanup would add commits of its own to every table, and outside the lock that a local disk needs.
        .config("spark.databricks.delta.vacuum.logging.enabled", "false")
        # For error messages that say where in the program a column was made. The JVM is asked ten times for each.
        .config("spark.python.sql.dataFrameDebugging.enabled", "false")
        .config("spark.sql.dataFrameQueryContext.enabled", "false")
        .getOrCreate()
    )
    spark.sparkContext.environment.update(_storage_access(spark.sparkContext.sparkUser()))
    signal.signal(signal.SIGINT, _stop)
    return spark


def _storage_access(user: str) -> dict[str, str]:
    """Variables by which the executors' Python reaches the stores that this process and Spark itself reach.

    They travel with the functions that need them, and so stand in no command line, no setting and no log.
    """
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return aws | {"HADOOP_USER_NAME": user}


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """In place of Spark's handler, which may fail as it calls the JVM in the midst of another call."""
    logging.disable()  # py4j logs a stack trace of the call that ends here
    raise KeyboardInterrupt
