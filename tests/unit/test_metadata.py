"""Sound pictures among odd metadata decode as they do without it, and turn by EXIF alone; damaged ones are rejected."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tests.hostile import encoded, good, noise, png_chunk, png_with

from lookalike import reasons
from lookalike.kernels.models.networks import Preprocessing
from lookalike.kernels.pictures.images import DecodedPicture, Rejection, decode
from lookalike.kernels.pictures.metadata import read_orientation, strip_metadata
from lookalike.report.thumbnails import encode_webp

SQUASH = Preprocessing(32, "squash", 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
TURNED = b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"  # orientation 6
RUBBISH = bytes(range(256)) * 8
BODIES = {"empty": b"", "one byte": b"\1", "rubbish": RUBBISH, "large": b"k\0\0" + zlib.compress(bytes(2**26))}


def outcome(content: bytes) -> DecodedPicture | Rejection:
    return decode(content, SQUASH, 10**6, 4)


def reason(content: bytes) -> str:
    rejected = outcome(content)
    assert isinstance(rejected, Rejection)
    return rejected.reason


def check_same(odd: bytes, plain: bytes) -> None:
    """Truth: the same file without the odd metadata."""
    picture, expected = outcome(odd), outcome(plain)
    assert isinstance(picture, DecodedPicture), picture
    assert isinstance(expected, DecodedPicture)
    np.testing.assert_array_equal(picture.pixels, expected.pixels)
    assert (picture.width, picture.height) == (expected.width, expected.height)
    assert encode_webp(odd, 32) == encode_webp(plain, 32) != b""


def check_turned(content: bytes, upright: bytes) -> None:
    """Truth: numpy turns the upright picture's pixels to the right, in a thumbnail too."""
    picture, expected = outcome(content), outcome(upright)
    assert isinstance(picture, DecodedPicture)
    assert isinstance(expected, DecodedPicture)
    np.testing.assert_array_equal(picture.pixels, np.rot90(expected.pixels, -1))
    thumbnails = [Image.open(io.BytesIO(encode_webp(encoding, 32))) for encoding in (content, upright)]
    turned, plain = (np.asarray(thumbnail.convert("RGB")).astype(int) for thumbnail in thumbnails)
    assert np.abs(turned - np.rot90(plain, -1)).mean() < 20  # lossy; noise against other noise differs by 85


PNG = good("PNG")[0]
KINDS = (
    *("tEXt", "zTXt", "iTXt", "iCCP", "pHYs", "gAMA", "cHRM", "sRGB", "eXIf", "bKGD", "sBIT", "hIST", "tIME", "sPLT"),
    *("tRNS", "acTL", "fcTL", "fdAT", "cICP", "xxXx"),
)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_a_png(kind: str, body: str) -> None:
    chunk = png_chunk(kind.encode(), BODIES[body])
    wrong_checksum = chunk[:-4] + bytes(4)
    for odd in (chunk, wrong_checksum, chunk * 2):
        check_same(png_with(odd), PNG)
        check_same(PNG[:-12] + odd + PNG[-12:], PNG)


def test_a_png_is_sound_whatever_follows_its_pixels() -> None:
    text_cut_off = struct.pack(">I", 10**8) + b"tEXtabc"
    for end in (b"", text_cut_off, RUBBISH, PNG[-12:] + RUBBISH, PNG[-12:] + PNG):
        check_same(PNG[:-12] + end, PNG)


def test_a_transparency_that_is_no_transparency_is_left_out() -> None:
    grey = encoded(noise(48).convert("L"), "PNG")
    palette = encoded(noise(48).quantize(16), "PNG")
    for plain in (grey, palette):
        for body in (b"", bytes(300)):
            check_same(plain[:33] + png_chunk(b"tRNS", body) + plain[33:], plain)


def test_damaged_pixels_of_a_png_are_found_among_odd_metadata() -> None:
    odd = png_with(png_chunk(b"tEXt", RUBBISH)[:-4] + bytes(4))
    pixels_at = odd.index(b"IDAT") + 4
    for at in range(pixels_at + 8, len(odd) - 20, 97):
        assert reason(odd[:at] + bytes([odd[at] ^ 0x55]) + odd[at + 1 :]) == reasons.TRUNCATED.text
        assert reason(odd[:at]) == reasons.TRUNCATED.text
    palette = bytearray(encoded(noise(48).quantize(16), "PNG"))
    palette[palette.index(b"PLTE") + 5] ^= 1
    assert reason(bytes(palette)) == reasons.TRUNCATED.text


def segment(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


JPEG = good("JPEG")[0]
CMYK = encoded(noise(48).convert("CMYK"), "JPEG")  # its colours are known by Adobe's segment
NAMES = (
    *(b"", b"JFIF", b"JFIF\0", b"JFXX\0", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MPF\0", b"ICC_PROFILE\0"),
    *(b"ICC_PROFILE\0\1", b"Photoshop 3.0\0008BIM\3\xed\0\0\0\0\0\1a", b"Adobe", b"Adobe\0", b"FPXR\0"),
    *(b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\2\0\0\0", b"http://ns.adobe.com/xap/1.0/\0", RUBBISH),
)


@pytest.mark.parametrize("code", [*range(0xE0, 0xF0), 0xFE])
def test_segments_of_a_jpeg(code: int) -> None:
    for plain, first_ends_at in ((JPEG, 20), (CMYK, 18)):
        for odd in (segment(code, name) for name in NAMES):
            check_same(plain[:2] + odd + plain[2:], plain)
            check_same(plain[:first_ends_at] + odd + plain[first_ends_at:], plain)


@pytest.mark.parametrize(
    "between",
    [
        *(b"\xff\xe5\0\0", b"\xff\xe5\0\1", b"\xff\xe5\0\4abcdefgh", b"\r\n rubbish \xff\0", b"\xff" * 2**20),
        *(b"\xff\xd0", b"\xff\x01", segment(0xFE, b"c" * 65_533) * 40),
    ],
)
def test_what_stands_between_the_segments_of_a_jpeg(between: bytes) -> None:
    check_same(JPEG[:20] + between + JPEG[20:], JPEG)


@pytest.mark.parametrize("behind", [RUBBISH, JPEG, b"\xff\xd8\xff\xe0", b"\xff" * 9999, b"\0"])
def test_what_stands_behind_a_jpeg(behind: bytes) -> None:
    check_same(JPEG + behind, JPEG)


def test_a_jpeg_that_ends_in_its_pixels_is_found_among_odd_metadata() -> None:
    odd = JPEG[:2] + segment(0xE2, b"MPF\0") + segment(0xE0, b"JFIF") + JPEG[2:]
    for part in np.linspace(0.1, 0.97, 20):
        assert reason(odd[: int(len(odd) * part)]) == reasons.TRUNCATED.text


def webp(*chunks: bytes, flags: int = 0) -> bytes:
    head = struct.pack("<4sIB3x", b"VP8X", 10, flags) + 2 * struct.pack("<I", 47)[:3]
    body = head + b"".join(chunks)
    return struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WEBP") + body


def riff_chunk(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    return struct.pack("<4sI", kind, len(body) if size is None else size) + body


WEBP = good("WEBP")[2]
PIXELS = WEBP[12:]


@pytest.mark.parametrize("flags", [0, 0x08, 0x2C])
@pytest.mark.parametrize(
    "after",
    [
        *(b"", riff_chunk(b"EXIF", b""), riff_chunk(b"EXIF", RUBBISH), riff_chunk(b"EXIF", b"II*\0\xff\xff\xff\xff")),
        *(riff_chunk(b"EXIF", b"cut off", 10**6), riff_chunk(b"EXIF", b"cut off", 2**32 - 1)),
        *(riff_chunk(b"EXIF", b"odd"), riff_chunk(b"EXIF", b"odd") + riff_chunk(b"XMP ", XMP)),
        *(riff_chunk(b"PSAI", RUBBISH) + riff_chunk(b"EXIF", RUBBISH) * 2, RUBBISH),
    ],
)
def test_chunks_of_a_webp(after: bytes, flags: int) -> None:
    check_same(webp(PIXELS, after, flags=flags), WEBP)
    check_same(webp(riff_chunk(b"ICCP", b"no"), riff_chunk(b"EXIF", RUBBISH), PIXELS, after, flags=flags), WEBP)


def test_a_webp_of_another_declared_size_and_one_that_lacks_pixels() -> None:
    for size in (0, 20, 10**6):
        check_same(WEBP[:4] + struct.pack("<I", size) + WEBP[8:], WEBP)
    assert reason(webp(riff_chunk(b"EXIF", RUBBISH), PIXELS[:-9], flags=8)) == reasons.TRUNCATED.text


def test_exif_and_xmp_of_an_avif() -> None:
    plain = encoded(noise(48), "AVIF")
    odd = encoded(noise(48), "AVIF", exif=TURNED.replace(b"\x12\1", b"\x0f\1"), xmp=XMP)
    exif_at = odd.index(b"II*\0")
    check_same(odd, plain)
    check_same(odd[:exif_at] + b"rubbish." + odd[exif_at + 8 :], plain)
    check_same(odd[:exif_at] + b"II*\0\xff\xff\xff\xff" + odd[exif_at + 8 :], plain)
    check_same(odd[: exif_at - 4] + b"\xff" * 4 + odd[exif_at:], plain)
    check_same(odd + RUBBISH, plain)
    assert reason(odd[:-100]) == reasons.TRUNCATED.text


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}])
@pytest.mark.parametrize("tag", [330, 700, 33723, 34377, 34665, 34675, 34853, 40001, 40965])
def test_directories_of_a_tiff(tag: int, options: dict[str, object]) -> None:
    plain = encoded(noise(48), "TIFF", **options)
    mark = struct.pack("<HH", 40001, 3)
    content = encoded(noise(48), "TIFF", tiffinfo={40001: 1}, **options)
    at = content.index(mark)
    count_and_value = "QQ" if "big_tiff" in options else "II"
    for kind, count, value in [(7, 10**6, 10**8), (4, 1, 10**8), (99, 5, 5), (4, 1, 8), (2, 2**32 - 1, 0), (13, 1, 3)]:
        entry = struct.pack(f"<HH{count_and_value}", tag, kind, count, value)
        check_same(content[:at] + entry + content[at + len(entry) :], plain)


GIF = good("GIF")[0]
GIF_FRAME_AT = 13 + 3 * 256
CONTROL = b"!\xf9\4\0\0\0\0\0"


@pytest.mark.parametrize(
    "odd",
    [
        *(
            b"!\xff\0",
            b"!\xff\x0bNETSCAPE2.0\0",
            b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0",
            b"!\xff\x0bXMP DataXMP" + XMP + b"\1" + bytes(range(255, -1, -1)) + b"\0",
        ),
        *(b"!\xf9\0", b"!\xf9\1\0\0", b"!\xf9\3\1\0\0\0", b"!\xfe\0", b"!\xfe\4abcd\2ef\0", b"!\1\0", b"!\x99\1,\0"),
        *(CONTROL, b"rubbish", b"\0\0"),
    ],
)
def test_extensions_of_a_gif(odd: bytes) -> None:
    check_same(GIF[:GIF_FRAME_AT] + odd + GIF[GIF_FRAME_AT:], GIF)
    transparent = encoded(noise(48).quantize(256), "GIF", transparency=7)
    assert transparent.startswith(b"!\xf9\4", GIF_FRAME_AT)
    check_same(transparent[:GIF_FRAME_AT] + odd + transparent[GIF_FRAME_AT:], transparent)
    behind = GIF_FRAME_AT + len(CONTROL)
    check_same(transparent[:behind] + odd + transparent[behind:], transparent)


def test_a_gif_that_ends_before_its_pixels_is_found_among_odd_metadata() -> None:
    odd = GIF[:GIF_FRAME_AT] + b"!\xff\0!\xf9\0" + GIF[GIF_FRAME_AT:]
    for end in (6, 10, 11, 200, *range(GIF_FRAME_AT, GIF_FRAME_AT + 20), len(odd) // 2):
        assert reason(odd[:end]) == reasons.TRUNCATED.text
    assert reason(GIF[:GIF_FRAME_AT] + b"!\xff\0;") == reasons.TRUNCATED.text


def xmp_png(image: Image.Image) -> bytes:
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    texts.add_text("Raw profile type exif", f"\nexif\n{len(TURNED):8}\n{TURNED.hex()}\n")  # no browser reads it
    return encoded(image, "PNG", pnginfo=texts)


WITH_XMP: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG": lambda image: encoded(image, "JPEG", xmp=XMP),
    "PNG": xmp_png,
    "WEBP": lambda image: encoded(image, "WEBP", xmp=XMP),
    "AVIF": lambda image: encoded(image, "AVIF", xmp=XMP),
    "TIFF": lambda image: encoded(image, "TIFF", tiffinfo={700: XMP}),
}


@pytest.mark.parametrize("kind", WITH_XMP)
def test_xmp_turns_no_picture(kind: str) -> None:
    image = noise(96).crop((0, 0, 64, 96))
    check_same(WITH_XMP[kind](image), encoded(image, kind))


def test_exif_turns_a_picture_among_odd_metadata() -> None:
    check_turned(png_with(png_chunk(b"tEXt", b"")[:-4] + bytes(4) + png_chunk(b"eXIf", TURNED)), PNG)
    check_turned(PNG[:-12] + png_chunk(b"eXIf", b"Exif\0\0" + TURNED) + PNG[-12:], PNG)
    exif = segment(0xE1, b"Exif\0\0Exif\0\0" + TURNED)
    check_turned(JPEG[:2] + segment(0xE1, XMP) + segment(0xE2, b"MPF\0") + exif + JPEG[2:], JPEG)
    check_turned(webp(PIXELS, riff_chunk(b"EXIF", TURNED), riff_chunk(b"XMP ", XMP, 10**6)), WEBP)


def test_exif_with_a_wrong_checksum_turns_nothing() -> None:
    check_same(png_with(png_chunk(b"eXIf", TURNED)[:-4] + bytes(4)), PNG)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "value"), [(1, "B3x"), (3, "H2x"), (4, "I")])
def test_orientations_are_read(order: str, kind: int, value: str) -> None:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    for orientation in (0, 1, 6, 8, 9, 255):
        entries = struct.pack(f"{order}HHII", 0x010F, 2, 900, 10**9) + struct.pack(f"{order}HHI", 0x0112, kind, 1)
        exif = magic + struct.pack(f"{order}IH", 8, 9) + entries + struct.pack(order + value, orientation)
        assert read_orientation(exif) == (orientation if 1 <= orientation <= 8 else 1)
        assert read_orientation(exif[:-5]) == 1


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [b"", b"GIF89a", b"\xff\xd8\xff", PNG[:33], WEBP[:12], b"\0\0\0\x08ftyp", b"II*\0", b"MM\0+\0\x08\0\0"]
    ),
    st.binary(max_size=200),
)
def test_any_bytes_are_stripped_without_an_error(magic: bytes, body: bytes) -> None:
    stripped, exif = strip_metadata(magic + body)
    assert len(stripped) <= len(magic + body) + 20  # a directory at most
    assert 1 <= read_orientation(exif) <= 8
    assert 1 <= read_orientation(b"II*\0" + body) <= 8


def test_other_formats_stay_as_they_are() -> None:
    assert strip_metadata(good("BMP")[0]) == (good("BMP")[0], b"")
