"""What another model made and was live before: the versions that those of the report were compared with."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lookalike.spark.run import Run


def replaced_by_model(run: Run, shown: DataFrame, model_id: str) -> DataFrame:
    """(category, version, replaced, model_id) of those of `shown` (category, version) that replace another model's.

    Where several models are replaced, only the one of most categories: the page shows two side by side.
    """
    compared = run.tables.read("evaluations").where("metric = 'churn'").select("category", "version", "against")
    models = (
        run.tables.read("shards").where("shard = 0").select("category", F.col("version").alias("replaced"), "model_id")
    )
    size = F.count("*").over(Window.partitionBy("model_id"))
    replaced = (
        compared.join(F.broadcast(shown), ["category", "version"], "left_semi")
        .withColumnRenamed("against", "replaced")
        .join(models, ["category", "replaced"])
        .where(F.col("model_id") != model_id)
        .withColumn("size", size)
        .localCheckpoint()
    )
    most = replaced.orderBy(F.desc("size"), "model_id").first()
    chosen = replaced.where(F.col("model_id") == F.lit(most["model_id"] if most else None))
    return chosen.select("category", "version", "replaced", "model_id").dropDuplicates(["category", "version"])
