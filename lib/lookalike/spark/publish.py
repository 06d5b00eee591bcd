"""Publish: hold each new version against the gate, then make all of them live in one commit."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import functions as F

from lookalike import FORMAT_VERSION, schemas
from lookalike.config import GateSettings
from lookalike.errors import GateFailed
from lookalike.spark.gallery import Version, versions_frame
from lookalike.spark.run import Run
from lookalike.spark.tables import spark_schema


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


def publish(run: Run, versions: Sequence[Version], model_id: str) -> None:
    """Make `versions` live, all or none. Raises GateFailed with every figure that is beyond its limit."""
    with run.stage("publish") as figures:
        checks = gate_checks(run, versions)
        failed = [str(check) for check in checks if not check.holds]
        if failed:
            lines = "\n".join(f"  {line}" for line in failed)
            raise GateFailed(f"nothing was published, these figures are beyond their limits ([gate]):\n{lines}")
        if versions:
            _switch(run, versions, model_id)
        figures.counts = {"published": len(versions)}


def gate_checks(run: Run, versions: Sequence[Version]) -> list[GateCheck]:
    """Every check of the gate for `versions`. A version without figures fails it."""
    chosen = versions_frame(run.spark, versions)
    rows = run.tables.read("evaluations").join(F.broadcast(chosen), ["category", "version"], "left_semi").collect()
    by_category: dict[str, dict[str, float | None]] = {version.category: {} for version in versions}
    for row in rows:
        by_category[row["category"]][row["metric"]] = row["value"]
    missing = [category for category, values in by_category.items() if not values]
    if missing:
        raise GateFailed(f"nothing was published, {', '.join(missing[:5])} was not evaluated: run evaluate first")
    gate = run.settings.gate
    return [check for category, values in by_category.items() for check in _checks(category, values, gate)] + [
        GateCheck(None, "rejected", _rejected_share(run), gate.max_rejected, at_most=True)
    ]


def _checks(category: str, values: Mapping[str, float | None], gate: GateSettings) -> Iterator[GateCheck]:
    yield GateCheck(category, "knn_recall@10", values["knn_recall@10"], gate.min_knn_recall)
    yield GateCheck(category, "recall@10", values["recall@10"], gate.min_recall_at_10)
    yield GateCheck(category, "coverage", values["coverage"], gate.min_coverage)
    yield GateCheck(category, "dangling", values["dangling"], 0.0, at_most=True)


def _rejected_share(run: Run) -> float:
    share = F.avg((F.col("status") == "rejected").cast("double")).alias("share")
    row = run.tables.read("images").agg(share).first()
    return float(row["share"] or 0.0) if row else 0.0


def _switch(run: Run, versions: Sequence[Version], model_id: str) -> None:
    live = {row["category"]: row["version"] for row in run.tables.read("publications").collect()}
    tables = run.tables.version("shards"), run.tables.version("similar_items")
    now = datetime.now(UTC)
    rows = [
        (v.category, v.version, live.get(v.category), model_id, FORMAT_VERSION, *tables, now, run.run_id)
        for v in versions
    ]
    frame = run.spark.createDataFrame(rows, spark_schema(schemas.PUBLICATIONS))
    run.tables.upsert("publications", frame, ["category"])
