"""How one product looks: what every drawing function gets besides the canvas."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from lookalike.sample.canvas import Canvas, Surface, tinted


@dataclass(frozen=True)
class Look:
    """`shape`: words, which are attributes too; `vary`: measures, the same for all colours of a style."""

    main: Surface
    shape: Mapping[str, str]
    vary: np.random.Generator

    def between(self, low: float, high: float) -> float:
        return float(self.vary.uniform(low, high))

    @property
    def trim(self) -> Surface:
        """Plain, in the accent colour."""
        return replace(self.main, color=self.main.accent, pattern="plain")

    @property
    def solid(self) -> Surface:
        """The main colour without its pattern."""
        return replace(self.main, pattern="plain")

    def shade(self, factor: float) -> Surface:
        """The main surface without pattern, darker or lighter."""
        return replace(self.main, color=tinted(self.main.color, factor), pattern="plain")


Draw = Callable[[Canvas, Look], None]


@dataclass(frozen=True)
class Kind:
    """A leaf of the category tree: how its products are drawn and what they may be."""

    category: str
    nouns: tuple[str, ...]
    draw: Draw
    shape: Mapping[str, tuple[str, ...]]
    materials: tuple[str, ...]
    patterns: tuple[str, ...] = ("plain",)
    stands: bool = False  # on the ground, rather than hung or laid flat
    size: float = 0.3  # height in a room, as a share of the room's


METAL = Surface((196, 198, 204), gloss=0.8, bevel=0.008)
BRASS = Surface((205, 168, 96), gloss=0.8, bevel=0.008)
WOOD = Surface((176, 124, 76), gloss=0.15, bevel=0.01)
RUBBER = Surface((244, 242, 236), bevel=0.012, gloss=0.1)
DARK = Surface((46, 44, 48), bevel=0.008, gloss=0.15)
