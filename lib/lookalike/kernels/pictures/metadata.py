"""Encoded pictures without their metadata, so that it can't fail, turn or slow down the decoding of sound pixels.

What shapes pixels is kept as it is, damaged or not: decoders judge it. All else is left out unread, but for EXIF, which
says how a picture is turned. Nothing is unpacked here.
"""

import re
import struct
import zlib

_ORIENTATION = 0x0112
_EXIF_INTEGERS = {1: "B", 3: "H", 4: "I"}  # by type of the value


def strip_metadata(content: bytes) -> tuple[bytes, bytes]:
    """Return `content` without metadata, and its EXIF, empty where it has none.

    The EXIF of TIFF and AVIF stays empty: these say in other ways how they are turned, and Pillow reads those. Bytes of
    other formats come back as they are.
    """
    for magic, strip in _STRIPPERS:
        if magic.match(content):
            return strip(content)
    return content, b""


def read_orientation(exif: bytes) -> int:
    """Read the orientation, 1 to 8 by the EXIF standard; 1, which is upright, where there is none to be read."""
    tiff = exif.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")  # some programs write the name twice
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, at)
            if tag == _ORIENTATION:
                (orientation,) = struct.unpack_from(order + _EXIF_INTEGERS[kind], tiff, at + 8)
                return int(orientation) if 1 <= orientation <= 8 else 1
    except (struct.error, KeyError):
        pass
    return 1


# Any marker but the padding and the escaped bytes between segments, which libjpeg skips too.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_JPEG_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_JPEG_SCAN_OR_END = frozenset((0xD9, 0xDA))
_JPEG_METADATA = frozenset((*range(0xE0, 0xF0), 0xFE))  # APP0 to APP15, comment


def _strip_jpeg(content: bytes) -> tuple[bytes, bytes]:
    kept, exif, at = [content[:2]], b"", 2
    while marker := _JPEG_MARKER.search(content, at):
        code, at = marker[1][0], marker.end()
        if code in _JPEG_SCAN_OR_END:
            kept.append(content[marker.start() :])
            break
        if code in _JPEG_WITHOUT_LENGTH:
            continue
        end = at + max(2, int.from_bytes(content[at : at + 2], "big"))
        body = content[at + 2 : end]
        if code not in _JPEG_METADATA or _tells_colours(code, body):
            kept.append(content[marker.start() : end])
        elif code == 0xE1 and not exif and body.startswith(b"Exif\0\0"):
            exif = body
        at = end
    return b"".join(kept), exif


def _tells_colours(code: int, body: bytes) -> bool:
    """JFIF and Adobe's segment say whether colours are YCbCr, RGB, CMYK or YCCK; libjpeg takes whole ones alone."""
    return (code == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14) or (
        code == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
    )


_PNG_PALETTE = 3  # the colour type
_PNG_TRANSPARENCY_BYTES = {0: range(2, 3), 2: range(6, 7), _PNG_PALETTE: range(1, 257)}  # by colour type


def _strip_png(content: bytes) -> tuple[bytes, bytes]:
    """Animations lose their later frames too, which are ancillary chunks."""
    colour_type = content[25] if len(content) > 25 else 0
    kept, exif, at = [content[:8]], b"", 8
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        critical = not kind[0] & 0x20
        if kind == b"tRNS":
            if length in _PNG_TRANSPARENCY_BYTES.get(colour_type, ()) and _is_whole_chunk(content[at:end]):
                kept.append(content[at:end])
        elif kind == b"eXIf":
            exif = content[at + 8 : end - 4] if _is_whole_chunk(content[at:end]) else exif
        elif critical and (kind != b"PLTE" or colour_type == _PNG_PALETTE):  # else a palette is but a suggestion
            kept.append(content[at:end])
        if kind == b"IEND":
            break
        at = end
    return b"".join(kept), exif


def _is_whole_chunk(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


_WEBP_PIXELS = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"))
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # colour profile, EXIF, XMP


def _strip_webp(content: bytes) -> tuple[bytes, bytes]:
    kept, exif, at = bytearray(content[:12]), b"", 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        end = at + 8 + size + size % 2
        if kind in _WEBP_PIXELS:
            kept += content[at:end]
        elif kind == b"EXIF" and not exif:
            exif = content[at + 8 : at + 8 + size]
        at = end
    kept[4:8] = struct.pack("<I", len(kept) - 8)
    if kept[12:16] == b"VP8X" and len(kept) > 20:
        kept[20] &= ~_WEBP_METADATA_FLAGS
    return bytes(kept), exif


# An item's entry in a directory of items: version, flags, number, protection; then its type.
_AVIF_METADATA_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))(?:Exif|mime)", re.DOTALL)


def _strip_avif(content: bytes) -> tuple[bytes, bytes]:
    """Offsets in the file must stay, so its metadata get a type that decoders don't know, and skip."""
    at = 0
    while at + 16 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, at + 8)
        end = at + size if size >= 8 else len(content)
        if kind == b"meta":
            return content[:at] + _AVIF_METADATA_ITEM.sub(rb"\1skip", content[at:end]) + content[end:], b""
        at = end
    return content, b""


_TIFF_PIXELS = frozenset(
    (
        *(254, 255, 256, 257, 258, 259, 262, 266),  # size, depth, compression, colours
        *(273, 274, 277, 278, 279, 284, 292, 293, 317, 320),  # strips, orientation, samples, predictor, colour map
        *(322, 323, 324, 325, 332, 338, 339, 340, 341),  # tiles, inks, transparency, kinds of numbers
        *(347, *range(512, 522), 529, 530, 531, 532),  # JPEG inside, YCbCr
    )
)


def _strip_tiff(content: bytes) -> tuple[bytes, bytes]:
    """Offsets in the file must stay, so a directory of the first picture's pixels is added behind its end."""
    order = "<" if content[:1] == b"I" else ">"
    is_big = 43 in content[2:4]
    pointer_at, pointer, count_format, entry_bytes = (8, "Q", "Q", 20) if is_big else (4, "I", "H", 12)
    try:
        (directory,) = struct.unpack_from(order + pointer, content, pointer_at)
        (count,) = struct.unpack_from(order + count_format, content, directory)
    except (struct.error, OverflowError):
        return content, b""
    first = directory + struct.calcsize(count_format)
    places = range(first, min(first + count * entry_bytes, len(content) - entry_bytes + 1), entry_bytes)
    entries = [content[at : at + entry_bytes] for at in places]
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in _TIFF_PIXELS]
    body = content + b"\0" * (len(content) % 2)
    header = content[:pointer_at] + struct.pack(order + pointer, len(body))
    added = struct.pack(order + count_format, len(kept)) + b"".join(kept) + struct.pack(order + pointer, 0)
    return header + body[len(header) :] + added, b""


_GIF_EXTENSION, _GIF_FRAME, _GIF_END = b"!,;"
_GIF_CONTROL = re.compile(rb"!\xf9[\x04-\xff]")  # of four bytes or more


def _strip_gif(content: bytes) -> tuple[bytes, bytes]:
    """Of what stands before the first frame, whole graphic controls stay, as they tell which colour is transparent."""
    flags = content[10] if len(content) > 10 else 0
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)  # behind the palette
    kept = bytearray(content[:at])
    while at < len(content) and content[at] not in (_GIF_FRAME, _GIF_END):
        start = at
        at += 1
        if content[start] == _GIF_EXTENSION:
            at = _find_end_of_blocks(content, start + 2)
            if _GIF_CONTROL.match(content, start):
                kept += content[start:at]
    return bytes(kept + content[at:]), b""


def _find_end_of_blocks(content: bytes, at: int) -> int:
    """Each begins with its length; an empty one ends them."""
    while at < len(content) and content[at]:
        at += 1 + content[at]
    return at + 1


_STRIPPERS = tuple(
    (re.compile(magic, re.DOTALL), strip)
    for magic, strip in (
        (rb"\xff\xd8\xff", _strip_jpeg),
        (rb"\x89PNG\r\n\x1a\n", _strip_png),
        (rb"RIFF.{4}WEBP", _strip_webp),
        (rb"GIF8[79]a", _strip_gif),
        (rb".{4}ftyp", _strip_avif),
        (rb"II[*+]\0|MM\0[*+]", _strip_tiff),
    )
)
