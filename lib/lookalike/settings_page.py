"""The page of all settings, generated from the code: `python -m lookalike.settings_page > docs/settings.md`."""

import json
from collections.abc import Iterator
from typing import Any

from lookalike.config import all_fields


def settings_page() -> str:
    """Markdown: every setting with its default, what it accepts, and what it means."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Write them in a TOML file (`--config FILE`) or on the command line, which wins (`--set index.seed=1`)."
    yield "An unknown key or a bad value is refused before any work, all problems at once."
    section = None
    for key, field in sorted(all_fields(), key=lambda named: "." in named[0]):  # top level first
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
    choices = getattr(field.annotation, "__args__", ())
    if ... in choices:
        return "list of texts"
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(f"`{choice}`" for choice in choices)
    kind = {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(field.annotation)
    limits = [f"{sign} {limit:g}" for sign, limit in _limits(field)]
    return " ".join([kind or ("text" if str in choices else "table of texts"), *limits])


def _limits(field: Any) -> Iterator[tuple[str, float]]:
    for rule in field.metadata:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<=")):
            if (limit := getattr(rule, name, None)) is not None:
                yield sign, limit


if __name__ == "__main__":
    print(settings_page(), end="")
