"""Imports point one way, as docs/architecture.md draws it, and none goes in a circle."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from tests.conftest import CHECKOUT

LIB = CHECKOUT / "lib"

LAYERS = (
    ("lookalike",),
    ("lookalike.kernels",),
    ("lookalike.feeds", "lookalike.report", "lookalike.sample"),
    ("lookalike.reader",),
    ("lookalike.spark",),
    ("lookalike.spark.contents",),
    ("lookalike.spark.catalog",),
    ("lookalike.spark.operations", "lookalike.spark.queries", "lookalike.spark.training"),
    ("lookalike.spark.pages",),
    ("lookalike.spark.pipeline",),
)
"""Folders from the lowest to the highest. Those of one line know nothing of each other."""


def name_of(path: Path) -> str:
    parts = path.relative_to(LIB).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(LIB.rglob("*.py"))}


@cache
def imports(module: str) -> frozenset[str]:
    """The modules that a module names in its imports, wherever these stand."""
    return frozenset(_imports(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "write imports from the top"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in MODULES else node.module


def folder_of(module: str) -> tuple[int, str]:
    """The layer of a module, and its folder there: the longest that the module's name begins with."""
    found = [
        (len(folder), layer, folder)
        for layer, folders in enumerate(LAYERS)
        for folder in folders
        if f"{module}.".startswith(f"{folder}.")
    ]
    _, layer, folder = max(found)
    return layer, folder


def test_no_import_points_up_or_aside() -> None:
    wrong = []
    for module in MODULES:
        layer, folder = folder_of(module)
        for imported in imports(module) & MODULES.keys():
            other_layer, other_folder = folder_of(imported)
            if other_layer > layer or (other_layer == layer and other_folder != folder):
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_no_imports_go_in_a_circle() -> None:
    graph = {module: imports(module) & MODULES.keys() - {"lookalike"} for module in MODULES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_only_the_spark_folder_imports_spark() -> None:
    with_spark = {name for name in MODULES if any(i.partition(".")[0] in ("pyspark", "delta") for i in imports(name))}
    assert with_spark
    assert all(f"{name}.".startswith("lookalike.spark.") for name in with_spark)
