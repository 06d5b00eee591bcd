"""Ingest: every manifest row gets one ledger row, and only changes are written."""

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.spark.rows import image, ledger, manifest_file, run_of

from lookalike.errors import ManifestInvalid
from lookalike.spark.ingest import ingest
from lookalike.spark.manifest import read_manifest

MODEL = "model-1"


def test_each_bad_row_is_rejected_for_its_reason(spark: Any, tmp_path: Path) -> None:
    bad = {
        "no product_id": image("1", product_id=" "),
        "no category": image("2", category=None),
        "malformed category": image("3", category="women/../men"),
        "both uri and content": image("4", uri="file:///x.jpg"),
        "neither uri nor content": image("5", content=None),
        "unreadable uri: not found": image("6", content=None, uri=f"{tmp_path}/none.jpg"),
        "zero bytes": image("7", content=b""),
        "no image_id": image(None),
        "unreadable uri: ValueError": image("8", content=None, uri="nosuchscheme://x/y"),
    }
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", [image("ok"), *bad.values()]))
    ingest(run, MODEL)
    rows = ledger(run)
    assert {row["reason"] for row in rows if row["status"] == "rejected"} == set(bad)
    assert [row["image_id"] for row in rows if row["status"] is None] == ["ok"]
    assert len(rows) == 1 + len(bad)
    assert run.stages[0].counts == {"rows": 10, "waiting": 1, "reused": 0, "rejected": 9}


def test_categories_are_paths(spark: Any, tmp_path: Path) -> None:
    good = ["women/dresses", "Men/Tops/Hoodies & Sweatshirts", "Damen/Kleider für Ärzte/裙子", "a/..b", "é"]
    bad = ["..", "a/./b", "/a", "a/", "a//b", " a", "a /b", "a\nb", "x" * 513, "../../etc/passwd"]
    rows = [image(category, category=category) for category in good + bad]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(run, MODEL)
    assert {row["category"] for row in ledger(run) if row["reason"] is None} == set(good)
    assert {row["category"] for row in ledger(run) if row["reason"] == "malformed category"} == set(bad)


def test_hash_and_vector_id_are_those_of_hashlib(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "picture 1.jpg").write_bytes(b"some bytes")
    rows = [image("ä 1", content=b"some bytes"), image("b", content=None, uri=str(tmp_path / "picture 1.jpg"))]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(run, MODEL)
    found = {row["image_id"]: row for row in ledger(run)}
    for image_id in ("ä 1", "b"):
        assert found[image_id]["vector_id"] == int(hashlib.sha256(image_id.encode()).hexdigest()[:15], 16)
        assert found[image_id]["content_hash"] == hashlib.sha256(b"some bytes").hexdigest()


def test_of_equal_image_ids_the_newest_row_stays(spark: Any, tmp_path: Path) -> None:
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 3, 2)]
    rows = [image("a", product_id=f"p{day.day}", updated_at=day) for day in days]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(run, MODEL)
    assert [(row["product_id"], row["occurrence"], row["reason"]) for row in ledger(run)] == [
        ("p3", 0, None),
        ("p2", 1, "duplicate image_id"),
        ("p1", 2, "duplicate image_id"),
    ]


def test_a_rerun_changes_nothing_and_a_change_is_one_row(spark: Any, tmp_path: Path) -> None:
    rows = [image(str(i), content=bytes([i + 1]), attributes=[("color", "red"), ("size", "m")]) for i in range(5)]
    first = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(first, MODEL)
    version = first.tables.version("images")
    again = run_of(spark, tmp_path / "root", first.settings.manifest or "")
    ingest(again, MODEL)
    assert again.tables.version("images") == version
    rows[2]["title"] = "new"
    rows[3]["content"] = b"new"
    changed = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m2.parquet", rows))
    ingest(changed, MODEL)
    assert [row["image_id"] for row in ledger(changed) if row["run_id"] == changed.run_id] == ["2", "3"]


def test_an_unchanged_uri_and_date_is_not_read_again(spark: Any, tmp_path: Path) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(b"before")
    row = image("a", content=None, uri=str(picture), updated_at=datetime(2026, 1, 1, tzinfo=UTC))
    manifest = manifest_file(tmp_path / "m.parquet", [row])
    ingest(run_of(spark, tmp_path / "root", manifest), MODEL)
    picture.unlink()
    run = run_of(spark, tmp_path / "root", manifest)
    ingest(run, MODEL)
    assert [r["content_hash"] for r in ledger(run)] == [hashlib.sha256(b"before").hexdigest()]


def test_bad_embeddings_are_rejected(spark: Any, tmp_path: Path) -> None:
    vectors = [[1.0, 0.0], [0.0, 0.0], [float("nan"), 1.0], [1.0, 2.0, 3.0], None, [0.5, 0.5]]
    rows = [{**image(str(i)), "content": None, "embedding": vector} for i, vector in enumerate(vectors)]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(run, MODEL)
    assert [row["reason"] for row in ledger(run)] == [
        None,
        "embedding is zero or not finite",
        "embedding is zero or not finite",
        "embedding has 3 values, most others 2",
        "no embedding",
        None,
    ]


def test_schema_problems_are_listed_together(spark: Any, tmp_path: Path) -> None:
    table = pa.table({"image_id": [1], "product": ["p"], "categori": ["a"], "uri": ["x"], "titel": ["t"]})
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestInvalid) as error:
        read_manifest(spark, str(tmp_path / "m.parquet"))
    text = str(error.value)
    for problem in (
        "product_id: missing",
        "category: missing; rename column 'categori' to 'category'",
        "title: absent; rename column 'titel' to 'title'",
        "image_id: is bigint, must be string",
    ):
        assert problem in text


@pytest.mark.parametrize("case", ["missing", "not Parquet", "no rows", "empty folder"])
def test_unreadable_manifests_are_named(spark: Any, tmp_path: Path, case: str) -> None:
    path = tmp_path / "manifest.parquet"
    if case == "not Parquet":
        path.write_text("image_id,product_id\n" * 20)
    elif case == "no rows":
        manifest_file(path, [image()])
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    elif case == "empty folder":
        path.mkdir()
    with pytest.raises(ManifestInvalid, match=r"manifest\.parquet") as error:
        read_manifest(spark, str(path))
    assert len(str(error.value)) < 500


def test_a_folder_and_a_glob_are_manifests(spark: Any, tmp_path: Path) -> None:
    for part in range(3):
        manifest_file(tmp_path / f"part-{part}.parquet", [image(str(part))])
    assert read_manifest(spark, str(tmp_path)).count() == 3
    assert read_manifest(spark, f"{tmp_path}/part-[01].parquet").count() == 2


def test_truncated_parquet_is_refused(spark: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([image()]), buffer)
    (tmp_path / "m.parquet").write_bytes(buffer.getvalue()[:-20])
    with pytest.raises(ManifestInvalid, match=r"m\.parquet"):
        read_manifest(spark, str(tmp_path / "m.parquet"))
