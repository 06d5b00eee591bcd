"""Categories of an export's cell, as paths: `Women > Tops` is Women/Tops."""

import html
import re
from collections.abc import Sequence

ARROW = re.compile("\\s*[>»\u203a→]\\s*")
SLASH = re.compile(r"(?<!\\)/")
_SEPARATOR = re.compile(r"[,|;]\s*")
_LIST = re.compile(r"/[^/&]*, [^/]*(?:&| and )[^/]*/")


def to_path(text: str) -> str:
    """The path of a category. Arrows part it if there are any, else slashes; a slash in a name becomes a dash."""
    names = ARROW.split(text) if ARROW.search(text) else SLASH.split(text)
    cleaned = (re.sub(r"\s*\\?/\s*", "-", name).strip() for name in names)
    return "/".join(name for name in cleaned if name not in ("", ".", ".."))


def unescape(text: str) -> str:
    """`text` with the letters that HTML's escapes stand for."""
    return html.unescape(text) if "&" in text else text


def split_escaped(cell: str) -> list[str]:
    r"""Split at commas, but not at `\,`."""
    return [part.replace("\\,", ",").strip() for part in re.split(r"(?<!\\),", cell) if part.strip()]


def split_paths(cell: str, sign: re.Pattern[str] = ARROW) -> list[str]:
    """Split at separators between two paths: names may hold commas themselves.

    What follows is a path if it begins with the cell's root, or if it and what is before have a `sign` of a path each.
    """
    if not _SEPARATOR.search(cell):
        return [cell]
    root = re.compile(re.escape(re.split(r"[>/,|;]", cell, maxsplit=1)[0].strip()) + r"\s*(?:[>/,|;]|$)")
    parts, begin = [], 0
    for separator in _SEPARATOR.finditer(cell):
        before, after = cell[begin : separator.start()], _SEPARATOR.split(cell[separator.end() :], maxsplit=1)[0]
        are_paths = sign.search(before) and sign.search(after)
        joint = f"/{sign.split(before)[-1]}{separator[0]}{sign.split(after)[0]}/"
        if root.match(cell, separator.end()) or (are_paths and not has_list(joint)):
            parts.append(before)
            begin = separator.end()
    return [part.strip() for part in (*parts, cell[begin:])]


def has_list(path: str) -> bool:
    """Whether a name within `path` has a comma as `Hair Pins, Claws & Clips` has, which may also part two paths."""
    return _LIST.search(path) is not None


def choose(paths: Sequence[str], every: bool) -> list[str]:
    """The deepest path at or below the first one; or `every` one that has none below it."""
    if len(paths) == 1:
        return [path for path in paths if path]
    distinct = list(dict.fromkeys(path for path in paths if path))
    if every or not distinct:
        return [path for path in distinct if not any(other.startswith(f"{path}/") for other in distinct)]
    below = [path for path in distinct if path == distinct[0] or path.startswith(f"{distinct[0]}/")]
    return [max(below, key=lambda path: path.count("/"))]
