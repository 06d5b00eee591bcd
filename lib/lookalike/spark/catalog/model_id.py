"""Which models the catalog's embeddings are of, and whether a run may go on with its own."""

from lookalike.errors import ModelMismatch, NotPublished
from lookalike.spark.catalog.audit import read_live
from lookalike.spark.catalog.gallery import select_embedded
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.run import Run


def check_embedded_by_run_model(run: Run, of_all: bool = False) -> None:
    """Raises ModelMismatch where other models embedded the selection's images: all of them, or with `of_all` any.

    A catalog without any embedded image is none's.
    """
    images = select_embedded(run.tables.read("images")).where(is_selected(run.selection))
    others = {row["model_id"]: row["count"] for row in images.groupBy("model_id").count().collect()}
    ours = others.pop(run.model_id, 0)
    if others and (of_all or not ours):
        said = ", ".join(f"{count:,} by {name}" for name, count in sorted(others.items()))
        raise ModelMismatch(
            f"the settings' model is {run.model_id}, by which the last runs embedded {ours:,} of these images, others "
            f"{said}: give the settings of those runs, or run the pipeline with this model, which embeds nothing twice"
        )


def read_live_model_id(run: Run) -> str:
    """Model of all that is live. Raises NotPublished where nothing is, ModelMismatch where models differ."""
    models = sorted(row["model_id"] for row in read_live(run.tables).select("model_id").distinct().collect())
    if not models:
        raise NotPublished(f"nothing is published under {run.settings.root}: run the pipeline first")
    if len(models) > 1:
        raise ModelMismatch(
            f"the live categories under {run.settings.root} have several models: {', '.join(models)}; run the pipeline "
            "with one of them, so that all are of that one"
        )
    return str(models[0])
