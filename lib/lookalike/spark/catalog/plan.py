"""Plan: what a run would build for each category, and why, printed before any work."""

from collections.abc import Sequence

from rich.table import Table

from lookalike.errors import ConfigInvalid
from lookalike.formats import size
from lookalike.spark.catalog.build_index import Plan
from lookalike.spark.category_conditions import covered
from lookalike.spark.run import Run, console

LINES = 50


def check_selected(run: Run) -> None:
    """Raises ConfigInvalid where the ledger has no image in the selected categories."""
    if run.selection.categories and run.tables.read("images").where(covered(run.selection)).isEmpty():
        raise ConfigInvalid(
            f"no image is in {', '.join(run.selection.categories)}: give categories as `status` shows them"
        )


def print_plan(run: Run, planned: Sequence[Plan]) -> None:
    """One line per category on stdout, the largest first; beyond LINES, one for all the others."""
    out = console()
    if not planned:
        out.print("nothing to build: the index of every category is as it must be")
        return
    table = Table(
        "category",
        "images",
        "kind",
        "index",
        "nlist",
        "shards",
        "training images",
        "size",
        title=f"plan of run {run.run_id}",
    )
    by_size = sorted(planned, key=lambda p: (-p.images, p.category))
    for p in by_size[:LINES]:
        spec = p.spec
        table.add_row(
            p.category,
            f"{p.images:,}",
            spec.kind,
            spec.factory,
            f"{spec.nlist:,}",
            f"{spec.shards:,}",
            f"{spec.train_images:,}",
            size(spec.size_bytes),
        )
    if others := by_size[LINES:]:
        images = sum(p.images for p in others)
        size_bytes = sum(p.spec.size_bytes for p in others)
        table.add_row(f"{len(others):,} smaller ones", f"{images:,}", "", "", "", "", "", size(size_bytes))
    out.print(table)
