"""Gather what the report shows, from the tables as they stand, and write it: `<root>/report.html` and the console."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F
from rich.table import Table

from lookalike import files
from lookalike.config import Settings
from lookalike.formats import count, rate, reason_counts, share
from lookalike.report import page as pages
from lookalike.report.thumbnails import make_thumbnail
from lookalike.spark.catalog.gate import GateCheck, pool_figures
from lookalike.spark.catalog.publish import Published
from lookalike.spark.catalog.versions import Version
from lookalike.spark.pages.pictures import read_contents, read_images
from lookalike.spark.pages.placeholders import gather_placeholders
from lookalike.spark.pages.query_report import gather_query_evaluation
from lookalike.spark.pages.replaced_versions import Replaced, find_replaced
from lookalike.spark.run import Run, console
from lookalike.spark.tables import Tables, VersionKey, select_versions, version_key_of

_QUERY_PX = 560
_MATCH_PX = 360
_EXAMPLES = 5
_CATEGORIES = 500
_METRICS = ("knn_recall@10", "recall@1", "recall@5", "recall@10", "coverage")

Estimates = Mapping[str, pages.Estimate]
TableRow = Mapping[str, Any]


@dataclass(frozen=True)
class RunSummary:
    """What a run did: what became of its candidate `versions` by these `checks` of the gate.

    `rows`: its manifest rows by status and by what `ingest` noted, or None where it took in none. `live_model_id`: the
    model of what a rollback made live, which need not be the run's. `withdrawn`: how many categories it took down, as
    no image of them is left.
    """

    state: pages.State
    versions: Sequence[Version] = ()
    checks: Sequence[GateCheck] = ()
    rows: Mapping[str, int] | None = None
    live_model_id: str | None = None
    withdrawn: int = 0

    @classmethod
    def of_publish(
        cls, versions: Sequence[Version], published: Published, rows: Mapping[str, int] | None = None
    ) -> "RunSummary":
        """Of a run whose candidates `versions` passed the gate."""
        state: pages.State = "published" if published.published or published.withdrawn else "unchanged"
        return cls(state, versions, published.checks, rows, withdrawn=published.withdrawn)


def write_report(run: Run, summary: RunSummary) -> None:
    """Show the published catalog, or the candidates that failed the gate, as `<root>/report.html` and as a table."""
    page = gather_page(run, summary)
    _print(page, _save(run.settings, page))


def update_report(run: Run, summary: RunSummary) -> None:
    """Write `<root>/report.html` anew after a run that built nothing; nothing happens where nothing is live."""
    if not run.tables.read("publications").isEmpty():
        page = gather_page(run, summary)
        console().print(f"report: {_save(run.settings, page)}", soft_wrap=True)


def _save(settings: Settings, page: pages.ReportPage) -> str:
    """Where it is, without secrets."""
    uri = files.join(settings.root, "report.html")
    with files.write_atomically(uri) as path:
        path.write_text(pages.render(page), encoding="utf-8")
    return files.redact(uri)


def gather_page(run: Run, summary: RunSummary) -> pages.ReportPage:
    """Everything on the page."""
    model_id = summary.live_model_id or run.model_id
    is_configured = not (summary.live_model_id or run.given_dim)
    shown = [v.key for v in summary.versions] if summary.state == "gate failed" else _live(run.tables)
    evaluations = run.tables.rows_of("evaluations", shown)
    new = {v.version for v in summary.versions}
    categories = gather_category_figures(run.tables, shown, evaluations, new, summary.state)
    replaced = find_replaced(run.tables, shown, model_id)
    return pages.ReportPage(
        catalog=files.filesystem(run.settings.root)[1].rstrip("/").rpartition("/")[2] or "catalog",
        root=run.settings.root,
        run_id=run.run_id,
        finished_at=datetime.now(UTC),
        model=run.settings.model.name if is_configured else None,
        model_id=model_id,
        headline=_headline(run, summary.rows, categories, evaluations),
        gate=pages.Gate(
            summary.state, _nearest(summary.checks) if summary.versions else (), withdrawn=summary.withdrawn
        ),
        comparison=_comparison(run.tables, replaced),
        queries=choose_query_rows(run, replaced, categories),
        training=_training(run.settings) if is_configured else None,
        evaluation=gather_query_evaluation(run, model_id),
        categories=tuple(categories[:_CATEGORIES]),
        rejects=count_rejections(run.tables.read("images")),
        placeholders=gather_placeholders(run),
        stages=tuple(pages.StageFigures(s.stage, s.seconds, s.images, s.images_per_s) for s in run.stages),
    )


def _live(tables: Tables) -> list[VersionKey]:
    return [version_key_of(row) for row in tables.read("publications").collect()]


def _nearest(checks: Sequence[GateCheck]) -> tuple[pages.GateCheck, ...]:
    """What failed; of each metric that holds everywhere, the category that is nearest to its limit."""
    by_metric: dict[str, list[GateCheck]] = {}
    for check in checks:
        by_metric.setdefault(check.metric, []).append(check)
    shown: list[GateCheck] = []
    for alike in by_metric.values():
        failed = [check for check in alike if not check.holds]
        shown += failed or [min(alike, key=lambda check: check.margin)]
    return tuple(pages.GateCheck(c.metric, c.value, c.limit, c.holds, c.at_most, c.category) for c in shown)


def gather_category_figures(
    tables: Tables, shown: Collection[VersionKey], evaluations: Iterable[TableRow], new: set[str], state: pages.State
) -> list[pages.CategoryFigures]:
    """A line for each category of `shown`, by category. `evaluations` are theirs."""
    measured = _estimates(evaluations)
    shards: dict[VersionKey, list[TableRow]] = {}
    for row in tables.rows_of("shards", shown):
        shards.setdefault(version_key_of(row), []).append(row)
    rows = []
    for (category, version), built in sorted(shards.items()):
        figures = measured[category]
        rows.append(
            pages.CategoryFigures(
                category=category,
                images=int(figures["images"].value or 0),
                products=int(figures["products"].value or 0),
                quality=_quality(figures),
                factory=built[0]["factory"],
                shards=len(built),
                size_bytes=sum(map(_size_bytes, built)),
                version=version,
                state=state if version in new else "unchanged",
            )
        )
    return rows


def _size_bytes(shard: TableRow) -> int:
    """Of a file that categories share, each has its share."""
    images = shard["ntotal"]
    return int((shard["size_bytes"] or 0) + shard["vectors_size_bytes"] * images // (shard["vectors_rows"] or images))


def _estimates(rows: Iterable[TableRow]) -> dict[str, dict[str, pages.Estimate]]:
    """category -> metric -> what was measured."""
    estimates: dict[str, dict[str, pages.Estimate]] = {}
    for row in rows:
        estimate = pages.Estimate(row["value"], row["low"], row["high"])
        estimates.setdefault(row["category"], {})[row["metric"]] = estimate
    return estimates


def _quality(figures: Estimates) -> pages.Quality:
    return pages.Quality(*(figures.get(metric, pages.Estimate()) for metric in _METRICS))


def _headline(
    run: Run,
    rows_of_run: Mapping[str, int] | None,
    categories: Sequence[pages.CategoryFigures],
    evaluations: Sequence[TableRow],
) -> pages.Headline:
    rows = _ledger_rows(run.tables) if rows_of_run is None else rows_of_run
    return pages.Headline(
        images=sum(category.images for category in categories),
        products=sum(category.products for category in categories),
        categories=len(categories),
        embedded=rows.get("embedded", 0),
        reused=rows.get("reused", 0),
        rejected=rows.get("rejected", 0),
        quality=_overall(evaluations),
        seconds=sum(figures.seconds for figures in run.stages),
        of_run=rows_of_run is not None,
        left_out=rows.get("left_out", 0),
        unheld_times=rows.get("unheld_times", 0),
    )


def _ledger_rows(tables: Tables) -> dict[str, int]:
    """Rows of the whole ledger by status."""
    statuses = tables.read("images").where("status IS NOT NULL").groupBy("status").count()
    return {row["status"]: row["count"] for row in statuses.collect()}


def _overall(evaluations: Sequence[TableRow]) -> pages.Quality:
    """Means over all queries of all categories, with the intervals of as many queries drawn from one category."""
    figures = {metric: pool_figures(row for row in evaluations if row["metric"] == metric) for metric in _METRICS}
    return _quality({metric: pages.Estimate(f["value"], f["low"], f["high"]) for metric, f in figures.items()})


def _comparison(tables: Tables, replaced: Sequence[Replaced]) -> pages.Comparison | None:
    """Of the categories of `replaced`; see `find_replaced`."""
    if not replaced:
        return None
    before, now = (
        _overall(tables.rows_of("evaluations", keys))
        for keys in ([(r.category, r.replaced) for r in replaced], [(r.category, r.version) for r in replaced])
    )
    return pages.Comparison(replaced[0].model_id, len(replaced), before, now)


def _training(settings: Settings) -> pages.Training | None:
    """How the shop's model was fine-tuned, where it is a file that says so."""
    if not settings.model.is_file:
        return None
    from lookalike.kernels.models import model_file  # here, as torch takes ten seconds to import

    figures = model_file.resolve(settings.model).figures
    if "epochs" not in figures:
        return None
    epochs = (pages.Epoch(epoch["epoch"], epoch.get("loss"), epoch["recall@1"]) for epoch in figures["epochs"])
    return pages.Training(tuple(epochs), figures["best"])


def count_rejections(images: DataFrame) -> tuple[pages.RejectReason, ...]:
    """Reasons with counts and a few examples, most frequent first."""
    rejected = images.where("status = 'rejected'")
    place = F.row_number().over(Window.partitionBy("reason").orderBy("image_id", "occurrence"))
    size = F.count("*").over(Window.partitionBy("reason"))
    rows = rejected.withColumn("place", place).withColumn("size", size).where(F.col("place") <= _EXAMPLES).collect()
    reasons: dict[tuple[int, str], list[pages.RejectExample]] = {}
    for row in sorted(rows, key=lambda row: (-row["size"], row["reason"], row["place"])):
        uri = files.redact(row["uri"]) if row["uri"] else None
        reasons.setdefault((row["size"], row["reason"]), []).append(pages.RejectExample(row["image_id"], uri))
    return tuple(pages.RejectReason(reason, size, tuple(examples)) for (size, reason), examples in reasons.items())


def choose_query_rows(
    run: Run, replaced: Sequence[Replaced], categories: Sequence[pages.CategoryFigures]
) -> tuple[pages.QueryRow, ...]:
    """Some query products, from as many categories as there can be, each with its first similar items.

    And those that it had in the version that was `replaced`, if that is another model's.
    """
    answered = [figures for figures in categories if figures.quality.coverage.value][: run.settings.report.queries]
    now = {figures.category: figures.version for figures in answered if figures.version}
    before = {r.category: r.replaced for r in replaced if r.category in now}
    similar = run.tables.read("similar_items")
    chosen = _chosen_products(select_versions(similar, now.items()), run.settings.report.queries)
    near = select_versions(similar, [*now.items(), *before.items()]).where(F.col("rank") <= run.settings.report.similar)
    near = near.where(F.col("product_id").isin(*(product_id for _, product_id in chosen)))
    by_rank = sorted(near.collect(), key=lambda row: row["rank"])
    rows = [row for row in by_rank if (row["category"], row["product_id"]) in chosen]
    images = read_images(run.tables, {row["image_id"] for row in rows} | {row["similar_image_id"] for row in rows})
    contents = read_contents(run, images)
    by_query: dict[tuple[str, str], tuple[list[Row], list[Row]]] = {query: ([], []) for query in chosen}
    for row in rows:
        place = 0 if row["version"] == now[row["category"]] else 1
        by_query[row["category"], row["product_id"]][place].append(row)
    return tuple(_query_row(*rows_by_age, images, contents) for rows_by_age in by_query.values())


def _chosen_products(similar: DataFrame, queries: int) -> list[tuple[str, str]]:
    """(category, product_id): the first by hash of each category, then the second of each, and so on."""
    products = similar.where("rank = 1").select("category", "product_id")
    by_hash = Window.partitionBy("category").orderBy(F.xxhash64("product_id"), "product_id")
    ranked = products.withColumn("nth", F.row_number().over(by_hash)).where(F.col("nth") <= queries).collect()
    in_turn = sorted(ranked, key=lambda row: (row["nth"], row["category"]))
    return [(row["category"], row["product_id"]) for row in in_turn[:queries]]


def _query_row(
    now: Sequence[Row], before: Sequence[Row], images: Mapping[str, Row], contents: Mapping[str, bytes]
) -> pages.QueryRow:
    query = images[now[0]["image_id"]]
    matches, matches_before = (_matches(rows, images, contents) for rows in (now, before))
    picture = make_thumbnail(contents.get(query["image_id"], b""), _QUERY_PX)
    return pages.QueryRow(now[0]["product_id"], query["title"], now[0]["category"], picture, matches, matches_before)


def _matches(rows: Sequence[Row], images: Mapping[str, Row], contents: Mapping[str, bytes]) -> tuple[pages.Match, ...]:
    """Without images that are gone since, as from a version that is no longer live."""
    return tuple(
        pages.Match(
            product_id=row["similar_product_id"],
            title=images[row["similar_image_id"]]["title"],
            picture=make_thumbnail(contents.get(row["similar_image_id"], b""), _MATCH_PX),
            score=row["score"],
            exact=images[row["similar_image_id"]]["content_hash"] == images[row["image_id"]]["content_hash"],
        )
        for row in rows
        if row["image_id"] in images and row["similar_image_id"] in images
    )


def _print(page: pages.ReportPage, uri: str) -> None:
    """The run in two tables on stdout: what each stage did, and how good each category is."""
    out = console()
    stages = Table("stage", "images", "seconds", "images/s", title=f"run {page.run_id}")
    for stage in page.stages:
        stages.add_row(stage.stage, count(stage.images), f"{stage.seconds:.1f}", rate(stage.images_per_s))
    out.print(stages)
    figures = Table("category", "images", "products", *_METRICS, "index", "state")
    for category in page.categories:
        q = category.quality
        shares = (q.knn_recall_at_10, q.recall_at_1, q.recall_at_5, q.recall_at_10, q.coverage)
        figures.add_row(
            category.category,
            count(category.images),
            count(category.products),
            *(share(s.value) for s in shares),
            category.factory,
            category.state,
        )
    out.print(figures)
    head = page.headline
    parts = {"embedded": head.embedded, "reused": head.reused, "rejected": head.rejected}
    accounted = " + ".join(f"{name} {rows:,}" for name, rows in parts.items())
    out.print(f"manifest rows {sum(parts.values()):,} = {accounted}")
    if page.rejects:
        reasons = reason_counts((reject.reason, reject.count) for reject in page.rejects)
        out.print(f"rejected images of the catalog: {reasons}", highlight=False, markup=False, soft_wrap=True)
    if page.comparison:
        out.print(
            f"another model was live before in {page.comparison.categories:,} categories: {page.comparison.model_id}"
        )
    if page.gate.withdrawn:
        out.print(f"categories without images, withdrawn: {page.gate.withdrawn:,}")
    out.print(f"{page.gate.state}; report: {uri}", soft_wrap=True)
