"""Pins: versions that cleanup leaves alone, whatever their age. The audit's last word on a version decides."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike.errors import NotPublished
from lookalike.spark.catalog.audit import record, safe_from_cleanup
from lookalike.spark.run import Run
from lookalike.spark.tables import Tables


def find_pinned(tables: Tables) -> DataFrame:
    """(category, version) of every pinned version."""
    said = tables.read("audit").where(F.col("action").isin("pin", "unpin")).groupBy("category", "version")
    return said.agg(F.max_by("action", "at").alias("last")).where("last = 'pin'").select("category", "version")


def pin(run: Run, category: str, version: str, why: str) -> None:
    """Keep the version until it is unpinned. Raises NotPublished where there is none, and VersionUnusable."""
    ours = (F.col("category") == category) & (F.col("version") == version)
    with safe_from_cleanup(run.tables, [(category, version)]):
        if run.tables.read("shards").where(ours).isEmpty():
            raise NotPublished(f"there is no {category} version {version}: history --category '{category}' lists some")
        record(run, [{"action": "pin", "category": category, "version": version}], why)


def unpin(run: Run, category: str, version: str) -> None:
    """Leave the version to cleanup again. Raises NotPublished where it is not pinned."""
    if find_pinned(run.tables).where((F.col("category") == category) & (F.col("version") == version)).isEmpty():
        raise NotPublished(f"{category} version {version} is not pinned: history --category '{category}' lists what is")
    record(run, [{"action": "unpin", "category": category, "version": version}])
