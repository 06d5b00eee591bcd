"""Functions stay short; ruff holds how much they branch."""

import ast

from tests.conftest import CHECKOUT

LONGEST = 40
DRAWINGS = CHECKOUT / "lib" / "lookalike" / "sample"
"""Where a function is a list of what is drawn."""


def test_functions_are_short() -> None:
    paths = [*(CHECKOUT / "lib").rglob("*.py"), *(CHECKOUT / "jobs").glob("*.py")]
    long = [
        f"{path.relative_to(CHECKOUT)}:{node.lineno} {node.name}"
        for path in paths
        if not path.is_relative_to(DRAWINGS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST
    ]
    assert len(paths) > 100
    assert long == []
