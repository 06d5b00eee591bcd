"""Rows of TSV, in which many exports write a quote as any other sign: 24" wide, "Foo."""

import re
from collections import deque
from collections.abc import Iterator

# What stands behind a quote: up to the one that ends the cell, or up to the end of the line.
_QUOTED = re.compile(r'((?:[^"]++|"")*+)(?:(")(?=[\t\r\n]|\Z)|\Z)')


class TabSeparated:
    """The rows of `lines`. A cell is quoted if it ends with the next single quote; any other quote is plain text.

    Quotes around a tab are plain text too if a line that they span has `width` cells without them: such a line is a
    row, unless a cell behind them goes on in the next line. A quote that is never closed thus stays in its row.
    """

    def __init__(self, lines: Iterator[str], width: int | None) -> None:
        self._lines = lines
        self._width = width
        self._ahead: deque[str] = deque()

    def __iter__(self) -> Iterator[list[str]]:
        while line := self._next_line():
            yield list(self._split(line)) if '"' in line else line.rstrip("\r\n").split("\t")

    def _next_line(self) -> str:
        return self._ahead.popleft() if self._ahead else next(self._lines, "")

    def _split(self, line: str) -> Iterator[str]:
        end, cells = -1, 0
        while end < 0 or line.startswith("\t", end):
            begin = end + 1
            quoted = self._read_quoted(line, begin + 1, cells) if line.startswith('"', begin) else None
            if quoted:
                cell, line, end = quoted
            else:
                end = line.find("\t", begin)
                end = end if end >= 0 else len(line.rstrip("\r\n"))
                cell = line[begin:end]
            yield cell
            cells += 1

    def _read_quoted(self, line: str, begin: int, cells: int) -> tuple[str, str, int] | None:
        """The cell whose text begins at `begin`, the line in which it ends, and where; None if it is plain text.

        `cells`: how many are before it.
        """
        parts: list[str] = []
        further: list[str] = []
        while quoted := _QUOTED.match(line, begin):
            part, closing_quote = quoted.groups()
            is_row = "\t" in part and cells + line.count("\t", begin) + 1 == self._width
            goes_on = closing_quote and not further and line.count('"', begin - 1) % 2
            if not line or (is_row and not goes_on):
                break
            parts.append(part)
            if closing_quote:
                return "".join(parts).replace('""', '"'), line, quoted.end()
            line, begin, cells = self._next_line(), 0, 0
            further.append(line)
        self._ahead.extendleft(reversed([line for line in further if line]))
        return None
