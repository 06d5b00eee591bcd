"""Which pictures of the ledger a training takes, on which side of the split, and the numbers of their classes.

Of each content there is one picture, and products that share one are on one side: what the validation measures was
not trained on.
"""

from collections import Counter

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lookalike import reasons
from lookalike.config import FineTuneSettings
from lookalike.spark.tables import make_local_frame

OWN_LABELS = {"product": "product_id", "category": "category"}
"""Kinds of labels that are no attributes, and their columns."""

_HASHES = 1_000_000
_BUCKETS = 64
_STARTS = pa.schema({"kind": pa.string(), "unseen": pa.bool_(), "bucket": pa.int64(), "start": pa.int32()})
# A picture of more products than this is a stopgap, such as "no photo yet", and they need not be one thing.
_SHARED_BY = 10


def judge_images(images: DataFrame, manifest: DataFrame, model_id: str, spec: FineTuneSettings) -> DataFrame:
    """Those ledger rows `images` that are in the manifest, each with `labels`, `unit`, and the `reason` to skip it.

    `labels`: kind -> value. `unit`: the product, or the value of the attribute to split by.
    """
    ids = manifest.select(F.col("image_id").alias("of_manifest")).distinct()
    rows = images.join(ids, F.col("image_id").eqNullSafe(F.col("of_manifest")), "left_semi")
    kinds = F.create_map(*[part for kind in spec.labels for part in (F.lit(kind), _label(kind))])
    rows = rows.withColumn("labels", F.map_filter(kinds, lambda _, value: value.isNotNull()))
    rows = rows.withColumn("unit", _attribute(spec.split_by) if spec.split_by else F.col("product_id"))
    embedded = F.col("status").isin("embedded", "reused") & (F.col("model_id") == model_id)
    reason = (
        F.when(F.col("deleted"), reasons.DELETED.text)
        .when(F.col("status") == "rejected", reasons.REJECTED_BEFORE.text)
        .when(~F.coalesce(embedded, F.lit(False)), reasons.NOT_EMBEDDED.text)
        .when(F.size("labels") == 0, reasons.NO_LABEL.text)
        .when(F.col("unit").isNull(), reasons.NO_UNIT.filled(attribute=spec.split_by))
    )
    rows = rows.withColumn("reason", reason)
    # Kept is the copy with the most labels.
    order = (F.col("reason").isNull().desc(), F.size("labels").desc(), "product_id", "image_id")
    copies = Window.partitionBy(F.coalesce("content_hash", "image_id")).orderBy(*order)
    copy = F.when(F.row_number().over(copies) > 1, reasons.COPY.text)
    columns = ["image_id", "product_id", "category", "title", "attributes", "uri", "content_hash", "labels", "unit"]
    return rows.select(*columns, F.coalesce("reason", copy).alias("reason"))


def _label(kind: str) -> Column:
    return F.col(OWN_LABELS[kind]) if kind in OWN_LABELS else _attribute(kind)


def _attribute(name: str) -> Column:
    return F.nullif(F.trim(F.try_element_at("attributes", F.lit(name))), F.lit(""))


def attach_splits(judged: DataFrame, spec: FineTuneSettings) -> DataFrame:
    """`judged` with `split` in place of `unit`: by the hash of the least unit with which a unit shares a picture.

    So copies' units are on one side. Longer chains may be cut, which no picture is on both sides of.
    """
    pairs = (
        judged.where(F.col("reason").isNull() | (F.col("reason") == reasons.COPY.text))
        .select("content_hash", "unit")
        .distinct()
    )
    shared = pairs.groupBy("content_hash").agg(F.min("unit").alias("least"), F.count("*").alias("units"))
    shared = shared.where(F.col("units").between(2, _SHARED_BY)).drop("units")
    linked = pairs.join(shared, "content_hash").groupBy("unit").agg(F.min("least").alias("least"))
    side = F.pmod(F.xxhash64(F.lit(spec.seed), F.coalesce("least", "unit")), F.lit(_HASHES))
    split = F.when(side < spec.validation_share * _HASHES, "validation").otherwise("train")
    return judged.join(linked, "unit", "left").withColumn("split", split).drop("unit", "least")


def number_labels(chosen: DataFrame) -> tuple[DataFrame, dict[str, int]]:
    """(image_id, labels: kind -> number), and by kind how many classes are in training: these have the first numbers.

    Numbered by hash, then by value, so that no task has to see all classes.
    """
    each = chosen.select("image_id", "split", F.explode("labels").alias("kind", "value"))
    values = each.groupBy("kind", "value").agg((F.min("split") == "validation").alias("unseen"))
    group = ["kind", "unseen", "bucket"]
    values = values.withColumn("bucket", F.pmod(F.xxhash64("value"), F.lit(_BUCKETS)))
    starts, classes = [], dict[str, int]()
    total: Counter[str] = Counter()
    for row in values.groupBy(*group).count().orderBy(*group).collect():
        starts.append((row["kind"], row["unseen"], row["bucket"], total[row["kind"]]))
        total[row["kind"]] += row["count"]
        if not row["unseen"]:
            classes[row["kind"]] = total[row["kind"]]
    first = make_local_frame(chosen.sparkSession, starts, _STARTS)
    place = F.row_number().over(Window.partitionBy(*group).orderBy("value"))
    codes = values.withColumn("place", place).join(F.broadcast(first), group)
    codes = codes.select("kind", "value", (F.col("start") + F.col("place") - 1).alias("code"))
    entries = F.array_sort(F.collect_list(F.struct("kind", "code")))
    labels = each.join(codes, ["kind", "value"]).groupBy("image_id")
    return labels.agg(F.map_from_entries(entries).alias("labels")), classes
