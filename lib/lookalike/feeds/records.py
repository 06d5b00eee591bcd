"""What every kind of export file is read as: records of named values."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeAlias

_NUMBER = re.compile(r"\[\d+\]")

Value: TypeAlias = str | list[str] | dict[str, str]


class Record(NamedTuple):
    """A row, a line or an element of an export. `place` names it in messages: row 12."""

    place: str
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Export:
    """An export whose columns are known. `read` begins at its first record each time.

    `repeated`: columns that stand there more than once. `notes`: what its reader should know of how it was read.
    """

    source: str
    columns: tuple[str, ...]
    read: Callable[[], Iterator[Record]]
    repeated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@cache
def fold(name: str) -> str:
    """A column's name as it is compared: `Image Src`, `image_src` and `g:image src` are one."""
    return re.sub(r"[\s_]+", "_", name.strip().lower().removeprefix("g:"))


class Columns:
    """The values of a record by field, whatever the export calls its columns.

    `candidates`: for each field the columns that may hold it, the preferred one first; `link[]` stands for all of
    `link[0]`, `link[1]`. `chosen`: what the user said.
    """

    def __init__(
        self, names: tuple[str, ...], candidates: Mapping[str, tuple[str, ...]], chosen: Mapping[str, str]
    ) -> None:
        by_folded: dict[str, tuple[str, ...]] = {fold(name): (name,) for name in reversed(names)}
        for name in filter(_NUMBER.search, names):
            key = _NUMBER.sub("[]", fold(name))
            by_folded[key] = (*by_folded.get(key, ()), name)
        by_folded |= {name: (name,) for name in names}
        wanted = {**candidates, **{field: (name,) for field, name in chosen.items()}}
        self._names = {
            field: tuple(
                name for column in columns for name in by_folded.get(column) or by_folded.get(fold(column), ())
            )
            for field, columns in wanted.items()
        }

    def has(self, field: str) -> bool:
        return bool(self._names.get(field))

    def of(self, field: str) -> tuple[str, ...]:
        """The export's columns that hold the field."""
        return self._names.get(field, ())

    def text(self, record: Record, field: str) -> str:
        """The field's first value that is not blank, trimmed; else nothing."""
        for name in self._names.get(field, ()):
            value = record.values.get(name, "")
            if isinstance(value, list):
                value = next(filter(str.strip, value), "")
            if isinstance(value, str) and (trimmed := value.strip()):
                return trimmed
        return ""

    def texts(self, record: Record, field: str) -> list[str]:
        """All values of the field that are not blank, trimmed."""
        trimmed = []
        for name in self._names.get(field, ()):
            value = record.values.get(name, "")
            if isinstance(value, list):
                trimmed += [text.strip() for text in value]
            elif isinstance(value, str):
                trimmed.append(value.strip())
        return [text for text in trimmed if text]
