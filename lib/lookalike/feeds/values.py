"""What words and dates in cells mean."""

import re
from datetime import UTC, datetime
from functools import lru_cache

import pandas as pd

_TRUE = frozenset({"true", "1", "yes", "y", "t", "on"})
_FALSE = frozenset({"false", "0", "no", "n", "f", "off"})
_TO_BUY = frozenset(
    {"instock", "preorder", "presale", "backorder", "onbackorder", "availablefororder", "limitedavailability"}
    | {"available", "instoreonly", "onlineonly"}
)
_NOT_TO_BUY = frozenset({"outofstock", "soldout", "discontinued", "unavailable"})
_FIRST_YEAR, _LAST_YEAR = 1970, 2200


def parse_boolean(text: str) -> bool | None:
    """None for what is neither yes nor no."""
    word = text.lower()
    return True if word in _TRUE else False if word in _FALSE else None


@lru_cache(4096)
def parse_availability(text: str) -> bool | None:
    """Whether a product can be bought, by a boolean or a word of Google's or schema.org's; None for another word."""
    word = re.sub(r"[\s_-]", "", text.lower().rpartition("/")[2])
    return True if word in _TO_BUY else False if word in _NOT_TO_BUY else parse_boolean(text)


def parse_time(text: str) -> datetime:
    """ISO 8601, in UTC if it names no zone. Raises ValueError for anything else."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = pd.to_datetime(text, utc=True, format="ISO8601").to_pydatetime()
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def is_no_date(text: str) -> bool:
    """Whether it is what databases write for no date: of the year 0 or 1, of 1900 or 9999."""
    year = re.match(r"(\d{4})-", text)
    return year is not None and not _FIRST_YEAR <= int(year[1]) <= _LAST_YEAR
