"""Lamps, mugs, chairs, vases and cushions."""

from dataclasses import replace

import numpy as np

from lookalike.sample.canvas import Canvas, Surface, line_through, tinted
from lookalike.sample.look import BRASS, DARK, METAL, WOOD, Kind, Look
from lookalike.sample.outlines import Points, ellipse, mirrored, ribbon, rounded, smooth, symmetric


def _slab(top: float, bottom: float, top_half: float, bottom_half: float, sag: float) -> Points:
    """A body of revolution with straight sides, its rims seen from slightly above."""
    return symmetric(
        [
            (0.5, top + sag),
            (0.5 + top_half * 0.7, top + sag * 0.7),
            (0.5 + top_half, top),
            (0.5 + top_half, top),
            (0.5 + bottom_half, bottom),
            (0.5 + bottom_half, bottom),
            (0.5 + bottom_half * 0.7, bottom + sag * 0.7),
            (0.5, bottom + sag),
        ]
    )


def lamp(canvas: Canvas, look: Look) -> None:
    shade = look.shape["shade"]
    stem = {"brass": BRASS, "steel": METAL, "wood": WOOD, "black": DARK}[look.shape["stand"]]
    floor = look.shape["style"] == "floor"
    low, ground = (0.36, 0.94) if floor else (0.5, 0.9)
    high = 0.1 if floor else look.between(0.13, 0.17)
    if look.shape["base"] == "tripod":
        for x in (0.5 - 0.2, 0.5, 0.5 + 0.2):
            canvas.add(
                ribbon([(0.5, low - 0.04), ((0.5 + x) / 2, (low + ground) / 2), (x, ground)], 0.024, 0.016), stem
            )
    elif look.shape["base"] == "ceramic" and not floor:
        belly = look.between(0.11, 0.16)
        canvas.add(
            symmetric(
                [
                    (0.5, low - 0.02),
                    (0.535, low),
                    (0.54, low + 0.05),
                    (0.5 + belly, (low + ground) / 2 + 0.02),
                    (0.5 + belly * 0.8, ground - 0.05),
                    (0.5 + belly * 0.55, ground),
                    (0.5 + belly * 0.55, ground),
                    (0.5, ground + 0.012),
                ]
            ),
            replace(look.trim, turned=True, gloss=0.6),
        )
    else:
        canvas.add(rounded(0.488, low - 0.08, 0.512, ground - 0.01, 0.008), replace(stem, turned=True))
        canvas.add(_slab(ground - 0.022, ground, 0.14, 0.15, 0.018), replace(stem, turned=True, gloss=stem.gloss * 0.6))
        if look.shape["base"] == "ball":
            for y in np.linspace(low + 0.06, ground - 0.07, 2 if floor else 3):
                canvas.add(ellipse(0.5, float(y), 0.05, 0.05), replace(look.trim, bevel=0.03, gloss=0.5))
    wide = look.between(0.22, 0.28) * (0.85 if floor else 1.0)
    cloth = replace(look.main, turned=shade != "dome", gloss=0.5 if shade == "dome" else 0.0)
    bottom = low + 0.03
    canvas.add(ellipse(0.5, bottom, wide, 0.024), Surface((255, 236, 190), bevel=0.004), shadow=0)
    if shade == "dome":
        outline = symmetric(
            [
                (0.5, high),
                (0.5 + wide * 0.45, high + 0.02),
                (0.5 + wide * 0.88, high + 0.13),
                (0.5 + wide, bottom),
                (0.5 + wide, bottom),
                (0.5 + wide * 0.7, bottom + 0.018),
                (0.5, bottom + 0.026),
            ]
        )
    elif shade == "bell":
        outline = symmetric(
            [
                (0.5, high + 0.02),
                (0.5 + wide * 0.4, high),
                (0.5 + wide * 0.4, high),
                (0.5 + wide * 0.52, high + 0.12),
                (0.5 + wide, bottom),
                (0.5 + wide, bottom),
                (0.5 + wide * 0.7, bottom + 0.018),
                (0.5, bottom + 0.026),
            ]
        )
    else:
        narrow = {"cone": 0.45, "drum": 0.92, "empire": 0.68}[shade]
        outline = _slab(high, bottom, wide * narrow, wide, 0.022)
    canvas.add(outline, cloth)


def mug(canvas: Canvas, look: Look) -> None:
    top, bottom = look.between(0.24, 0.34), 0.78
    half = look.between(0.19, 0.23)
    foot = {"straight": half, "tapered": half * 0.72, "rounded": half * 0.6, "flared": half * 0.66}[look.shape["body"]]
    handle = {
        "round": [
            (0.5 + half * 0.9, top + 0.1),
            (0.5 + half + 0.13, top + 0.09),
            (0.5 + half + 0.17, 0.54),
            (0.5 + half + 0.1, 0.66),
            (0.5 + half * 0.86, 0.67),
        ],
        "square": [
            (0.5 + half * 0.9, top + 0.09),
            (0.5 + half + 0.12, top + 0.09),
            (0.5 + half + 0.12, top + 0.09),
            (0.5 + half + 0.12, 0.65),
            (0.5 + half + 0.12, 0.65),
            (0.5 + half * 0.84, 0.65),
        ],
        "ear": [
            (0.5 + half * 0.9, top + 0.07),
            (0.5 + half + 0.15, top + 0.04),
            (0.5 + half + 0.15, top + 0.17),
            (0.5 + half * 0.86, 0.68),
        ],
        "none": [],
    }[look.shape["handle"]]
    if handle:
        canvas.add(
            ribbon(handle, 0.05, 0.042),
            replace(look.trim if look.shape["glaze"] == "two-tone" else look.solid, bevel=0.02),
        )
    glaze = replace(look.main, turned=True)
    if look.shape["body"] == "rounded":
        body = symmetric(
            [
                (0.5, top),
                (0.5 + half * 0.9, top),
                (0.5 + half * 0.9, top),
                (0.5 + half * 1.12, (top + bottom) / 2),
                (0.5 + half, bottom - 0.07),
                (0.5 + foot, bottom),
                (0.5 + foot, bottom),
                (0.5 + foot * 0.6, bottom + 0.018),
                (0.5, bottom + 0.024),
            ]
        )
        rim = half * 0.9
    elif look.shape["body"] == "flared":
        body = symmetric(
            [
                (0.5, top),
                (0.5 + half * 1.12, top),
                (0.5 + half * 1.12, top),
                (0.5 + half * 0.8, (top + bottom) / 2),
                (0.5 + foot, bottom),
                (0.5 + foot, bottom),
                (0.5 + foot * 0.6, bottom + 0.02),
                (0.5, bottom + 0.027),
            ]
        )
        rim = half * 1.12
    else:
        body = _slab(top, bottom, half, foot, 0.03)
        rim = half
    canvas.add(body, glaze)
    if look.shape["glaze"] == "dipped":
        line = (top + bottom) / 2 + look.between(0.0, 0.1)
        outline = body.copy()
        outline[:, 1] = np.maximum(outline[:, 1], line + 0.03 * (1 - ((outline[:, 0] - 0.5) / half) ** 2))
        canvas.add(outline, replace(look.trim, turned=True, bevel=0.004), shadow=0)
    elif look.shape["glaze"] == "banded":
        for y in (top + 0.07, top + 0.1):
            band = line_through(
                (0.5 - half * 1.2, y),
                (0.5 - half * 0.6, y + 0.022),
                (0.5, y + 0.03),
                (0.5 + half * 0.6, y + 0.022),
                (0.5 + half * 1.2, y),
            )
            inside = band[np.abs(band[:, 0] - 0.5) < rim * 0.97]
            canvas.line(inside, 0.014, look.main.accent)
    canvas.add(ellipse(0.5, top, rim, 0.042), replace(look.shade(1.25), bevel=0.006), shadow=0)
    canvas.add(ellipse(0.5, top + 0.003, rim * 0.93, 0.035), replace(look.shade(0.62), gloss=0), shadow=0)
    if look.shape["glaze"] != "dipped":
        canvas.add(ellipse(0.5, top + 0.012, rim * 0.82, 0.024), Surface((72, 44, 28), bevel=0.006), shadow=0)


def chair(canvas: Canvas, look: Look) -> None:
    """From the front and slightly above."""
    frame = {"oak": WOOD, "walnut": replace(WOOD, color=(104, 68, 44)), "black": DARK, "painted": look.trim}[
        look.shape["frame"]
    ]
    half, seat, back = look.between(0.19, 0.23), 0.55, look.between(0.12, 0.2)
    splay = look.between(0.01, 0.05)
    for x in (-0.75, 0.75):
        canvas.add(
            ribbon([(0.5 + x * half, seat), (0.5 + x * half, 0.7), (0.5 + x * half * 0.98, 0.84)], 0.026, 0.02),
            replace(frame, color=tinted(frame.color, 0.7)),
        )
    kind = look.shape["back"]
    if kind == "panel":
        canvas.add(
            rounded(0.5 - half * 0.95, back, 0.5 + half * 0.95, seat - 0.06, 0.05), replace(look.main, bevel=0.035)
        )
    elif kind == "round":
        canvas.add(ellipse(0.5, back + 0.15, half * 0.92, 0.16), replace(frame, bevel=0.015))
        canvas.add(ellipse(0.5, back + 0.15, half * 0.74, 0.128), replace(look.main, bevel=0.03))
    elif kind == "ladder":
        for y in np.linspace(back + 0.03, seat - 0.12, 4):
            canvas.add(
                ribbon([(0.5 - half * 0.85, float(y)), (0.5, float(y) - 0.014), (0.5 + half * 0.85, float(y))], 0.038),
                frame,
            )
    elif kind == "spindle":
        for x in np.linspace(-0.68, 0.68, 6):
            canvas.add(
                ribbon(
                    [(0.5 + x * half, back + 0.03), (0.5 + x * half * 0.97, 0.4), (0.5 + x * half * 0.94, seat)], 0.015
                ),
                frame,
            )
        canvas.add(ribbon([(0.5 - half, back + 0.05), (0.5, back), (0.5 + half, back + 0.05)], 0.06), frame)
    else:
        hoop = ribbon(
            [
                (0.5 - half * 0.92, seat),
                (0.5 - half * 1.05, back + 0.16),
                (0.5 - half * 0.55, back),
                (0.5 + half * 0.55, back),
                (0.5 + half * 1.05, back + 0.16),
                (0.5 + half * 0.92, seat),
            ],
            0.085,
        )
        canvas.add(hoop, replace(look.main, bevel=0.035))
    for x in (-1, 1):
        if kind in ("ladder", "panel", "round"):
            canvas.add(
                ribbon(
                    [(0.5 + x * half * 0.9, back), (0.5 + x * half * 0.92, 0.36), (0.5 + x * half * 0.9, seat + 0.02)],
                    0.028,
                ),
                frame,
            )
        if look.shape["arms"] == "arms":
            arm = ribbon(
                [
                    (0.5 + x * half * 0.95, 0.42),
                    (0.5 + x * half * 1.3, 0.42),
                    (0.5 + x * half * 1.32, 0.455),
                    (0.5 + x * half * 1.25, seat + 0.03),
                ],
                0.03,
            )
            canvas.add(arm, frame)
    pad = smooth(
        [
            (0.5 - half * 0.95, seat - 0.045),
            (0.5, seat - 0.06),
            (0.5 + half * 0.95, seat - 0.045),
            (0.5 + half * 1.17, seat + 0.03),
            (0.5 + half * 1.15, seat + 0.07),
            (0.5, seat + 0.088),
            (0.5 - half * 1.15, seat + 0.07),
            (0.5 - half * 1.17, seat + 0.03),
        ]
    )
    for x in (-1, 1):
        leg = ribbon(
            [
                (0.5 + x * half * 1.03, seat + 0.05),
                (0.5 + x * (half * 1.04 + splay / 2), 0.75),
                (0.5 + x * (half * 1.05 + splay), 0.93),
            ],
            0.04,
            0.024,
        )
        canvas.add(leg, frame)
    canvas.add(pad, replace(look.main, bevel=0.03))


def vase(canvas: Canvas, look: Look) -> None:
    top, bottom = {"tall": 0.22, "medium": 0.34, "low": 0.46}[look.shape["height"]] + look.between(-0.02, 0.02), 0.9
    belly, foot = look.between(0.15, 0.21), look.between(0.08, 0.12)
    neck = {"narrow": 0.045, "wide": 0.11, "open": 0.15}[look.shape["neck"]]
    if look.shape["filled"] == "branches":
        for lean, reach in ((-0.16, 0.06), (-0.05, 0.0), (0.07, 0.03), (0.17, 0.09)):
            stem = line_through(
                (0.5 + lean * 0.1, top + 0.05), (0.5 + lean * 0.6, (top + reach) / 2 + 0.02), (0.5 + lean, reach + 0.04)
            )
            canvas.add(ribbon(stem, 0.006), Surface((98, 112, 70), bevel=0.003))
            for share in (0.45, 0.62, 0.78, 0.9, 0.99):
                x, y = stem[int(share * (len(stem) - 1))]
                for side in (-1, 1):
                    leaf = smooth(
                        [
                            (x, y),
                            (x, y),
                            (x + side * 0.03, y - 0.035),
                            (x + side * 0.055, y - 0.03),
                            (x + side * 0.035, y - 0.005),
                        ]
                    )
                    canvas.add(leaf, Surface((112, 138, 88), bevel=0.006), shadow=0.15)
    form = look.shape["form"]
    middle = {"bottle": 0.68, "urn": 0.45, "bulb": 0.62, "column": 0.5, "waisted": 0.5}[form]
    y = top + (bottom - top) * middle
    sides = {
        "bottle": [(neck, top + (bottom - top) * 0.3), (belly, y)],
        "urn": [(neck * 0.85, top + 0.05), (belly * 1.12, y)],
        "bulb": [(neck * 0.8, top + (bottom - top) * 0.18), (belly * 1.2, y)],
        "column": [(max(neck, belly * 0.8), top + 0.06), (belly * 0.86, y)],
        "waisted": [(belly * 0.9, top + (bottom - top) * 0.2), (belly * 0.5, y), (belly, top + (bottom - top) * 0.8)],
    }[form]
    outline = symmetric(
        [
            (0.5, top),
            (0.5 + neck, top),
            (0.5 + neck, top),
            *((0.5 + half, height) for half, height in sides),
            (0.5 + foot, bottom),
            (0.5 + foot, bottom),
            (0.5 + foot * 0.6, bottom + 0.014),
            (0.5, bottom + 0.018),
        ]
    )
    canvas.add(outline, replace(look.main, turned=True))
    if look.shape["glaze"] == "dipped":
        dip = outline.copy()
        dip[:, 1] = np.minimum(dip[:, 1], top + (bottom - top) * 0.42 + 0.03 * np.cos((dip[:, 0] - 0.5) * 30))
        canvas.add(dip, replace(look.trim, turned=True, bevel=0.004), shadow=0)
    canvas.add(ellipse(0.5, top, neck, neck * 0.2), replace(look.shade(1.2), bevel=0.004), shadow=0)
    canvas.add(ellipse(0.5, top + 0.002, neck * 0.86, neck * 0.15), look.shade(0.35), shadow=0)


def cushion(canvas: Canvas, look: Look) -> None:
    half = look.between(0.31, 0.36)
    tall = half if look.shape["form"] != "oblong" else half * 0.62
    middle = 0.52
    if look.shape["form"] == "round":
        outline = ellipse(0.5, middle, half, half * 0.96)
    else:
        pinch = look.between(0.9, 0.96)
        corner = (0.5 + half * 1.04, middle - tall * 1.04)
        low = (0.5 + half * 1.04, middle + tall * 1.04)
        outline = symmetric(
            [
                (0.5, middle - tall * pinch),
                corner,
                corner,
                (0.5 + half * pinch, middle),
                low,
                low,
                (0.5, middle + tall * pinch),
            ]
        )
    if look.shape["edge"] == "piped":
        canvas.add((outline - (0.5, middle)) * 1.035 + (0.5, middle), replace(look.trim, bevel=0.008, folds=0))
    elif look.shape["edge"] == "fringed":
        spokes = (outline - (0.5, middle))[::2]
        for spoke in spokes:
            start, end = np.add(spoke, (0.5, middle)), spoke * 1.1 + (0.5, middle + 0.004)
            tassel = ribbon([tuple(start), tuple((start + end) / 2), tuple(end)], 0.012, 0.016)
            canvas.add(tassel, replace(look.trim, bevel=0.004, folds=0), shadow=0)
    canvas.add(outline, replace(look.main, bevel=0.09, folds=0.006))
    if look.shape["front"] == "buttoned":
        ray = line_through((0.5, middle), (0.55, middle - 0.02), (0.6, middle - 0.03))
        canvas.creases([ray, mirrored(ray)], 0.008, 0.25)
        canvas.add(ellipse(0.5, middle, 0.024, 0.024), look.trim, shadow=0.5)
    elif look.shape["front"] == "panel":
        canvas.add(
            (outline - (0.5, middle)) * 0.5 + (0.5, middle), replace(look.trim, bevel=0.008, folds=0), shadow=0.1
        )


PRINTS = ("plain", "plain", "stripes", "dots", "chevron", "diamonds", "floral", "checks", "diagonals")

KINDS = (
    Kind(
        "home/lamps",
        ("Lamp",),
        lamp,
        {
            "style": ("table", "floor"),
            "shade": ("cone", "drum", "empire", "dome", "bell"),
            "base": ("disc", "tripod", "ceramic", "ball"),
            "stand": ("brass", "steel", "wood", "black"),
        },
        ("linen", "paper", "metal"),
        ("plain", "plain", "plain", "stripes", "dots", "chevron", "floral"),
        stands=True,
        size=0.34,
    ),
    Kind(
        "home/mugs",
        ("Mug", "Cup"),
        mug,
        {
            "body": ("straight", "tapered", "rounded", "flared"),
            "handle": ("round", "square", "ear", "none"),
            "glaze": ("even", "dipped", "banded", "two-tone"),
        },
        ("stoneware", "porcelain", "enamel"),
        PRINTS,
        stands=True,
        size=0.11,
    ),
    Kind(
        "home/chairs",
        ("Chair",),
        chair,
        {
            "back": ("panel", "round", "ladder", "spindle", "hoop"),
            "arms": ("armless", "arms"),
            "frame": ("oak", "walnut", "black", "painted"),
        },
        ("velvet", "leather", "wool"),
        ("plain", "plain", "plain", "stripes", "checks", "diamonds", "floral"),
        stands=True,
        size=0.42,
    ),
    Kind(
        "home/vases",
        ("Vase",),
        vase,
        {
            "form": ("bottle", "urn", "bulb", "column", "waisted"),
            "height": ("tall", "medium", "low"),
            "neck": ("narrow", "wide", "open"),
            "glaze": ("even", "even", "dipped"),
            "filled": ("empty", "empty", "branches"),
        },
        ("stoneware", "glass", "terracotta"),
        PRINTS,
        stands=True,
        size=0.2,
    ),
    Kind(
        "home/cushions",
        ("Cushion",),
        cushion,
        {
            "form": ("square", "oblong", "round"),
            "edge": ("plain", "piped", "fringed"),
            "front": ("plain", "plain", "buttoned", "panel"),
        },
        ("linen", "velvet", "wool"),
        (*PRINTS, "tartan"),
        stands=True,
        size=0.17,
    ),
)
