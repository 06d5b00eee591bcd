"""Pictures of one product, made from its cut-out: studio, other side, detail, other light, and at home."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from lookalike.sample.canvas import RGB

Rng = np.random.Generator
View = Callable[[Image.Image, bool, Rng], Image.Image]
"""(cut-out RGBA, whether it stands on the ground, rng) -> square RGB picture of the cut-out's size."""

WALLS: tuple[RGB, ...] = (
    (226, 221, 212),
    (206, 216, 214),
    (232, 214, 202),
    (202, 208, 222),
    (219, 222, 205),
    (236, 230, 222),
    (190, 196, 190),
)
FLOORS: tuple[RGB, ...] = ((188, 152, 116), (160, 126, 96), (206, 190, 170), (150, 146, 142), (214, 200, 178))


def gradient(size: tuple[int, int], top: RGB, bottom: RGB) -> Image.Image:
    ramp = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), ramp)


def laid(ground: Image.Image, cut: Image.Image, place: tuple[int, int], stands: bool, strength: float = 0.4) -> None:
    """Paste the cut-out with its shadow: below its foot where it stands, else soft and to the lower right."""
    box = cut.getbbox()
    if box is None:
        return
    alpha = cut.getchannel("A").resize((max(cut.width // 4, 1), max(cut.height // 4, 1)))
    if stands:
        left, _, right, bottom = box
        height = max((right - left) // 9, 4)
        foot = ImageOps.expand(Image.new("L", (right - left, height), 255).resize(((right - left), height)), height, 0)
        soft = foot.filter(ImageFilter.GaussianBlur(height * 0.55))
        corner = (place[0] + left - height, place[1] + bottom - height - height // 2)
    else:
        reach = cut.width // 40
        soft = alpha.filter(ImageFilter.GaussianBlur(reach / 3)).resize(cut.size)
        corner = (place[0] + reach // 2, place[1] + reach)
    ground.paste((24, 22, 28), corner, soft.point([round(value * strength) for value in range(256)]))
    ground.paste(cut, place, cut)


def _turned(cut: Image.Image, rng: Rng, lean: float) -> Image.Image:
    """The product mirrored and seen from the side: nearer on one side, tipped by up to `lean` degrees."""
    size = cut.width
    near, far = rng.uniform(-0.02, 0.01) * size, rng.uniform(0.05, 0.09) * size
    squeeze = rng.uniform(0.04, 0.14) * size
    quad = (-squeeze, near, -squeeze, size - near, size + squeeze, size + far, size + squeeze, -far)
    seen = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).transform(
        (size, size), Image.Transform.QUAD, quad, Image.Resampling.BILINEAR
    )
    return seen.rotate(float(rng.uniform(-lean, lean)), Image.Resampling.BILINEAR)


def studio(cut: Image.Image, stands: bool, rng: Rng) -> Image.Image:  # noqa: ARG001 - one signature for all views
    ground = gradient(cut.size, (255, 255, 255), (246, 246, 246) if stands else (255, 255, 255))
    laid(ground, cut, (0, 0), stands, 0.28)
    return ground


def angle(cut: Image.Image, stands: bool, rng: Rng) -> Image.Image:
    grey = int(rng.integers(228, 246))
    ground = gradient(cut.size, (250, 250, 250), (grey, grey, grey))
    laid(ground, _turned(cut, rng, 2 if stands else 7), (0, 0), stands, 0.35)
    return ground


def detail(cut: Image.Image, stands: bool, rng: Rng) -> Image.Image:
    """A close crop around the middle of the product."""
    left, top, right, bottom = cut.getbbox() or (0, 0, *cut.size)
    side = min(max(right - left, bottom - top), cut.width) * rng.uniform(0.45, 0.6)
    x = left + (right - left - side) * rng.uniform(0.3, 0.7)
    y = top + (bottom - top - side) * rng.uniform(0.25, 0.6)
    close = cut.resize(
        cut.size, Image.Resampling.BICUBIC, (max(x, 0), max(y, 0), min(x + side, cut.width), min(y + side, cut.height))
    )
    ground = gradient(cut.size, (248, 247, 245), (236, 235, 232))
    laid(ground, close, (0, 0), False, 0.3 if not stands else 0.2)
    return ground


def light(cut: Image.Image, stands: bool, rng: Rng) -> Image.Image:
    """Warmer or cooler, brighter or dimmer than the studio, on a tinted ground."""
    wall = WALLS[int(rng.integers(len(WALLS)))]
    ground = gradient(cut.size, wall, (wall[0] - 26, wall[1] - 26, wall[2] - 26))
    laid(ground, cut.rotate(float(rng.uniform(-3, 3)) * (not stands), Image.Resampling.BILINEAR), (0, 0), stands, 0.55)
    warmth = rng.uniform(0.84, 1.0)
    tint = (1.0, (1 + warmth) / 2, warmth) if rng.random() < 0.6 else (warmth, (1 + warmth) / 2, 1.0)
    table = [min(255, round(value * share)) for share in tint for value in range(256)]
    lit = ImageEnhance.Brightness(ground.point(table)).enhance(float(rng.uniform(0.88, 1.1)))
    glow = Image.radial_gradient("L").resize(cut.size)
    return Image.composite(
        ImageEnhance.Brightness(lit).enhance(0.8), lit, glow.point([value * 3 // 5 for value in range(256)])
    )


def at_home(cut: Image.Image, stands: bool, rng: Rng) -> Image.Image:
    """Before a wall and a floor, or blurred lights; smaller, and off the middle."""
    size = cut.width
    share = rng.uniform(0.7, 0.85)
    small = cut.resize((round(size * share),) * 2, Image.Resampling.BICUBIC)
    bottom = (small.getbbox() or (0, 0, 0, small.height))[3]
    ground = room((size, size), 0.72, rng) if stands else blurred_lights(size, rng)
    x = round((size - small.width) * rng.uniform(0.2, 0.8))
    y = round(size * 0.87) - bottom if stands else round((size - small.height) * rng.uniform(0.3, 0.7))
    laid(ground, small, (x, y), stands, 0.5)
    return ground


def room(size: tuple[int, int], horizon: float, rng: Rng) -> Image.Image:
    """An empty room: a lit wall, a skirting board, floor boards; the floor begins at share `horizon` of the height."""
    width, height = size
    wall, floor = WALLS[int(rng.integers(len(WALLS)))], FLOORS[int(rng.integers(len(FLOORS)))]
    level = round(height * horizon)
    picture = gradient(size, (wall[0] - 18, wall[1] - 18, wall[2] - 16), wall)
    window = Image.new("L", size)
    slant, left = round(width * 0.16), round(width * rng.uniform(0.05, 0.5))
    for pane in range(2):
        x = left + pane * round(width * 0.17)
        quad = [
            (x, 0),
            (x + width // 7, 0),
            (x + width // 7 - slant, round(level * 0.8)),
            (x - slant, round(level * 0.8)),
        ]
        _fill(window, quad, 46)
    picture.paste((255, 250, 236), (0, 0), window.filter(ImageFilter.GaussianBlur(width / 90)))
    boards = gradient((width, height - level), (floor[0] - 24, floor[1] - 24, floor[2] - 24), floor)
    for number in range(-6, 13):
        board = width * (number + 0.5) / 7
        far = width / 2 + (board - width / 2) * 0.8
        seam = (floor[0] - 34, floor[1] - 34, floor[2] - 34)
        _fill(boards, [(far, 0), (board, height), (board + 2, height), (far + 1, 0)], seam)
    picture.paste(boards, (0, level))
    skirting = max(height // 45, 3)
    picture.paste((246, 244, 240), (0, level - skirting, width, level))
    picture.paste((206, 202, 196), (0, level - 1, width, level + 1))
    return picture.filter(ImageFilter.GaussianBlur(width / 500))


def blurred_lights(size: int, rng: Rng) -> Image.Image:
    small = gradient((64, 64), WALLS[int(rng.integers(len(WALLS)))], FLOORS[int(rng.integers(len(FLOORS)))])
    for _ in range(9):
        x, y, radius = (float(v) for v in rng.uniform((0, 0, 3), (64, 64, 9)))
        spot = Image.new("L", small.size)
        turn = np.linspace(0, 2 * np.pi, 24)
        _fill(spot, list(zip(x + radius * np.cos(turn), y + radius * np.sin(turn), strict=True)), 70)
        small.paste((255, 244, 226), (0, 0), spot)
    return small.filter(ImageFilter.GaussianBlur(2.4)).resize((size, size), Image.Resampling.BICUBIC)


def _fill(picture: Image.Image, corners: Sequence[tuple[float, float]], ink: int | RGB) -> None:
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in corners], fill=ink)


VIEWS: dict[str, View] = {"main": studio, "angle": angle, "detail": detail, "light": light, "home": at_home}
"""By the kind of an image in truth.json."""
