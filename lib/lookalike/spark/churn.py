"""Churn: how many of the neighbours that shoppers see now a new version would take away."""

from collections.abc import Sequence

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.kernels.metrics import wilson_interval
from lookalike.spark.gallery import Version
from lookalike.spark.run import Run
from lookalike.spark.selected import among
from lookalike.spark.tables import VERSION, local_frame

CHURN_K = 10
CHURN_KEY = ("category", "version", "metric", "against")

_COMPARED = VERSION.append(pa.field("against", pa.string()))


def uncompared(run: Run, versions: Sequence[Version]) -> list[Version]:
    """Those of `versions` whose churn against what is live is not measured yet."""
    known = run.tables.read("evaluations").where("metric = 'churn'").select("category", "version", "against")
    pairs = [(v.category, v.version, v.live_version) for v in versions if v.live_version]
    wanted = local_frame(run.spark, pairs, _COMPARED)
    todo = {tuple(row) for row in wanted.join(known, known.columns, "left_anti").collect()}
    return [v for v in versions if (v.category, v.version, v.live_version) in todo]


def churn(run: Run, versions: Sequence[Version], products: DataFrame) -> DataFrame:
    """Rows of `evaluations` for `versions`, each compared with the live version that it was found to replace.

    A product's churn is the share of its CHURN_K nearest in the live version that are not among its CHURN_K nearest in
    the new one. Measured on those of `products` (category, version, product_id) that have similar items in both.
    """
    pairs = local_frame(run.spark, [(v.category, v.version, v.live_version) for v in versions], _COMPARED)
    items = run.tables.read("similar_items").where(F.col("rank") <= CHURN_K)
    items = items.where(among({v.category for v in versions}))
    key = ["category", "version", "against", "product_id"]
    now, before = (
        items.withColumnRenamed("version", name)
        .join(F.broadcast(pairs), ["category", name])
        .join(products, ["category", "version", "product_id"])
        .select(*key, "similar_product_id", F.lit(name == "against").alias("live"))
        for name in ("version", "against")
    )
    found = F.collect_list(F.when(~F.col("live"), F.col("similar_product_id")))
    live = F.collect_list(F.when(F.col("live"), F.col("similar_product_id")))
    by_product = now.union(before).groupBy(*key).agg(found.alias("found"), live.alias("live"))
    lost = F.size(F.array_except("live", "found")) / F.size("live")
    shares = by_product.where((F.size("live") > 0) & (F.size("found") > 0)).select(*key[:3], lost.alias("lost"))
    means = shares.groupBy(*key[:3]).agg(F.avg("lost").alias("value"), F.count("lost").alias("n"))
    return _with_interval(pairs.join(means, key[:3], "left"), run)


def _with_interval(means: DataFrame, run: Run) -> DataFrame:
    """A row per version, collected: with its interval, and null where no product could be compared."""
    rows = []
    for row in means.collect():
        low, high = wilson_interval(row["value"], row["n"]) if row["n"] else (None, None)
        rows.append({**row.asDict(), "metric": "churn", "n": row["n"] or 0, "low": low, "high": high})
    table = pa.Table.from_pylist([{**row, "run_id": run.run_id} for row in rows], schemas.EVALUATIONS)
    return run.spark.createDataFrame(table)
