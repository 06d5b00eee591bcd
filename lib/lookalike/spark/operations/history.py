"""History: what was done to what is live, by whom, why and from what, as the audit has it."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.markup import escape
from rich.table import Column, Table

from lookalike.formats import NOTHING
from lookalike.selection import Selection
from lookalike.spark.catalog.audit import read_actions
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.run import console
from lookalike.spark.tables import Tables

COLUMNS = (
    "when",
    "run",
    "action",
    "who",
    "category",
    "version",
    "replaced",
    "why",
    "manifest",
    "checksum",
    "model",
    "code",
)
_WHOLE = ("run", "version", "replaced")  # to be copied from here


def print_history(tables: Tables, category: str | None = None) -> None:
    """A line for each action on `category` and those below it; without one, a line for what each run did to all."""
    rows = read_actions(tables)
    if category is not None:
        rows = rows.where(is_selected(Selection((category,))))
    lines = summarise_actions(rows, by_run=category is None).collect()
    said = [name for name in COLUMNS if any(line[name] for line in lines)]
    columns = (Column(name, overflow="fold", no_wrap=name in _WHOLE) for name in said)
    table = Table(*columns, title="history, oldest first (UTC)")
    for line in lines:
        table.add_row(*(escape(line[name] or NOTHING) for name in said))
    console().print(table)


def summarise_actions(rows: DataFrame, by_run: bool) -> DataFrame:
    """COLUMNS as text, oldest first; with `by_run` one row for all that a run did alike."""
    several = F.count("*") > 1
    many = F.when(several, F.format_string("%,d categories", F.count("*")))
    # Only who forces a publication says why.
    action = F.when(F.col("why").isNotNull() & (F.col("action") == "publish"), "publish (forced)")
    rows = rows.withColumn("action", F.coalesce(action, "action"))
    key = ["run_id", "action"] if by_run else ["run_id", "action", "category", "version"]
    same = {"who": "who", "why": "why", "manifest": "manifest", "model": "model_id", "code": "code_version"}
    own = {"version": "version", "replaced": "replaced_version"}
    return (
        rows.groupBy(*key)
        .agg(
            F.min("at").alias("at"),
            F.coalesce(many, F.first(rows["category"])).alias("category_"),
            F.first(F.substring("manifest_checksum", 1, 12)).alias("checksum"),
            *(F.first(rows[column]).alias(f"{name}_") for name, column in same.items()),
            *(F.when(~several, F.first(rows[column])).alias(f"{name}_") for name, column in own.items()),
        )
        .orderBy("at", "category_")
        .select(
            F.date_format("at", "yyyy-MM-dd HH:mm:ss").alias("when"),
            F.col("run_id").alias("run"),
            "action",
            "checksum",
            *(F.col(f"{name}_").alias(name) for name in ("category", *same, *own)),
        )
    )
