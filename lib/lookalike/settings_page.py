"""The page of all settings, generated from the code: `python -m lookalike.settings_page > docs/settings.md`."""

import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from lookalike.config import Settings, list_fields

_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def settings_page() -> str:
    """Markdown: every setting with its default, what it accepts, and what it means."""
    return "\n".join([*_HEAD, *section_lines(Settings)]) + "\n"


_HEAD = (
    "# Settings",
    "",
    "Write settings in a TOML file: `index.seed` is the key `seed` in the table `[index]`. Give `--config FILE`;",
    "default: `conf/local.toml`, or `conf/cluster.toml` with `--master` of a cluster. `--set index.seed=1` wins.",
    "A job lists every unknown key and bad value, and refuses them before any work.",
)


def section_lines(settings: type[BaseModel]) -> Iterator[str]:
    """A table for the top level, then one for each section."""
    section = None
    for key, field in sorted(list_fields(settings), key=lambda named: "." in named[0]):  # top level first
        group = key.rpartition(".")[0]
        if group != section:
            section = group
            yield ""
            yield f"## [{group}]" if group else "## Top level"
            yield ""
            yield "| key | default | accepts | meaning, unit |"
            yield "|---|---|---|---|"
        yield f"| `{key}` | {_default(field.default)} | {_accepts(field)} | {field.description} |"


def _default(value: Any) -> str:
    if value is None:
        return "unset"
    if value in ("", {}, ()):
        return "empty"
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _accepts(field: Any) -> str:
    limits = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in _SIGNS.items()
        if hasattr(rule, name)
    ]
    least = ["not empty" for rule in field.metadata if getattr(rule, "min_length", 0)]
    return ", ".join([_type(field.annotation), *limits, *least])


def _type(annotation: Any) -> str:
    """What a value of this type is called. A setting may be left unset whatever its type, so that None says nothing."""
    if annotation in _NAMES:
        return _NAMES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(choice) for choice in arguments if choice is not NoneType)
    if origin is tuple and arguments[1:] == (...,):
        return f"list of {_PLURALS[arguments[0]]}"
    if origin is dict and arguments[0] is str:
        return f"table of {_PLURALS[arguments[1]]}"
    raise TypeError(f"no words for settings of type {annotation}")


if __name__ == "__main__":
    print(settings_page(), end="")
