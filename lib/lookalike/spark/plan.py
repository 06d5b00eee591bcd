"""Plan: what a run would build for each category, and why, printed before any work."""

from collections.abc import Sequence

from pyspark.sql import functions as F
from rich.table import Table

from lookalike.report.formats import size
from lookalike.spark.build_index import Plan, plan
from lookalike.spark.gallery import Version, gallery, versions_frame
from lookalike.spark.run import Run


def plans(run: Run, versions: Sequence[Version], model_id: str) -> list[Plan]:
    """The index of each of `versions`, by the rules of `kernels.index`."""
    frame = versions_frame(run.spark, versions)
    rows = gallery(run.tables.read("images"), run.tables.read("embeddings"), frame, model_id)
    first = rows.select(F.size("embedding").alias("dim")).first()
    sizes = [(version.category, version.version, version.images) for version in versions]
    return plan(sizes, first["dim"], run.settings.index) if first else []


def print_plan(run: Run, planned: Sequence[Plan]) -> None:
    """One line per category, on the console."""
    if not planned:
        run.console.print("every category is as it was published: nothing to build")
        return
    table = Table("category", "images", "kind", "index", "nlist", "shards", "training images", "size", title="plan")
    for p in planned:
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
    run.console.print(table)
