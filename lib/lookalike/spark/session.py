"""The one SparkSession. Master, jars, memory and the like come from spark-submit and its properties file."""

from pyspark.sql import SparkSession


def session(app: str) -> SparkSession:
    """The session of this process, with Delta's extension and UTC as its time zone."""
    return (
        SparkSession.builder.appName(f"lookalike {app}")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
