"""The audit: a row for whatever changed what is live, or what stays, with who, why and from what.

A row of `publications` explains itself, and its audit row is made of it: the pointer is committed first, the audit row
after. Whoever reads the audit takes both tables together, so a crash between the two commits hides nothing, and the
next job that changes something writes what is missing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.errors import VersionUnusable
from lookalike.spark.origin import Origin
from lookalike.spark.run import Run
from lookalike.spark.tables import Tables, VersionKey, make_arrow_rows, select_versions

KEY = ("run_id", "action", "category", "version")

MOVES = ("publish", "rollback", "withdraw")
"""Actions that change what is live; their `replaced_version` stopped being live."""


def read_actions(tables: Tables) -> DataFrame:
    """All rows of the audit, those that a crash kept from being written among them."""
    return tables.read("audit").unionByName(_unwritten(tables))


def read_live_moves(tables: Tables) -> DataFrame:
    """Those of them that changed what is live."""
    return read_actions(tables).where(F.col("action").isin(*MOVES))


def read_live(tables: Tables) -> DataFrame:
    """Rows of `publications` that are live; what a crashed withdrawal left is not: `complete_audit` takes it away."""
    return tables.read("publications").where("NOT action <=> 'withdraw'")


def record(run: Run, rows: Sequence[dict[str, Any]], why: str | None = None) -> None:
    """Add rows of this run: each an action, and of the audit's columns those that it has."""
    common = {"at": datetime.now(UTC), "run_id": run.run_id, **vars(Origin.here(why))}
    values = [tuple({**common, **row}.get(name) for name in schemas.AUDIT.names) for row in rows]
    run.tables.append_rows("audit", make_arrow_rows(values, schemas.AUDIT))


def complete_audit(tables: Tables) -> None:
    """Write the audit rows that `publications` holds and the audit lacks, then end what is being withdrawn."""
    missing = _unwritten(tables).toArrow().cast(schemas.AUDIT)
    if missing.num_rows:
        tables.append_new_rows("audit", missing, KEY)  # as two jobs may find the same rows missing
    withdrawn = tables.read("publications").where("action = 'withdraw'")
    if not withdrawn.isEmpty():
        tables.delete("publications", withdrawn, ["category", "run_id"])


@contextmanager
def safe_from_cleanup(tables: Tables, versions: Sequence[VersionKey]) -> Iterator[None]:
    """Around what makes `versions` (category, version) live, or pins them. Raises VersionUnusable.

    Cleanup says in the audit what it removes, then looks at what is live or pinned. One that said so before may have
    looked already, so until it ends nothing is done here. One that says so meanwhile may have missed what was done.
    """
    if not versions:
        yield
        return
    known = read_removals(tables, versions)
    if row := _not_ended(tables, known):
        raise VersionUnusable(
            f"cleanup is removing {row['category']} version {row['version']}, so nothing was changed: run this again "
            "when it has ended; if it was killed, first run cleanup --delete (a longer --retain keeps what is whole)"
        )
    yield
    if row := next((row for row in read_removals(tables, versions) if row not in known), None):
        raise VersionUnusable(
            f"cleanup set about removing {row['category']} version {row['version']} meanwhile, and may not have seen "
            "that it is needed: if it is live now, roll back to another one at once"
        )


def read_removals(tables: Tables, versions: Sequence[VersionKey]) -> list[Row]:
    """(category, version, run_id, at) of every cleanup that set about removing any of `versions`."""
    said = select_versions(tables.read("audit"), versions).where("action = 'cleanup'")
    return said.select("category", "version", "run_id", "at").collect()


def _not_ended(tables: Tables, removals: Sequence[Row]) -> Row | None:
    """One whose cleanup may still be at work. A killed one never ends: a later one that has ended stands for it."""
    if not removals:
        return None
    ended = tables.read("runs").where("stage = 'cleanup'").select("run_id", "started_at").collect()
    runs = {row["run_id"] for row in ended}
    last = max((row["started_at"] for row in ended), default=datetime.min)
    return next((row for row in removals if row["run_id"] not in runs and row["at"] >= last), None)


def _unwritten(tables: Tables) -> DataFrame:
    """Audit rows of `publications` that the audit lacks."""
    live = tables.read("publications")
    rows = live.withColumn("at", F.col("published_at")).withColumn("action", F.coalesce("action", F.lit("publish")))
    keys = [tuple(row) for row in rows.select(*KEY).collect()]
    lacking = tables.lacking("audit", KEY, keys)
    return select_versions(rows.select(*schemas.AUDIT.names), [key[-2:] for key in lacking])
