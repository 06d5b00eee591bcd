"""Roll back: make versions live again that were live before, once it is sure that they are whole."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.errors import FormatTooNew, NotPublished, ShardDamaged, VersionUnusable, first_few
from lookalike.kernels.index.shards import open_shard
from lookalike.selection import Selection
from lookalike.spark.catalog.audit import (
    complete_audit,
    read_actions,
    read_live,
    read_live_moves,
    read_removals,
    safe_from_cleanup,
)
from lookalike.spark.catalog.publish import Pointer, make_pointer, switch
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.origin import Origin
from lookalike.spark.run import Run
from lookalike.spark.tables import Tables, VersionKey, select_versions, version_key_of
from lookalike.spark.tasks import run_tasks

_PROBLEM = pa.schema({"problem": pa.string()})


@dataclass(frozen=True)
class Back:
    """A category, the version to go back to, and what is live until then, if anything is."""

    category: str
    version: str
    live_version: str | None
    live_run_id: str | None


@dataclass(frozen=True)
class RunUndone:
    """What became of the categories that a run made live or withdrew."""

    back: tuple[str, ...]  # as they were before it
    new: tuple[str, ...]  # nothing was live there before it, so they stay
    moved_on: tuple[str, ...]  # another run changed since what is live there, so they stay
    model_id: str  # of what is live again

    def __str__(self) -> str:
        lines = [f"undone in {first_few(self.back)}"]
        if self.new:
            lines.append(f"still live, as nothing was live before: {first_few(self.new)}")
        if self.moved_on:
            lines.append(f"left alone, as another run changed it since: {first_few(self.moved_on)}")
        return "\n".join(lines)


def rollback(run: Run, category: str, version: str | None = None) -> tuple[str, str]:
    """Make `version` of `category` live, by default the one that the live version replaced; (version, model_id).

    What was live until now is no candidate any more, until the category changes or it is published by force.
    Raises NotPublished where the version was never live, VersionUnusable where it is not whole or will not stay so, and
    PublishConflict.
    """
    with run.stage("rollback") as figures:
        moves = read_live_moves(run.tables).where(F.col("category") == category)
        if moves.isEmpty():
            raise NotPublished(_never_live(run.tables, category))
        now = read_live(run.tables).where(F.col("category") == category).first()
        complete_audit(run.tables)
        target = version or _replaced(moves, category, now)
        if now and now["version"] == target:
            raise VersionUnusable(f"{category} version {target} is live already: name another one with --to")
        was_live = (F.col("version") == target) | (F.col("replaced_version") == target)
        if moves.where(was_live).isEmpty():
            raise NotPublished(f"{category} version {target} was never live: history --category {category} lists those")
        replaced, expected = (now["version"], now["run_id"]) if now else (None, None)
        model_id = _go_back(run, [Back(category, target, replaced, expected)])
        figures.counts = {"rolled_back": 1}
    return target, model_id


def rollback_run(run: Run, run_id: str) -> RunUndone:
    """Undo what `run_id` changed in what is live, in all categories of the selection, in one commit.

    A category that another run changed since stays as it is, and so does one of which nothing was live before.
    Raises NotPublished where that leaves nothing to do, VersionUnusable and PublishConflict.
    """
    with run.stage("rollback") as figures:
        ours = read_live_moves(run.tables).where(F.col("run_id") == run_id)
        if ours.isEmpty():
            raise NotPublished(f"run {run_id} changed nothing that is live: history shows the runs that did")
        now = read_live(run.tables).select(
            "category", F.col("version").alias("live"), F.col("run_id").alias("live_run_id")
        )
        rows = ours.where(is_selected(run.selection)).join(now, "category", "left").orderBy("category").collect()
        complete_audit(run.tables)
        back, new, moved_on = [], [], []
        for row in rows:
            if row["live_run_id"] != (None if row["action"] == "withdraw" else run_id):
                moved_on.append(row["category"])
            elif row["replaced_version"] is None:
                new.append(row["category"])
            else:
                back.append(Back(row["category"], row["replaced_version"], row["live"], row["live_run_id"]))
        if not back:
            raise NotPublished(
                f"nothing of run {run_id} can be undone: in {len(new):,} categories nothing was live before it, and "
                f"{len(moved_on):,} were changed by another run since: history shows which"
            )
        model_id = _go_back(run, back)
        figures.counts = {"rolled_back": len(back), "new": len(new), "moved_on": len(moved_on)}
    return RunUndone(tuple(b.category for b in back), tuple(new), tuple(moved_on), model_id)


def _never_live(tables: Tables, category: str) -> str:
    live_below = read_live(tables).where(is_selected(Selection.of([category])))
    below = live_below.select("category").orderBy("category").collect()
    if below:
        named = first_few([row["category"] for row in below])
        return f"{category} is no category but has some below it: name one ({named}), or a run with --run"
    return f"{category} was never live: give a category as status shows it"


def _go_back(run: Run, wanted: Sequence[Back]) -> str:
    """Make them live in one commit, once all are found whole; gives the model of the first."""
    versions = [(back.category, back.version) for back in wanted]
    with safe_from_cleanup(run.tables, versions):
        models = check_whole(run, versions)
        origins = _origins(run.tables, versions)
        rows: list[Pointer] = [
            make_pointer(b.category, b.version, b.live_version, b.live_run_id, "rollback", models[b.category])
            | origins.get((b.category, b.version), {})
            for b in wanted
        ]
        switch(run, rows, Origin.here())
    return models[wanted[0].category]


def check_whole(run: Run, versions: Sequence[VersionKey]) -> dict[str, str]:
    """The model of each (category, version), by category. Raises VersionUnusable unless all rows and files are there.

    Each file is checked against its sha256.
    """
    shards = run.tables.rows_of("shards", versions)
    metrics = run.tables.rows_of("evaluations", versions)
    unanswered = set(run.tables.lacking("similar_items", schemas.VERSION_KEY, versions))
    measured = {(row["category"], row["version"], row["metric"]): row["value"] for row in metrics}
    images: dict[VersionKey, int] = {}
    for row in shards:
        images[version_key_of(row)] = images.get(version_key_of(row), 0) + row["ntotal"]
    problems = []
    removals = read_removals(run.tables, versions) if len(images) < len(versions) else []
    removed = {version_key_of(row) for row in removals}
    for key in versions:
        if key in removed and key not in images:
            problems.append(f"{_named(key)} was removed by cleanup")
        elif key not in images or images[key] != measured.get((*key, "images")):
            problems.append(f"{_named(key)} is not whole any more, as rows of shards or evaluations lack")
        elif measured.get((*key, "coverage")) and key in unanswered:
            problems.append(f"{_named(key)} is not whole any more, as its similar_items are gone")
    by_file = groupby(sorted(shards, key=lambda row: row["vectors_path"]), key=lambda row: row["vectors_path"])
    of_a_file = [list(rows) for _, rows in by_file]
    if of_a_file and not problems:
        told = run_tasks(run.spark, of_a_file, partial(_check_file, run.settings.root), _PROBLEM)
        problems = [row["problem"] for row in told.collect()]
    if problems:
        raise VersionUnusable(f"nothing was changed: {first_few(problems, '; ')}")
    return {row["category"]: row["model_id"] for row in shards}


def _named(key: VersionKey) -> str:
    return f"{key[0]} version {key[1]}"


def _check_file(root: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[pa.RecordBatch]:
    """What is wrong with the files of shards that share one, as rows of _PROBLEM. Earlier checks don't count."""
    problems = []
    with tempfile.TemporaryDirectory() as cache:
        for row in rows:
            try:
                open_shard(root, row, Path(cache))
            except (ShardDamaged, FormatTooNew) as error:
                problems.append(f"{row['category']} version {row['version']} can't be live: {error}")
    yield pa.RecordBatch.from_pydict({"problem": problems}, _PROBLEM)


def _replaced(moves: DataFrame, category: str, now: Row | None) -> str:
    """What the live version replaced when it was published; of a withdrawn category, what was withdrawn."""
    made_live = F.col("action") == "withdraw"
    if now:
        made_live = (F.col("action") == "publish") & (F.col("version") == now["version"])
    last = moves.where(made_live).orderBy(F.desc("at")).first()
    if last is None or last["replaced_version"] is None:
        raise NotPublished(f"no version of {category} was live before the one that is now: name one with --to")
    return str(last["replaced_version"])


def _origins(tables: Tables, versions: Sequence[VersionKey]) -> dict[VersionKey, dict[str, str | None]]:
    """The manifest that each version was last published from."""
    published = select_versions(read_actions(tables).where("action = 'publish'"), versions)
    last = F.max_by(F.struct("manifest", "manifest_checksum"), "at").alias("last")
    rows = published.groupBy(*schemas.VERSION_KEY).agg(last).collect()
    return {version_key_of(row): row["last"].asDict() for row in rows}
