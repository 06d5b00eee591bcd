"""Scenes: a room or a wardrobe that shows several products at once."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from lookalike.sample.catalog import Product
from lookalike.sample.views import Rng, gradient, laid, room

SIZE = (960, 720)
SHARES = {
    "home/chairs": 0.62,
    "home/lamps": 0.42,
    "home/mugs": 0.13,
    "home/vases": 0.25,
    "home/cushions": 0.24,
    "women/shoes": 0.17,
    "men/sneakers": 0.18,
    "bags/handbags": 0.26,
    "bags/backpacks": 0.32,
    "accessories/hats": 0.19,
    "accessories/watches": 0.14,
}
"""Side of each category's cut-out, as a share of the scene's height; clothes on the rail get the rest."""

ON_RAIL = 0.5
RAIL, HANGERS = 0.1, 0.15  # heights of the rail and of what hangs from it, as shares from the top

THEMES: dict[str, tuple[str, ...]] = {
    "living room": ("home/chairs", "home/cushions", "home/lamps", "home/vases", "home/mugs"),
    "wardrobe": (
        "women/dresses",
        "men/shirts",
        "women/skirts",
        "men/trousers",
        "women/shoes",
        "bags/handbags",
        "accessories/hats",
    ),
    "hallway": (
        "women/tops",
        "women/dresses",
        "men/shirts",
        "men/sneakers",
        "bags/backpacks",
        "home/lamps",
        "home/vases",
    ),
}
"""Categories shown by each theme, one product of each."""


def chosen(products: Sequence[Product], theme: str, rng: Rng) -> list[Product]:
    """One product of each category of the theme, as far as there are some."""
    picked = []
    for category in THEMES[theme]:
        of_category = [p for p in products if p.category == category]
        if of_category:
            picked.append(of_category[int(rng.integers(len(of_category)))])
    return picked


def scene(shown: Sequence[Product], rng: Rng) -> Image.Image:
    """A picture (960 x 720, RGB) with every product in `shown`, none hidden by another."""
    picture = room(SIZE, 0.76, rng)
    width, height = SIZE
    hung = [p for p in shown if p.category not in SHARES]
    on_table = [p for p in shown if p.category in ("home/lamps", "home/vases", "home/mugs")]
    on_floor = [p for p in shown if p.kind.stands and p not in on_table]
    on_wall = [p for p in shown if p.category in SHARES and not p.kind.stands]
    table_width = 190 * len(on_table)
    if hung:
        _rail(picture, round(width * 0.05), round(width * 0.95) - (table_width // 2 if on_table else 0))
        span = (0.06, 0.93 - table_width / width - 0.16 * len(on_wall))
        _in_a_row(picture, hung, span, height * HANGERS, ON_RAIL, rng)
    for number, product in enumerate(on_wall):
        _place(picture, product, width * (0.88 - 0.15 * number), height * 0.3, SHARES[product.category], rng)
    if on_table:
        left, top = width - table_width + (60 if hung else 0), height * 0.56
        _table(picture, left, round(top), width - 30)
        _in_a_row(picture, on_table, (left / width + 0.02, 0.955), top + 8, None, rng)
    right = 1 - (table_width / width if on_table else 0.05)
    if on_floor:
        _in_a_row(picture, on_floor, (0.06, max(right, 0.55)), height * 0.93, None, rng)
    return picture


def _in_a_row(
    picture: Image.Image,
    products: Sequence[Product],
    span: tuple[float, float],
    level: float,
    share: float | None,
    rng: Rng,
) -> None:
    """Products side by side between shares `span` of the width, on y = `level`, or hung there if `share` is given."""
    sides = np.array([share or SHARES[p.category] for p in products])
    room_for = (span[1] - span[0]) * picture.width / picture.height
    sides = sides * min(1.0, room_for / sides.sum() * 1.35)  # cut-outs have empty margins, which may overlap
    gap = (room_for - sides.sum()) / len(sides)
    x = span[0] * picture.width + gap / 2 * picture.height
    for product, side in zip(products, sides, strict=True):
        _place(picture, product, x + side * picture.height / 2, level, float(side), rng, hangs=share is not None)
        x += (side + gap) * picture.height


def _place(
    picture: Image.Image, product: Product, centre: float, level: float, share: float, rng: Rng, hangs: bool = False
) -> None:
    side = round(share * picture.height)
    cut = product.draw(max(side, 200), rng).resize((side, side), Image.Resampling.LANCZOS)
    _, top, _, bottom = cut.getbbox() or (0, 0, side, side)
    if hangs:
        rail = round(RAIL * picture.height)
        ImageDraw.Draw(picture).line((centre, rail, centre, level + 4), (90, 86, 84), 4)
    laid(picture, cut, (round(centre - side / 2), round(level) - (top if hangs else bottom)), product.kind.stands, 0.5)


def _rail(picture: Image.Image, left: int, right: int) -> None:
    draw = ImageDraw.Draw(picture)
    y = round(picture.height * RAIL)
    draw.rounded_rectangle((left, y, right, y + 9), 4, (74, 70, 68))
    draw.line((left + 4, y + 2, right - 4, y + 2), (150, 146, 142), 2)
    for x in (left + 14, right - 20):
        draw.rectangle((x, 0, x + 5, y), (74, 70, 68))


def _table(picture: Image.Image, left: int, top: int, right: int) -> None:
    bottom = round(picture.height * 0.9)
    for x in (left + 18, right - 34):
        picture.paste(gradient((16, bottom - top), (150, 108, 70), (112, 78, 50)), (x, top))
    picture.paste(gradient((right - left, 20), (206, 160, 112), (150, 106, 68)), (left, top))
    picture.paste((92, 64, 42), (left, top + 20, right, top + 23))
