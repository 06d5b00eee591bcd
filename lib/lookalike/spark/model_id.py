"""Which model a run's embeddings are of."""

from lookalike.errors import ModelMismatch, NotPublished
from lookalike.spark.audit import live
from lookalike.spark.run import Run


def current_model_id(run: Run) -> str:
    """Model of this run's embeddings: the configured one's, or `given-DIM` where the manifest brings embeddings."""
    if run.given_dim:
        return f"given-{run.given_dim}"
    # Here, as torch takes ten seconds to import.
    from lookalike.kernels.models import load_model

    return load_model(run.settings.model).model_id


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
