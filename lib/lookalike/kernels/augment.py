"""Augmentation: what makes of a shop's picture something like a shopper's photo of the same thing."""

from collections.abc import Callable

from torch import Tensor


def augmenter(size_px: int, strength: float, seed: int) -> Callable[[Tensor, int], Tensor]:
    """A function of (pictures, step): uint8 (n, px, px, 3) -> uint8 (n, size_px, size_px, 3), on the pictures' device.

    Each picture is changed in its own way, by chance, but the same for the same `seed` and step. `strength`: 0 only
    resizes, 1 is the usual.
    """
    raise NotImplementedError
