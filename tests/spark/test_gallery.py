"""Candidate versions: the same for the same inputs in any order, another for any change that matters."""

import random
from typing import Any

import pytest

from lookalike import schemas
from lookalike.config import Settings
from lookalike.spark.gallery import candidates
from lookalike.spark.tables import spark_schema

SCHEMA = spark_schema(schemas.IMAGES)


def ledger(spark: Any, rows: list[dict[str, Any]]) -> Any:
    return spark.createDataFrame([tuple(row.get(name) for name in SCHEMA.names) for row in rows], SCHEMA).coalesce(3)


def image(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "image_id": f"i{number}", "occurrence": 0, "product_id": f"p{number // 2}", "category": "a", "available": True,
        "deleted": False, "vector_id": number, "content_hash": f"h{number}", "model_id": "m", "status": "embedded",
        "run_id": "r", **columns,
    }  # fmt: skip


def versions(spark: Any, rows: list[dict[str, Any]], settings: Settings | None = None) -> dict[str, Any]:
    found = candidates(ledger(spark, rows), "m", settings or Settings()).collect()
    return {row["category"]: row.asDict() for row in found}


def test_order_titles_and_runs_make_no_new_version(spark: Any) -> None:
    rows = [image(i) for i in range(20)]
    other = [{**row, "title": "new", "run_id": "other", "status": "reused"} for row in rows]
    random.Random(3).shuffle(other)
    before, after = versions(spark, rows), versions(spark, other)
    assert before == after
    assert before["a"]["images"] == 20
    assert before["a"]["products"] == 10
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
    unrelated = Settings.model_validate({"report": {"queries": 3}})
    assert versions(spark, rows, other)["a"]["version"] != versions(spark, rows)["a"]["version"]
    assert versions(spark, rows, unrelated) == versions(spark, rows)


def test_what_another_model_embedded_is_left_out(spark: Any) -> None:
    assert versions(spark, [image(0, model_id="old"), image(1, status="rejected"), image(2)])["a"]["images"] == 1
