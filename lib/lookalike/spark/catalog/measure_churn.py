"""Churn: how many of the neighbours that shoppers see now a new version would take away."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.kernels.evaluation.metrics import wilson_interval
from lookalike.spark.catalog.versions import Version
from lookalike.spark.tables import VERSION, Tables, make_local_frame, select_versions

CHURN_K = 10
CHURN_KEY = ("category", "version", "metric", "against")

_PLACES = pa.schema([*VERSION, pa.field("new", pa.string()), pa.field("against", pa.string())])


def find_uncompared(tables: Tables, versions: Sequence[Version]) -> list[Version]:
    """Those of `versions` whose churn against what is live is not measured yet."""
    pairs = {(v.category, v.version, "churn", v.live_version): v for v in versions if v.live_version}
    return [pairs[key] for key in tables.lacking("evaluations", CHURN_KEY, pairs)]


def measure_churn(versions: Sequence[Version], similar_items: DataFrame, products: DataFrame, run_id: str) -> pa.Table:
    """Rows of `evaluations` for `versions`, each compared with the live version that it is to replace.

    A product's churn is the share of its CHURN_K nearest in the live version that are not among its CHURN_K nearest in
    the new one. Measured on those of `products` (category, version, product_id) that have similar items in both.
    """
    pairs = [(v.category, v.version, v.live_version) for v in versions if v.live_version]
    places = [(category, version, new, live) for category, new, live in pairs for version in (new, live)]
    items = select_versions(similar_items, {place[:2] for place in places})
    key = ["category", "new", "against", "product_id"]
    compared = (
        items.where(F.col("rank") <= CHURN_K)
        .join(F.broadcast(make_local_frame(products.sparkSession, places, _PLACES)), VERSION.names)
        .join(products.withColumnRenamed("version", "new"), ["category", "new", "product_id"])
    )
    is_new = F.col("version") == F.col("new")
    new = F.collect_list(F.when(is_new, F.col("similar_product_id")))
    live = F.collect_list(F.when(~is_new, F.col("similar_product_id")))
    by_product = compared.groupBy(*key).agg(new.alias("near_new"), live.alias("near_live"))
    lost = F.size(F.array_except("near_live", "near_new")) / F.size("near_live")
    shares = by_product.where((F.size("near_live") > 0) & (F.size("near_new") > 0)).select(*key[:3], lost.alias("lost"))
    means = shares.groupBy(*key[:3]).agg(F.avg("lost").alias("value"), F.count("lost").alias("n")).collect()
    by_pair = {tuple(row)[:3]: row for row in means}
    return pa.Table.from_pylist([_row(run_id, *pair, by_pair.get(pair)) for pair in pairs], schemas.EVALUATIONS)


def _row(run_id: str, category: str, version: str, against: str, mean: Row | None) -> dict[str, Any]:
    """With its interval; null where no product could be compared."""
    row = {"category": category, "version": version, "metric": "churn", "against": against, "run_id": run_id}
    if mean is None:
        return row | {"n": 0}
    low, high = wilson_interval(mean["value"], mean["n"])
    return row | {"value": mean["value"], "low": low, "high": high, "n": mean["n"]}
