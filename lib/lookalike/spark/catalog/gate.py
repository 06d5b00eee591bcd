"""The gate: figures held against limits, and against those of what is live, of each version and of all together.

Of a small category chance alone changes much, so that only the sure part of a change counts. Where a wrong model makes
many small categories worse, it shows in all together.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import functions as F

from lookalike.config import GateSettings
from lookalike.errors import GateFailed, first_few
from lookalike.kernels.evaluation.metrics import wilson_interval
from lookalike.spark.catalog.gallery import select_embedded
from lookalike.spark.catalog.versions import Version
from lookalike.spark.run import Run
from lookalike.spark.tables import Tables, VersionKey, version_key_of

Figure = Mapping[str, Any]
"""`value`, `low` and `high` of a metric, such as its row of `evaluations`."""

Figures = Mapping[str, Figure]
"""By metric."""

_NEEDED = {"knn_recall@10", "recall@10", "coverage", "dangling", "products"}
_RECALLS = ("knn_recall@10", "recall@10")
_MANY = 20  # failed checks in one message


@dataclass(frozen=True)
class GateCheck:
    """A figure held against its limit, an upper one with `at_most`. `category` is None for all together."""

    category: str | None
    metric: str
    value: float | None
    limit: float
    at_most: bool = False

    @property
    def margin(self) -> float:
        """How far inside its limit the figure is; what could not be measured can't be held against a limit."""
        if self.value is None:
            return math.inf
        return self.limit - self.value if self.at_most else self.value - self.limit

    @property
    def holds(self) -> bool:
        return self.margin >= 0

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{self.category or 'all together'}: {self.metric} is {self.value:.4f}, must be {sign} {self.limit:.4f}"


def describe_failures(checks: Sequence[GateCheck]) -> str:
    """A line for each check that fails, the first of them; empty where all hold."""
    failed = [f"  {check}" for check in checks if not check.holds]
    more = [f"  and {len(failed) - _MANY:,} more"] if len(failed) > _MANY else []
    return "\n".join(failed[:_MANY] + more)


def check_gate(run: Run, versions: Sequence[Version], force: bool = False) -> list[GateCheck]:
    """Every check of the gate for `versions`. Raises GateFailed where one was not measured, or not against live.

    With `force` it need not be measured against live: evaluate leaves out what was rolled back from.
    """
    measured = _figures(run.tables, versions)
    missing = [v.category for v in versions if not _needed(v, force) <= measured.get(v.key, {}).keys()]
    if missing:
        raise GateFailed(f"nothing was published, {first_few(missing)} was not evaluated: run evaluate first")
    gate = run.settings.gate
    checks = [
        GateCheck(None, "rejected", _rejected_share(run.tables), gate.max_rejected, at_most=True),
        GateCheck(None, "placeholders", _placeholder_share(run.tables), gate.max_placeholders, at_most=True),
    ]
    replacing = []
    for version in versions:
        figures = measured[version.key]
        live = measured.get((version.category, version.live_version or ""), {})
        checks += _absolute(version.category, figures, gate)
        checks += _relative(version.category, figures, live, gate)
        if live:
            replacing.append((figures, live))
    if len(replacing) > 1:
        checks += _relative(None, *_together(replacing), gate)
    return checks


def _needed(version: Version, force: bool) -> set[str]:
    return _NEEDED | {"churn"} if version.live_version and not force else _NEEDED


def _figures(tables: Tables, versions: Sequence[Version]) -> dict[VersionKey, dict[str, Figure]]:
    """Figures of `versions` and of those that they are to replace."""
    live = {v.category: v.live_version for v in versions}
    keys = [v.key for v in versions] + [(category, version) for category, version in live.items() if version]
    figures: dict[VersionKey, dict[str, Figure]] = {}
    for row in tables.rows_of("evaluations", keys):
        if row["against"] in (None, live[row["category"]]):
            figures.setdefault(version_key_of(row), {})[row["metric"]] = row
    return figures


def _absolute(category: str, figures: Figures, gate: GateSettings) -> Iterator[GateCheck]:
    yield GateCheck(category, "knn_recall@10", figures["knn_recall@10"]["value"], gate.min_knn_recall)
    yield GateCheck(category, "recall@10", figures["recall@10"]["value"], gate.min_recall_at_10)
    yield GateCheck(category, "coverage", figures["coverage"]["value"], gate.min_coverage)
    yield GateCheck(category, "dangling", figures["dangling"]["value"], 0.0, at_most=True)


def _relative(category: str | None, figures: Figures, live: Figures, gate: GateSettings) -> Iterator[GateCheck]:
    """Lower ends of 95 % intervals: of a handful of products, chance alone changes many."""
    if "churn" in figures:
        yield GateCheck(category, "churn, at least", figures["churn"]["low"], gate.max_churn, at_most=True)
    for metric in _RECALLS:
        if metric in live:
            drop = _least_drop(live[metric], figures[metric])
            yield GateCheck(category, f"drop of {metric}, at least", drop, gate.max_recall_drop, at_most=True)
    if "products" in live:
        before, now = int(live["products"]["value"]), int(figures["products"]["value"])
        gone, _ = wilson_interval(max(0.0, 1 - now / before), before)
        yield GateCheck(category, "share of products gone, at least", gone, gate.max_size_drop, at_most=True)


def _together(replacing: Sequence[tuple[Figures, Figures]]) -> tuple[Figures, Figures]:
    """Figures of all versions together, and of the live ones that they replace; categories weigh by their queries."""
    figures = {"churn": pool_figures(new["churn"] for new, _ in replacing if "churn" in new)}
    live = {}
    for metric in _RECALLS:
        both = [(old[metric], new[metric]) for new, old in replacing if metric in old]
        both = [pair for pair in both if None not in (pair[0]["value"], pair[1]["value"])]
        live[metric], figures[metric] = pool_figures(old for old, _ in both), pool_figures(new for _, new in both)
    return figures, live


def pool_figures(rows: Iterable[Figure]) -> Figure:
    """Mean over all queries, with its interval; null where there was no query."""
    known = [row for row in rows if row["value"] is not None and row["n"]]
    n = sum(row["n"] for row in known)
    if not n:
        return {"value": None, "low": None, "high": None}
    value = sum(row["n"] * row["value"] for row in known) / n
    low, high = wilson_interval(value, n)
    return {"value": value, "low": low, "high": high}


def _least_drop(live: Figure, new: Figure) -> float | None:
    """Lower end of the interval of a difference of two shares (Newcombe 1998, method 10)."""
    if live["value"] is None or new["value"] is None:
        return None
    spread = math.hypot(live["value"] - live["low"], new["high"] - new["value"])
    return float(live["value"] - new["value"] - spread)


def _rejected_share(tables: Tables) -> float:
    share = F.avg((F.col("status") == "rejected").cast("double")).alias("share")
    row = tables.read("images").where("NOT deleted").agg(share).first()
    return float(row["share"] or 0.0) if row else 0.0


def _placeholder_share(tables: Tables) -> float:
    """Of the products with an embedded image."""
    placeholders = tables.read("placeholders").count()
    if not placeholders:
        return 0.0
    products = select_embedded(tables.read("images")).agg(F.count_distinct("product_id")).first()
    return placeholders / products[0] if products and products[0] else 0.0
