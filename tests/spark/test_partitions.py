"""The ledger's partitions: a change of few categories leaves other files alone, and no key ever stands in two."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F
from tests.spark.rows import image, manifest_file, run_of

from lookalike import schemas
from lookalike.spark.catalog.embed import embed
from lookalike.spark.catalog.gallery import select_live, select_version_images
from lookalike.spark.catalog.ingest import KEY, ingest
from lookalike.spark.category_conditions import to_bucket
from lookalike.spark.tables import Tables, make_local_frame

CATEGORIES = [f"c{number}" for number in range(12)]


def rows(*image_ids: str | None, category: str, product_id: str = "p") -> list[dict[str, Any]]:
    columns = {"occurrence": 0, "available": True, "deleted": False, "vector_id": 1, "run_id": "r"}
    return [{"image_id": i, "category": category, "product_id": product_id, **columns} for i in image_ids]


def frame(tables: Tables, given: list[dict[str, Any]]) -> Any:
    values = [tuple(row.get(name) for name in schemas.IMAGES.names) for row in given]
    return make_local_frame(tables.spark, values, schemas.IMAGES).withColumn("bucket", to_bucket(F.col("category")))


def bucket_of(tables: Tables, category: str) -> int:
    return int(tables.spark.range(1).select(to_bucket(F.lit(category))).collect()[0][0])


def files_of(tables: Tables) -> dict[int, set[str]]:
    """Data files that the ledger has now, by bucket."""
    found: dict[int, set[str]] = {}
    for row in tables.read("images").select("bucket", F.input_file_name().alias("file")).distinct().collect():
        found.setdefault(row["bucket"], set()).add(row["file"])
    return found


def there(tables: Tables) -> dict[str, tuple[str, str]]:
    """image_id -> (category, product_id), each once."""
    found = tables.read("images").select("image_id", "category", "product_id").collect()
    assert len({row["image_id"] for row in found}) == len(found)
    return {row["image_id"]: (row["category"], row["product_id"]) for row in found}


def test_a_changed_category_leaves_the_files_of_others_alone(spark: Any, tmp_path: Path) -> None:
    """Through the stages: images with embeddings, of which those of one category change, then one moves."""
    given = [
        image(f"{category}-{n}", content=None, category=category, embedding=[1.0 + place, 1.0 + n])
        for place, category in enumerate(CATEGORIES)
        for n in range(2)
    ]

    def run(name: str) -> Tables:
        run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / name, given), model_id="m")
        embed(run, ingest(run))
        assert {row["status"] for row in run.tables.read("images").collect()} <= {"embedded", "reused"}
        return run.tables

    tables = run("first.parquet")
    before = files_of(tables)
    assert set(before) == {bucket_of(tables, category) for category in CATEGORIES}

    given[6]["embedding"], changed = [-1.0, 1.0], bucket_of(tables, CATEGORIES[3])
    after = files_of(run("changed.parquet"))
    assert {place for place in after if after[place] != before[place]} == {changed}

    given[6]["category"], to = CATEGORIES[5], bucket_of(tables, CATEGORIES[5])
    moved = files_of(run("moved.parquet"))
    assert {place for place in moved if moved[place] != after[place]} == {changed, to}
    assert there(tables)["c3-0"][0] == "c5"
    assert len(there(tables)) == len(given)


def test_the_images_of_a_version_are_those_of_its_category_in_any_bucket(spark: Any, tmp_path: Path) -> None:
    run = run_of(spark, tmp_path / "root", "none")
    done = {"status": "embedded", "model_id": "m", "content_hash": "h"}
    given = [row | done for category in CATEGORIES for row in rows(f"{category}-new", category=category)]
    run.tables.append("images", frame(run.tables, given))
    older = [row | done for category in CATEGORIES for row in rows(f"{category}-old", category=category)]
    run.tables.append("images", frame(run.tables, older).withColumn("bucket", F.lit(None)))
    found = select_version_images(select_live(run.tables.read("images"), "m"), [("c2", "v"), ("c7", "v")]).collect()
    assert {row["image_id"] for row in found} == {"c2-new", "c2-old", "c7-new", "c7-old"}


@pytest.mark.usefixtures("lock")
@pytest.mark.parametrize("meanwhile", [(), ("new",)])
def test_a_key_seen_nowhere_is_inserted_once(spark: Any, tmp_path: Path, meanwhile: tuple[str, ...]) -> None:
    tables = Tables(spark, f"file://{tmp_path}")
    tables.insert("images", frame(tables, rows("i", category="c1")), KEY)
    lacking_at = tables.delta_version("images")
    if meanwhile:
        tables.insert("images", frame(tables, rows(*meanwhile, category="c3", product_id="theirs")), KEY)
    tables.insert("images", frame(tables, rows("new", "other", category="c2")), KEY, lacking_at)
    new = ("c3", "theirs") if meanwhile else ("c2", "p")
    assert there(tables) == {"i": ("c1", "p"), "new": new, "other": ("c2", "p")}


@pytest.mark.usefixtures("lock")
def test_rows_of_known_partitions_are_replaced(spark: Any, tmp_path: Path) -> None:
    """One stays in its bucket, one moves, one is new, and one has no image_id; the others stay as they are."""
    tables = Tables(spark, f"file://{tmp_path}")
    given = [row for c in CATEGORIES for row in rows(f"{c}-a", f"{c}-b", category=c)] + rows(None, category="c1")
    tables.append("images", frame(tables, given))
    before = files_of(tables)
    new = rows("c1-a", None, "new", category="c1", product_id="q") + rows("c2-a", category="c3", product_id="q")
    places = {bucket_of(tables, c) for c in ("c1", "c2", "c3")}
    tables.upsert("images", frame(tables, new), KEY, partitions=places)
    expected = {row["image_id"]: (row["category"], row["product_id"]) for row in given + new}
    assert there(tables) == expected
    after = files_of(tables)
    assert {place for place in after if after[place] != before[place]} == places


def test_a_ledger_of_an_older_release_is_kept_up(spark: Any, tmp_path: Path) -> None:
    """It has neither partitions nor the column: rows are changed in place all the same."""
    tables = Tables(spark, f"file://{tmp_path}")
    older = frame(tables, rows("i", category="c1") + rows("j", category="c2")).drop("bucket")
    older.write.format("delta").save(tables.path("images"))
    tables.upsert("images", frame(tables, rows("i", category="c3")), KEY)
    tables.insert("images", frame(tables, rows("k", category="c3")), KEY, lacking_at=tables.delta_version("images"))
    again = frame(tables, rows("k", category="c4"))
    tables.upsert("images", again, KEY, partitions={bucket_of(tables, c) for c in ("c3", "c4")})
    assert there(tables) == {"i": ("c3", "p"), "j": ("c2", "p"), "k": ("c4", "p")}
