"""Roll back: make a version live again that was live before, once it is sure that it is whole."""

import tempfile
from functools import partial
from pathlib import Path

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lookalike.errors import FormatTooNew, NotPublished, ShardDamaged, VersionUnusable
from lookalike.kernels.shards import open_shard
from lookalike.spark.audit import MOVES, Origin, actions, live, safe_from_cleanup, settle
from lookalike.spark.publish import pointer, switch
from lookalike.spark.run import Run


def rollback(run: Run, category: str, version: str | None = None) -> str:
    """Make `version` of `category` live, by default the one that the live version replaced; returns it.

    What was live until now is no candidate any more, until the category changes or it is published by force.
    Raises NotPublished where the version was never live, VersionUnusable where it is not whole or will not stay so, and
    PublishConflict.
    """
    with run.stage("rollback") as figures:
        moves = actions(run).where((F.col("category") == category) & F.col("action").isin(*MOVES))
        now = live(run).where(F.col("category") == category).first()
        settle(run)
        target = version or _replaced(moves, category, now)
        if now and now["version"] == target:
            raise VersionUnusable(f"{category} version {target} is live already: name another one with --to")
        was_live = (F.col("version") == target) | (F.col("replaced_version") == target)
        if moves.where(was_live).isEmpty():
            raise NotPublished(f"{category} version {target} was never live: history --category {category} lists those")
        replaced, expected = (now["version"], now["run_id"]) if now else (None, None)
        with safe_from_cleanup(run, [(category, target)]):
            shards = check_whole(run, category, target)
            row = pointer(category, target, replaced, expected, "rollback", shards[0]["model_id"])
            switch(run, [row], _origin(moves, target))
        figures.counts = {"rolled_back": 1}
        return target


def check_whole(run: Run, category: str, version: str) -> list[Row]:
    """Rows of `shards` of the version, each file checked against its sha256. Raises VersionUnusable."""
    ours = (F.col("category") == category) & (F.col("version") == version)
    shards = run.tables.read("shards").where(ours).collect()
    measured = {row["metric"]: row["value"] for row in run.tables.read("evaluations").where(ours).collect()}
    if not shards or sum(row["ntotal"] for row in shards) != measured.get("images"):
        raise VersionUnusable(
            f"{category} version {version} is not whole any more, as rows of shards or evaluations lack"
        )
    if measured["coverage"] and run.tables.read("similar_items").where(ours).isEmpty():
        raise VersionUnusable(f"{category} version {version} is not whole any more, as its similar_items are gone")
    found = run.spark.sparkContext.parallelize(shards, len(shards)).map(partial(_problem, run.settings.root))
    if problems := [problem for problem in found.collect() if problem]:
        raise VersionUnusable(f"{category} version {version} can't be live: {'; '.join(problems)}")
    return shards


def _problem(root: str, row: Row) -> str | None:
    """What is wrong with the files of a shard. Nothing that was checked before counts."""
    with tempfile.TemporaryDirectory() as cache:
        try:
            open_shard(root, row.asDict(), Path(cache))
        except (ShardDamaged, FormatTooNew) as error:
            return str(error)
    return None


def _replaced(moves: DataFrame, category: str, now: Row | None) -> str:
    """What the live version replaced when it was published; of a withdrawn category, what was withdrawn."""
    made_live = F.col("action") == "withdraw"
    if now:
        made_live = (F.col("action") == "publish") & (F.col("version") == now["version"])
    last = moves.where(made_live).orderBy(F.desc("at")).first()
    if last is None or last["replaced_version"] is None:
        raise NotPublished(f"no version of {category} was live before the one that is now: name one with --to")
    return str(last["replaced_version"])


def _origin(moves: DataFrame, version: str) -> Origin:
    """Of this job, with the manifest that the version was once published from."""
    here = Origin.here()
    past = moves.where((F.col("version") == version) & (F.col("action") == "publish")).orderBy(F.desc("at")).first()
    manifest, checksum = (past["manifest"], past["manifest_checksum"]) if past else (None, None)
    return Origin(here.who, here.why, manifest, checksum, here.code_version)
