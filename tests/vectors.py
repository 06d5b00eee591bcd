"""Vectors that tests make by hand."""

from typing import Any

import numpy as np


def unit(vectors: Any) -> Any:
    """(..., dim) as float32 of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
