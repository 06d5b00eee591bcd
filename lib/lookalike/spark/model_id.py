"""Which model a run's embeddings are of."""

from lookalike.spark.run import Run


def current_model_id(run: Run) -> str:
    """Model of this run's embeddings: the configured one's, or `given-DIM` where the manifest brings embeddings."""
    if run.given_dim:
        return f"given-{run.given_dim}"
    # Here, as torch takes ten seconds to import.
    from lookalike.kernels.models import load_model

    return load_model(run.settings.model).model_id
