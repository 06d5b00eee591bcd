"""Outlines in canvas units: the canvas is 1 wide and 1 high, x to the right, y down. All arrays are (n, 2) float."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Pairs = Sequence[tuple[float, float]]


def smooth(points: Pairs | Points, closed: bool = True, steps: int = 10) -> Points:
    """A Catmull-Rom curve through `points` (in Hermite form); a point given twice is a corner."""
    knots = np.asarray(points, float)
    ends = (knots[-1:], knots[:1]) if closed else (knots[:1], knots[-1:])
    around = np.concatenate([ends[0], knots, ends[1]])
    before, after = around[1:-1] - around[:-2], around[2:] - around[1:-1]
    corner = ~(before.any(axis=1) & after.any(axis=1))
    tangent = np.where(corner[:, None], 0, (before + after) / 2)
    if closed:
        knots, tangent = np.concatenate([knots, knots[:1]]), np.concatenate([tangent, tangent[:1]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    blend = t * t * (3 - 2 * t)
    start, end = knots[:-1, None], knots[1:, None]
    curve = start + (end - start) * blend + tangent[:-1, None] * t * (1 - t) ** 2 - tangent[1:, None] * t * t * (1 - t)
    flat = curve[np.abs(end - start).any(axis=(1, 2))].reshape(-1, 2)
    return flat if closed else np.concatenate([flat, knots[-1:]])


def mirrored(points: Pairs | Points, centre: float = 0.5) -> Points:
    """The points seen in a vertical mirror at x = `centre`."""
    return np.asarray(points, float) * (-1, 1) + (2 * centre, 0)


def symmetric(right: Pairs, centre: float = 0.5) -> Points:
    """A smooth closed outline of a right half, given from top to bottom, and its mirror image."""
    half = np.asarray(right, float)
    return smooth(np.concatenate([half, mirrored(half[::-1], centre)]))


def ribbon(path: Pairs | Points, width: float, end_width: float | None = None) -> Points:
    """The outline of a band along the smooth `path`, `width` wide at its start and `end_width` at its end."""
    line = smooth(path, closed=False)
    direction = np.gradient(line, axis=0)
    length = np.hypot(*direction.T)[:, None]
    normal = direction[:, ::-1] * (-1, 1) / np.maximum(length, 1e-9)
    half = np.linspace(width, width if end_width is None else end_width, len(line))[:, None] / 2
    return np.concatenate([line + normal * half, (line - normal * half)[::-1]])


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def rounded(left: float, top: float, right: float, bottom: float, radius: float) -> Points:
    """A rectangle with round corners."""
    quarter = np.linspace(0, np.pi / 2, 8)
    centres = [
        (right - radius, top + radius, -np.pi / 2),
        (right - radius, bottom - radius, 0.0),
        (left + radius, bottom - radius, np.pi / 2),
        (left + radius, top + radius, np.pi),
    ]
    corners = [(x + radius * np.cos(quarter + a), y + radius * np.sin(quarter + a)) for x, y, a in centres]
    return np.concatenate([np.stack(corner, axis=1) for corner in corners])


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
