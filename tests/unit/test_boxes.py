"""Boxes as people give them."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from lookalike.boxes import WHOLE, Box, read_box
from lookalike.errors import BoxInvalid


def test_four_shares_are_a_box() -> None:
    assert read_box([0.1, 0.2, 0.5, 1]) == Box(0.1, 0.2, 0.5, 1.0)
    assert read_box(np.array([0, 0, 1, 1], dtype=np.float32)) == WHOLE


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1, 0.2, 0.5], "give four numbers"),
        ([0.1, 0.2, 0.5, 0.6, 0.9], "give four numbers"),
        ([], "give four numbers"),
        ([[0.1, 0.2], [0.5, 0.6]], "give four numbers"),
        ([0.1, 0.2, float("nan"), 0.6], "must be finite"),
        ([0.1, 0.2, float("inf"), 0.6], "must be finite"),
        ([10, 20, 300, 400], "divide pixels by its width or height"),
        ([-0.1, 0.2, 0.5, 0.6], "from 0 to 1"),
        ([0.5, 0.2, 0.1, 0.6], "corners are exchanged"),
        ([0.1, 0.6, 0.5, 0.2], "corners are exchanged"),
        ([0.1, 0.2, 0.1, 0.6], "it has no area"),
        ([0.1, 0.2, 0.5, 0.2], "it has no area"),
    ],
)
def test_what_is_no_box_is_told(values: ArrayLike, message: str) -> None:
    with pytest.raises(BoxInvalid, match=message):
        read_box(values)
