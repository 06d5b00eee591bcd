"""Galleries that a Python worker keeps open from task to task."""

from collections.abc import Mapping, Sequence
from typing import Any

from lookalike.kernels.index.search import Gallery, open_galleries

_OPEN = 64

_Key = tuple[str, tuple[tuple[str, int, str | None], ...]]
"""Root, and where each shard of the version stands."""

_open: dict[_Key, Gallery] = {}  # the ones opened last


def keep_galleries_open(root: str, versions: Sequence[Sequence[Mapping[str, Any]]]) -> list[Gallery]:
    """The galleries of `versions`, each given as its rows of `shards` in order; opened unless they are already."""
    keys = [_key(root, rows) for rows in versions]
    lacking = {key: rows for key, rows in zip(keys, versions, strict=True) if key not in _open}
    galleries = _open | dict(zip(lacking, open_galleries(root, list(lacking.values())), strict=True))
    for key in lacking:
        _open[key] = galleries[key]
    while len(_open) > _OPEN:
        del _open[next(iter(_open))]
    return [galleries[key] for key in keys]


def _key(root: str, rows: Sequence[Mapping[str, Any]]) -> _Key:
    return root, tuple((row["vectors_path"], row["first_row"] or 0, row["path"]) for row in rows)
