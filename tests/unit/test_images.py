"""Pictures in every mode against truth worked out by hand, and hostile ones: a reason, never an exception."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tests.hostile import png_chunk
from torchvision import transforms

from lookalike import reasons
from lookalike.boxes import Box
from lookalike.kernels.models.networks import Preprocessing
from lookalike.kernels.pictures.images import DecodedPicture, Rejection, decode, has_signature_of_picture

SIDE = 32
SQUASH = Preprocessing(SIDE, "squash", 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CROP = Preprocessing(SIDE, "crop", 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int = 96, height: int | None = None) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height or width, width, 3), dtype=np.uint8))


def quarters(side: int = 64) -> Image.Image:
    """Red, green above blue, white: every turn and flip of it differs."""
    image = Image.new("RGB", (side, side), WHITE)
    half = side // 2
    image.paste(RED, (0, 0, half, half))
    image.paste(GREEN, (half, 0, side, half))
    image.paste(BLUE, (0, half, half, side))
    return image


def pixels(content: bytes, preprocessing: Preprocessing = SQUASH) -> NDArray[np.int_]:
    decoded = decode(content, preprocessing, max_pixels=10**6, min_side_px=4)
    assert isinstance(decoded, DecodedPicture), decoded
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape == (preprocessing.size_px, preprocessing.size_px, 3)
    return decoded.pixels.astype(int)


def corners(content: bytes) -> list[tuple[int, ...]]:
    """Colours at the middles of the quarters, rounded: top left, top right, bottom left, bottom right."""
    image = np.round(pixels(content) / 51) * 51
    at = (SIDE // 4, 3 * SIDE // 4)
    return [tuple(int(value) for value in image[y, x]) for y in at for x in at]


def reason(content: bytes, max_pixels: int = 10**6, min_side_px: int = 4) -> str:
    rejected = decode(content, SQUASH, max_pixels, min_side_px)
    assert isinstance(rejected, Rejection), rejected
    return rejected.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_every_format_gives_its_colours(kind: str) -> None:
    assert corners(encoded(quarters(), kind)) == [RED, GREEN, BLUE, WHITE]


# By the EXIF standard: where the stored first row and first column are seen, hence the four quarters as seen.
@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (4, [BLUE, WHITE, RED, GREEN]),
        (5, [RED, BLUE, GREEN, WHITE]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (7, [WHITE, GREEN, BLUE, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_upright(kind: str, orientation: int, seen: list[tuple[int, int, int]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(quarters().resize((64, 96)), kind, exif=exif)
    assert corners(content) == seen
    decoded = decode(content, SQUASH, 10**6, 4)
    assert (decoded.width, decoded.height) == ((64, 96) if orientation < 5 else (96, 64))


@pytest.mark.parametrize("preprocessing", [SQUASH, CROP])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_is_a_part_of_the_upright_picture(kind: str, orientation: int, preprocessing: Preprocessing) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(noise(200, 80), kind, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image)
    width, height = upright.size
    left, top, right, bottom = width // 4, height // 2, width // 2, height - height // 8
    box = Box(left / width, top / height, right / width, bottom / height)
    part = decode(content, preprocessing, 10**6, 4, box)
    assert isinstance(part, DecodedPicture)
    assert (part.width, part.height) == upright.size
    expected = pixels(encoded(upright.crop((left, top, right, bottom)), "PNG"), preprocessing)
    # Next to the box's sides the filter of a resize sees a little of what is beyond.
    inner = slice(4, -4)
    assert np.abs(part.pixels[inner, inner].astype(int) - expected[inner, inner]).max() <= 2


def test_a_box_of_a_large_jpeg_keeps_its_resolution() -> None:
    """Though the whole would be decoded at a smaller scale."""
    image = Image.new("RGB", (32 * SIDE, 32 * SIDE), "white")
    grey = noise(SIDE // 2).convert("L")  # a JPEG keeps colours at half of the resolution
    image.paste(grey.resize((SIDE, SIDE), Image.Resampling.NEAREST), (0, 0))
    part = decode(encoded(image, "JPEG", quality=95), SQUASH, 10**8, 4, Box(0, 0, 1 / 32, 1 / 32))
    assert isinstance(part, DecodedPicture)
    expected = np.asarray(image.crop((0, 0, SIDE, SIDE))).astype(int)
    assert np.abs(part.pixels - expected).mean() < 5


def test_a_box_that_is_too_small() -> None:
    content = encoded(quarters())
    assert decode(content, SQUASH, 10**6, 16, Box(0, 0, 0.25, 0.25)) != Rejection(reasons.TOO_SMALL.text, 64, 64)
    assert decode(content, SQUASH, 10**6, 17, Box(0, 0, 0.25, 0.5)) == Rejection(reasons.TOO_SMALL.text, 64, 64)


def test_broken_exif_does_not_reject() -> None:
    assert corners(encoded(quarters(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")) == [RED, GREEN, BLUE, WHITE]


def test_alpha_is_laid_on_white() -> None:
    rgba = quarters().convert("RGBA")
    rgba.putpixel((0, 0), (0, 0, 0, 0))
    rgba.paste((0, 0, 0, 0), (32, 32, 64, 64))  # transparent black
    rgba.paste((255, 0, 0, 102), (0, 0, 32, 32))  # red at 2/5
    assert corners(encoded(rgba)) == [(255, 153, 153), GREEN, BLUE, WHITE]


def test_grey_with_alpha_is_laid_on_white() -> None:
    image = Image.new("LA", (64, 64), (0, 255))
    image.paste((0, 0), (32, 0, 64, 64))
    assert corners(encoded(image)) == [(0, 0, 0), WHITE, (0, 0, 0), WHITE]


def on_transparent(level: int, alpha: int = 255) -> Image.Image:
    """A square of one grey in the middle, on transparent pixels of the same grey."""
    image = Image.new("LA", (64, 64), (level, 0))
    image.paste((level, alpha), (16, 16, 48, 48))
    return image.convert("RGBA")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize(
    ("level", "ground"), [(255, 0), (253, 0), (245, 0), (230, 255), (128, 255), (10, 255), (0, 255)]
)
def test_what_is_drawn_on_transparent_is_seen(kind: str, level: int, ground: int) -> None:
    image = pixels(encoded(on_transparent(level), kind))
    assert np.abs(image[SIDE // 2, SIDE // 2] - level).max() <= 3
    assert np.abs(image[1, 1] - ground).max() <= 3


def test_faint_white_and_single_dark_dots_on_transparent() -> None:
    assert pixels(encoded(on_transparent(255, alpha=60)))[SIDE // 2, SIDE // 2].max() == 60  # on black
    dotted = on_transparent(255)
    dotted.putpixel((30, 30), (200, 200, 200, 255))
    large = dotted.resize((960, 960), Image.Resampling.NEAREST)
    large.paste((255, 255, 255, 255), (440, 440, 470, 470))
    large.putpixel((450, 450), (0, 0, 0, 255))
    assert pixels(encoded(large))[1, 1].max() == 0


def test_white_on_transparent_of_other_modes() -> None:
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([255, 255, 255, 255, 255, 254])
    palette.paste(1, (16, 16, 48, 48))
    deep = np.full((64, 64), 65535, dtype=np.uint16)
    deep[16:48, 16:48] -= 1
    deep_png = encoded(Image.fromarray(deep))
    deep_png = deep_png[:33] + png_chunk(b"tRNS", b"\xff\xff") + deep_png[33:]
    for content in (encoded(palette, transparency=0), encoded(palette, "GIF", transparency=0), deep_png):
        assert pixels(content)[SIDE // 2, SIDE // 2].min() >= 254
        assert pixels(content)[1, 1].max() == 0


def test_black_on_transparent_of_16_bits() -> None:
    deep = np.zeros((64, 64), dtype=np.uint16)
    deep[16:48, 16:48] = 1
    content = encoded(Image.fromarray(deep))
    content = content[:33] + png_chunk(b"tRNS", bytes(2)) + content[33:]
    assert pixels(content)[SIDE // 2, SIDE // 2].max() == 0
    assert pixels(content)[1, 1].min() == 255


def test_pale_pictures_that_are_opaque_stay_on_white() -> None:
    pale = Image.new("RGBA", (64, 64), (250, 250, 250, 255))
    pale.paste((240, 240, 240, 255), (16, 16, 48, 48))
    assert pixels(encoded(pale))[1, 1].min() == 250
    nothing = Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64, 4), dtype=np.uint8))
    nothing.putalpha(0)  # colours that nobody sees
    assert reason(encoded(nothing)) == reasons.ONE_COLOUR.text


def test_palette_and_its_transparent_entry() -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.paste(1, (32, 0, 64, 32))
    image.paste(2, (0, 32, 64, 64))
    assert corners(encoded(image)) == [RED, GREEN, BLUE, BLUE]
    assert corners(encoded(image, transparency=2)) == [RED, GREEN, WHITE, WHITE]
    assert corners(encoded(image, "GIF", transparency=2)) == [RED, GREEN, WHITE, WHITE]


def test_one_transparent_colour_of_a_png() -> None:
    assert corners(encoded(quarters(), transparency=BLUE)) == [RED, GREEN, WHITE, WHITE]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])  # Pillow writes the JPEG inverted, as Adobe does
def test_cmyk(kind: str) -> None:
    cmyk = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    cmyk.paste((0, 0, 0, 255), (32, 0, 64, 64))
    assert corners(encoded(cmyk, kind)) == [RED, (0, 0, 0), RED, (0, 0, 0)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.zeros((64, 64), dtype=np.uint16)
    values[:32, :32], values[:32, 32:], values[32:, :32], values[32:, 32:] = 0, 65535 // 5, 65535 // 5 * 3, 65535
    expected = [(level,) * 3 for level in (0, 51, 153, 255)]
    assert corners(encoded(Image.fromarray(values), kind)) == expected


@pytest.mark.parametrize("byte_order", [">", "<"])
def test_16_bit_grey_tiff_of_either_byte_order(byte_order: str) -> None:
    values = np.zeros((64, 64), dtype=f"{byte_order}u2")
    values[:, 32:] = 65535 // 5 * 2
    header = (b"MM" if byte_order == ">" else b"II") + struct.pack(byte_order + "HL", 42, 8)
    pixels_at = 8 + 2 + 9 * 12 + 4
    tags = [(256, 64), (257, 64), (258, 16), (259, 1), (262, 1), (273, pixels_at), (277, 1), (278, 64), (279, 8192)]
    directory = struct.pack(byte_order + "H", len(tags))
    for tag, value in tags:
        directory += struct.pack(byte_order + "HHLL", tag, 4, 1, value)
    content = header + directory + bytes(4) + values.tobytes()
    assert corners(content) == [(0, 0, 0), (102, 102, 102)] * 2


def test_float_tiff_is_scaled_by_its_largest() -> None:
    values = np.zeros((64, 64), dtype=np.float32)
    values[:, 32:], values[32:, 32:] = 0.6, 1.0
    assert corners(encoded(Image.fromarray(values), "TIFF")) == [(0, 0, 0), (153,) * 3, (0, 0, 0), WHITE]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_one_bit(mode: str) -> None:
    image = Image.new("L", (64, 64), 0)
    image.paste(255, (32, 0, 64, 64))
    assert corners(encoded(image.convert(mode))) == [(0, 0, 0), WHITE] * 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    later = [Image.new("RGB", (64, 64), colour) for colour in (BLUE, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(quarters(), kind, save_all=True, append_images=later, duration=50, **options)
    assert corners(content) == [RED, GREEN, BLUE, WHITE]


def test_squash_equals_a_plain_resize() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 60, 3), dtype=np.uint8))
    assert (pixels(encoded(image)) == np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))).all()


def test_crop_equals_torchvisions_resize_and_center_crop() -> None:
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (80, 160, 3), dtype=np.uint8))
    resize = transforms.Resize(40, transforms.InterpolationMode.BILINEAR)
    reference = transforms.CenterCrop(32)(resize(image))
    found = pixels(encoded(image), Preprocessing(32, "crop", 32 / 40, "bilinear", (0.5,) * 3, (0.5,) * 3))
    assert np.abs(found - np.asarray(reference).astype(int)).max() <= 1


def test_a_large_jpeg_decoded_at_reduced_scale_is_nearly_the_same() -> None:
    y, x = np.mgrid[0:640, 0:480]
    smooth = np.stack([x * 255 // 480, y * 255 // 640, (x + y) * 255 // 1120], axis=2).astype(np.uint8)
    content = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as whole:
        truth = np.asarray(whole.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pixels(content) - truth).max() <= 3
    decoded = decode(content, SQUASH, 10**6, 4)
    assert (decoded.width, decoded.height) == (480, 640)


@pytest.mark.parametrize(
    "content",
    [
        b"hello, I am a text" * 9,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        bytes(1000),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
)
def test_not_an_image(content: bytes) -> None:
    assert reason(content) == reasons.NOT_AN_IMAGE.text


AVIF = encoded(quarters(), "AVIF")


@pytest.mark.parametrize(
    "content",
    [
        encoded(quarters(), "BMP"),
        encoded(quarters(), "TIFF"),
        encoded(quarters(), "TIFF", big_tiff=True),
        AVIF,
        AVIF.replace(b"ftypavif\0\0\0\0avifmif1", b"ftypmif1\0\0\0\0mif1avif"),
    ],
)
def test_pictures_are_known_by_how_they_begin(content: bytes) -> None:
    assert has_signature_of_picture(content[:64])
    assert len(set(corners(content))) == 4


@pytest.mark.parametrize("head", [b"BMW, Audi and others", b"BM", b"\0\0\0 ftypmif1\0\0\0\0mif1heic" + bytes(40)])
def test_what_begins_like_a_picture(head: bytes) -> None:
    assert not has_signature_of_picture(head)


def test_zero_bytes() -> None:
    assert reason(b"") == reasons.ZERO_BYTES.text


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_found_wherever_it_ends(kind: str) -> None:
    content = encoded(noise(), kind)
    for part in np.linspace(0.02, 0.95, 20):
        assert reason(content[: int(len(content) * part)]) in (reasons.TRUNCATED.text, reasons.NOT_AN_IMAGE.text)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg"])
def test_a_truncated_compressed_tiff_is_found(compression: str) -> None:
    content = encoded(noise(), "TIFF", compression=compression)
    for part in np.linspace(0.05, 0.9, 10):
        assert reason(content[: int(len(content) * part)]) in (reasons.TRUNCATED.text, reasons.NOT_AN_IMAGE.text)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_a_truncated_file_says_so(kind: str) -> None:
    content = encoded(noise(), kind)
    assert reason(content[: len(content) // 2]) == reasons.TRUNCATED.text
    assert reason(content[:20]) == reasons.TRUNCATED.text


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    "side", [1_001, 12_000, 60_000]
)  # within Pillow's limits, beyond its warning, beyond its error
def test_a_bomb_is_rejected_by_its_header(side: int) -> None:
    content = png_header(side, side) + struct.pack(">I", 10) + b"IDAT" + bytes(14)
    assert reason(content) == reasons.TOO_MANY_PIXELS.text


def test_limits_are_inclusive() -> None:
    assert isinstance(decode(encoded(quarters(64)), SQUASH, 64 * 64, 64), DecodedPicture)
    assert decode(encoded(quarters(64)), SQUASH, 64 * 64 - 1, 4) == Rejection(reasons.TOO_MANY_PIXELS.text, 64, 64)
    assert decode(encoded(quarters(64)), SQUASH, 10**6, 65) == Rejection(reasons.TOO_SMALL.text, 64, 64)


def test_one_colour_is_a_placeholder() -> None:
    grey = np.full((64, 64, 3), 200, dtype=np.uint8)
    assert reason(encoded(Image.fromarray(grey), "JPEG")) == reasons.ONE_COLOUR.text
    grey[::2] += 3
    assert reason(encoded(Image.fromarray(grey))) == reasons.ONE_COLOUR.text
    assert reason(encoded(Image.new("RGBA", (64, 64), (9, 9, 9, 0)))) == reasons.ONE_COLOUR.text
    grey[20:40, 20:40] -= 20  # a pale product on a pale ground
    pixels(encoded(Image.fromarray(grey)))


CONTENTS = {kind: encoded(noise(24), kind) for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CONTENTS)), st.lists(st.integers(0, 2**20), min_size=1, max_size=12))
def test_flipped_bits_never_raise(kind: str, flips: list[int]) -> None:
    content = bytearray(CONTENTS[kind])
    for flip in flips:
        content[flip // 8 % len(content)] ^= 1 << flip % 8
    outcome = decode(bytes(content), SQUASH, 10**6, 4)
    assert isinstance(outcome, DecodedPicture) or outcome.reason in reasons.texts(reasons.PICTURES)
