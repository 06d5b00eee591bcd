"""Patterns of cloth and glaze: for each pixel, how much of the accent colour shows, 0 to 1."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]
"""(h, w) float32, one value a pixel."""

Pattern = Callable[[Plane, Plane, float], Plane]
"""(x, y, sharpness) -> weight: x and y count repeats of the pattern, sharpness is pixels per repeat."""


def _edge(signed: Plane, sharpness: float) -> Plane:
    """1 inside (`signed` > 0), 0 outside, with a border one pixel wide."""
    weight: Plane = np.clip(signed * np.float32(sharpness) + np.float32(0.5), 0, 1)
    return weight


def _wave(t: Plane) -> Plane:
    """A triangle wave of period 1 between 0 and 0.5: the distance from the nearest whole number."""
    return np.abs(t - np.round(t))


def plain(x: Plane, y: Plane, sharpness: float) -> Plane:  # noqa: ARG001 - one signature for all patterns
    return np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)


def stripes(x: Plane, y: Plane, sharpness: float) -> Plane:
    return _edge(_wave(y + 0 * x) - np.float32(0.27), sharpness)


def pinstripes(x: Plane, y: Plane, sharpness: float) -> Plane:
    return 0.8 * _edge(np.float32(0.07) - _wave(x * 1.6 + 0 * y), sharpness / 1.6)


def diagonals(x: Plane, y: Plane, sharpness: float) -> Plane:
    return _edge(_wave((x + y) * 0.8) - np.float32(0.3), sharpness)


def checks(x: Plane, y: Plane, sharpness: float) -> Plane:
    return (_edge(_wave(x) - np.float32(0.25), sharpness) + _edge(_wave(y) - np.float32(0.25), sharpness)) / 2


def tartan(x: Plane, y: Plane, sharpness: float) -> Plane:
    wide = _edge(_wave(x * 0.6) - 0.3, sharpness) + _edge(_wave(y * 0.6) - 0.3, sharpness)
    thin = _edge(0.03 - _wave(x * 0.6 + 0.1), sharpness) + _edge(0.03 - _wave(y * 0.6 + 0.1), sharpness)
    return np.clip(0.38 * wide + 0.7 * thin, 0, 1)


def dots(x: Plane, y: Plane, sharpness: float) -> Plane:
    row = np.round(y * 1.2)
    return _edge(np.float32(0.24) - np.hypot(_wave(x + row / 2), _wave(y * 1.2)), sharpness)


def chevron(x: Plane, y: Plane, sharpness: float) -> Plane:
    return _edge(_wave(y + _wave(x * 0.8)) - np.float32(0.25), sharpness)


def diamonds(x: Plane, y: Plane, sharpness: float) -> Plane:
    return _edge(np.float32(0.3) - _wave(x * 0.7) - _wave(y * 0.5), sharpness)


def floral(x: Plane, y: Plane, sharpness: float) -> Plane:
    """Five-petalled flowers with a hole in the middle, each cell's turned its own way."""
    u, v = x * 0.62, y * 0.62
    v = v + np.round(u) * np.float32(0.5)
    du, dv = u - np.round(u), v - np.round(v)
    turn = (np.round(u) * 2.1 + np.round(v) * 3.7).astype(np.float32)
    radius, angle = np.hypot(du, dv), np.arctan2(dv, du) + turn
    petals = _edge(np.float32(0.25) + 0.11 * np.cos(5 * angle) - radius, sharpness)
    return petals * (1 - 0.85 * _edge(np.float32(0.07) - radius, sharpness))


def blocks(x: Plane, y: Plane, sharpness: float) -> Plane:
    """Colour blocking: the accent below a line through the middle of the canvas."""
    return _edge(y - np.float32(7.0) + 0 * x, sharpness)


PATTERNS: dict[str, Pattern] = {
    "plain": plain,
    "stripes": stripes,
    "pinstripes": pinstripes,
    "diagonals": diagonals,
    "checks": checks,
    "tartan": tartan,
    "dots": dots,
    "chevron": chevron,
    "diamonds": diamonds,
    "floral": floral,
    "blocks": blocks,
}
"""By the value of the attribute `pattern`."""

REPEATS = 14.0
"""Repeats of a pattern across the canvas at scale 1."""


def weight(name: str, x: Plane, y: Plane, scale: float, pixels: int) -> Plane:
    """Accent weight (h, w) at canvas coordinates `x`, `y`, on a canvas `pixels` wide."""
    repeats = np.float32(REPEATS / scale)
    return PATTERNS[name](x * repeats, y * repeats, pixels / float(repeats)).astype(np.float32)
