"""Rolling back: to what, and never to a version that is not whole."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F
from tests.spark import versions
from tests.spark.versions import build, run_at

from lookalike import reader
from lookalike.errors import NotPublished, VersionUnusable
from lookalike.selection import Selection
from lookalike.spark.catalog.audit import read_live_moves
from lookalike.spark.catalog.publish import publish
from lookalike.spark.catalog.versions import find_rolled_back
from lookalike.spark.operations.rollback import RunUndone, rollback, rollback_run


@pytest.fixture
def root(spark: Any, tmp_path: Path) -> Path:
    """A category whose versions v1, v2 and v3 were live, one after the other."""
    root = tmp_path / "root"
    build(run_at(spark, root), ("a", "v1", None), ("a", "v2", "v1"), ("a", "v3", "v2"), ("a", "never", "v3"))
    versions.went_live(run_at(spark, root), a=("v1", "v2", "v3"))
    return root


def test_each_rollback_goes_one_version_further_back(spark: Any, root: Path, tmp_path: Path) -> None:
    catalog = reader.open(str(root), "a", cache=tmp_path / "cache")
    assert rollback(run_at(spark, root), "a") == ("v2", versions.MODEL)
    assert catalog.version == "v3"
    assert catalog.similar("p00")
    assert catalog.refresh()
    assert catalog.version == "v2"
    assert rollback(run_at(spark, root), "a")[0] == "v1"
    with pytest.raises(NotPublished, match="no version of a was live before"):
        rollback(run_at(spark, root), "a")
    assert rollback(run_at(spark, root), "a", "v3")[0] == "v3"
    run = run_at(spark, root)
    assert versions.audit(run)[3:] == [
        ("rollback", "a", "v2", "v3"),
        ("rollback", "a", "v1", "v2"),
        ("rollback", "a", "v3", "v1"),
    ]


def test_only_what_was_live_and_is_whole_can_be_live_again(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    with pytest.raises(VersionUnusable, match="v3 is live already"):
        rollback(run, "a", "v3")
    for version in ("never", "unheard"):
        with pytest.raises(NotPublished, match=f"{version} was never live"):
            rollback(run, "a", version)
    with pytest.raises(NotPublished, match="b was never live: give a category as status shows it"):
        rollback(run, "b")
    (index,) = root.glob("shards/*/v2/*.faiss")
    damaged = bytearray(index.read_bytes())
    damaged[-1] ^= 1
    index.write_bytes(damaged)
    with pytest.raises(VersionUnusable, match=r"v2 can't be live: .*differs from its sha256"):
        rollback(run, "a")
    index.unlink()
    with pytest.raises(VersionUnusable, match="is missing"):
        rollback(run, "a", "v2")
    gone = run.spark.createDataFrame([("a", "v1")], "category string, version string")
    run.tables.delete("similar_items", gone, gone.columns)
    with pytest.raises(VersionUnusable, match="its similar_items are gone"):
        rollback(run, "a", "v1")
    run.tables.delete("shards", gone, gone.columns)
    with pytest.raises(VersionUnusable, match="rows of shards or evaluations lack"):
        rollback(run, "a", "v1")
    assert versions.live(run) == {"a": "v3"}
    assert len(versions.audit(run)) == 3


def test_what_a_crashed_withdrawal_left_is_not_live(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    crashed = {"action": F.lit("withdraw"), "replaced_version": F.col("version"), "run_id": F.lit("crashed")}
    crashed["published_at"] = F.current_timestamp()
    run.tables.upsert("publications", run.tables.read("publications").withColumns(crashed), ["category"])
    assert rollback(run_at(spark, root), "a")[0] == "v3"
    assert versions.live(run) == {"a": "v3"}
    assert versions.audit(run)[3:] == [("withdraw", "a", "v3", "v3"), ("rollback", "a", "v3", None)]


def test_a_run_is_undone_where_it_still_stands(spark: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = run_at(spark, root)
    categories = ("shop/a", "shop/b", "shop/left", "shop/moved", "home/c")
    before = {"v1": None, "v2": "v1", "v3": "v2"}
    build(run, *((c, v, against) for c in categories for v, against in before.items()), ("shop/new", "v1", None))
    versions.went_live(run, (), **dict.fromkeys(categories, ("v1", "v2")), **{"shop/new": ("v1",)})
    bad = run_at(spark, root)
    versions.ledger(run, **{"shop/left": "deleted"})
    publish(bad, [versions.candidate(bad, c, "v3") for c in (*categories[:2], "shop/moved", "home/c")])
    since = run_at(spark, root)
    rollback(since, "shop/moved")
    with pytest.raises(NotPublished, match="run unheard changed nothing that is live"):
        rollback_run(run_at(spark, root), "unheard")
    with pytest.raises(
        NotPublished, match=r"shop is no category but has some below it: name one .shop/a, shop/b, shop/"
    ):
        rollback(run_at(spark, root), "shop")

    damaged = next(root.glob("shards/home*/v2/*.faiss"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    live = versions.live(run)
    with pytest.raises(VersionUnusable, match=r"nothing was changed: home/c version v2 can't be live: .*bytes instead"):
        rollback_run(run_at(spark, root), bad.run_id)
    assert versions.live(run) == live
    damaged.write_bytes(whole)

    some = rollback_run(dataclasses.replace(run_at(spark, root), selection=Selection.of(["home"])), bad.run_id)
    assert some.back == ("home/c",)
    undone = rollback_run(run_at(spark, root), bad.run_id)
    assert undone == RunUndone(("shop/a", "shop/b", "shop/left"), (), ("home/c", "shop/moved"), versions.MODEL)
    assert (
        str(undone)
        == "undone in shop/a, shop/b, shop/left\nleft alone, as another run changed it since: home/c, shop/moved"
    )
    assert versions.live(run) == dict.fromkeys(categories, "v2") | {"shop/new": "v1"}
    # What was undone is held, and undoing that run brings it back.
    assert find_rolled_back(read_live_moves(run.tables)) == {
        (c, "v3") for c in ("home/c", "shop/a", "shop/b", "shop/moved")
    }
    with pytest.raises(NotPublished, match="in 1 categories nothing was live before it, and 5 were changed"):
        rollback_run(run_at(spark, root), "run-0")
    assert rollback_run(run_at(spark, root), since.run_id).back == ("shop/moved",)
    assert versions.live(run)["shop/moved"] == "v3"
