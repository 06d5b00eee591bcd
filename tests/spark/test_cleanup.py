"""Cleaning up: takes what nobody needs, leaves what somebody may."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from tests.spark import versions
from tests.spark.versions import build, candidate, run_at

from lookalike import reader
from lookalike.errors import NotPublished, VersionUnusable
from lookalike.spark.catalog.audit import record
from lookalike.spark.catalog.publish import publish
from lookalike.spark.operations import cleanup as module
from lookalike.spark.operations import pins
from lookalike.spark.operations.cleanup import cleanup
from lookalike.spark.operations.pins import pin, unpin
from lookalike.spark.operations.rollback import rollback
from lookalike.spark.tables import Tables

WEEK = 7.0
LONG_AGO_S = 30 * 86_400

STAY = {("a", "live"), ("a", "pinned"), ("a", "left lately"), ("a", "built lately"), ("b", "live"), ("b", "shares")}
GO = {("a", "left long ago"), ("a", "never live"), ("b", "shared")}


@pytest.fixture
def root(spark: Any, tmp_path: Path) -> Path:
    """Versions old and new, one of which has its files in common with one that stays; and what crashes left."""
    root = tmp_path / "root"
    run = run_at(spark, root)
    mine = sorted(STAY | GO)
    described = [versions.write_shard(run, c, v.replace(" ", "-"), i) | {"version": v} for i, (c, v) in enumerate(mine)]
    packed = next(row for row in described if row["version"] == "shares")
    files = {name: packed[name] for name in packed if "path" in name or "sha256" in name or "size" in name}
    described = [row | files if row["version"] == "shared" else row for row in described]
    versions.append(run, "shards", described)
    versions.append(run, "similar_items", [row for c, v in mine for row in versions.similar_rows(c, v, 1)])
    versions.append(run, "evaluations", [row for c, v in mine for row in versions.measured_rows(c, v, None)])
    versions.went_live(run, (60, 29, 1), a=("left long ago", "left lately", "live"))
    versions.went_live(run, (30, 3), b=("shares", "live"))
    pin(run_at(spark, root), "a", "pinned", "the big sale")
    for name in (
        "shards/a-1/x/00000.faiss",
        "shards/a-1/x/00000.arrow.1f.tmp",
        "staging/r/a.faiss",
        "report.html.1f.tmp",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"left")
        (root / f"{name}.new.tmp").write_bytes(b"being written")
    (root / "report.html").write_bytes(b"stays")
    for path in root.rglob("*"):
        young = path.suffixes[-2:] == [".new", ".tmp"] or "built-lately" in path.parts
        if path.is_file() and "tables" not in path.parts and not young:
            os.utime(path, (time.time() - LONG_AGO_S,) * 2)
    return root


@pytest.fixture
def two(spark: Any, tmp_path: Path) -> Path:
    """A category whose versions v1 and v2 were live just now, one after the other."""
    root = tmp_path / "two"
    run = run_at(spark, root)
    build(run, ("a", "v1", None), ("a", "v2", "v1"))
    versions.went_live(run, a=("v1", "v2"))
    return root


def test_cleanup_takes_what_nobody_needs_and_no_more(spark: Any, root: Path, tmp_path: Path) -> None:
    held = [reader.open(str(root), c, v, cache=tmp_path / "cache") for c, v in sorted(STAY)]
    follower = reader.open(str(root), "a", cache=tmp_path / "cache")
    before = _state(root)

    everything = {*root.rglob("*")}
    dry = cleanup(run_at(spark, root), WEEK)
    assert dry.versions == GO
    assert {*root.rglob("*")} == everything

    run = run_at(spark, root)
    gone = cleanup(run, WEEK, delete=True)
    assert gone == dry
    old = {"shards/a-1/x/00000.faiss", "shards/a-1/x/00000.arrow.1f.tmp", "staging/r/a.faiss", "report.html.1f.tmp"}
    removed = {path for path in before if path not in _state(root)}
    assert removed == set(gone.files)
    assert old <= removed
    # Two files of each version, but none of the one that shares them: its own were never named, and are old.
    assert {path.split("/")[2] for path in removed - old} == {"left-long-ago", "never-live", "shared"}
    for table in ("shards", "similar_items", "evaluations"):
        assert {tuple(row) for row in run.tables.read(table).select("category", "version").distinct().collect()} == STAY
    said = [row for row in versions.audit(run) if row[0] == "cleanup"]
    assert {(row[1], row[2]) for row in said} == GO
    assert not (root / "shards" / "a-1" / "x" / "00000.faiss").exists()
    assert not list(root.glob("shards/*/never-live"))

    for catalog in (*held, follower):
        assert catalog.similar("p00")
    assert not follower.refresh()
    for category, version in STAY:
        assert reader.open(str(root), category, version, cache=tmp_path / "other").similar("p00")
    assert cleanup(run_at(spark, root), WEEK, delete=True).files == {}


def _state(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and not {"tables", ".locks"} & {*p.parts}}


def test_cleanup_puts_small_files_together(spark: Any, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of the table as it was before still finds its files: they are removed a week later."""
    run = run_at(spark, two)
    for _ in range(4):
        with run.stage("ingest"):
            pass
    before = DeltaTable(two / "tables" / "runs")
    rows = before.to_pyarrow_table()
    monkeypatch.setattr("lookalike.spark.tables._MANY_SMALL_FILES", 4)
    cleanup(run, WEEK, delete=True)
    assert len(before.file_uris()) == 4
    assert before.to_pyarrow_table() == rows
    cleanup(run, WEEK, delete=True)
    now = DeltaTable(two / "tables" / "runs")
    stages = sorted(now.to_pyarrow_table()["stage"].to_pylist())
    assert (len(now.file_uris()), stages) == (2, ["cleanup"] * 2 + ["ingest"] * 4)


def test_a_pin_holds_until_it_is_taken_back(spark: Any, root: Path) -> None:
    unpin(run_at(spark, root), "a", "pinned")
    with pytest.raises(NotPublished, match="is not pinned"):
        unpin(run_at(spark, root), "a", "pinned")
    with pytest.raises(NotPublished, match="there is no a version unheard"):
        pin(run_at(spark, root), "a", "unheard", "why not")
    assert cleanup(run_at(spark, root), WEEK).versions == GO | {("a", "pinned")}


def test_a_version_that_comes_live_while_cleanup_runs_is_spared(
    spark: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pin that began before cleanup, and is written before cleanup looks again: both notice the other."""
    remove = module._remove

    def start_cleanup(*pinned: Any) -> None:
        def write_pin_then_remove(*found: Any) -> Any:
            record(*pinned)
            return remove(*found)

        monkeypatch.setattr(module, "_remove", write_pin_then_remove)
        gone = cleanup(run_at(spark, root), WEEK, delete=True)
        assert gone.versions == GO - {("a", "never live")}

    monkeypatch.setattr(pins, "record", start_cleanup)
    with pytest.raises(VersionUnusable, match="cleanup set about removing a version never live meanwhile"):
        pin(run_at(spark, root), "a", "never live", "just in time")
    assert list(root.glob("shards/*/never-live/*.faiss"))


def test_nothing_comes_back_that_cleanup_is_removing(spark: Any, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delete = Tables.delete

    def too_late(*given: Any) -> None:
        monkeypatch.setattr(Tables, "delete", delete)
        old, refused = candidate(run_at(spark, two), "a", "v1"), "cleanup is removing a version v1"
        with pytest.raises(VersionUnusable, match=refused):
            rollback(run_at(spark, two), "a")
        with pytest.raises(VersionUnusable, match=refused):
            pin(run_at(spark, two), "a", "v1", "to compare")
        with pytest.raises(VersionUnusable, match=refused):
            publish(run_at(spark, two), [old], force="it was right")
        delete(*given)

    monkeypatch.setattr(Tables, "delete", too_late)
    assert cleanup(run_at(spark, two), 0.0, delete=True).versions == {("a", "v1")}
    assert versions.live(run_at(spark, two)) == {"a": "v2"}
    with pytest.raises(VersionUnusable, match="a version v1 was removed by cleanup"):
        rollback(run_at(spark, two), "a")


def test_what_a_killed_cleanup_named_can_come_back_after_the_next(
    spark: Any, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "_remove", killed)
        cleanup(run_at(spark, two), 0.0, delete=True)
    with pytest.raises(VersionUnusable, match="if it was killed, first run cleanup --delete"):
        rollback(run_at(spark, two), "a")
    assert cleanup(run_at(spark, two), WEEK, delete=True).versions == set()
    assert rollback(run_at(spark, two), "a")[0] == "v1"


def test_files_of_a_fresh_publication_stay_with_no_retention(spark: Any, two: Path, tmp_path: Path) -> None:
    assert cleanup(run_at(spark, two), WEEK, delete=True).versions == set()
    assert cleanup(run_at(spark, two), 0.0, delete=True).versions == {("a", "v1")}
    assert reader.open(str(two), "a", cache=tmp_path / "cache").similar("p00")
