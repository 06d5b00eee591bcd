"""The gate: a version's figures held against limits, and against those of the version that is live."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Row
from pyspark.sql import functions as F

from lookalike.config import GateSettings
from lookalike.errors import GateFailed
from lookalike.kernels.metrics import wilson_interval
from lookalike.spark.gallery import Version
from lookalike.spark.run import Run
from lookalike.spark.tables import VERSION, local_frame

Figures = Mapping[str, Row]
"""metric -> its row of `evaluations`."""

_NEEDED = {"knn_recall@10", "recall@10", "coverage", "dangling", "products"}
_MANY = 20  # failed checks in one message


@dataclass(frozen=True)
class GateCheck:
    """A figure held against its limit, an upper one with `at_most`. `category` is None for the whole ledger."""

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
        return f"{self.category or 'all images'}: {self.metric} is {self.value:.4f}, must be {sign} {self.limit:.4f}"


def failures(checks: Sequence[GateCheck]) -> str:
    """A line for each check that fails, the first of them; empty where all hold."""
    failed = [f"  {check}" for check in checks if not check.holds]
    more = [f"  and {len(failed) - _MANY:,} more"] if len(failed) > _MANY else []
    return "\n".join(failed[:_MANY] + more)


def gate_checks(run: Run, versions: Sequence[Version], force: bool = False) -> list[GateCheck]:
    """Every check of the gate for `versions`. Raises GateFailed where one was not measured, or not against live.

    With `force` it need not be measured against live: evaluate leaves out what was rolled back from.
    """
    measured = _figures(run, versions)
    missing = [
        v.category for v in versions if not _needed(v, force) <= measured.get((v.category, v.version), {}).keys()
    ]
    if missing:
        raise GateFailed(f"nothing was published, {', '.join(missing[:5])} was not evaluated: run evaluate first")
    gate = run.settings.gate
    checks = [GateCheck(None, "rejected", _rejected_share(run), gate.max_rejected, at_most=True)]
    for version in versions:
        figures = measured[version.category, version.version]
        live = measured.get((version.category, version.live_version or ""), {})
        checks += _absolute(version.category, figures, gate)
        checks += _relative(version.category, figures, live, gate)
    return checks


def _needed(version: Version, force: bool) -> set[str]:
    return _NEEDED | {"churn"} if version.live_version and not force else _NEEDED


def _figures(run: Run, versions: Sequence[Version]) -> dict[tuple[str, str], dict[str, Row]]:
    """(category, version) -> figures, of `versions` and of those that they were found to replace."""
    pairs = [(v.category, name, v.live_version) for v in versions for name in (v.version, v.live_version) if name]
    chosen = local_frame(run.spark, pairs, VERSION.append(pa.field("live_version", pa.string())))
    rows = run.tables.read("evaluations").join(F.broadcast(chosen), ["category", "version"], "inner")
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows.where("against IS NULL OR against = live_version").collect():
        found.setdefault((row["category"], row["version"]), {})[row["metric"]] = row
    return found


def _absolute(category: str, figures: Figures, gate: GateSettings) -> Iterator[GateCheck]:
    yield GateCheck(category, "knn_recall@10", figures["knn_recall@10"]["value"], gate.min_knn_recall)
    yield GateCheck(category, "recall@10", figures["recall@10"]["value"], gate.min_recall_at_10)
    yield GateCheck(category, "coverage", figures["coverage"]["value"], gate.min_coverage)
    yield GateCheck(category, "dangling", figures["dangling"]["value"], 0.0, at_most=True)


def _relative(category: str, figures: Figures, live: Figures, gate: GateSettings) -> Iterator[GateCheck]:
    """Lower ends of 95 % intervals: of a handful of products, chance alone changes many."""
    if "churn" in figures:
        yield GateCheck(category, "churn, at least", figures["churn"]["low"], gate.max_churn, at_most=True)
    for metric in ("knn_recall@10", "recall@10"):
        if metric in live:
            drop = _least_drop(live[metric], figures[metric])
            yield GateCheck(category, f"drop of {metric}, at least", drop, gate.max_recall_drop, at_most=True)
    if "products" in live:
        before, now = int(live["products"]["value"]), int(figures["products"]["value"])
        gone, _ = wilson_interval(max(0.0, 1 - now / before), before)
        yield GateCheck(category, "share of products gone, at least", gone, gate.max_size_drop, at_most=True)


def _least_drop(live: Row, new: Row) -> float | None:
    """Lower end of the interval of a difference of two shares (Newcombe 1998, method 10)."""
    if live["value"] is None or new["value"] is None:
        return None
    spread = math.hypot(live["value"] - live["low"], new["high"] - new["value"])
    return float(live["value"] - new["value"] - spread)


def _rejected_share(run: Run) -> float:
    share = F.avg((F.col("status") == "rejected").cast("double")).alias("share")
    row = run.tables.read("images").where("NOT deleted").agg(share).first()
    return float(row["share"] or 0.0) if row else 0.0
