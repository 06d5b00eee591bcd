"""What publish writes about itself, what it holds against live, and what happens when two publish at once."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.spark import rows, versions
from tests.spark.versions import MODEL, build, candidate, run_at

from lookalike import __version__, delta_log
from lookalike.errors import GateFailed, PublishConflict
from lookalike.kernels.evaluation.metrics import wilson_interval
from lookalike.spark.catalog import publish as module
from lookalike.spark.catalog.audit import complete_audit, read_actions
from lookalike.spark.catalog.gate import check_gate
from lookalike.spark.catalog.measure_churn import measure_churn
from lookalike.spark.catalog.publish import publish
from lookalike.spark.catalog.versions import Version, find_unpublished, name_candidates
from lookalike.spark.operations.rollback import rollback
from lookalike.spark.origin import Origin
from lookalike.spark.pages.report import RunSummary


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def test_a_publication_explains_itself(spark: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "ann")
    manifest = rows.manifest_file(tmp_path / "manifest.parquet", [rows.image()])
    run = run_at(spark, root, manifest=f"file://{manifest}?token=secret")
    # Spark and fsspec would take the query for a part of the name; so the file is there under both.
    shutil.copy(manifest, f"{manifest}?token=secret")
    build(run, ("a/b", "v1", None))
    publish(run, [candidate(run, "a/b", "v1")])
    (row,) = run.tables.read("publications").collect()
    (said,) = run.tables.read("audit").collect()
    for found in (row, said):
        assert (found["action"], found["who"], found["why"], found["model_id"]) == ("publish", "ann", None, MODEL)
        assert "secret" not in found["manifest"]
        assert found["manifest"].startswith(f"file://{manifest}")
        assert len(found["manifest_checksum"]) == 64
        assert found["code_version"].startswith(__version__)
        assert found["run_id"] == run.run_id
    assert row["forced"] is False


def test_the_manifests_checksum_follows_its_rows_only(spark: Any, root: Path, tmp_path: Path) -> None:
    def checksum(folder: str, *ids: str) -> str | None:
        (tmp_path / folder).mkdir()
        path = rows.manifest_file(tmp_path / folder / "manifest.parquet", [rows.image(image_id) for image_id in ids])
        return Origin.here().with_manifest(run_at(spark, root, manifest=path)).manifest_checksum

    first = checksum("one", "a", "b")
    assert checksum("copy", "a", "b") == first
    assert checksum("other", "a", "c") != first


def test_a_crash_between_pointer_and_audit_loses_nothing(
    spark: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(spark, root)
    build(run, ("a", "v1", None), ("gone", "v1", None))
    publish(run, [candidate(run, c, "v1") for c in ("a", "gone")])
    build(run, ("a", "v2", "v1"))
    versions.ledger(run, a="embedded", gone="deleted")

    def crash(run: Any) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    crashed = run_at(spark, root)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        version = candidate(crashed, "a", "v2")
        # The first one works.
        patched.setattr(module, "complete_audit", lambda _: patched.setattr(module, "complete_audit", crash))
        publish(crashed, [version])
    assert len(versions.audit(run)) == 2
    assert {
        tuple(r)
        for r in read_actions(run.tables).where(f"run_id = '{crashed.run_id}'").select("action", "category").collect()
    } == {
        ("publish", "a"),
        ("withdraw", "gone"),
    }
    complete_audit(run.tables)
    expected = [("publish", "a", "v2", "v1"), ("withdraw", "gone", "v1", "v1")]
    assert versions.audit(run)[2:] == expected
    assert versions.live(run) == {"a": "v2"}
    state = {name: run.tables.delta_version(name) for name in ("audit", "publications")}
    complete_audit(run.tables)
    assert {name: run.tables.delta_version(name) for name in state} == state


@pytest.mark.usefixtures("lock")
def test_what_another_job_published_meanwhile_is_not_replaced(spark: Any, root: Path) -> None:
    """Neither the category in conflict nor the others of the same run go live; run again, they do."""
    first, second = run_at(spark, root), run_at(spark, root)
    build(first, ("a", "v1", None), ("b", "v1", None), ("a", "v2", "v1"), ("a", "v3", "v1"), ("a", "v3", "v2"))
    publish(first, [candidate(first, c, "v1") for c in ("a", "b")])
    slow, fast = candidate(second, "a", "v3"), candidate(second, "a", "v2")
    publish(second, [fast])
    with pytest.raises(PublishConflict, match="what is live of a meanwhile") as error:
        publish(first, [slow])
    assert error.value.exit_code == 1
    assert versions.live(first) == {"a": "v2", "b": "v1"}
    assert len(versions.audit(first)) == 3
    again = run_at(spark, root)
    publish(again, [candidate(again, "a", "v3")])
    assert versions.live(first) == {"a": "v3", "b": "v1"}


def test_the_gate_compares_with_live(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    live = {"products": (100.0, None, None), "recall@10": (0.9, 0.88, 0.92)}
    bad: dict[str, dict[str, Any]] = {
        "same": {**live},
        "churned": {**live, "churn": (0.9, 0.71, 0.97)},
        "few": {**live, "churn": (1.0, 0.3, 1.0)},
        "worse": {**live, "recall@10": (0.7, 0.67, 0.73)},
        "unlucky": {**live, "recall@10": (0.7, 0.5, 0.9)},
        "shrunk": {**live, "products": (30.0, None, None)},
    }
    measured = [row for c, figures in bad.items() for row in versions.measured_rows(c, "v2", "v1", **figures)]
    measured += [row for c in bad for row in versions.measured_rows(c, "v1", None, **live)]
    versions.append(run, "evaluations", measured)
    found = [Version(c, "v2", 1, False, "v1", "r") for c in bad]
    failed = {(check.category, check.metric) for check in check_gate(run, found) if not check.holds}
    assert failed == {
        ("churned", "churn, at least"),
        ("worse", "drop of recall@10, at least"),
        ("shrunk", "share of products gone, at least"),
    }
    with pytest.raises(GateFailed, match="same was not evaluated"):
        check_gate(run, [Version("same", "v2", 1, False, "v0", "r")])
    with pytest.raises(GateFailed, match="same was not evaluated"):
        check_gate(run, [Version("same", "v3", 1, False, "v1", "r")])


def test_what_chance_may_do_to_one_small_category_it_can_not_do_to_all(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    names = [f"small/{i}" for i in range(20)]
    worse = {"recall@10": (0.75, 0.41, 0.93), "churn": (0.85, 0.5, 0.97)}
    good = {"recall@10": (0.95, 0.62, 1.0)}
    measured = [row for c in names for row in versions.measured_rows(c, "v2", "v1", **worse)]
    measured += [row for c in names for row in versions.measured_rows(c, "v1", None, **good)]
    versions.append(run, "evaluations", measured)
    found = [Version(c, "v2", 1, False, "v1", "r") for c in names]
    assert [str(check) for check in check_gate(run, found[:1]) if not check.holds] == []
    failed = {(check.category, check.metric): check for check in check_gate(run, found) if not check.holds}
    assert failed.keys() == {(None, "churn, at least"), (None, "drop of recall@10, at least")}
    low, _ = wilson_interval(0.85, 20 * 6)
    assert failed[None, "churn, at least"].value == pytest.approx(low)
    assert str(failed[None, "churn, at least"]).startswith("all together: churn, at least is 0.77")


def test_a_force_is_recorded_with_who_and_why(spark: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "ann")
    run = run_at(spark, root, gate={"min_recall_at_10": 0.99})
    build(run, ("a", "v1", None))
    with pytest.raises(GateFailed, match=r"a: recall@10 is 0\.8000, must be >= 0\.9900"):
        publish(run, [candidate(run, "a", "v1")])
    assert versions.live(run) == {}
    publish(run, [candidate(run, "a", "v1")], force="sale starts today")
    (row,) = run.tables.read("publications").collect()
    assert (row["forced"], row["who"], row["why"]) == (True, "ann", "sale starts today")
    (said,) = run.tables.read("audit").collect()
    assert (said["action"], said["who"], said["why"]) == ("publish", "ann", "sale starts today")


def test_a_force_brings_back_what_was_never_compared_with_live(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    build(run, ("a", "v1", None), ("a", "v2", "v1"), ("a", "v3", "v2"))
    versions.went_live(run, a=("v1", "v2", "v3"))
    rollback(run_at(spark, root), "a", "v1")
    with pytest.raises(GateFailed, match="a was not evaluated"):
        publish(run_at(spark, root), [candidate(run, "a", "v3")])
    publish(run_at(spark, root), [candidate(run, "a", "v3")], force="it was right")
    assert versions.live(run) == {"a": "v3"}


def test_churn_is_the_share_of_neighbours_that_left(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    versions.append(run, "similar_items", versions.similar_rows("a", "v1", 1) + versions.similar_rows("a", "v2", 2))
    products = spark.createDataFrame(
        [("a", "v2", versions.product(i)) for i in range(versions.PRODUCTS)] + [("a", "v2", "new")],
        "category string, version string, product_id string",
    )
    found = measure_churn(
        [candidate_against("a", "v2", "v1"), candidate_against("b", "v2", "v1")],
        run.tables.read("similar_items"),
        products,
        run.run_id,
    )
    by_category = {row["category"]: row for row in found.to_pylist()}
    row = by_category["a"]
    # Places 1, 2, 3 became 2, 3, 4: one of three is gone.
    assert row["value"] == pytest.approx(1 / 3)
    assert (row["n"], row["against"], row["metric"]) == (versions.PRODUCTS, "v1", "churn")
    assert row["low"] < 1 / 3 < row["high"]
    assert (by_category["b"]["value"], by_category["b"]["n"]) == (None, 0)


def candidate_against(category: str, version: str, live: str) -> Version:
    return Version(category, version, 1, False, live, "r")


def test_a_category_without_images_is_withdrawn(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    build(run, *((c, "v1", None) for c in ("kept", "emptied", "unreadable")))
    done = publish(run, [candidate(run, c, "v1") for c in ("kept", "emptied", "unreadable")])
    assert (done.published, done.withdrawn) == (3, 0)
    versions.ledger(run, kept="embedded", emptied="deleted", unreadable="rejected")
    again = run_at(spark, root)
    done = publish(again, [])
    assert (done.published, done.withdrawn) == (0, 1)
    summary = RunSummary.of_publish([], done)
    assert (summary.state, summary.withdrawn) == ("published", 1)
    assert versions.live(run) == {"kept": "v1", "unreadable": "v1"}
    assert versions.audit(run)[-1] == ("withdraw", "emptied", "v1", "v1")
    before = run.tables.delta_version("publications")
    assert RunSummary.of_publish([], publish(run_at(spark, root), [])).state == "unchanged"
    assert run.tables.delta_version("publications") == before
    rollback(run_at(spark, root), "emptied")
    publish(run_at(spark, root), [])
    assert versions.live(run)["emptied"] == "v1"


def test_a_version_that_was_rolled_back_from_waits_for_a_force(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    versions.ledger(run, a="embedded")
    (now,) = name_candidates(run.tables.read("images"), MODEL, run.settings).collect()
    build(run, ("a", "old", None), ("a", now["version"], "old"))
    publish(run, [candidate(run, "a", "old")])
    (found,) = find_unpublished(run)
    assert (found.version, found.live_version) == (now["version"], "old")
    publish(run_at(spark, root), [found])
    assert find_unpublished(run) == []
    rollback(run_at(spark, root), "a")
    assert find_unpublished(run) == []
    (forced,) = find_unpublished(run, force=True)
    publish(run_at(spark, root), [forced], force="it was the shop's fault")
    assert versions.live(run) == {"a": now["version"]}
    rollback(run_at(spark, root), "a")
    run.tables.upsert("images", run.tables.read("images").replace("i-a-0", "i-b"), ["vector_id"])
    assert [v.version for v in find_unpublished(run)] != [now["version"]]
    assert len(find_unpublished(run)) == 1


def test_a_table_of_an_older_release_gets_the_new_columns(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    build(run, ("a", "v1", None), ("a", "v2", "v1"))
    old = run.tables.read("publications").drop("action", "who", "why", "forced", "manifest", "manifest_checksum")
    old = old.drop("code_version")
    row = spark.sql("SELECT 'a' category, 'v1' version, NULL replaced_version, 'm' model_id, 1 format_version")
    row = row.selectExpr("*", "0L shards_table_version", "0L similar_items_table_version", "now() published_at")
    row.withColumn("run_id", row.category).select(old.columns).write.format("delta").save(
        run.tables.path("publications")
    )
    publish(run, [candidate(run, "a", "v2")])
    assert versions.live(run) == {"a": "v2"}
    assert versions.audit(run) == [("publish", "a", "v1", None), ("publish", "a", "v2", "v1")]


def test_switch_is_one_commit_for_all_categories(spark: Any, root: Path) -> None:
    run = run_at(spark, root)
    build(run, *((c, "v1", None) for c in ("a", "b", "c")))
    publish(run, [candidate(run, c, "v1") for c in ("a", "b", "c")])
    assert delta_log.list_commits(run.tables.path("publications")) == [0, 1]  # the first made it, empty
