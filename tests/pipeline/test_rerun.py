"""Runs on what runs before them left: nothing is done twice, and a category that did not change is not touched."""

from pathlib import Path

import pytest
from tests import catalogs
from tests.pipeline.conftest import FOREIGN, PLAIN, SINGLE, SPACED, Shop

from lookalike import reader

IMPOSSIBLE = "gate.min_recall_at_10=1.0"


def test_an_unchanged_manifest_changes_nothing(own_shop: Shop) -> None:
    """At another place than where it was published, too: a root can be moved."""
    root = own_shop.root
    before, answers = catalogs.versions(root), catalogs.answers(root)
    files = {path: path.stat().st_mtime_ns for path in (root / "shards").rglob("*")}
    ended = catalogs.run("pipeline", root, own_shop.manifest, own_shop.settings)
    assert ended.code == 0, ended.err
    assert "nothing to build" in ended.out
    assert catalogs.versions(root) == before
    assert {path: path.stat().st_mtime_ns for path in (root / "shards").rglob("*")} == files
    assert catalogs.answers(root) == answers
    assert catalogs.last_run(root)["embed"] == {"embedded": 0, "reused": 0, "rejected": 0}
    assert catalogs.last_run(root)["publish"] == {"published": 0, "withdrawn": 0}
    good = len(own_shop.rows) - len(own_shop.reasons)
    assert f"embedded 0 + reused {good} + rejected {len(own_shop.reasons)}" in ended.out


def test_gate_then_one_changed_category(own_shop: Shop, tmp_path: Path) -> None:
    """A gate that fails leaves all as it was; the next run publishes what stands there, and builds nothing anew."""
    root = own_shop.root
    before, answers = catalogs.live(root), catalogs.answers(root)
    new = catalogs.images(FOREIGN, 10)
    rows = [row for row in own_shop.rows if row["category"] != FOREIGN] + new
    manifest = catalogs.write_manifest(tmp_path / "more.parquet", rows)

    failed = catalogs.run("pipeline", root, manifest, [*own_shop.settings, IMPOSSIBLE])
    assert failed.code == 3
    assert "nothing was published" in failed.error
    measured = {row["version"]: row for row in catalogs.table(root, "evaluations") if row["metric"] == "recall@10"}
    (new_version,) = measured.keys() - before.values()
    assert f"{FOREIGN}: recall@10 is {measured[new_version]['value']:.4f}, must be >= 1.0000" in failed.error
    assert "gate failed" in failed.out
    assert "gate failed" in (root / "report.html").read_text(encoding="utf-8").lower()
    assert catalogs.live(root) == before
    assert catalogs.answers(root) == answers
    assert catalogs.last_run(root)["embed"] == {"embedded": 16, "reused": 0, "rejected": 0}

    built = {
        name: version for name, version in catalogs.versions(root).items() if name not in ("publications", "audit")
    }
    ended = catalogs.run("pipeline", root, manifest, own_shop.settings)
    assert ended.code == 0, ended.err
    assert {
        name: version for name, version in catalogs.versions(root).items() if name not in ("publications", "audit")
    } == built
    after = catalogs.live(root)
    assert {category for category in after if after[category] != before[category]} == {FOREIGN}
    (row,) = (row for row in catalogs.table(root, "publications") if row["category"] == FOREIGN)
    assert row["replaced_version"] == before[FOREIGN]
    assert len(reader.open(str(root), FOREIGN).similar(f"{FOREIGN}-0", 10)) == 9
    assert len(reader.open(str(root), FOREIGN, before[FOREIGN]).similar(f"{FOREIGN}-0", 10)) == 1
    now = catalogs.answers(root)
    assert {category: now[category] for category in (PLAIN, SPACED, SINGLE)} == {
        category: answers[category] for category in (PLAIN, SPACED, SINGLE)
    }


@pytest.mark.usefixtures("spark")
def test_jobs_one_by_one_each_twice(tmp_path: Path) -> None:
    """As after a crash between two stages, or between a stage's work and the next stage's."""
    rows = catalogs.embeddings("a", 6) + catalogs.embeddings("b", 3, seed=1) + catalogs.embeddings("one", 1, 1)
    manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", rows)
    root = tmp_path / "root"
    for job in ("ingest", "embed", "build_index", "similar_items", "evaluate"):
        assert catalogs.run(job, root, manifest).code == 0
        before = catalogs.versions(root)
        assert catalogs.run(job, root, manifest).code == 0
        assert catalogs.versions(root) == before, job
    assert not (root / "tables" / "publications").exists()
    assert catalogs.run("publish", root, manifest).code == 0

    keys = [(row["category"], row["version"], row["shard"]) for row in catalogs.table(root, "shards")]
    assert len(keys) == len(set(keys)) == 3
    ranks = [(row["product_id"], row["rank"]) for row in catalogs.table(root, "similar_items")]
    expected = [(f"{c}-{p}", rank) for c, n in (("a", 6), ("b", 3)) for p in range(n) for rank in range(1, n)]
    assert sorted(ranks) == expected
    measured = [(row["category"], row["metric"]) for row in catalogs.table(root, "evaluations")]
    assert len(measured) == len(set(measured))
    assert catalogs.live(root).keys() == {"a", "b", "one"}
    assert len(catalogs.answers(root)["a"][1]["a-0"]) == 5
