"""Categories of an export's cell, as paths: `Women > Tops` is Women/Tops."""

import html
import re
from collections.abc import Sequence

_ARROW = re.compile("\\s*[>»\u203a→]\\s*")
_SLASH = re.compile(r"(?<!\\)/")


def to_path(text: str) -> str:
    """The path of a category. Arrows part it if there are any, else slashes; a slash in a name becomes a dash."""
    names = _ARROW.split(text) if _ARROW.search(text) else _SLASH.split(text)
    cleaned = (re.sub(r"\s*\\?/\s*", "-", name).strip() for name in names)
    return "/".join(name for name in cleaned if name not in ("", ".", ".."))


def unescape(text: str) -> str:
    """`text` with the letters that HTML's escapes stand for."""
    return html.unescape(text) if "&" in text else text


def split_escaped(cell: str) -> list[str]:
    r"""Split at commas, but not at `\,`."""
    return [part.replace("\\,", ",").strip() for part in re.split(r"(?<!\\),", cell) if part.strip()]


def split_by_root(cell: str) -> list[str]:
    """Split where a separator is followed by the root with which the cell begins: names may hold commas themselves."""
    if not re.search(r"[,|;]", cell):
        return [cell]
    root = re.escape(re.split(r"[>/,|;]", cell, maxsplit=1)[0].strip())
    return [part.strip() for part in re.split(rf"[,|;]\s*(?={root}\s*(?:[>/,|;]|$))", cell)]


def choose(paths: Sequence[str], every: bool) -> list[str]:
    """The deepest path at or below the first one; or `every` one that has none below it."""
    if len(paths) == 1:
        return [path for path in paths if path]
    distinct = list(dict.fromkeys(path for path in paths if path))
    if every or not distinct:
        return [path for path in distinct if not any(other.startswith(f"{path}/") for other in distinct)]
    below = [path for path in distinct if path == distinct[0] or path.startswith(f"{distinct[0]}/")]
    return [max(below, key=lambda path: path.count("/"))]
