"""How pages and messages write numbers, times and addresses. None, and what is not a number, becomes an en dash."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

NOTHING = "\u2013"


def shorten(text: str, length: int = 72) -> str:
    """`text` with its middle left out where it is longer than `length` characters; the end names the file."""
    if len(text) <= length:
        return text
    head = length // 3
    return f"{text[:head]}…{text[head + 1 - length :]}"


def count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def reason_counts(counts: Iterable[tuple[str, int]]) -> str:
    """How many there are of each (reason, count), in their order; empty for none."""
    return "; ".join(f"{n:,} {reason}" for reason, n in counts)


def share(value: float | None, digits: int = 3) -> str:
    """A value in [-1, 1]. Only a whole 1 or 0 is written as one: 0.99997 is `>0.999`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    step = 10**-digits
    if 1 - step / 2 <= value < 1:
        return f">{1 - step:.{digits}f}"
    if 0 < value < step / 2:
        return f"<{step:.{digits}f}"
    return f"{value:.{digits}f}".replace("-", "\u2212")


def rate(value: float | None) -> str:
    """Something per second: three digits that count."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min"


def size(size_bytes: int | None) -> str:
    """Bytes in decimal units."""
    if size_bytes is None:
        return NOTHING
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{value / 1000:,.1f} TB"


def moment(when: datetime) -> str:
    """`when` in UTC, to the minute. A time without a zone counts as UTC."""
    return _utc(when).strftime("%Y-%m-%d %H:%M UTC")


def iso(when: datetime) -> str:
    return _utc(when).isoformat(timespec="seconds")


def _utc(when: datetime) -> datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
