"""`images.decode` in processes of their own, so that no picture can take more than its share of time and memory."""

import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import AvifImagePlugin

from lookalike import reasons
from lookalike.boxes import WHOLE, Box
from lookalike.kernels.pictures.images import DecodedPicture, Rejection, decode
from lookalike.kernels.pictures.isolated import IsolatedFunction, ProcessEnded

if TYPE_CHECKING:  # its module loads torch, of which these processes have no need
    from lookalike.kernels.models.networks import Preprocessing

# The base is Python with Pillow and the encoded bytes. The costliest decoding holds 17 bytes a pixel: deep grey as
# floats and as integers, or a transparent picture, its white ground, and both as one.
_BASE_BYTES = 768 * 2**20
_BYTES_PER_PIXEL = 24

_TEXTS = reasons.texts(reasons.PICTURES)
# int8: place of the reason in _TEXTS, or -1 if pixels follow; uint32 each: width and height, 0 if unknown.
_HEADER = struct.Struct("<bII")
# Before the content: the box.
_BOX = struct.Struct("<4d")


class Decoder:
    """Decodes as `images.decode` does, in `seconds` a picture, and in the memory that `max_pixels` may need."""

    def __init__(self, preprocessing: "Preprocessing", max_pixels: int, min_side_px: int, seconds: float) -> None:
        options = {"preprocessing": vars(preprocessing), "max_pixels": max_pixels, "min_side_px": min_side_px}
        self._side_px = preprocessing.size_px
        self._decode = IsolatedFunction(decode_to_bytes, options, seconds, _BASE_BYTES + _BYTES_PER_PIXEL * max_pixels)

    def __call__(self, content: bytes, box: Box = WHOLE) -> DecodedPicture | Rejection:
        """Decode what is in the box, or say why the picture is rejected; safe from many threads."""
        try:
            answer = self._decode(_BOX.pack(*box) + content)
        except ProcessEnded:
            return Rejection(reasons.BEYOND_LIMITS.text)
        place, width, height = _HEADER.unpack_from(answer)
        if place >= 0:
            return Rejection(_TEXTS[place], width or None, height or None)
        pixels = np.frombuffer(answer, np.uint8, offset=_HEADER.size)
        return DecodedPicture(pixels.reshape(self._side_px, self._side_px, 3), width, height)


def decode_to_bytes(content: bytes, preprocessing: dict[str, Any], max_pixels: int, min_side_px: int) -> bytes:
    """Decode as `images.decode` does a box, then the picture. Gives the result as bytes: _HEADER, then the pixels."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # other processes decode other pictures
    plain = cast("Preprocessing", SimpleNamespace(**preprocessing))
    picture = decode(content[_BOX.size :], plain, max_pixels, min_side_px, Box(*_BOX.unpack_from(content)))
    if isinstance(picture, Rejection):
        return _HEADER.pack(_TEXTS.index(picture.reason), picture.width or 0, picture.height or 0)
    return _HEADER.pack(-1, picture.width, picture.height) + picture.pixels.tobytes()
