"""Pictures that somebody tampered with, for tests: good files of every format, mutated."""

import ctypes
import io
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
REFUSED = ("DDS", "DIB", "EPS", "ICNS", "ICO", "IM", "JPEG2000", "PCX", "PDF", "PPM", "QOI", "SGI", "TGA")
_SIZES = (b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\x00\x00\xff\xff")


def noise(side_px: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def good(kind: str) -> tuple[bytes, ...]:
    return tuple(encoded(noise(48), kind, **options) for options in [{}, *_variants().get(kind, [])])


def _variants() -> dict[str, list[dict[str, Any]]]:
    turned = Image.Exif()
    turned[0x0112], turned[0x010E] = 6, "a description"
    frames = {"save_all": True, "append_images": [noise(48).rotate(90), noise(48).rotate(180)]}
    return {
        "JPEG": [{"exif": turned}, {"progressive": True}],
        "MPO": [frames],
        "PNG": [{"exif": turned}, frames],
        "WEBP": [{"exif": turned}, {"lossless": True}, frames],
        "AVIF": [{"exif": turned.tobytes()}, frames],
        "GIF": [frames],
        "TIFF": [{"exif": turned}, frames, *({"compression": c} for c in ("tiff_lzw", "tiff_adobe_deflate", "jpeg"))],
    }


def mutated(kind: str, chance: random.Random) -> bytes:
    """A good file after one to three of: flipped bits, a cut, a size written over, a part repeated, nesting, a join."""
    content = bytearray(chance.choice(good(kind)))
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(content) if chance.random() < 0.5 else min(len(content), 200))
        how = chance.randrange(6)
        if how == 0:
            for _ in range(chance.randint(1, 20)):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        elif how == 1:
            del content[max(1, place) :]
        elif how == 2:
            content[place : place + 4] = chance.choice(_SIZES)
        elif how == 3:
            content[place:place] = content[place : place + chance.randint(1, 400)] * chance.randint(1, 50)
        elif how == 4:
            content[place:place] = bytes(content)
        else:
            content[max(1, place) :] = chance.choice(good(chance.choice(FORMATS)))[place:]
    return bytes(content)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(chunks: bytes) -> bytes:
    """A good picture with more chunks in front of its pixels."""
    content = good("PNG")[0]
    return content[:33] + chunks + content[33:]


def gif_with(blocks: bytes) -> bytes:
    """A good picture with more blocks in front of its pixels."""
    content = good("GIF")[0]
    return content[: 13 + 3 * 256] + blocks + content[13 + 3 * 256 :]


def padded_gif(megabytes: int) -> bytes:
    """A good picture behind padding that Pillow reads byte by byte: a second for every few megabytes."""
    return gif_with(bytes(megabytes * 2**20))


def crashes_on_bad(content: bytes) -> bytes:
    if content == b"bad":
        ctypes.string_at(0)
    return content


def hangs(_content: bytes) -> bytes:
    ctypes.PyDLL(None).sleep(1000)  # without letting go of the interpreter
    return b""
