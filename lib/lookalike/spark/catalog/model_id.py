"""Which model a run's embeddings are of."""

from lookalike.errors import ModelMismatch, NotPublished
from lookalike.spark.catalog.audit import live
from lookalike.spark.catalog.gallery import embedded_images
from lookalike.spark.category_conditions import covered
from lookalike.spark.run import Run


def current_model_id(run: Run) -> str:
    """Model of this run's embeddings: the configured one's, or `given-DIM` where the manifest brings embeddings."""
    if run.given_dim:
        return f"given-{run.given_dim}"
    # Here, as torch takes ten seconds to import.
    from lookalike.kernels.models.load import load_model

    return load_model(run.settings.model).model_id


def embedding_model_id(run: Run, of_all: bool = False) -> str:
    """The current model, by which images of the selection are embedded, or `of_all` of them.

    Raises ModelMismatch where they are embedded by other models. A catalog without any embedded image is none's.
    """
    model_id = current_model_id(run)
    images = embedded_images(run.tables.read("images")).where(covered(run.selection))
    others = {row["model_id"]: row["count"] for row in images.groupBy("model_id").count().collect()}
    ours = others.pop(model_id, 0)
    if others and (of_all or not ours):
        said = ", ".join(f"{count:,} by {name}" for name, count in sorted(others.items()))
        raise ModelMismatch(
            f"the settings' model is {model_id}, by which the last runs embedded {ours:,} of these images, others "
            f"{said}: give the settings of those runs, or run the pipeline with this model, which embeds nothing twice"
        )
    return model_id


def live_model_id(run: Run) -> str:
    """Model of all that is live. Raises NotPublished where nothing is, ModelMismatch where models differ."""
    models = sorted(row["model_id"] for row in live(run).select("model_id").distinct().collect())
    if not models:
        raise NotPublished(f"nothing is published under {run.settings.root}: run the pipeline first")
    if len(models) > 1:
        raise ModelMismatch(
            f"the live categories under {run.settings.root} have several models: {', '.join(models)}; run the pipeline "
            "with one of them, so that all are of that one"
        )
    return str(models[0])
