"""The page of settings, generated from settings made by hand, whose lines are written here by hand."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, Field
from tests.conftest import CHECKOUT

from lookalike.settings_page import section_lines, settings_page

Share = Annotated[float, Field(ge=0.0, le=1.0)]
HEADER = ["| key | default | accepts | meaning, unit |", "|---|---|---|---|"]


class Numbers(BaseModel):
    whole: int = Field(7, description="w")
    most: int = Field(9, ge=1, le=178_956_970, description="m")
    inner: float = Field(0.5, gt=0.0, lt=1.0, description="i")
    share: Share = Field(0.25, description="s")
    maybe: int | None = Field(None, ge=32, description="may be unset")


class Words(BaseModel):
    empty: str = Field("", description="e")
    named: str = Field("x", min_length=1, description="n")
    maybe: str | None = Field(None, description="may be unset")
    either: int | str = Field(1, description="number or name")
    chosen: Literal["a", "b"] = Field("b", description="c")
    on: bool = Field(True, description="o")
    several: tuple[str, ...] = Field((), description="v")
    some: Annotated[tuple[str, ...], BeforeValidator(tuple)] = Field(("p", "q"), min_length=1, description="q")
    counts: tuple[int, ...] = Field((1, 2), description="k")


class Root(BaseModel):
    numbers: Numbers = Numbers()
    words: Words = Words()
    table: dict[str, str] = Field({}, description="t")


def test_each_type_has_its_line() -> None:
    assert list(section_lines(Root)) == [
        *("", "## Top level", "", *HEADER),
        "| `table` | empty | table of texts | t |",
        *("", "## [numbers]", "", *HEADER),
        "| `numbers.whole` | `7` | whole number | w |",
        "| `numbers.most` | `9` | whole number, >= 1, <= 178956970 | m |",
        "| `numbers.inner` | `0.5` | number, > 0.0, < 1.0 | i |",
        "| `numbers.share` | `0.25` | number, >= 0.0, <= 1.0 | s |",
        "| `numbers.maybe` | unset | whole number, >= 32 | may be unset |",
        *("", "## [words]", "", *HEADER),
        "| `words.empty` | empty | text | e |",
        "| `words.named` | `x` | text, not empty | n |",
        "| `words.maybe` | unset | text | may be unset |",
        "| `words.either` | `1` | whole number or text | number or name |",
        "| `words.chosen` | `b` | `a`, `b` | c |",
        "| `words.on` | `true` | true or false | o |",
        "| `words.several` | empty | list of texts | v |",
        '| `words.some` | `["p", "q"]` | list of texts, not empty | q |',
        "| `words.counts` | `[1, 2]` | list of whole numbers | k |",
    ]


def test_a_type_without_words_is_an_error() -> None:
    class Odd(BaseModel):
        odd: bytes = Field(b"", description="o")

    with pytest.raises(TypeError, match="no words for settings of type <class 'bytes'>"):
        list(section_lines(Odd))


def test_the_page_is_up_to_date() -> None:
    page = (CHECKOUT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run: python -m lookalike.settings_page > docs/settings.md"
