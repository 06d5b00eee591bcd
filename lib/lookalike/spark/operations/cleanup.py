"""Clean up: remove versions that nobody can be reading any more, and what crashed jobs left behind.

A version stays while it is live or pinned, for the retention after it stopped being live, and for the retention after
its files were written. A file stays while any version that stays names it; one that no version names, for the
retention. A predictor of categories stays while it is the last one fitted for a model of a version that stays, and for
the retention after it was fitted or another took its place.

What is going to be removed is written to the audit first, and what is live or pinned is read again after that. So
either what comes back at the same time is seen here, or its job sees the audit: `audit.safe_from_cleanup`.
"""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from rich.markup import escape
from rich.table import Table

from lookalike import files, schemas
from lookalike.formats import size
from lookalike.spark.catalog.audit import complete_audit, read_live_moves, record
from lookalike.spark.operations.pins import find_pinned
from lookalike.spark.run import Run, console
from lookalike.spark.tables import VERSION, Tables, VersionKey, make_local_frame, version_key_of

# Evaluations first: so no gate lets pass what a killed cleanup left in part. Shards last: they name the files.
_TABLES = ("evaluations", "similar_items", "shards")
_LEAST_VACUUM_HOURS = 7 * 24.0  # Delta's own retention
_AT_ONCE = 4  # tables, as each mostly waits


@dataclass(frozen=True)
class Leftovers:
    """What can go: versions, predictors of categories by the path of their file, and files below the root by path."""

    versions: frozenset[VersionKey]
    files: Mapping[str, files.ListedFile]
    predictors: frozenset[str] = frozenset()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


def cleanup(run: Run, retention_days: float, delete: bool = False) -> Leftovers:
    """Say what no live, pinned or retained version names; with `delete`, remove it. Returns what can go, or went."""
    before = datetime.now(UTC) - timedelta(days=retention_days)
    leftovers = _delete(run, before, retention_days) if delete else find_leftovers(run, before)
    _print(leftovers, delete)
    return leftovers


def _delete(run: Run, before: datetime, retention_days: float) -> Leftovers:
    """Announce, then remove what can go, and see to the files of the tables themselves; returns what went."""
    with run.stage("cleanup") as figures:
        leftovers = find_leftovers(run, before)
        complete_audit(run.tables)
        gone: list[dict[str, str | None]] = [
            {"action": "cleanup", "category": c, "version": v} for c, v in sorted(leftovers.versions)
        ]
        if gone or leftovers.files or leftovers.predictors:
            nothing = {"action": "cleanup", "category": None, "version": None}
            record(run, gone or [nothing], f"retention of {retention_days:g} days")
        leftovers = _remove(run, leftovers, before)
        hours = max(_LEAST_VACUUM_HOURS, retention_days * 24)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(run.tables.compact, sorted(schemas.WITHOUT_IMAGES)))
            list(pool.map(lambda name: run.tables.vacuum(name, hours), schemas.TABLES))
        figures.counts = {
            "versions": len(leftovers.versions),
            "files": len(leftovers.files),
            "bytes": leftovers.size_bytes,
        }
    return leftovers


def find_leftovers(run: Run, before: datetime) -> Leftovers:
    """What nobody needs of all that is older than `before`."""
    # Files first: what is written while the tables are read is not among them.
    there = _files(run.settings.root)
    named = _named_files(run.tables)
    young = {key for key, paths in named.items() if any(p in there and there[p].modified >= before for p in paths)}
    kept = _kept(run.tables, before) | young
    versions = frozenset(_versions(run.tables) - kept)
    predictors, predictors_kept = _predictors(run.tables, before, versions)
    needed = {path for key in named.keys() - versions for path in named[key]} | predictors_kept
    ours = {path for key in versions for path in named.get(key, ())} | predictors
    gone = {p: f for p, f in there.items() if p not in needed and (p in ours or f.modified < before)}
    return Leftovers(versions, gone, predictors)


def _predictors(
    tables: Tables, before: datetime, versions: Collection[VersionKey]
) -> tuple[frozenset[str], frozenset[str]]:
    """Paths of the predictors that nobody needs once `versions` are gone, and of the others."""
    rows = tables.read("shards").select("category", "version", "model_id").distinct().collect()
    models = {row["model_id"] for row in rows if version_key_of(row) not in versions}
    by_model: dict[str, list[Row]] = {}
    for row in tables.read("category_predictors").select("path", "model_id", "fitted_at").collect():
        by_model.setdefault(row["model_id"], []).append(row)
    gone: set[str] = set()
    kept: set[str] = set()
    for model_id, fitted in by_model.items():
        newest_first = sorted(fitted, key=lambda row: (row["fitted_at"], row["path"]), reverse=True)
        serves = model_id in models
        for row in newest_first:
            (kept if serves or _instant(row["fitted_at"]) >= before else gone).add(row["path"])
            serves = _instant(row["fitted_at"]) >= before  # then the one before was in use until lately
    return frozenset(gone), frozenset(kept)


def _instant(collected: datetime) -> datetime:
    """A timestamp as collect gives it: in this machine's time zone, and without saying so."""
    return collected.astimezone(UTC)


def _files(root: str) -> dict[str, files.ListedFile]:
    """Files that jobs write outside the tables: shards, predictors, staging, and temporary files in the root itself."""
    listed = {
        f"{folder}/{path}": file
        for folder in ("shards", "categories", "staging")
        for path, file in files.list_files(files.join(root, folder)).items()
    }
    loose = files.list_files(root, depth=1).items()
    return listed | {p: f for p, f in loose if p.endswith(".tmp") or p.startswith(".writable-")}


def _named_files(tables: Tables) -> dict[VersionKey, set[str]]:
    named: dict[VersionKey, set[str]] = {}
    for row in tables.read("shards").select("category", "version", "path", "vectors_path").collect():
        paths = {path for path in (row["path"], row["vectors_path"]) if path}
        named.setdefault(version_key_of(row), set()).update(paths)
    return named


def _kept(tables: Tables, before: datetime) -> set[VersionKey]:
    """Versions that are live or pinned, or were live after `before`."""
    moves = read_live_moves(tables).where(F.col("at") >= F.lit(before))
    recent = moves.select("category", F.col("replaced_version").alias("version")).where("version IS NOT NULL")
    live = tables.read("publications").select("category", "version")
    return _keys(live.union(recent).union(find_pinned(tables)))


def _versions(tables: Tables) -> set[VersionKey]:
    """Every version of which a row is left anywhere."""
    evaluations, similar_items, shards = (tables.read(name).select("category", "version") for name in _TABLES)
    return _keys(evaluations.union(similar_items).union(shards))


def _keys(rows: DataFrame) -> set[VersionKey]:
    return {version_key_of(row) for row in rows.distinct().collect()}


def _remove(run: Run, leftovers: Leftovers, before: datetime) -> Leftovers:
    """Rows, then files, of what still can go; returns it."""
    versions = leftovers.versions - _kept(run.tables, before)
    spared = _named_files(run.tables)
    predictors, predictors_kept = _predictors(run.tables, before, versions)
    predictors &= leftovers.predictors
    needed = {path for key in spared.keys() - versions for path in spared[key]} | predictors_kept
    if predictors:
        rows = make_local_frame(run.spark, [(path,) for path in sorted(predictors)], pa.schema({"path": pa.string()}))
        run.tables.delete("category_predictors", rows, ["path"])
    if versions:
        rows = make_local_frame(run.spark, sorted(versions), VERSION)
        for name in _TABLES:
            run.tables.delete(name, rows, ["category", "version"])
    # Only what is still as it was found: who wrote to it since has use for it.
    now = _files(run.settings.root)
    gone = {path: file for path, file in leftovers.files.items() if path not in needed and now.get(path) == file}
    for path in gone:
        files.remove(files.join(run.settings.root, path))
    files.remove_empty_folders(run.settings.root, gone)
    return Leftovers(versions, gone, predictors)


def _print(leftovers: Leftovers, deleted: bool) -> None:
    out = console()
    for line in _lines(leftovers):
        out.print(line, highlight=False)
    done = "removed" if deleted else "can go; nothing was removed, --delete does it"
    out.print(
        f"{len(leftovers.versions):,} versions, {len(leftovers.files):,} files, {size(leftovers.size_bytes)}: {done}",
        highlight=False,
    )


def _lines(leftovers: Leftovers) -> Iterator[Table]:
    if leftovers.versions:
        versions = Table("category", "version", title="versions")
        for category, version in sorted(leftovers.versions):
            versions.add_row(escape(category), version)
        yield versions
    if leftovers.files:
        table = Table("file", "bytes", title="files")
        for path, file in sorted(leftovers.files.items()):
            table.add_row(escape(path), f"{file.size_bytes:,}")
        yield table
