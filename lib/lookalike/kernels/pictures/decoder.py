"""`images.decode` in processes of their own, so that no picture can take more than its share of time and memory."""

import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import AvifImagePlugin

from lookalike import reasons
from lookalike.kernels.pictures.images import Decoded, Rejected, decode
from lookalike.kernels.pictures.isolated import Ended, Isolated

if TYPE_CHECKING:  # its module loads torch, of which these processes have no need
    from lookalike.kernels.models.networks import Preprocessing

# Python with Pillow and the encoded bytes; and the costliest way of decoding, which has 17 bytes of grey as floats and
# as integers, or a picture, its white ground, and both as one.
_BASE_BYTES = 768 * 2**20
_BYTES_PER_PIXEL = 24

_TEXTS = reasons.texts(reasons.PICTURES)
# Place of the reason in _TEXTS, or -1 and pixels behind; width and height, 0 where unknown.
_HEADER = struct.Struct("<bII")


class Decoder:
    """Decodes as `images.decode` does, in `seconds` a picture, and in the memory that `max_pixels` may need."""

    def __init__(self, preprocessing: "Preprocessing", max_pixels: int, min_side_px: int, seconds: float) -> None:
        options = {"preprocessing": vars(preprocessing), "max_pixels": max_pixels, "min_side_px": min_side_px}
        self._side_px = preprocessing.size_px
        self._decode = Isolated(packed, options, seconds, _BASE_BYTES + _BYTES_PER_PIXEL * max_pixels)

    def __call__(self, content: bytes) -> Decoded | Rejected:
        """The picture, or why there is none; safe from many threads."""
        try:
            found = self._decode(content)
        except Ended:
            return Rejected(reasons.BEYOND_LIMITS.text)
        place, width, height = _HEADER.unpack_from(found)
        if place >= 0:
            return Rejected(_TEXTS[place], width or None, height or None)
        pixels = np.frombuffer(found, np.uint8, offset=_HEADER.size)
        return Decoded(pixels.reshape(self._side_px, self._side_px, 3), width, height)


def packed(content: bytes, preprocessing: dict[str, Any], max_pixels: int, min_side_px: int) -> bytes:
    """What `images.decode` gives, as bytes."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the others decode other pictures
    found = decode(content, cast("Preprocessing", SimpleNamespace(**preprocessing)), max_pixels, min_side_px)
    if isinstance(found, Rejected):
        return _HEADER.pack(_TEXTS.index(found.reason), found.width or 0, found.height or 0)
    return _HEADER.pack(-1, found.width, found.height) + found.pixels.tobytes()
