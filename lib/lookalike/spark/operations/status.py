"""Status: per category what is live, since when, how good, what waits to go live, and what was rejected and why."""

from datetime import UTC, datetime
from functools import reduce

import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Column, Table

from lookalike.config import NEWEST_DEFAULT
from lookalike.files import redact
from lookalike.formats import NOTHING, count, duration, reason_counts, share
from lookalike.spark.catalog.audit import read_live_moves
from lookalike.spark.catalog.gallery import select_embedded
from lookalike.spark.catalog.placeholders import mark_unavailable
from lookalike.spark.catalog.versions import find_rolled_back, name_candidates, number_versions
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.operations.pins import find_pinned
from lookalike.spark.run import Run, console
from lookalike.spark.tables import Tables, make_local_frame

_METRICS = ("images", "products", "knn_recall@10", "recall@10")
_ALWAYS = ("category", "live", "since", "age", "model", *_METRICS)
_SELDOM = ("pins", "next", "waiting", "placeholders", "rejected")
_NUMBERS = (*_METRICS, "pins", "waiting", "placeholders")
_REJECTED = 200  # lines
_PLACEHOLDERS = 20  # lines
_NEXT = pa.schema({"category": pa.string(), "next": pa.string(), "held": pa.bool_()})


def print_status(run: Run) -> None:
    """A line for each category of the selection that the ledger has, or that is live."""
    lines = [_line(row) for row in read_status(run).orderBy("category").collect()]
    models = {line["model"] for line in lines} - {NOTHING}
    title = f"status (UTC), model {models.pop()}" if len(models) == 1 else "status (UTC)"
    said = [name for name in _ALWAYS if name != "model" or models]
    said += [name for name in _SELDOM if any(line[name] != NOTHING for line in lines)]
    table = Table(title=title)
    for name in said:
        justify: JustifyMethod = "right" if name in _NUMBERS else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name == "live")
    for line in lines:
        table.add_row(*(escape(line[name]) for name in said))
    console().print(table)
    if run.settings.model.is_default and run.settings.model.name != NEWEST_DEFAULT:
        console().print(
            f"the default model here is {run.settings.model.name}; this release has {NEWEST_DEFAULT}, which "
            f"--set model.name={NEWEST_DEFAULT} takes: see docs/default-model.md",
            soft_wrap=True,
        )
    _print_placeholders(run)


def _print_placeholders(run: Run) -> None:
    """A line for each placeholder of the selection, those of most products first; nothing where there is none."""
    images = select_embedded(run.tables.read("images").where(is_selected(run.selection)))
    by_placeholder = images.join(run.tables.read("placeholders"), "product_id").groupBy("placeholder")
    lines = by_placeholder.agg(
        F.count_distinct("product_id").alias("products"),
        F.min_by(F.coalesce("uri", "image_id"), "image_id").alias("picture"),
        F.min("product_id").alias("first"),
        F.max("product_id").alias("last"),
    )
    rows = lines.orderBy(F.desc("products"), "placeholder").limit(_PLACEHOLDERS).collect()
    if not rows:
        return
    table = Table(
        Column("products", justify="right"), "such as", title="placeholders, each the only picture of products"
    )
    table.add_column("picture", overflow="fold")
    for row in rows:
        table.add_row(count(row["products"]), escape(f"{row['first']}, {row['last']}"), escape(redact(row["picture"])))
    console().print(table)


def print_rejected(run: Run) -> None:
    """A line for each rejected image of the selection, of many only the first."""
    rows = run.tables.read("images").where(is_selected(run.selection)).where("status = 'rejected'")
    names = ("category", "image_id", "reason", "uri", "run_id")
    table = Table(*(Column(name, overflow="fold") for name in names), title="rejected images, each with its last run")
    for row in rows.orderBy("category", "image_id", "occurrence").limit(_REJECTED).collect():
        table.add_row(*(escape(row[name] or NOTHING) for name in names))
    console().print(table)
    if (others := rows.count() - _REJECTED) > 0:
        console().print(f"and {others:,} more: see the table images, or give a --category")


def read_status(run: Run) -> DataFrame:
    """(category, version, since, model_id, pins, next, held, waiting, placeholders, rejected, figures), or null.

    See `print_status`.
    """
    chosen = is_selected(run.selection)
    images = run.tables.read("images").where(chosen)
    live = run.tables.read("publications").where(chosen)
    live = live.select("category", "version", F.unix_seconds("published_at").alias("since"), "model_id")
    by_reason = images.where("status = 'rejected'").groupBy("category", "reason").count()
    reasons = by_reason.groupBy("category").agg(
        F.array_sort(F.collect_list(F.struct((-F.col("count")).alias("less"), "reason"))).alias("rejected")
    )
    waiting = images.where("status IS NULL AND NOT deleted").groupBy("category").agg(F.count("*").alias("waiting"))
    pins = find_pinned(run.tables).where(chosen).groupBy("category").agg(F.count("*").alias("pins"))
    products = select_embedded(images).join(run.tables.read("placeholders"), "product_id", "left_semi")
    placeholders = products.groupBy("category").agg(F.count_distinct("product_id").alias("placeholders"))
    parts = [_measured(run.tables, live), _next(run, images), waiting, placeholders, reasons, pins]
    joined = reduce(lambda left, right: left.join(_named(right), "category", "full"), parts, _named(live))
    return joined.withColumn("category", F.nullif("category", F.lit("")))


def _named(rows: DataFrame) -> DataFrame:
    """With an empty name for what has no category, so that it joins."""
    return rows.withColumn("category", F.coalesce("category", F.lit("")))


def _measured(tables: Tables, live: DataFrame) -> DataFrame:
    figures = tables.read("evaluations").join(F.broadcast(live), ["category", "version"], "left_semi")
    return figures.groupBy("category").agg(
        *(F.max(F.when(F.col("metric") == metric, F.col("value"))).alias(metric) for metric in _METRICS)
    )


def _next(run: Run, images: DataFrame) -> DataFrame:
    """(category, next, held): the candidate that is not live, of the model of most images; held after a rollback."""
    embedded = images.where("status IN ('embedded', 'reused')").groupBy("model_id").count()
    model = embedded.orderBy(F.desc("count")).first()
    moves = read_live_moves(run.tables)
    versions = number_versions(
        run.tables,
        name_candidates(mark_unavailable(run, images), model["model_id"] if model else "", run.settings),
        moves,
    )
    held = find_rolled_back(moves)
    new = [(v.category, v.version, v.key in held or None) for v in versions if v.version != v.live_version]
    return make_local_frame(run.spark, new, _NEXT)


def _line(row: Row) -> dict[str, str]:
    """Text by the name of the column."""
    since = datetime.fromtimestamp(row["since"], UTC) if row["since"] else None
    held = " (held, rolled back)" if row["held"] else ""
    return {
        "category": row["category"] or NOTHING,
        "live": row["version"] or NOTHING,
        "since": f"{since:%Y-%m-%d %H:%M}" if since else NOTHING,
        "age": duration((datetime.now(UTC) - since).total_seconds()) if since else NOTHING,
        "model": row["model_id"] or NOTHING,
        "images": count(_whole(row["images"])),
        "products": count(_whole(row["products"])),
        "knn_recall@10": share(row["knn_recall@10"]),
        "recall@10": share(row["recall@10"]),
        "pins": count(row["pins"]),
        "next": f"{row['next'] or NOTHING}{held}",
        "waiting": count(row["waiting"]),
        "placeholders": count(row["placeholders"]),
        "rejected": reason_counts((reason["reason"], -reason["less"]) for reason in row["rejected"] or []) or NOTHING,
    }


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
