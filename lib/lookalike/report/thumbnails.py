"""Small pictures as data URIs, so that the page is one file."""

import base64
import io
from functools import cache
from urllib.parse import quote

from PIL import Image

from lookalike.kernels.pictures.images import open_picture, to_rgb
from lookalike.kernels.pictures.isolated import IsolatedFunction, ProcessEnded

MAX_PIXELS = 100_000_000
QUALITY = 82
_TIMEOUT_S = 20.0
_MEMORY_BYTES = 4 * 2**30

_PLACEHOLDER = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{0}" viewBox="0 0 48 48">'
    '<path fill="none" stroke="#9a958b" stroke-width="1.5" stroke-linejoin="round" stroke-linecap="round" '
    'd="M13 14h22v20H13zM13 30l7-7 6 6 3-3 6 6M29.5 20h.1M10 10l28 28"/></svg>'
)


def make_thumbnail(content: bytes, size_px: int) -> str:
    """The picture as a WebP data URI, its longer side at most `size_px`: upright, opaque, without metadata.

    Bytes that can't be decoded give a neutral drawing instead, so that one bad picture never costs the page.
    """
    try:
        encoded = _get_encoder(size_px)(content)
    except ProcessEnded:
        encoded = b""
    if not encoded:
        return f"data:image/svg+xml,{quote(_PLACEHOLDER.format(size_px))}"
    return f"data:image/webp;base64,{base64.b64encode(encoded).decode()}"


@cache
def _get_encoder(size_px: int) -> IsolatedFunction:
    return IsolatedFunction(encode_webp, {"size_px": size_px}, _TIMEOUT_S, _MEMORY_BYTES)


def encode_webp(content: bytes, size_px: int) -> bytes:
    """The thumbnail itself; empty where `content` can't be decoded."""
    try:
        picture = _shrink(content, size_px)
    except Exception:  # decoders raise almost anything on damaged bytes, and the page must still be written
        return b""
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=QUALITY)
    return encoded.getvalue()


def _shrink(content: bytes, size_px: int) -> Image.Image:
    picture, turn = open_picture(content)
    with picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width}x{picture.height} pixels are more than {MAX_PIXELS}")
        picture.draft("RGB", (2 * size_px, 2 * size_px))  # a JPEG is decoded at a fraction of its size
        picture.load()
        small = to_rgb(picture)
    small.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    return small if turn is None else small.transpose(turn)
