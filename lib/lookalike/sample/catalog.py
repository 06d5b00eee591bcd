"""The products of the sample catalog: what there is, before anything is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from lookalike.sample import carried, clothes, home
from lookalike.sample.canvas import RGB, Canvas, Surface
from lookalike.sample.look import Kind, Look

KINDS = (*clothes.KINDS, *carried.KINDS, *home.KINDS)

COLORS: dict[str, RGB] = {
    "ivory": (240, 236, 226),
    "sand": (214, 192, 160),
    "camel": (190, 142, 92),
    "chocolate": (98, 66, 50),
    "black": (40, 40, 44),
    "grey": (146, 150, 156),
    "navy": (40, 56, 98),
    "cobalt": (44, 92, 178),
    "sky": (140, 182, 214),
    "teal": (38, 124, 126),
    "forest": (44, 92, 66),
    "sage": (156, 176, 144),
    "olive": (118, 116, 66),
    "mustard": (214, 164, 54),
    "lemon": (242, 216, 112),
    "coral": (236, 122, 98),
    "rust": (176, 86, 50),
    "red": (188, 44, 50),
    "burgundy": (112, 34, 52),
    "rose": (222, 156, 160),
    "blush": (240, 206, 198),
    "fuchsia": (196, 56, 122),
    "lilac": (186, 168, 212),
    "plum": (92, 52, 98),
}

GLOSS = {
    "leather": 0.3,
    "patent leather": 0.9,
    "rubber": 0.25,
    "porcelain": 0.7,
    "stoneware": 0.35,
    "enamel": 0.6,
    "glass": 0.9,
    "terracotta": 0.15,
    "metal": 0.7,
    "silk": 0.25,
    "velvet": 0.12,
    "nylon": 0.15,
}

COLOURS_PER_STYLE = 3
FILLED = 0.84  # share of a picture's side that its product takes
UNAVAILABLE_EVERY = 17  # one product in so many can't be bought

MOODS = (
    "Alder",
    "Bruna",
    "Calla",
    "Dune",
    "Elia",
    "Fjord",
    "Gale",
    "Halden",
    "Isla",
    "Juno",
    "Kestrel",
    "Linden",
    "Marlow",
    "Nova",
    "Orla",
    "Pia",
    "Quill",
    "Rowan",
    "Saga",
    "Tove",
    "Umber",
    "Vega",
    "Wren",
    "Yarrow",
)


@dataclass(frozen=True)
class Product:
    """One product; those of one `style` differ in colour only."""

    product_id: str
    kind: Kind
    style: str
    style_seed: tuple[int, ...]
    title: str
    color: str
    accent: str
    pattern: str
    material: str
    shape: Mapping[str, str]
    scale: float
    available: bool

    @property
    def category(self) -> str:
        return self.kind.category

    @cached_property
    def attributes(self) -> dict[str, str]:
        fixed = {"color": self.color, "pattern": self.pattern, "material": self.material, "style": self.style}
        second = {"accent": self.accent} if self.pattern != "plain" else {}
        # A shape word called `style` would hide the style's name.
        return {**{("type" if k == "style" else k): v for k, v in self.shape.items()}, **second, **fixed}

    def draw(self, pixels: int, noise: np.random.Generator) -> Image.Image:
        """The product cut out, RGBA, `pixels` wide and high."""
        canvas = Canvas(pixels, noise)
        soft = self.kind in clothes.KINDS
        surface = Surface(
            COLORS[self.color],
            COLORS[self.accent],
            self.pattern,
            self.scale,
            folds=0.012 if soft else 0.003 if self.material == "suede" else 0.0,
            gloss=GLOSS.get(self.material, 0.05),
        )
        self.kind.draw(canvas, Look(surface, self.shape, np.random.default_rng(self.style_seed)))
        return _framed(canvas.image())


def _framed(cut: Image.Image) -> Image.Image:
    """The cut-out enlarged, as a photographer frames a product: most of the picture is the product's."""
    left, top, right, bottom = cut.getbbox() or (0, 0, *cut.size)
    side = min(max(right - left, bottom - top) / FILLED, cut.width)
    x = min(max((left + right - side) / 2, 0), cut.width - side)
    y = min(max((top + bottom - side) / 2, 0), cut.height - side)
    return cut.resize(cut.size, Image.Resampling.BICUBIC, (x, y, x + side, y + side))


def products(count: int, seed: int) -> list[Product]:
    """`count` products, spread evenly over the categories."""
    made: list[Product] = []
    for number in range(count):
        kind_number, place = number % len(KINDS), number // len(KINDS)
        style_number, colourway = divmod(place, COLOURS_PER_STYLE)
        style = _style(seed, kind_number, style_number)
        color, accent = _colors(style.style_seed, colourway)
        leaf = style.category.rpartition("/")[2]
        made.append(
            replace(
                style,
                product_id=f"{leaf}-{place + 1:03d}",
                color=color,
                accent=accent,
                title=f"{style.title}, {color.capitalize()}",
                available=number % UNAVAILABLE_EVERY != UNAVAILABLE_EVERY - 1,
            )
        )
    return made


def _style(seed: int, kind_number: int, style_number: int) -> Product:
    """A style, as a product without colour; its shapes, patterns and materials differ from those of its neighbours."""
    kind = KINDS[kind_number]
    # One order of choices a category, walked in step: styles next to each other get different words.
    order = np.random.default_rng((seed, kind_number))
    shape = {name: _turn_about(order, words, style_number) for name, words in kind.shape.items()}
    pattern = _turn_about(order, kind.patterns, style_number)
    material = _turn_about(order, kind.materials, style_number)
    style_seed = (seed, kind_number, style_number)
    rng = np.random.default_rng(style_seed)
    name = MOODS[(kind_number * 5 + style_number) % len(MOODS)]
    shown = pattern.removesuffix("s").capitalize() + " " if pattern != "plain" else ""
    return Product(
        product_id="",
        kind=kind,
        style=f"{name} {kind.nouns[style_number % len(kind.nouns)]}",
        style_seed=style_seed,
        title=f"{name} {shown}{material.title()} {kind.nouns[style_number % len(kind.nouns)]}",
        color="",
        accent="",
        pattern=pattern,
        material=material,
        shape=shape,
        scale=float(rng.choice([0.65, 0.85, 1.1, 1.4])),
        available=True,
    )


def _turn_about(order: np.random.Generator, words: tuple[str, ...], number: int) -> str:
    start, shuffled = int(order.integers(len(words))), order.permutation(len(words))
    round_number, place = divmod(start + number, len(words))
    return words[int(shuffled[(place + round_number) % len(words)])]


def _colors(style_seed: tuple[int, ...], colourway: int) -> tuple[str, str]:
    """Main and accent colour; colourways of one style never share a main colour, and an accent stands out."""
    names = list(np.random.default_rng((*style_seed, 1)).permutation(list(COLORS)))
    color = str(names[colourway])
    accents = [name for name in names[COLOURS_PER_STYLE:] if _contrast(color, str(name)) > 150]
    return color, str(accents[colourway])


def _contrast(one: str, other: str) -> float:
    return float(np.abs(np.subtract(COLORS[one], COLORS[other])).sum())
