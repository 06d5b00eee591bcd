"""Files as shops send them: JPEG, PNG and WebP, and now and then one that needs care to be read right."""

import io

from PIL import Image

from lookalike.sample.views import Rng

ORIENTATION = 0x0112  # EXIF tag
TURNED_RIGHT = 6  # its value where a viewer must turn the picture by 90 degrees clockwise

CAREFUL = ("exif", "palette", "cmyk", "alpha")
CAREFUL_EVERY = 40  # one image in so many


def encoded(picture: Image.Image, cut: Image.Image, number: int, rng: Rng) -> tuple[bytes, str, str]:
    """The file of one RGB `picture` (`cut` is its product, RGBA): bytes, file name suffix, and encoding's name.

    `number` counts a catalog's images and says which encoding it gets.
    """
    side = int(rng.choice([400, 480, 560, 640, 720, 800, 1000], p=[0.14, 0.2, 0.2, 0.2, 0.14, 0.08, 0.04]))
    round_number, place = divmod(number, CAREFUL_EVERY)
    if place == 0:
        return _careful(CAREFUL[round_number % len(CAREFUL)], picture, cut)
    draw = rng.random()
    if draw < 0.08:
        return _bytes(_sized(picture, min(side, 480)), "PNG", compress_level=1), ".png", "png"
    if draw < 0.2:
        return _bytes(_sized(picture, min(side, 640)), "WEBP", quality=82, method=0), ".webp", "webp"
    return _bytes(_sized(picture, side), "JPEG", quality=int(rng.integers(82, 93))), ".jpg", "jpeg"


def _careful(kind: str, picture: Image.Image, cut: Image.Image) -> tuple[bytes, str, str]:
    small = _sized(picture, 480)
    if kind == "exif":
        exif = Image.Exif()
        exif[ORIENTATION] = TURNED_RIGHT
        return _bytes(small.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=88, exif=exif), ".jpg", kind
    if kind == "palette":
        return _bytes(small.quantize(128), "PNG"), ".png", kind
    if kind == "cmyk":
        return _bytes(small.convert("CMYK"), "JPEG", quality=88), ".jpg", kind
    return _bytes(_sized(cut, 480), "PNG", compress_level=1), ".png", kind


def _sized(picture: Image.Image, side: int) -> Image.Image:
    return picture.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _bytes(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
