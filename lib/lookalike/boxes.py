"""Boxes: a part of a picture, as shares of the upright picture's sides."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lookalike.errors import BoxInvalid


class Box(NamedTuple):
    """Left, top, right and bottom, each in [0, 1]."""

    x0: float
    y0: float
    x1: float
    y1: float


WHOLE = Box(0.0, 0.0, 1.0, 1.0)

Source = bytes | Callable[[], bytes]
"""A picture's bytes, or what reads them."""


@dataclass(frozen=True)
class Crop:
    """The part of a picture that is in the box."""

    source: Source
    box: Box


def read_box(values: ArrayLike) -> Box:
    """Take `values` as a box. Raises BoxInvalid, with what is wrong."""
    numbers = np.asarray(values, dtype=np.float64)
    given = f"box {numbers.tolist()}"
    if numbers.shape != (4,):
        raise BoxInvalid(f"{given}: give four numbers, left, top, right and bottom")
    if not np.isfinite(numbers).all():
        raise BoxInvalid(f"{given}: the numbers must be finite")
    if numbers.max() > 1 or numbers.min() < 0:
        raise BoxInvalid(
            f"{given}: give shares of the picture's sides, from 0 to 1; divide pixels by its width or height"
        )
    box = Box(*numbers.tolist())
    if box.x1 < box.x0 or box.y1 < box.y0:
        raise BoxInvalid(f"{given}: corners are exchanged; give left, top, right and bottom in this order")
    if box.x1 == box.x0 or box.y1 == box.y0:
        raise BoxInvalid(f"{given}: it has no area")
    return box
