"""A canvas that composes shaded parts into one cut-out product picture.

A part is an outline with a surface. Its edges are rounded by the method of inflated masks: the blurred mask is a height
field, whose slopes are lit from the upper left. Parts laid later cast a soft shadow on those below.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lookalike.sample.outlines import Points, smooth
from lookalike.sample.patterns import Plane, weight

RGB = tuple[int, int, int]
LIGHT = np.array([-0.42, -0.55, 0.72], np.float32)
SUPERSAMPLE = 3  # masks are drawn this much larger, then averaged
COARSE = 3  # shading is smooth, so it is computed this much smaller


@dataclass(frozen=True)
class Surface:
    """What a part is made of. Lengths in canvas units."""

    color: RGB
    accent: RGB = (255, 255, 255)
    pattern: str = "plain"
    scale: float = 1.0  # size of the pattern
    folds: float = 0.0  # depth of cloth folds
    gloss: float = 0.0  # strength of highlights, 0 to 1
    bevel: float = 0.018  # radius of rounded edges
    turned: bool = False  # a body of revolution about a vertical axis
    opacity: float = 1.0


def tinted(color: RGB, factor: float) -> RGB:
    """`color` darkened (factor below 1) or lightened towards white (above 1)."""
    if factor <= 1:
        return (round(color[0] * factor), round(color[1] * factor), round(color[2] * factor))
    share = min(factor - 1, 1.0)
    return (_lift(color[0], share), _lift(color[1], share), _lift(color[2], share))


def _lift(value: int, share: float) -> int:
    return round(value + (255 - value) * share)


class Canvas:
    """A square of `pixels` a side, transparent at first; `noise` varies folds and grain."""

    def __init__(self, pixels: int, noise: np.random.Generator) -> None:
        self.pixels = pixels
        self._noise = noise
        self._rgb = np.zeros((pixels, pixels, 3), np.float32)  # premultiplied by alpha, 0 to 255
        self._alpha = np.zeros((pixels, pixels, 1), np.float32)

    def add(self, outline: Points, surface: Surface, holes: Sequence[Points] = (), shadow: float = 0.35) -> None:
        """Lay a part over what is there; `shadow` is how dark the shadow is that it casts on the parts below."""
        left, top, right, bottom = self._bounds(outline)
        if right <= left or bottom <= top:
            return
        mask = self._mask([outline], holes, (left, top, right, bottom))
        shade, shine = self._shading(mask, surface)
        rgb = self._paint(mask, surface, left, top) * shade[..., None]
        rgb += (255 - rgb) * shine[..., None]
        alpha = mask[..., None] * np.float32(surface.opacity)
        below = self._rgb[top:bottom, left:right]
        if shadow:
            below *= (
                1 - np.float32(shadow) * _shifted(_blurred(mask, self.pixels * 0.012), self.pixels // 120)[..., None]
            )
        below += (rgb - below) * alpha
        ground = self._alpha[top:bottom, left:right]
        ground += (1 - ground) * alpha

    def line(self, path: Points, width: float, color: RGB, opacity: float = 1.0) -> None:
        """Draw a thin line along `path`, only where there are parts: seams, stitches, creases."""
        self._stamp([_thick(path, width)], color, opacity)

    def creases(self, paths: Sequence[Points], width: float, depth: float) -> None:
        """Dark folds with a bright flank along the paths."""
        self._stamp([_thick(path, width) for path in paths], (0, 0, 0), depth)
        flank = np.array([width * 0.9, 0])
        self._stamp([_thick(path - flank, width) for path in paths], (255, 255, 255), depth * 0.6)

    def image(self) -> Image.Image:
        """The cut-out, RGBA."""
        rgb = self._rgb / np.maximum(self._alpha, 1e-3)
        grain = self._noise.standard_normal((self.pixels, self.pixels, 1), np.float32) * np.float32(1.6)
        pixels = np.concatenate([np.clip(rgb + grain, 0, 255), self._alpha * 255], axis=2)
        return Image.fromarray((pixels + 0.5).astype(np.uint8), "RGBA")

    def _stamp(self, outlines: Sequence[Points], color: RGB, opacity: float) -> None:
        left, top, right, bottom = self._bounds(np.concatenate(outlines))
        if right <= left or bottom <= top:
            return
        mask = self._mask(outlines, (), (left, top, right, bottom))[..., None] * np.float32(opacity)
        below = self._rgb[top:bottom, left:right]
        ink = np.array(color, np.float32) * self._alpha[top:bottom, left:right]
        below += (ink - below) * mask

    def _bounds(self, outline: Points) -> tuple[int, int, int, int]:
        margin = self.pixels * 0.03
        low = np.clip(outline.min(axis=0) * self.pixels - margin, 0, self.pixels).astype(int)
        high = np.clip(outline.max(axis=0) * self.pixels + margin, 0, self.pixels).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def _mask(self, outlines: Sequence[Points], holes: Sequence[Points], bounds: tuple[int, int, int, int]) -> Plane:
        left, top, right, bottom = bounds
        image = Image.new("L", ((right - left) * SUPERSAMPLE, (bottom - top) * SUPERSAMPLE))
        draw = ImageDraw.Draw(image)
        for polygons, ink in ((outlines, 255), (holes, 0)):
            for polygon in polygons:
                corners = (polygon * self.pixels - (left, top)) * SUPERSAMPLE
                draw.polygon([(float(x), float(y)) for x, y in corners], fill=ink)
        return np.asarray(image.reduce(SUPERSAMPLE), np.float32) / np.float32(255)

    def _paint(self, mask: Plane, surface: Surface, left: int, top: int) -> NDArray[np.float32]:
        """Colours (h, w, 3) of the part before light."""
        color = np.array(surface.color, np.float32)
        if surface.pattern == "plain":
            return np.broadcast_to(color, (*mask.shape, 3)).copy()
        height, width = mask.shape
        x: Plane = (np.arange(left, left + width, dtype=np.float32) / np.float32(self.pixels))[None, :]
        y: Plane = (np.arange(top, top + height, dtype=np.float32) / np.float32(self.pixels))[:, None]
        if surface.turned:
            across, radius = _turn(mask)
            x = np.arcsin(np.clip(across, -1, 1)) * np.median(radius) / np.float32(self.pixels)
        accent = weight(surface.pattern, x, y, surface.scale, self.pixels)[..., None]
        painted = color + (np.array(surface.accent, np.float32) - color) * accent
        return painted.astype(np.float32)

    def _shading(self, mask: Plane, surface: Surface) -> tuple[Plane, Plane]:
        """Brightness and highlights (h, w) of the part."""
        height, width = mask.shape
        small = _resized(mask, max(width // COARSE, 2), max(height // COARSE, 2))
        inflated = _box_blurred(small, surface.bevel * self.pixels / COARSE)
        relief = inflated * np.float32(surface.bevel * self.pixels / COARSE * 1.5)
        if surface.folds:
            relief = relief + self._folds(small.shape) * np.float32(surface.folds * self.pixels / COARSE)
        slope_y, slope_x = np.gradient(relief)
        steep = np.sqrt(slope_x**2 + slope_y**2 + 1)
        lit = (LIGHT[2] - slope_x * LIGHT[0] - slope_y * LIGHT[1]) / (steep * LIGHT[2])
        shade = (0.42 + 0.58 * lit) * (0.8 + 0.2 * np.clip(inflated * 2 - 1, 0, 1))
        shine = surface.gloss * np.clip(lit - 1.12, 0, 1) * 1.6
        if surface.turned:
            across, _ = _turn(small)
            shade = shade * (1.08 - 0.5 * (across + 0.28) ** 2)
            shine = shine + surface.gloss * (
                0.75 * np.exp(-(((across + 0.52) / 0.1) ** 2)) + 0.25 * np.exp(-(((across - 0.72) / 0.08) ** 2))
            )
        return _resized(shade, width, height), _resized(np.clip(shine, 0, 0.9), width, height)

    def _folds(self, shape: tuple[int, ...]) -> Plane:
        height, width = shape
        cell = self.pixels / COARSE
        across, down = max(3, int(width / cell * 16)), max(3, int(height / cell * 4))
        drape = _resized(self._noise.standard_normal((down, across), np.float32), width, height)
        across, down = max(3, int(width / cell * 9)), max(3, int(height / cell * 9))
        crumple = _resized(self._noise.standard_normal((down, across), np.float32), width, height)
        return drape + crumple * np.float32(0.6)


def _thick(path: Points, width: float) -> Points:
    direction = np.gradient(path, axis=0)
    normal = direction[:, ::-1] * (-1, 1) / np.maximum(np.hypot(*direction.T), 1e-9)[:, None]
    return np.concatenate([path + normal * width / 2, (path - normal * width / 2)[::-1]])


def line_through(*points: tuple[float, float]) -> Points:
    """An open smooth path, to draw with `Canvas.line`."""
    return smooth(points, closed=False)


def _turn(mask: Plane) -> tuple[Plane, Plane]:
    """For each pixel how far across the body it is, -1 (left edge) to 1; and each row's radius (h, 1)."""
    width = mask.shape[1]
    inside = mask > 0.5
    first = np.argmax(inside, axis=1)
    last = width - 1 - np.argmax(inside[:, ::-1], axis=1)
    radius = np.maximum((last - first) / 2, 1).astype(np.float32)[:, None]
    centre = ((first + last) / 2).astype(np.float32)[:, None]
    across = (np.arange(width, dtype=np.float32)[None, :] - centre) / radius
    return np.clip(across, -1.1, 1.1), radius


def _resized(plane: Plane, width: int, height: int) -> Plane:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def _box_blurred(plane: Plane, radius: float) -> Plane:
    """Two box blurs, close to a Gaussian of that radius, in float so that slopes stay smooth."""
    reach = max(1, round(radius))
    for axis in (0, 1):
        for _ in range(2):
            pad = [(reach + 1, reach) if a == axis else (0, 0) for a in (0, 1)]
            total = np.cumsum(np.pad(plane, pad), axis=axis, dtype=np.float32)
            size = plane.shape[axis]
            upper = np.take(total, range(2 * reach + 1, 2 * reach + 1 + size), axis=axis)
            plane = (upper - np.take(total, range(size), axis=axis)) / np.float32(2 * reach + 1)
    return plane


def _blurred(mask: Plane, radius: float) -> Plane:
    height, width = mask.shape
    small = _resized(mask, max(width // COARSE, 2), max(height // COARSE, 2))
    return _resized(_box_blurred(small, radius / COARSE), width, height)


def _shifted(plane: Plane, pixels: int) -> Plane:
    """The plane moved right and down, as a shadow of light from the upper left."""
    return np.pad(plane, ((pixels, 0), (pixels, 0)))[: plane.shape[0], : plane.shape[1]]
