"""Reasons for rejection: one list, and no other place in the code that writes one out."""

import ast

from tests.conftest import CHECKOUT

from lookalike import reasons
from lookalike.reasons import Reason
from lookalike.reasons_page import reasons_page

LIB = CHECKOUT / "lib" / "lookalike"
SHORT = {"deleted", "rejected"}
"""Reasons whose text is also the name of a column or of a status."""


def test_every_reason_is_listed_once() -> None:
    defined = [value for value in vars(reasons).values() if isinstance(value, Reason)]
    assert sorted(defined, key=id) == sorted(reasons.ALL, key=id)
    texts = reasons.texts(reasons.ALL)
    assert len(set(texts)) == len(texts)


def test_no_other_module_writes_a_reason_out() -> None:
    # Parts in braces differ from case to case, so what stands before the first is looked for.
    wanted = {text.partition("{")[0] for text in reasons.texts(reasons.ALL)} - SHORT
    wanted |= {reasons.UNREADABLE, reasons.NOT_ALLOWED, reasons.OF_QUERY}
    found = {}
    for path in LIB.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        if texts & wanted and path.name != "reasons.py":
            found[str(path.relative_to(LIB))] = texts & wanted
    assert found == {}


def test_the_page_is_up_to_date() -> None:
    page = (CHECKOUT / "docs" / "reasons.md").read_text(encoding="utf-8")
    assert page == reasons_page()
    for reason in reasons.ALL:
        assert page.count(f"| `{reason.text}` |") == 1
