"""Shoes, bags, hats and watches."""

from dataclasses import replace

import numpy as np

from lookalike.sample.canvas import Canvas, Surface, line_through
from lookalike.sample.look import BRASS, DARK, METAL, RUBBER, Kind, Look
from lookalike.sample.outlines import box, ellipse, mirrored, ribbon, rounded, smooth, symmetric


def heels(canvas: Canvas, look: Look) -> None:
    """Women's shoes from the side, toe to the left."""
    rise = {"flat": 0.03, "kitten": 0.1, "block": 0.16, "stiletto": 0.22}[look.shape["heel"]]
    ground, back = 0.7, 0.8
    top = ground - rise
    heel_width = {"flat": 0.13, "kitten": 0.03, "block": 0.11, "stiletto": 0.022}[look.shape["heel"]]
    heel = smooth(
        [
            (back - 0.13, top - 0.01),
            (back - 0.13, top - 0.01),
            (back, top - 0.03),
            (back, top - 0.03),
            (back - 0.012, ground),
            (back - 0.012, ground),
            (back - 0.012 - heel_width, ground),
            (back - 0.012 - heel_width, ground),
            (back - 0.03 - heel_width, top + rise * 0.35),
        ]
    )
    canvas.add(heel, look.shade(0.7))
    sole = smooth(
        [
            (0.14, ground - 0.02),
            (0.2, ground),
            (0.38, ground),
            (0.5, ground - rise * 0.35),
            (0.66, top),
            (back, top - 0.01),
            (back, top - 0.035),
            (0.62, top - 0.05),
            (0.4, ground - 0.05),
            (0.2, ground - 0.05),
        ]
    )
    canvas.add(sole, DARK)
    shaft = {"pump": 0.13, "ballerina": 0.11, "ankle boot": 0.3, "tall boot": 0.52}[look.shape["style"]]
    toe = 0.12 if look.shape["toe"] == "pointed" else 0.155
    lift = 0.035 if look.shape["toe"] == "pointed" else 0.06
    upper = ground - 0.012
    if "boot" in look.shape["style"]:
        wide = look.between(0.0, 0.02)
        body = smooth(
            [
                (toe, upper),
                (toe, upper),
                (toe + 0.015, upper - lift),
                (0.34, ground - 0.13 - rise * 0.2),
                (0.535, top - 0.18),
                (0.555 - wide, top - shaft),
                (0.555 - wide, top - shaft),
                (0.79 + wide, top - shaft - 0.01),
                (0.79 + wide, top - shaft - 0.01),
                (0.785, top - 0.15),
                (back + 0.012, top - 0.04),
                (back, top - 0.015),
                (back, top - 0.015),
                (0.66, top - 0.006),
                (0.5, upper - rise * 0.4),
                (0.36, upper),
            ]
        )
        canvas.add(body, look.main)
        canvas.line(
            line_through((0.69, top - shaft + 0.02), (0.695, top - 0.15), (0.67, top - 0.03)), 0.005, (0, 0, 0), 0.4
        )
        canvas.creases([line_through((0.53, top - 0.13), (0.6, top - 0.1), (0.66, top - 0.12))], 0.008, 0.2)
    else:
        canvas.add(ellipse(0.6, top - 0.07, 0.17, 0.03), look.shade(0.45))
        body = smooth(
            [
                (toe, upper),
                (toe, upper),
                (toe + 0.015, upper - lift),
                (0.28, ground - 0.1),
                (0.36, ground - 0.1 - rise * 0.12),
                (0.44, ground - 0.085 - rise * 0.35),
                (0.55, top - 0.062),
                (0.7, top - 0.085),
                (back - 0.005, top - shaft),
                (back - 0.005, top - shaft),
                (back + 0.015, top - 0.06),
                (back, top - 0.012),
                (back, top - 0.012),
                (0.66, top - 0.004),
                (0.5, upper - rise * 0.4),
                (0.36, upper),
            ]
        )
        canvas.add(body, look.main)
    if look.shape["detail"] == "strap" and "boot" not in look.shape["style"]:
        canvas.add(
            ribbon([(0.5, top - 0.035), (0.53, top - 0.12), (0.6, top - 0.135), (0.67, top - 0.05)], 0.018), look.trim
        )
    elif look.shape["detail"] == "bow":
        x, y = (0.33, ground - 0.115 - rise * 0.12) if "boot" not in look.shape["style"] else (0.68, top - shaft + 0.05)
        for wing in (-1, 1):
            canvas.add(smooth([(x, y), (x, y), (x + wing * 0.055, y - 0.035), (x + wing * 0.06, y + 0.025)]), look.trim)
        canvas.add(ellipse(x, y, 0.013, 0.014), look.trim)
    elif look.shape["detail"] == "toe cap":
        cap = smooth(
            [
                (toe, upper),
                (toe, upper),
                (toe + 0.013, upper - lift),
                (0.25, ground - 0.092),
                (0.25, ground - 0.092),
                (0.275, ground - 0.05),
                (0.265, upper),
                (0.265, upper),
            ]
        )
        canvas.add(cap, look.trim, shadow=0.15)


def sneakers(canvas: Canvas, look: Look) -> None:
    """From the side, toe to the left."""
    ground = 0.7
    ankle = {"low": 0.43, "mid": 0.37, "high": 0.27}[look.shape["height"]] + look.between(-0.01, 0.01)
    thick = {"flat": 0.05, "chunky": 0.1, "wedge": 0.07}[look.shape["sole"]]
    canvas.add(ellipse(0.72, ankle + 0.015, 0.115, 0.03), look.shade(0.4))
    base = ground - thick
    body = smooth(
        [
            (0.125, base + 0.02),
            (0.125, base + 0.02),
            (0.135, base - 0.07),
            (0.22, base - 0.115),
            (0.36, base - 0.15),
            (0.5, ankle + 0.09),
            (0.595, ankle),
            (0.595, ankle),
            (0.7, ankle + 0.03),
            (0.825, ankle - 0.02),
            (0.86, ankle - 0.02),
            (0.845, ankle + 0.1),
            (0.87, base - 0.03),
            (0.865, base + 0.02),
            (0.865, base + 0.02),
        ]
    )
    canvas.add(body, look.main)
    toe = smooth(
        [
            (0.125, base + 0.02),
            (0.125, base + 0.02),
            (0.135, base - 0.07),
            (0.23, base - 0.118),
            (0.23, base - 0.118),
            (0.3, base - 0.06),
            (0.32, base + 0.02),
            (0.32, base + 0.02),
        ]
    )
    canvas.add(toe, RUBBER if look.shape["detail"] == "toe cap" else look.shade(0.86), shadow=0.2)
    counter = smooth(
        [
            (0.74, base + 0.02),
            (0.74, base + 0.02),
            (0.755, base - 0.08),
            (0.85, base - 0.13),
            (0.87, base - 0.03),
            (0.865, base + 0.02),
            (0.865, base + 0.02),
        ]
    )
    canvas.add(counter, look.trim, shadow=0.2)
    if look.shape["detail"] == "side stripes":
        for x in (0.47, 0.54, 0.61):
            canvas.add(
                ribbon([(x, base - 0.005), (x + 0.035, base - 0.085), (x + 0.05, base - 0.13)], 0.028),
                look.trim,
                shadow=0.15,
            )
    elif look.shape["detail"] == "wave":
        wave = smooth(
            [
                (0.4, base - 0.05),
                (0.4, base - 0.05),
                (0.52, base - 0.02),
                (0.66, base - 0.08),
                (0.83, base - 0.17),
                (0.83, base - 0.17),
                (0.66, base - 0.045),
                (0.5, base + 0.012),
            ]
        )
        canvas.add(wave, look.trim, shadow=0.15)
    for share in np.linspace(0.08, 0.92, 5 if look.shape["height"] == "low" else 7):
        x, y = 0.36 + share * 0.22, base - 0.145 + share * (ankle + 0.02 - base + 0.145)
        canvas.add(
            ribbon([(x - 0.012, y - 0.004), (x + 0.045, y + 0.035)], 0.017), replace(RUBBER, bevel=0.006), shadow=0.3
        )
    heel_lift = 0.02 if look.shape["sole"] == "wedge" else 0.0
    sole = smooth(
        [
            (0.11, base),
            (0.11, base),
            (0.3, base + 0.012),
            (0.6, base + 0.004 - heel_lift),
            (0.875, base - 0.012 - heel_lift),
            (0.875, base - 0.012 - heel_lift),
            (0.895, ground - 0.03),
            (0.86, ground),
            (0.5, ground),
            (0.2, ground),
            (0.115, ground - 0.025),
        ]
    )
    canvas.add(sole, RUBBER if look.shape["sole"] != "chunky" else look.trim)
    canvas.line(
        line_through((0.12, ground - thick * 0.4), (0.5, ground - thick * 0.36), (0.885, ground - thick * 0.5)),
        0.006,
        (0, 0, 0),
        0.3,
    )


def backpack(canvas: Canvas, look: Look) -> None:
    half, top = {"slim": 0.2, "daypack": 0.25, "roll-top": 0.22}[look.shape["body"]] + look.between(-0.012, 0.02), 0.2
    for side in (False, True):
        strap = ribbon(
            [
                (0.5 + half * 0.55, top + 0.02),
                (0.5 + half * 1.08, 0.35),
                (0.5 + half * 1.14, 0.6),
                (0.5 + half * 0.9, 0.84),
            ],
            0.05,
        )
        canvas.add(mirrored(strap) if side else strap, look.shade(0.6))
    handle = ribbon([(0.445, top + 0.03), (0.45, top - 0.055), (0.55, top - 0.055), (0.555, top + 0.03)], 0.024)
    canvas.add(handle, look.shade(0.55))
    shoulder = 0.06 if look.shape["body"] == "roll-top" else 0.16
    canvas.add(rounded(0.5 - half, top, 0.5 + half, 0.89, shoulder), replace(look.main, bevel=0.04))
    if look.shape["body"] == "roll-top":
        canvas.add(
            rounded(0.5 - half * 1.05, top - 0.03, 0.5 + half * 1.05, top + 0.09, 0.035),
            replace(look.solid, bevel=0.03),
        )
        for x in (0.5 - half * 0.55, 0.5 + half * 0.55):
            canvas.add(box(x - 0.016, top - 0.01, x + 0.016, 0.5), look.trim)
            canvas.add(rounded(x - 0.024, 0.39, x + 0.024, 0.43, 0.008), METAL)
    else:
        arch = line_through(
            (0.5 - half * 0.82, 0.52),
            (0.5 - half * 0.76, top + 0.11),
            (0.5, top + 0.055),
            (0.5 + half * 0.76, top + 0.11),
            (0.5 + half * 0.82, 0.52),
        )
        canvas.line(arch, 0.014, (30, 30, 34), 0.75)
        canvas.add(rounded(0.5 + half * 0.76, 0.5, 0.5 + half * 0.76 + 0.02, 0.57, 0.008), METAL)
    pocket_top = look.between(0.55, 0.62)
    surface = replace(look.trim if look.shape["pocket"] == "contrast" else look.solid, bevel=0.035)
    if look.shape["pocket"] == "flap":
        canvas.add(rounded(0.5 - half * 0.78, pocket_top, 0.5 + half * 0.78, 0.85, 0.04), surface)
        flap = rounded(0.5 - half * 0.82, pocket_top - 0.02, 0.5 + half * 0.82, pocket_top + 0.11, 0.045)
        canvas.add(flap, replace(look.trim, bevel=0.02))
        canvas.add(rounded(0.482, pocket_top + 0.07, 0.518, pocket_top + 0.115, 0.008), BRASS)
    elif look.shape["pocket"] == "double":
        for x in (0.5 - half * 0.42, 0.5 + half * 0.42):
            canvas.add(rounded(x - half * 0.36, pocket_top, x + half * 0.36, 0.85, 0.04), surface)
            canvas.line(
                line_through(
                    (x - half * 0.3, pocket_top + 0.03), (x, pocket_top + 0.026), (x + half * 0.3, pocket_top + 0.03)
                ),
                0.01,
                (30, 30, 34),
                0.7,
            )
    else:
        canvas.add(rounded(0.5 - half * 0.78, pocket_top, 0.5 + half * 0.78, 0.85, 0.06), surface)
        zipper = line_through(
            (0.5 - half * 0.7, pocket_top + 0.04), (0.5, pocket_top + 0.034), (0.5 + half * 0.7, pocket_top + 0.04)
        )
        canvas.line(zipper, 0.012, (30, 30, 34), 0.75)
    canvas.add(rounded(0.465, 0.395, 0.535, 0.44, 0.006), replace(look.trim, bevel=0.005))


def handbag(canvas: Canvas, look: Look) -> None:
    body = look.shape["body"]
    half = {"tote": 0.3, "satchel": 0.33, "bucket": 0.24, "hobo": 0.34}[body] + look.between(-0.02, 0.02)
    top = {"tote": 0.4, "satchel": 0.45, "bucket": 0.42, "hobo": 0.46}[body]
    peak = {"short": 0.24, "long": 0.06, "double": 0.17}[look.shape["handle"]]
    reach = half * (0.62 if look.shape["handle"] != "long" else 0.92)
    strap = ribbon(
        [
            (0.5 - reach, top + 0.03),
            (0.5 - reach * 0.9, (top + peak) / 2),
            (0.5, peak),
            (0.5 + reach * 0.9, (top + peak) / 2),
            (0.5 + reach, top + 0.03),
        ],
        0.024,
    )
    surface = look.trim if look.shape["handle"] == "double" else look.shade(0.72)
    if look.shape["handle"] == "double":
        canvas.add(strap - (0.012, 0.028), replace(surface, color=look.shade(0.6).color))
    if body == "tote":
        outline = symmetric(
            [
                (0.5, top),
                (0.5 + half, top),
                (0.5 + half, top),
                (0.5 + half * 0.86, 0.84),
                (0.5 + half * 0.82, 0.87),
                (0.5, 0.875),
            ]
        )
    elif body == "satchel":
        outline = rounded(0.5 - half, top, 0.5 + half, 0.86, 0.05)
    elif body == "bucket":
        outline = symmetric(
            [
                (0.5, top - 0.015),
                (0.5 + half * 0.84, top),
                (0.5 + half * 0.84, top),
                (0.5 + half * 1.06, 0.7),
                (0.5 + half * 0.98, 0.86),
                (0.5 + half * 0.8, 0.885),
                (0.5, 0.89),
            ]
        )
    else:
        outline = symmetric(
            [
                (0.5, top + 0.05),
                (0.5 + half * 0.7, top + 0.01),
                (0.5 + half * 0.86, top - 0.03),
                (0.5 + half * 1.04, 0.68),
                (0.5 + half * 0.72, 0.84),
                (0.5, 0.88),
            ]
        )
    canvas.add(outline, replace(look.main, bevel=0.035))
    canvas.add(strap, surface)
    if body == "satchel":
        flap = symmetric(
            [
                (0.5, top - 0.012),
                (0.5 + half, top - 0.005),
                (0.5 + half, top - 0.005),
                (0.5 + half, top + 0.12),
                (0.5 + half * 0.8, top + 0.19),
                (0.5, top + 0.21),
            ]
        )
        canvas.add(flap, replace(look.solid, bevel=0.02))
    if body == "bucket":
        canvas.add(
            ribbon([(0.5 - half * 0.88, top + 0.085), (0.5, top + 0.105), (0.5 + half * 0.88, top + 0.085)], 0.014),
            look.trim,
        )
        canvas.add(ribbon([(0.5, top + 0.1), (0.505, top + 0.17), (0.5, top + 0.24)], 0.014), look.trim)
    if look.shape["detail"] == "panel":
        panel = symmetric(
            [(0.5, 0.74), (0.5 + half * 0.93, 0.74), (0.5 + half * 0.93, 0.74), (0.5 + half * 0.86, 0.84), (0.5, 0.872)]
        )
        canvas.add(panel, replace(look.trim, bevel=0.015), shadow=0.15)
    elif look.shape["detail"] == "clasp":
        y = top + (0.19 if body == "satchel" else 0.07)
        canvas.add(rounded(0.462, y - 0.028, 0.538, y + 0.028, 0.01), BRASS)
        canvas.add(ellipse(0.5, y, 0.012, 0.012), DARK)
    else:
        canvas.line(
            line_through((0.5 - half * 0.9, top + 0.035), (0.5, top + 0.045), (0.5 + half * 0.9, top + 0.035)),
            0.004,
            (255, 255, 255),
            0.5,
        )
        charm = ribbon(
            [(0.5 + half * 0.55, top + 0.04), (0.5 + half * 0.56, top + 0.13), (0.5 + half * 0.55, top + 0.22)],
            0.012,
            0.05,
        )
        canvas.add(charm, look.trim)
    for x in (0.5 - reach, 0.5 + reach):
        canvas.add(ellipse(x, top + 0.035, 0.017, 0.017), BRASS)


def hat(canvas: Canvas, look: Look) -> None:
    crown_top = look.between(0.3, 0.35)
    kind = look.shape["style"]
    if kind == "beanie":
        dome = symmetric(
            [(0.5, crown_top - 0.03), (0.62, crown_top), (0.71, 0.47), (0.72, 0.62), (0.72, 0.62), (0.5, 0.63)]
        )
        canvas.add(dome, replace(look.main, bevel=0.06, folds=0.012))
        canvas.add(
            rounded(0.268, 0.56, 0.732, 0.69, 0.035),
            replace(look.trim if look.shape["band"] == "contrast" else look.shade(0.85), bevel=0.03),
        )
        canvas.creases([line_through((x, 0.58), (x, 0.62), (x, 0.68)) for x in np.linspace(0.3, 0.71, 16)], 0.006, 0.16)
        if look.shape["band"] != "plain":
            canvas.add(ellipse(0.5, crown_top - 0.045, 0.065, 0.06), replace(look.trim, folds=0.05, bevel=0.04))
        return
    if kind == "cap":
        canvas.add(
            smooth([(0.3, 0.6), (0.2, 0.63), (0.1, 0.69), (0.13, 0.71), (0.3, 0.685), (0.5, 0.66), (0.56, 0.6)]),
            look.trim if look.shape["band"] == "contrast" else look.shade(0.8),
        )
        dome = smooth(
            [
                (0.27, 0.61),
                (0.27, 0.61),
                (0.29, 0.46),
                (0.4, crown_top + 0.03),
                (0.56, crown_top),
                (0.72, 0.4),
                (0.8, 0.53),
                (0.81, 0.645),
                (0.81, 0.645),
                (0.55, 0.66),
            ]
        )
        canvas.add(dome, replace(look.main, bevel=0.05))
        for x, lean in ((0.42, -0.06), (0.66, 0.05)):
            canvas.line(line_through((0.555, crown_top + 0.005), (x, 0.45), (x + lean, 0.65)), 0.004, (0, 0, 0), 0.3)
        canvas.add(ellipse(0.555, crown_top, 0.017, 0.011), look.trim)
        if look.shape["band"] != "plain":
            canvas.add(rounded(0.33, 0.47, 0.42, 0.55, 0.012), replace(look.trim, bevel=0.008))
        return
    brim = {"fedora": 0.36, "wide brim": 0.46, "bucket": 0.33}[kind] + look.between(-0.015, 0.01)
    if kind != "bucket":
        canvas.add(ellipse(0.5, 0.65, brim, brim * 0.22), replace(look.solid, bevel=0.012))
        dip = 0.05 if kind == "fedora" else 0.0
        crown = symmetric(
            [
                (0.5, crown_top + dip),
                (0.57, crown_top),
                (0.66, crown_top + 0.06),
                (0.695, 0.5),
                (0.71, 0.655),
                (0.6, 0.685),
                (0.5, 0.69),
            ]
        )
        canvas.add(crown, replace(look.main, bevel=0.06), shadow=0.5)
        band = ribbon([(0.297, 0.6), (0.36, 0.635), (0.5, 0.65), (0.64, 0.635), (0.703, 0.6)], 0.06)
        canvas.add(band, look.trim if look.shape["band"] != "plain" else look.shade(0.7))
        if look.shape["band"] == "bow":
            canvas.add(smooth([(0.65, 0.6), (0.7, 0.55), (0.73, 0.6), (0.7, 0.655)]), look.trim)
        return
    crown = symmetric(
        [
            (0.5, crown_top + 0.01),
            (0.63, crown_top + 0.015),
            (0.665, crown_top + 0.06),
            (0.7, 0.56),
            (0.6, 0.585),
            (0.5, 0.59),
        ]
    )
    canvas.add(crown, replace(look.main, bevel=0.05))
    flare = symmetric(
        [(0.5, 0.555), (0.695, 0.53), (0.695, 0.53), (0.5 + brim, 0.685), (0.5 + brim * 0.7, 0.735), (0.5, 0.75)]
    )
    canvas.add(flare, replace(look.main if look.shape["band"] == "plain" else look.trim, bevel=0.025))
    for drop in (0.045, 0.09, 0.135):
        canvas.line(
            line_through((0.3 - drop * 0.6, 0.55 + drop), (0.5, 0.585 + drop), (0.7 + drop * 0.6, 0.55 + drop)),
            0.003,
            (0, 0, 0),
            0.25,
        )


def watch(canvas: Canvas, look: Look) -> None:
    size = look.between(0.17, 0.2)
    case = {"steel": METAL, "gold": BRASS, "black": replace(DARK, gloss=0.5)}[look.shape["case"]]
    strap_width = size * look.between(1.0, 1.15)
    for side in (0.1, 0.9):
        canvas.add(
            ribbon([(0.5, 0.5), (0.5, (0.5 + side) / 2), (0.5, side)], strap_width, strap_width * 0.8),
            replace(look.main, bevel=0.02),
        )
    if look.shape["strap"] == "links":
        rows = [line_through((0.4, y), (0.5, y), (0.6, y)) for y in np.arange(0.115, 0.9, 0.042) if abs(y - 0.5) > size]
        canvas.creases(rows, 0.006, 0.35)
    elif look.shape["strap"] == "stitched":
        for x in (0.5 - strap_width * 0.33, 0.5 + strap_width * 0.33):
            for y in np.arange(0.12, 0.88, 0.03):
                canvas.line(
                    line_through((x, float(y)), (x, float(y) + 0.008), (x, float(y) + 0.016)),
                    0.005,
                    look.main.accent,
                    0.9,
                )
    canvas.add(rounded(0.5 + size, 0.48, 0.5 + size + 0.035, 0.52, 0.008), case)
    round_case = look.shape["face"] == "round"
    frame, dial = (
        (ellipse(0.5, 0.5, size, size), ellipse(0.5, 0.5, size * 0.84, size * 0.84))
        if round_case
        else (
            rounded(0.5 - size, 0.5 - size * 1.1, 0.5 + size, 0.5 + size * 1.1, size * 0.3),
            rounded(0.5 - size * 0.83, 0.5 - size * 0.93, 0.5 + size * 0.83, 0.5 + size * 0.93, size * 0.2),
        )
    )
    canvas.add(frame, replace(case, bevel=0.025))
    face = Surface((248, 246, 240) if look.shape["dial"] == "light" else look.main.accent, bevel=0.004)
    canvas.add(dial, face, shadow=0.0)
    ink = (40, 40, 44) if sum(face.color) > 380 else (245, 245, 245)
    for hour in range(12):
        direction = np.array([np.sin(hour * np.pi / 6), -np.cos(hour * np.pi / 6)])
        start, end = 0.5 + direction * size * 0.66, 0.5 + direction * size * 0.78
        canvas.line(line_through(*map(tuple, (start, (start + end) / 2, end))), 0.012 if hour % 3 == 0 else 0.006, ink)
    for angle, length, width in ((look.between(0, 6.28), 0.42, 0.013), (look.between(0, 6.28), 0.64, 0.009)):
        tip = 0.5 + np.array([np.sin(angle), -np.cos(angle)]) * size * length
        canvas.line(line_through((0.5, 0.5), tuple((tip + 0.5) / 2), tuple(tip)), width, ink)
    canvas.add(ellipse(0.5, 0.5, 0.012, 0.012), case)


KINDS = (
    Kind(
        "women/shoes",
        ("Shoe", "Court Shoe"),
        heels,
        {
            "style": ("pump", "ballerina", "ankle boot", "tall boot"),
            "heel": ("flat", "kitten", "block", "stiletto"),
            "toe": ("pointed", "round"),
            "detail": ("plain", "strap", "bow", "toe cap"),
        },
        ("leather", "suede", "patent leather"),
        ("plain", "plain", "plain", "dots", "diamonds"),
        stands=True,
        size=0.13,
    ),
    Kind(
        "men/sneakers",
        ("Trainer", "Sneaker", "Runner"),
        sneakers,
        {
            "height": ("low", "mid", "high"),
            "sole": ("flat", "chunky", "wedge"),
            "detail": ("toe cap", "side stripes", "wave", "plain"),
        },
        ("canvas", "leather", "mesh"),
        ("plain", "plain", "plain", "checks"),
        stands=True,
        size=0.13,
    ),
    Kind(
        "bags/backpacks",
        ("Backpack", "Rucksack", "Daypack"),
        backpack,
        {"body": ("slim", "daypack", "roll-top"), "pocket": ("flap", "double", "contrast", "zip")},
        ("canvas", "nylon", "leather"),
        ("plain", "plain", "checks", "stripes", "dots", "blocks"),
        stands=True,
        size=0.26,
    ),
    Kind(
        "bags/handbags",
        ("Bag", "Handbag", "Purse"),
        handbag,
        {
            "body": ("tote", "satchel", "bucket", "hobo"),
            "handle": ("short", "long", "double"),
            "detail": ("panel", "clasp", "charm"),
        },
        ("leather", "suede", "canvas"),
        ("plain", "plain", "plain", "checks", "stripes", "diamonds"),
        stands=True,
        size=0.22,
    ),
    Kind(
        "accessories/hats",
        ("Hat",),
        hat,
        {"style": ("fedora", "wide brim", "bucket", "cap", "beanie"), "band": ("plain", "contrast", "bow")},
        ("wool felt", "straw", "cotton"),
        ("plain", "plain", "stripes", "checks", "dots", "diamonds"),
        size=0.16,
    ),
    Kind(
        "accessories/watches",
        ("Watch",),
        watch,
        {
            "face": ("round", "square"),
            "case": ("steel", "gold", "black"),
            "strap": ("plain", "links", "stitched"),
            "dial": ("light", "coloured"),
        },
        ("leather", "rubber", "textile"),
        ("plain", "plain", "stripes"),
        size=0.1,
    ),
)
