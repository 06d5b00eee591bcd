"""Hostile pictures, by the thousand: each gives pixels or a reason, in bounded time and memory."""

import os
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.hostile import (
    FORMATS,
    REFUSED,
    crashes_on_bad,
    encoded,
    gif_with,
    good,
    hangs,
    mutated,
    padded_gif,
    png_chunk,
    png_with,
)

from lookalike import reasons
from lookalike.kernels.models.networks import Preprocessing
from lookalike.kernels.pictures.decoder import Decoder, decode_to_bytes
from lookalike.kernels.pictures.images import DecodedPicture, Rejection, decode
from lookalike.kernels.pictures.isolated import IsolatedFunction, ProcessEnded
from lookalike.report.thumbnails import make_thumbnail

SQUASH = Preprocessing(64, "squash", 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3)
MAX_PIXELS = 4_000_000
SECONDS = 10.0  # of a processor: half of what embed.decode_timeout_s allows, as machines differ
MB = 2**20

decoder = Decoder(SQUASH, MAX_PIXELS, 4, SECONDS)


def outcome(content: bytes) -> str:
    """The reason, or `decoded`, within SECONDS and the memory of a decoder: what takes more is BEYOND_LIMITS."""
    found = decoder(content)
    if isinstance(found, DecodedPicture):
        assert found.pixels.shape == (64, 64, 3)
        assert found.width * found.height <= MAX_PIXELS
        return "decoded"
    assert found.reason in reasons.texts(reasons.PICTURES)
    assert found.reason != reasons.BEYOND_LIMITS.text
    return found.reason


@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_pictures(kind: str) -> None:
    chance = random.Random(kind)
    found = [outcome(mutated(kind, chance)) for _ in range(280)]
    assert {"decoded", reasons.TRUNCATED.text} <= set(found)  # else the mutations are too tame, or too wild


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([content for kind in FORMATS for content in good(kind)]),
    st.lists(st.tuples(st.integers(0, 2**12), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
    st.integers(0, 2**12),
)
def test_edited_headers_and_cuts(content: bytes, edits: list[tuple[int, bytes]], cut: int) -> None:
    edited = bytearray(content)
    for place, value in edits:
        edited[place % len(edited) : place % len(edited) + len(value)] = value
    outcome(bytes(edited[: len(edited) - cut % len(edited)]))


@pytest.mark.parametrize("kind", REFUSED)
def test_other_formats_are_not_even_parsed(kind: str) -> None:
    assert outcome(good(kind)[0]) == reasons.NOT_AN_IMAGE.text
    chance = random.Random(kind)
    for _ in range(20):
        assert outcome(mutated(kind, chance)) in (reasons.NOT_AN_IMAGE.text, reasons.TRUNCATED.text)
    assert make_thumbnail(good(kind)[0], 32).startswith("data:image/svg")


@pytest.mark.parametrize("kind", FORMATS)
def test_processes_give_what_decode_gives(kind: str) -> None:
    for content in [*good(kind), good(kind)[0][:500], b"", b"x"]:
        direct, found = decode(content, SQUASH, MAX_PIXELS, 4), decoder(content)
        if isinstance(direct, Rejection):
            assert found == direct
        else:
            assert isinstance(found, DecodedPicture)
            assert (found.width, found.height) == (direct.width, direct.height)
            np.testing.assert_array_equal(found.pixels, direct.pixels)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_huge_declared_size_costs_nothing(kind: str) -> None:
    assert outcome(encoded(Image.new("RGB", (2500, 2500)), kind)) == reasons.TOO_MANY_PIXELS.text


def jpeg_of_scans(n: int) -> bytes:
    """A progressive JPEG whose last scan is there n times more."""
    image = Image.new("L", (2000, 2000), 90)
    image.paste(120, (0, 0, 900, 900))
    content = encoded(image, "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * n + content[-2:]


def endless_bmp() -> bytes:
    """Run-length codes that end a line, again and again."""
    body = b"\0\0" * (4 * MB)
    header = struct.pack("<IiiHHIIiiII", 40, 1000, 1000, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + bytes(1024) + body


_TAGS = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]


def tiff(tags: list[tuple[int, int, int, int]], body: bytes, following: int = 0) -> bytes:
    """(tag, type, count, value or place) of one directory, and where the next is."""
    directory = b"".join(struct.pack("<HHLL", *tag) for tag in sorted(_TAGS + tags))
    return struct.pack("<4sLH", b"II*\0", 8, len(_TAGS + tags)) + directory + struct.pack("<L", following) + body


def tiff_of_strips(n: int) -> bytes:
    at = 8 + 2 + 12 * 9 + 4
    return tiff([(273, 4, n, at), (278, 4, 1, 1), (279, 4, n, at)], struct.pack("<L", at) * n)


WHOLE: dict[str, Callable[[], bytes]] = {
    "JPEG of a million segments": lambda: good("JPEG")[0][:2] + b"\xff\xe3\0\2" * MB + good("JPEG")[0][2:],
    "JPEG of 2,000 scans": lambda: jpeg_of_scans(2000),
    "JPEG with padding": lambda: good("JPEG")[0][:2] + b"\xff" * (24 * MB) + good("JPEG")[0][2:],
    "PNG of 99 texts that unpack to 1 MiB": lambda: png_with(
        png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(MB - 1))) * 99
    ),
    "PNG with a profile that unpacks to 64 MiB": lambda: png_with(
        png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(64 * MB)))
    ),
    "PNG of 524,288 chunks": lambda: png_with(png_chunk(b"aaAa", b"") * (MB // 2)),
    "GIF with a long comment": lambda: gif_with(b"!\xfe" + (b"\xff" + b"c" * 255) * 80_000 + b"\0"),
    "GIF of a million extensions": lambda: gif_with(b"!\xf9\4\0\0\0\0\0" * MB),
    "TIFF of 262,144 strips": lambda: tiff_of_strips(MB // 4),
}
"""Pictures with all their pixels, among much else."""

DAMAGED: dict[str, Callable[[], bytes]] = {
    "BMP that never ends": endless_bmp,
    "TIFF of overlapping tags": lambda: tiff([(40000 + i, 7, 4 * MB, 8) for i in range(999)], bytes(5 * MB)),
    "TIFF whose directory follows itself": lambda: tiff([(273, 4, 1, 8), (330, 4, 1, 8), (34665, 4, 1, 8)], b"", 8),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_bomb_with_all_its_pixels_is_decoded_in_time(name: str) -> None:
    assert outcome(WHOLE[name]()) == "decoded"


@pytest.mark.parametrize("name", DAMAGED)
def test_a_bomb_that_lacks_pixels_is_damaged(name: str) -> None:
    assert outcome(DAMAGED[name]()) == reasons.TRUNCATED.text


def test_what_takes_too_long_is_ended() -> None:
    brief = Decoder(SQUASH, MAX_PIXELS, 4, seconds=1.0)
    assert brief(padded_gif(24)) == Rejection(reasons.BEYOND_LIMITS.text)
    assert isinstance(brief(good("JPEG")[0]), DecodedPicture)


def test_what_takes_too_much_memory_is_rejected() -> None:
    options = {"preprocessing": asdict(SQUASH), "max_pixels": 10**8, "min_side_px": 4}
    large = struct.pack("<4d", 0, 0, 1, 1) + encoded(Image.new("RGB", (6000, 6000)), "PNG")
    found = IsolatedFunction(decode_to_bytes, options, SECONDS, 260 * MB)(large)
    assert reasons.PICTURES[found[0]].text == reasons.BEYOND_LIMITS.text
    found = IsolatedFunction(decode_to_bytes, options, SECONDS, 1024 * MB)(large)
    assert reasons.PICTURES[found[0]].text == reasons.ONE_COLOUR.text


def test_what_may_be_large_has_the_memory_that_it_needs() -> None:
    side = 2000
    rgba = Image.new("RGBA", (side, side), (1, 2, 3, 128))
    rgba.paste((200, 100, 50, 255), (0, 0, side // 2, side // 2))
    grey = Image.fromarray(np.add.outer(np.arange(side), np.arange(side)).astype(np.uint16) * 16)
    for large in (rgba, grey):
        assert outcome(encoded(large, "PNG", compress_level=1)) == "decoded"


def test_a_crash_costs_its_picture_alone() -> None:
    crashing = IsolatedFunction(crashes_on_bad, {}, SECONDS, 512 * MB)
    assert crashing(b"good") == b"good"
    with pytest.raises(ProcessEnded):
        crashing(b"bad")
    assert crashing(b"good") == b"good"


def test_c_code_that_hangs_is_ended() -> None:
    start = time.monotonic()
    with pytest.raises(ProcessEnded):
        IsolatedFunction(hangs, {}, 0.1, 512 * MB)(b"")
    assert time.monotonic() - start < 20


def test_a_process_that_cannot_start_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.kernels.pictures.isolated._SERVE", "import nosuchmodule")
    with pytest.raises(RuntimeError, match="ended with 1 as it was started"):
        Decoder(SQUASH, MAX_PIXELS, 4, SECONDS)(good("PNG")[0])


def test_processes_end_with_the_one_that_started_them() -> None:
    program = (
        "import time; from lookalike.kernels.pictures.isolated import IsolatedFunction\n"
        "from tests.hostile import crashes_on_bad\n"
        "isolated = IsolatedFunction(crashes_on_bad, {}, 60, 2**29); isolated(b'good')\n"
        "print(isolated._idle[0]._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout
        command = Path("/proc", str(int(parent.stdout.readline())), "cmdline")
        assert b"serve" in command.read_bytes()
        parent.kill()
    deadline = time.monotonic() + 10
    while command.exists() and command.read_bytes():  # empty for one that ended and was not waited for
        assert time.monotonic() < deadline
        time.sleep(0.05)
