"""Dresses, tops, shirts, skirts and trousers, seen from the front, laid flat."""

from dataclasses import replace

import numpy as np

from lookalike.sample.canvas import Canvas, Surface, line_through, tinted
from lookalike.sample.look import Kind, Look
from lookalike.sample.outlines import Points, box, ellipse, mirrored, ribbon, rounded, smooth, symmetric

NECKLINES = {
    "round": (0.075, 0.055),
    "v": (0.07, 0.14),
    "boat": (0.115, 0.03),
    "scoop": (0.085, 0.1),
    "high": (0.05, 0.0),
}
"""Half width and depth of each neckline, canvas units."""

SLEEVES = {"none": 0.0, "cap": 0.07, "short": 0.16, "elbow": 0.27, "long": 0.45}
"""Length of each sleeve, canvas units."""


def _neck(shape: str, top: float) -> list[tuple[float, float]]:
    """The right half of a neckline from the middle of its front up to the shoulder."""
    half, depth = NECKLINES[shape]
    lowest = (0.5, top + depth)
    if shape == "v":
        return [lowest, lowest, (0.5 + half, top), (0.5 + half, top)]
    return [lowest, (0.5 + half * 0.65, top + depth * 0.72), (0.5 + half, top), (0.5 + half, top)]


def _inside(canvas: Canvas, look: Look, top: float) -> None:
    """The back of the neck, seen through the opening."""
    half, depth = NECKLINES[look.shape["neckline"]]
    back = symmetric(
        [
            (0.5, top - 0.004),
            (0.5 + half, top - 0.004),
            (0.5 + half, top),
            (0.5 + half, top + 0.03),
            (0.5, top + depth + 0.03),
        ]
    )
    canvas.add(back, look.shade(0.55))


def _sleeves(canvas: Canvas, look: Look, shoulder: float, top: float, width: float) -> None:
    length = SLEEVES[look.shape["sleeves"]]
    if not length:
        return
    spread = look.between(0.25, 0.5)
    start = (0.5 + shoulder - 0.05, top + 0.085)
    elbow = (start[0] + length * spread * 0.55 + 0.02, start[1] + length * 0.5)
    wrist = (start[0] + length * spread + 0.015, start[1] + length)
    end_width = width * (1.0 - 0.9 * length) * look.between(0.85, 1.1)
    sleeve = ribbon([start, elbow, wrist], width, end_width)
    cuff = ribbon([(wrist[0] - 0.003, wrist[1] - 0.012), wrist], end_width * 1.02)
    for part, surface in ((sleeve, look.main), (cuff, look.shade(0.85))):
        canvas.add(part, surface, shadow=0.15)
        canvas.add(mirrored(part), surface, shadow=0.15)


def dress(canvas: Canvas, look: Look) -> None:
    top, waist = 0.1, look.between(0.38, 0.43)
    hem = {"mini": 0.7, "knee": 0.8, "midi": 0.88, "maxi": 0.95}[look.shape["length"]] + look.between(-0.015, 0.015)
    flare = {"sheath": 0.12, "a-line": 0.22, "flared": 0.32, "shift": 0.17}[look.shape["cut"]] + look.between(
        -0.015, 0.02
    )
    waist_half = {"sheath": 0.095, "a-line": 0.09, "flared": 0.085, "shift": 0.135}[look.shape["cut"]]
    shoulder = 0.155 if look.shape["sleeves"] != "none" else 0.125
    _sleeves(canvas, look, shoulder, top + 0.02, 0.085)
    _inside(canvas, look, top)
    right = [
        *_neck(look.shape["neckline"], top),
        (0.5 + shoulder, top + 0.03),
        (0.5 + shoulder, top + 0.03),
        (0.5 + 0.118, top + 0.15),
        (0.5 + 0.128, top + 0.19),
        (0.5 + waist_half, waist),
        (0.5 + (waist_half + flare) * 0.56, (waist * 1.1 + hem * 0.9) / 2),
        (0.5 + flare, hem - 0.012),
        (0.5 + flare, hem - 0.012),
        (0.5 + flare * 0.5, hem),
        (0.5, hem + 0.008),
    ]
    canvas.add(symmetric(right), look.main)
    spread = np.linspace(-0.75, 0.75, 7 if look.shape["cut"] == "flared" else 4)
    folds = [
        line_through(
            (0.5 + s * waist_half, waist + 0.03), (0.5 + s * flare * 0.6, (waist + hem) / 2), (0.5 + s * flare, hem)
        )
        for s in spread
    ]
    if look.shape["cut"] in ("a-line", "flared"):
        canvas.creases(folds, 0.009, 0.13)
    if look.shape["waist"] == "belted":
        side = waist_half + 0.005
        band = ribbon([(0.5 - side, waist - 0.002), (0.5, waist + 0.004), (0.5 + side, waist - 0.002)], 0.036)
        canvas.add(band, replace(look.trim, folds=0))
    elif look.shape["waist"] == "seamed":
        canvas.line(
            line_through((0.5 - waist_half, waist), (0.5, waist + 0.008), (0.5 + waist_half, waist)),
            0.004,
            (0, 0, 0),
            0.3,
        )
    hem_line = line_through((0.5 - flare, hem - 0.03), (0.5, hem - 0.012), (0.5 + flare, hem - 0.03))
    canvas.line(hem_line, 0.003, (0, 0, 0), 0.22)


def _torso(look: Look, neck: list[tuple[float, float]], top: float, hem: float) -> Points:
    half = {"fitted": 0.15, "regular": 0.185, "boxy": 0.21}[look.shape["fit"]]
    nipped = half - (0.03 if look.shape["fit"] == "fitted" else 0.004)
    shoulder = 0.2 if look.shape["sleeves"] != "none" else 0.15
    return symmetric(
        [
            *neck,
            (0.5 + shoulder, top + 0.045),
            (0.5 + shoulder, top + 0.045),
            (0.5 + half, top + 0.2),
            (0.5 + nipped, (top + hem) / 2 + 0.05),
            (0.5 + half, hem - 0.01),
            (0.5 + half, hem - 0.01),
            (0.5, hem + 0.008),
        ]
    )


def top(canvas: Canvas, look: Look) -> None:
    upper, hem = 0.16, {"cropped": 0.62, "regular": 0.76, "tunic": 0.87}[look.shape["length"]]
    _sleeves(canvas, look, 0.2, upper + 0.01, 0.12)
    _inside(canvas, look, upper)
    canvas.add(_torso(look, _neck(look.shape["neckline"], upper), upper, hem), look.main)
    half, depth = NECKLINES[look.shape["neckline"]]
    if look.shape["neckline"] == "high":
        collar = rounded(0.5 - half - 0.012, upper - 0.045, 0.5 + half + 0.012, upper + 0.022, 0.016)
        canvas.add(collar, look.shade(0.93))
    elif look.shape["neckline"] != "v":
        path = line_through(
            (0.5 - half, upper + 0.003),
            (0.5 - half * 0.62, upper + depth * 0.75),
            (0.5, upper + depth + 0.006),
            (0.5 + half * 0.62, upper + depth * 0.75),
            (0.5 + half, upper + 0.003),
        )
        canvas.line(path, 0.016, tinted(look.main.color, 0.75), 0.9)
    canvas.line(line_through((0.3, hem - 0.028), (0.5, hem - 0.02), (0.7, hem - 0.028)), 0.003, (0, 0, 0), 0.25)


def shirt(canvas: Canvas, look: Look) -> None:
    upper, hem = 0.14, look.between(0.82, 0.88)
    _sleeves(canvas, look, 0.2, upper + 0.01, 0.125)
    neck = [(0.5, upper + 0.06), (0.5, upper + 0.06), (0.5 + 0.07, upper), (0.5 + 0.07, upper)]
    back = symmetric(
        [(0.5, upper - 0.03), (0.5 + 0.075, upper - 0.025), (0.5 + 0.07, upper + 0.03), (0.5, upper + 0.08)]
    )
    canvas.add(back, look.shade(0.6))
    canvas.add(_torso(look, neck, upper, hem), look.main)
    canvas.line(line_through((0.486, upper + 0.05), (0.486, 0.5), (0.486, hem)), 0.003, (0, 0, 0), 0.35)
    canvas.line(line_through((0.517, upper + 0.05), (0.517, 0.5), (0.517, hem)), 0.002, (0, 0, 0), 0.22)
    button = Surface((238, 234, 226) if sum(look.main.color) < 560 else (96, 84, 76), bevel=0.004, gloss=0.3)
    for y in np.arange(upper + 0.11, hem - 0.05, 0.095):
        canvas.add(ellipse(0.502, float(y), 0.0085, 0.0085), button)
    point = 0.105 if look.shape["collar"] == "classic" else 0.08
    if look.shape["collar"] == "band":
        leaf = smooth(
            [
                (0.5, upper + 0.065),
                (0.5, upper + 0.065),
                (0.578, upper - 0.012),
                (0.578, upper - 0.012),
                (0.567, upper - 0.034),
                (0.567, upper - 0.034),
                (0.5, upper + 0.03),
            ]
        )
    else:
        leaf = smooth(
            [
                (0.5, upper + 0.055),
                (0.5, upper + 0.055),
                (0.568, upper - 0.034),
                (0.568, upper - 0.034),
                (0.592, upper),
                (0.575, upper + point),
                (0.575, upper + point),
            ]
        )
    for side in (leaf, mirrored(leaf)):
        canvas.add(side, look.trim if look.shape["collar"] == "contrast" else replace(look.main, folds=0, bevel=0.01))
    if look.shape["pocket"] == "chest":
        pocket = smooth(
            [
                (x, y)
                for x, y in ((0.56, 0.33), (0.645, 0.33), (0.645, 0.42), (0.602, 0.438), (0.56, 0.42))
                for _ in (0, 1)
            ]
        )
        canvas.add(pocket, replace(look.main, folds=0, bevel=0.006), shadow=0.25)
        canvas.line(line_through((0.56, 0.347), (0.6, 0.347), (0.645, 0.347)), 0.003, (0, 0, 0), 0.3)


def skirt(canvas: Canvas, look: Look) -> None:
    waist = 0.19
    hem = {"mini": 0.6, "knee": 0.73, "midi": 0.83, "maxi": 0.92}[look.shape["length"]]
    flare = {"pencil": 0.15, "a-line": 0.25, "pleated": 0.28, "circle": 0.37}[look.shape["cut"]] + look.between(
        -0.01, 0.02
    )
    half = 0.125
    right = [
        (0.5, waist),
        (0.5 + half, waist - 0.006),
        (0.5 + half, waist - 0.006),
        (0.5 + half + 0.045, waist + 0.12),
        (0.5 + (half + flare) / 2 + 0.02, (waist + hem) / 2),
        (0.5 + flare, hem - 0.015),
        (0.5 + flare, hem - 0.015),
        (0.5 + flare * 0.55, hem + 0.004),
        (0.5, hem + 0.012),
    ]
    canvas.add(symmetric(right), look.main)
    count = {"pencil": 0, "a-line": 4, "pleated": 15, "circle": 9}[look.shape["cut"]]
    pleats = [
        line_through(
            (0.5 + s * half, waist + 0.03), (0.5 + s * (half + flare) * 0.53, (waist + hem) / 2), (0.5 + s * flare, hem)
        )
        for s in np.linspace(-0.92, 0.92, count)
    ]
    if pleats:
        canvas.creases(pleats, 0.008, 0.22 if look.shape["cut"] == "pleated" else 0.15)
    if look.shape["cut"] == "pencil":
        canvas.creases([line_through((0.56, hem - 0.14), (0.565, hem - 0.07), (0.57, hem))], 0.008, 0.35)
    band = ribbon([(0.5 - half, waist - 0.01), (0.5, waist - 0.003), (0.5 + half, waist - 0.01)], 0.05)
    canvas.add(band, replace(look.trim if look.shape["waistband"] == "contrast" else look.shade(0.9), folds=0))
    if look.shape["waistband"] == "buttoned":
        for y in np.arange(waist + 0.06, hem - 0.04, 0.09):
            canvas.add(ellipse(0.5, float(y), 0.011, 0.011), look.trim)


def trousers(canvas: Canvas, look: Look) -> None:
    waist = 0.1
    hem = {"shorts": 0.46, "cropped": 0.8, "full": 0.93}[look.shape["length"]]
    ankle = {"slim": 0.075, "straight": 0.11, "wide": 0.165, "tapered": 0.085}[look.shape["fit"]]
    knee = {"slim": 0.095, "straight": 0.115, "wide": 0.145, "tapered": 0.125}[look.shape["fit"]]
    if look.shape["length"] == "shorts":
        ankle = knee = 0.15
    apart = look.between(0.1, 0.125)
    middle = (0.36 + hem) / 2
    leg = smooth(
        [
            (0.499, waist),
            (0.499, waist),
            (0.64, waist),
            (0.64, waist),
            (0.672, 0.26),
            (0.5 + apart + knee / 2 + 0.02, middle),
            (0.5 + apart + ankle / 2 + 0.012, hem),
            (0.5 + apart + ankle / 2 + 0.012, hem),
            (0.5 + apart - ankle / 2, hem + 0.006),
            (0.5 + apart - ankle / 2, hem + 0.006),
            (0.5 + apart - knee / 2 - 0.01, middle),
            (0.503, 0.345),
            (0.499, 0.33),
            (0.499, 0.33),
        ]
    )
    for side in (leg, mirrored(leg)):
        canvas.add(side, look.main, shadow=0.2)
    crease = line_through((0.585, waist + 0.08), (0.5 + apart * 0.95, middle), (0.5 + apart, hem))
    if look.shape["front"] == "creased":
        canvas.creases([crease, mirrored(crease)], 0.005, 0.22)
    for mirror in (False, True):
        pocket = line_through((0.61, waist + 0.045), (0.628, waist + 0.1), (0.662, waist + 0.13))
        canvas.line(mirrored(pocket) if mirror else pocket, 0.004, (0, 0, 0), 0.4)
        hem_line = line_through(
            (0.5 + apart - ankle, hem - 0.024), (0.5 + apart, hem - 0.022), (0.5 + apart + ankle, hem - 0.026)
        )
        canvas.line(mirrored(hem_line) if mirror else hem_line, 0.003, (0, 0, 0), 0.3)
    canvas.line(line_through((0.5, waist), (0.5, 0.2), (0.5, 0.335)), 0.004, (0, 0, 0), 0.45)
    canvas.line(line_through((0.532, waist + 0.04), (0.53, 0.2), (0.503, 0.27)), 0.003, (0, 0, 0), 0.3)
    canvas.add(rounded(0.357, waist - 0.022, 0.643, waist + 0.024, 0.008), replace(look.shade(0.9), folds=0))
    if look.shape["front"] == "belted":
        canvas.add(rounded(0.355, waist - 0.017, 0.645, waist + 0.017, 0.006), replace(look.trim, folds=0, gloss=0.3))
        canvas.add(
            rounded(0.475, waist - 0.021, 0.525, waist + 0.021, 0.006),
            Surface((205, 190, 150), gloss=0.8, bevel=0.005),
            holes=[rounded(0.483, waist - 0.013, 0.517, waist + 0.013, 0.003)],
        )
    else:
        canvas.add(ellipse(0.5, waist + 0.001, 0.011, 0.011), Surface((150, 140, 120), gloss=0.6, bevel=0.004))
    for x in (0.39, 0.435, 0.565, 0.61):
        canvas.add(
            box(x - 0.007, waist - 0.026, x + 0.007, waist + 0.03), replace(look.shade(0.82), folds=0, bevel=0.004)
        )


CLOTH_PATTERNS = ("plain", "plain", "stripes", "checks", "dots", "floral", "chevron", "tartan", "diagonals", "diamonds")

KINDS = (
    Kind(
        "women/dresses",
        ("Dress", "Gown", "Tea Dress"),
        dress,
        {
            "neckline": ("round", "v", "boat", "scoop"),
            "sleeves": ("none", "cap", "short", "elbow", "long"),
            "cut": ("sheath", "a-line", "flared", "shift"),
            "length": ("mini", "knee", "midi", "maxi"),
            "waist": ("belted", "seamed", "plain"),
        },
        ("cotton", "linen", "viscose", "silk"),
        CLOTH_PATTERNS,
    ),
    Kind(
        "women/tops",
        ("Top", "Blouse", "Jumper", "Tee"),
        top,
        {
            "neckline": ("round", "v", "boat", "scoop", "high"),
            "sleeves": ("none", "short", "elbow", "long"),
            "fit": ("fitted", "regular", "boxy"),
            "length": ("cropped", "regular", "tunic"),
        },
        ("cotton", "merino wool", "silk", "viscose"),
        (*CLOTH_PATTERNS, "blocks"),
    ),
    Kind(
        "women/skirts",
        ("Skirt",),
        skirt,
        {
            "cut": ("pencil", "a-line", "pleated", "circle"),
            "length": ("mini", "knee", "midi", "maxi"),
            "waistband": ("plain", "contrast", "buttoned"),
        },
        ("cotton", "denim", "wool", "viscose"),
        CLOTH_PATTERNS,
    ),
    Kind(
        "men/shirts",
        ("Shirt", "Oxford Shirt", "Overshirt"),
        shirt,
        {
            "collar": ("classic", "short", "band", "contrast"),
            "sleeves": ("short", "elbow", "long"),
            "fit": ("fitted", "regular", "boxy"),
            "pocket": ("none", "chest"),
        },
        ("cotton", "linen", "flannel"),
        ("plain", "plain", "stripes", "pinstripes", "checks", "tartan", "dots"),
    ),
    Kind(
        "men/trousers",
        ("Trousers", "Chinos", "Slacks"),
        trousers,
        {
            "fit": ("slim", "straight", "wide", "tapered"),
            "length": ("shorts", "cropped", "full", "full"),
            "front": ("flat", "creased", "belted"),
        },
        ("cotton", "denim", "wool", "corduroy"),
        ("plain", "plain", "plain", "pinstripes", "tartan"),
    ),
)
