"""Publish: hold each new version against the gate, then make all of them live in one commit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lookalike import FORMAT_VERSION, log, schemas
from lookalike.errors import GateFailed, PublishConflict
from lookalike.spark.catalog.audit import complete_audit, read_live, safe_from_cleanup
from lookalike.spark.catalog.gate import GateCheck, check_gate, describe_failures
from lookalike.spark.catalog.versions import Version
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.origin import Origin
from lookalike.spark.run import Run
from lookalike.spark.tables import RowChanged

Pointer = dict[str, Any]
"""Those columns of a row of `publications` that are its own, and `expected`: the run_id of the row that it replaces."""


@dataclass(frozen=True)
class Published:
    """How many categories a run made live, and how many it withdrew; and what the gate checked."""

    published: int
    withdrawn: int
    checks: Sequence[GateCheck]


def publish(run: Run, versions: Sequence[Version], force: str | None = None) -> Published:
    """Make `versions` live, and withdraw every live category of which no image is left: all of it, or nothing.

    Only categories of the run's selection are withdrawn. With `force`, the reason why, the gate stops nothing. Raises
    ManifestChanged, GateFailed with the figures that are beyond their limits, PublishConflict where another job was
    faster, and VersionUnusable where cleanup is removing a version that was there before.
    """
    with run.stage("publish") as figures:
        # Read before the audit is completed, as what is replaced below must stand in the audit by then.
        rows = [
            make_pointer(v.category, v.version, v.live_version, v.live_run_id, "publish", run.model_id)
            for v in versions
        ]
        withdrawn = _emptied(run)
        complete_audit(run.tables)
        with safe_from_cleanup(run.tables, [v.key for v in versions]):
            checks = _hold_against_gate(run, versions, force is not None)
            if rows or withdrawn:
                run.check_manifest()
                switch(run, rows + withdrawn, Origin.here(force).with_manifest(run), forced=force is not None)
        figures.counts = {"published": len(rows), "withdrawn": len(withdrawn)}
    return Published(len(rows), len(withdrawn), checks)


def _hold_against_gate(run: Run, versions: Sequence[Version], force: bool) -> list[GateCheck]:
    checks = check_gate(run, versions, force)
    failed = describe_failures(checks)
    if not failed:
        return checks
    for check in checks:
        if not check.holds:
            log.event("gate failed", category=check.category, check=str(check))
    if not force:
        raise GateFailed(f"nothing was published, these figures are beyond their limits ([gate]):\n{failed}")
    run.console.print(f"published by force, with figures beyond their limits:\n{failed}", highlight=False)
    return checks


def switch(run: Run, rows: Sequence[Pointer], origin: Origin, forced: bool = False) -> None:
    """Move the live pointer of every row's category in one commit, then write the audit.

    Raises PublishConflict where another row is there by now.
    """
    common = {
        "format_version": FORMAT_VERSION,
        "shards_table_version": run.tables.delta_version("shards"),
        "similar_items_table_version": run.tables.delta_version("similar_items"),
        "published_at": datetime.now(UTC),
        "run_id": run.run_id,
        "forced": forced,
        **vars(origin),
    }
    schema = schemas.PUBLICATIONS.append(pa.field("expected", pa.string()))
    pointers = pa.Table.from_pylist([{**common, **row} for row in rows], schema)
    try:
        run.tables.swap("publications", pointers, "category", "run_id")
    except RowChanged as changed:
        raise PublishConflict(
            f"another job changed what is live of {changed} meanwhile, so nothing was changed here: run this again"
        ) from None
    complete_audit(run.tables)
    for row in rows:
        log.event(row["action"], category=row["category"], version=row["version"], replaced=row["replaced_version"])


def make_pointer(
    category: str, version: str, replaced: str | None, expected: str | None, action: str, model_id: str
) -> Pointer:
    """A row for `switch`."""
    return {
        "category": category,
        "version": version,
        "replaced_version": replaced,
        "expected": expected,
        "action": action,
        "model_id": model_id,
    }


def _emptied(run: Run) -> list[Pointer]:
    """Rows that withdraw each live category of which the ledger has no image left.

    A rejected image is left: it may be read the next time. What was made live again after it was withdrawn stays.
    """
    left = run.tables.read("images").where("NOT deleted").select("category").distinct().collect()
    categories = {row["category"] for row in left}
    restored = "action <=> 'rollback' AND replaced_version IS NULL"
    from_before = read_live(run.tables).where(f"NOT ({restored})").where(is_selected(run.selection)).collect()
    return [
        make_pointer(row["category"], row["version"], row["version"], row["run_id"], "withdraw", row["model_id"])
        for row in sorted(from_before, key=lambda row: row["category"])
        if row["category"] not in categories
    ]
