"""Which model a run's embeddings are of. A module of its own, as loading a model brings torch to whoever imports it."""

from lookalike.kernels.models import load_model
from lookalike.spark.run import Run


def current_model_id(run: Run) -> str:
    """Model of this run's embeddings: the configured one's, or `given-DIM` where the manifest brings embeddings."""
    return f"given-{run.given_dim}" if run.given_dim else load_model(run.settings.model).model_id
