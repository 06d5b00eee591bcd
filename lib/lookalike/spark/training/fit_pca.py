"""PCA with whitening, fitted to a catalog's embeddings, as a model of fewer dimensions (Jegou and Chum, 2012).

Each task sums its embeddings and their products in float64; the driver adds these sums, whose size depends on the
dimensions and on how many tasks there are, not on the catalog.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike.config import ModelSettings
from lookalike.errors import ModelInvalid
from lookalike.kernels.models.pca import Moments, fit_projection
from lookalike.spark.catalog.gallery import select_live
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.run import Run
from lookalike.spark.tables import to_spark_schema

_MOMENTS = pa.schema([("n", pa.int64()), ("sums", pa.binary())])


def fit_pca(run: Run, dim: int, whitening: float, out: str) -> str:
    """Write the current model with a projection to `dim` dimensions to `out`, a .safetensors file; gives its model_id.

    Fitted to the distinct contents of the selection. Raises ModelInvalid where there are too few, or `dim` is too much.
    """
    from lookalike.kernels.models import model_file  # here, as torch takes ten seconds to import
    from lookalike.kernels.models.load import load_model

    if run.given_dim:
        raise ModelInvalid("the manifest brings embeddings, which no model of ours makes: there is none to project")
    with run.stage("fit_pca") as figures:
        images = select_live(run.tables.read("images"), run.model_id).where(is_selected(run.selection))
        contents = images.select("content_hash").distinct()
        embeddings = run.tables.read("embeddings").where(F.col("model_id") == run.model_id)
        moments = sum_moments(embeddings.join(contents, "content_hash", "left_semi"))
        if moments is None:
            raise ModelInvalid(
                f"no selected image is embedded by the model {run.model_id}: run the pipeline with this model first"
            )
        if not 0 < dim < min(moments.n, moments.dim):
            raise ModelInvalid(
                f"{moments.n:,} embeddings of {moments.dim} dimensions can't be projected to {dim}: "
                "ask for fewer dimensions than the model has, and than there are embeddings"
            )
        figures.images = moments.n
        figures.counts = {"contents": moments.n}
        fitted = model_file.resolve(run.settings.model).with_projection(*fit_projection(moments, dim, whitening))
        model_file.write(out, fitted)
        return load_model(ModelSettings(name=out)).model_id


def sum_moments(embeddings: DataFrame) -> Moments | None:
    """Count, sum and second moments of the column `embedding`; None of no rows."""
    tasks = embeddings.sparkSession.sparkContext.defaultParallelism
    rows = embeddings.select("embedding").repartition(tasks).mapInArrow(_moments, to_spark_schema(_MOMENTS))
    total: Moments | None = None
    for row in rows.toLocalIterator():
        part = Moments.from_bytes(row["n"], row["sums"])
        total = part if total is None else total + part
    return total


def _moments(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    total: Moments | None = None
    for batch in batches:
        part = Moments.of(_matrix(batch["embedding"]))
        total = part if total is None else total + part
    if total is not None:
        yield pa.RecordBatch.from_pydict({"n": [total.n], "sums": [total.to_bytes()]}, schema=_MOMENTS)


def _matrix(column: pa.ListArray) -> NDArray[np.float32]:
    return np.asarray(column.flatten()).reshape(len(column), -1)
