"""The audit: a row for whatever changed what is live, or what stays, with who, why and from what.

A row of `publications` explains itself, and its audit row is made of it: the pointer is committed first, the audit row
after. Whoever reads the audit takes both tables together, so a crash between the two commits hides nothing, and the
next job that changes something writes what is missing.
"""

import getpass
import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lookalike import __version__, files, schemas
from lookalike.errors import VersionUnusable
from lookalike.spark.run import Run
from lookalike.spark.tables import VersionKey, arrow_rows, of_versions

KEY = ("run_id", "action", "category", "version")

MOVES = ("publish", "rollback", "withdraw")
"""Actions that change what is live; their `replaced_version` stopped being live."""

_READ_THREADS = 16


@dataclass(frozen=True)
class Origin:
    """Where a change comes from; see `schemas.AUDIT`."""

    who: str
    why: str | None
    manifest: str | None
    manifest_checksum: str | None
    code_version: str

    @classmethod
    def here(cls, why: str | None = None) -> "Origin":
        """Of what this process does; of no manifest yet."""
        return cls(_user(), why, None, None, code_version())

    def with_manifest(self, run: Run) -> "Origin":
        """With the manifest of `run`, where it has one."""
        uri = run.settings.manifest
        if uri is None:
            return self
        return Origin(self.who, self.why, files.redacted(uri), manifest_checksum(run, uri), self.code_version)


def actions(run: Run) -> DataFrame:
    """All rows of the audit, those that a crash kept from being written among them."""
    return run.tables.read("audit").unionByName(_unwritten(run))


def live_moves(run: Run) -> DataFrame:
    """Those of them that changed what is live."""
    return actions(run).where(F.col("action").isin(*MOVES))


def live(run: Run) -> DataFrame:
    """Rows of `publications` that are live: what a crashed withdrawal left is not, and `settle` takes it away."""
    return run.tables.read("publications").where("NOT action <=> 'withdraw'")


def record(run: Run, rows: Sequence[dict[str, Any]], why: str | None = None) -> None:
    """Add rows of this run: each an action, and of the audit's columns those that it has."""
    common = {"at": datetime.now(UTC), "run_id": run.run_id, **vars(Origin.here(why))}
    values = [tuple({**common, **row}.get(name) for name in schemas.AUDIT.names) for row in rows]
    run.tables.append_rows("audit", arrow_rows(values, schemas.AUDIT))


def settle(run: Run) -> None:
    """Write the audit rows that `publications` holds and the audit lacks, then end what is being withdrawn."""
    missing = _unwritten(run).toArrow().cast(schemas.AUDIT)
    if missing.num_rows:
        run.tables.append_new_rows("audit", missing, KEY)  # as two jobs may find the same rows missing
    withdrawn = run.tables.read("publications").where("action = 'withdraw'")
    if not withdrawn.isEmpty():
        run.tables.delete("publications", withdrawn, ["category", "run_id"])


@contextmanager
def safe_from_cleanup(run: Run, versions: Sequence[VersionKey]) -> Iterator[None]:
    """Around what makes `versions` (category, version) live, or pins them. Raises VersionUnusable.

    Cleanup says in the audit what it removes, then looks at what is live or pinned. One that said so before may have
    looked already, so until it ends nothing is done here. One that says so meanwhile may have missed what was done.
    """
    if not versions:
        yield
        return
    known = removals(run, versions)
    if row := _not_ended(run, known):
        raise VersionUnusable(
            f"cleanup is removing {row['category']} version {row['version']}, so nothing was changed: run this again "
            "when it has ended; if it was killed, first run cleanup --delete (a longer --retain keeps what is whole)"
        )
    yield
    if row := next((row for row in removals(run, versions) if row not in known), None):
        raise VersionUnusable(
            f"cleanup set about removing {row['category']} version {row['version']} meanwhile, and may not have seen "
            "that it is needed: if it is live now, roll back to another one at once"
        )


def removals(run: Run, versions: Sequence[VersionKey]) -> list[Row]:
    """(category, version, run_id, at) of every cleanup that set about removing any of `versions`."""
    said = of_versions(run.tables.read("audit"), versions).where("action = 'cleanup'")
    return said.select("category", "version", "run_id", "at").collect()


def _not_ended(run: Run, removals: Sequence[Row]) -> Row | None:
    """One whose cleanup may still be at work. A killed one never ends: a later one that has ended stands for it."""
    if not removals:
        return None
    ended = run.tables.read("runs").where("stage = 'cleanup'").select("run_id", "started_at").collect()
    runs = {row["run_id"] for row in ended}
    last = max((row["started_at"] for row in ended), default=datetime.min)
    return next((row for row in removals if row["run_id"] not in runs and row["at"] >= last), None)


def _unwritten(run: Run) -> DataFrame:
    """Audit rows of `publications` that the audit lacks."""
    live = run.tables.read("publications")
    rows = live.withColumn("at", F.col("published_at")).withColumn("action", F.coalesce("action", F.lit("publish")))
    keys = [tuple(row) for row in rows.select(*KEY).collect()]
    lacking = run.tables.lacking("audit", KEY, keys)
    return of_versions(rows.select(*schemas.AUDIT.names), [key[-2:] for key in lacking])


def _user() -> str:
    try:
        return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


@cache
def code_version() -> str:
    """Version of this library; with the commit, and `dirty` beside changes, where it runs from a checkout."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():
        return __version__
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{found.stdout.strip()}"


def manifest_checksum(run: Run, uri: str) -> str:
    """sha256 over each file's name, size and Parquet footer, in order of the names.

    The footer has every column chunk's place, size and statistics, so other rows mean another checksum. Only a few kB
    of each file are read, and a copy of the manifest at another place, or another time, has the same checksum.
    """
    paths = sorted(unquote(path) for path in run.spark.read.parquet(uri).inputFiles())
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        footers = list(pool.map(_footer, paths))
    digest = hashlib.sha256()
    for path, (size, footer) in zip(paths, footers, strict=True):
        digest.update(f"{path.rpartition('/')[2]}\n{size}\n".encode() + hashlib.sha256(footer).digest())
    return digest.hexdigest()


def _footer(uri: str) -> tuple[int, bytes]:
    """Size of a Parquet file, and its footer, whose length stands in front of the last four bytes."""
    fs, path = files.filesystem(uri)
    size = int(fs.size(path))
    with fs.open(path, "rb") as file:
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), "little")
        file.seek(size - 8 - length)
        return size, bytes(file.read(length))
