"""Candidate versions: the same for the same inputs in any order, another for any change that matters."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.spark.rows import image as row_of
from tests.spark.rows import manifest_file, run_of

from lookalike import schemas
from lookalike.config import Settings
from lookalike.selection import Selection
from lookalike.spark.catalog.versions import find_unpublished, name_candidates
from lookalike.spark.run import Run
from lookalike.spark.tables import to_spark_schema

SCHEMA = to_spark_schema(schemas.IMAGES)


def ledger(spark: Any, rows: list[dict[str, Any]]) -> Any:
    return spark.createDataFrame([tuple(row.get(name) for name in SCHEMA.names) for row in rows], SCHEMA).coalesce(3)


def image(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "image_id": f"i{number}", "occurrence": 0, "product_id": f"p{number // 2}", "category": "a", "available": True,
        "deleted": False, "vector_id": number, "content_hash": f"h{number}", "model_id": "m", "status": "embedded",
        "run_id": "r", **columns,
    }  # fmt: skip


def versions(spark: Any, rows: list[dict[str, Any]], settings: Settings | None = None) -> dict[str, Any]:
    found = name_candidates(ledger(spark, rows), "m", settings or Settings()).collect()
    return {row["category"]: row.asDict() for row in found}


def test_order_titles_and_runs_make_no_new_version(spark: Any) -> None:
    rows = [image(i) for i in range(20)]
    other = [{**row, "title": "new", "run_id": "other", "status": "reused"} for row in rows]
    random.Random(3).shuffle(other)
    before, after = versions(spark, rows), versions(spark, other)
    assert before == after
    assert before["a"]["images"] == 20
    assert before["a"]["several_products"]
    assert not versions(spark, rows[:2])["a"]["several_products"], "both images are of one product"
    assert len(before["a"]["version"]) == 16


@pytest.mark.parametrize(
    "change",
    [{"content_hash": "x"}, {"available": False}, {"product_id": "x"}, {"deleted": True}, {"status": "rejected"}],
)
def test_each_change_makes_a_new_version_of_its_category_only(spark: Any, change: dict[str, Any]) -> None:
    rows = [image(i) for i in range(6)] + [image(10 + i, category="b") for i in range(6)]
    before = versions(spark, rows)
    rows[2].update(change)
    after = versions(spark, rows)
    assert before["a"]["version"] != after["a"]["version"]
    assert before["b"]["version"] == after["b"]["version"]


def test_swapped_contents_are_a_change(spark: Any) -> None:
    rows = [image(0), image(2)]
    before = versions(spark, rows)
    rows[0]["content_hash"], rows[1]["content_hash"] = rows[1]["content_hash"], rows[0]["content_hash"]
    assert versions(spark, rows)["a"]["version"] != before["a"]["version"]


def test_settings_that_decide_the_index_make_a_new_version(spark: Any) -> None:
    rows = [image(i) for i in range(4)]
    other = Settings.model_validate({"index": {"candidates": 60}})
    # Placeholders that are left out show in their images' availability.
    unrelated = Settings.model_validate(
        {
            "report": {"queries": 3},
            "similar_items": {"leave_out_placeholders": True},
            "ingest": {"placeholder_products": 9},
        }
    )
    assert versions(spark, rows, other)["a"]["version"] != versions(spark, rows)["a"]["version"]
    assert versions(spark, rows, unrelated) == versions(spark, rows)


def test_a_full_build_is_another_version_until_the_next(spark: Any, tmp_path: Path) -> None:
    """Whichever job asks, and after a crash, it is the same; once live, it is what later runs find unchanged."""
    manifest = manifest_file(tmp_path / "m.parquet", [row_of("x")])

    def candidate(full: bool = False) -> list[str]:
        run = run_of(spark, tmp_path / "root", manifest, Selection(full=full), "m")
        return [version.version for version in find_unpublished(run)]

    run = run_of(spark, tmp_path / "root", manifest)
    rows = ledger(spark, [image(i) for i in range(4)])
    run.tables.append("images", rows)
    (fingerprint,) = candidate()
    assert candidate(full=True) == candidate(full=True) == [f"{fingerprint}-1"]
    for number in (1, 2):
        publish(run, f"{fingerprint}-{number}")
        assert candidate() == []
        assert candidate(full=True) == [f"{fingerprint}-{number + 1}"]
    run.tables.append("images", ledger(spark, [image(4)]))
    (changed,) = candidate()
    assert not changed.startswith(fingerprint)
    assert changed.endswith("-2")


def test_candidates_are_those_of_the_selection(spark: Any, tmp_path: Path) -> None:
    manifest = manifest_file(tmp_path / "m.parquet", [row_of("x")])
    categories = ["women", "women/dresses", "womenswear", "men"]
    rows = [image(i, category=category) for i, category in enumerate(categories)]
    run_of(spark, tmp_path / "root", manifest).tables.append("images", ledger(spark, rows))

    def found(*paths: str) -> list[str]:
        run = run_of(spark, tmp_path / "root", manifest, Selection(paths), "m")
        return [version.category for version in find_unpublished(run)]

    assert found() == sorted(categories)
    assert found("women") == ["women", "women/dresses"]
    assert found("men", "women/dresses") == ["men", "women/dresses"]


def publish(run: Run, version: str) -> None:
    values = {"category": "a", "version": version, "model_id": "m", "format_version": 1, "run_id": "r"}
    values |= {
        "shards_table_version": 0,
        "similar_items_table_version": 0,
        "published_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    schema = to_spark_schema(schemas.PUBLICATIONS)
    rows = run.spark.createDataFrame([tuple(values.get(name) for name in schema.names)], schema)
    run.tables.upsert("publications", rows, ["category"])


def test_what_another_model_embedded_is_left_out(spark: Any) -> None:
    assert versions(spark, [image(0, model_id="old"), image(1, status="rejected"), image(2)])["a"]["images"] == 1
