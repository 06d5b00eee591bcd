"""Rolling back: to what, and never to a version that is not whole."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F
from tests.spark import versions
from tests.spark.versions import build, run_at

from lookalike import reader
from lookalike.errors import NotPublished, VersionUnusable
from lookalike.spark.rollback import rollback


@pytest.fixture
def root(spark: Any, tmp_path: Path) -> Path:
    """A category whose versions v1, v2 and v3 were live, one after the other."""
    root = tmp_path / "root"
    build(run_at(spark, root), ("a", "v1", None), ("a", "v2", "v1"), ("a", "v3", "v2"), ("a", "never", "v3"))
    versions.went_live(run_at(spark, root), a=("v1", "v2", "v3"))
    return root


def test_each_rollback_goes_one_version_further_back(spark: Any, root: Path, tmp_path: Path) -> None:
    catalog = reader.open(str(root), "a", cache=tmp_path / "cache")
    assert rollback(run_at(spark, root), "a") == "v2"
    assert catalog.version == "v3"
    assert catalog.similar("p00")
    assert catalog.refresh()
    assert catalog.version == "v2"
    assert rollback(run_at(spark, root), "a") == "v1"
    with pytest.raises(NotPublished, match="no version of a was live before"):
        rollback(run_at(spark, root), "a")
    assert rollback(run_at(spark, root), "a", "v3") == "v3"
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
    assert rollback(run_at(spark, root), "a") == "v3"
    assert versions.live(run) == {"a": "v3"}
    assert versions.audit(run)[3:] == [("withdraw", "a", "v3", "v3"), ("rollback", "a", "v3", None)]
