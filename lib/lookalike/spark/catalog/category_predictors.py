"""Predictors of categories: the one that serves a model."""

from collections.abc import Mapping
from typing import Any

from pyspark.sql import functions as F

from lookalike.kernels.categories.predictor import pick_latest
from lookalike.spark.tables import Tables

PredictorRow = Mapping[str, Any]
"""A row of `category_predictors`."""


def read_latest_predictor(tables: Tables, model_id: str) -> PredictorRow:
    """The row of the predictor that serves the model. Raises NotPredictable."""
    rows = tables.read("category_predictors").where(F.col("model_id") == model_id).collect()
    return pick_latest([row.asDict(recursive=True) for row in rows], model_id)
