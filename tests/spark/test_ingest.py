"""Ingest: every manifest row gets one ledger row, and only changes are written."""

import hashlib
import io
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F
from tests.spark import rows as manifests
from tests.spark.rows import image, ledger, manifest_file

from lookalike import delta_log
from lookalike.errors import ManifestInvalid
from lookalike.selection import Selection
from lookalike.spark.catalog.ingest import KEY, ingest
from lookalike.spark.manifest import read_manifest
from lookalike.spark.run import Run

MODEL = "model-1"

run_of = partial(manifests.run_of, model_id=MODEL)


def test_each_bad_row_is_rejected_for_its_reason(spark: Any, tmp_path: Path) -> None:
    bad = {
        "no product_id": image("1", product_id=" "),
        "no category": image("2", category=None),
        "malformed category": image("3", category="women/../men"),
        "both uri and content": image("4", uri="file:///x.jpg"),
        "neither uri nor content": image("5", content=None),
        "zero bytes": image("7", content=b""),
        "no image_id": image(None),
    }
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", [image("ok"), *bad.values()]))
    ingest(run)
    rows = ledger(run)
    assert {row["reason"] for row in rows if row["status"] == "rejected"} == set(bad)
    assert [row["image_id"] for row in rows if row["status"] is None] == ["ok"]
    assert len(rows) == 1 + len(bad)
    assert run.stages[0].counts == {"rows": 8, "waiting": 1, "reused": 0, "rejected": 7}


def test_categories_are_paths(spark: Any, tmp_path: Path) -> None:
    good = ["women/dresses", "Men/Tops/Hoodies & Sweatshirts", "Damen/Kleider für Ärzte/裙子", "a/..b", "é"]
    bad = ["..", "a/./b", "/a", "a/", "a//b", " a", "a /b", "a\nb", "x" * 513, "../../etc/passwd"]
    rows = [image(category, category=category) for category in good + bad]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(run)
    assert {row["category"] for row in ledger(run) if row["reason"] is None} == set(good)
    assert {row["category"] for row in ledger(run) if row["reason"] == "malformed category"} == set(bad)


def test_hash_and_vector_id_are_those_of_hashlib(spark: Any, tmp_path: Path) -> None:
    rows = [image("ä 1", content=b"some bytes"), image("b", content=None, uri=str(tmp_path / "picture 1.jpg"))]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(run)
    found = {row["image_id"]: row for row in ledger(run)}
    for image_id in ("ä 1", "b"):
        assert found[image_id]["vector_id"] == int(hashlib.sha256(image_id.encode()).hexdigest()[:15], 16)
    assert found["ä 1"]["content_hash"] == hashlib.sha256(b"some bytes").hexdigest()
    assert found["b"]["content_hash"] is None  # until it is read


def test_of_equal_image_ids_the_newest_row_stays(spark: Any, tmp_path: Path) -> None:
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 3, 2)]
    rows = [image("a", product_id=f"p{day.day}", updated_at=day) for day in days]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(run)
    assert [(row["product_id"], row["occurrence"], row["reason"]) for row in ledger(run)] == [
        ("p3", 0, None),
        ("p2", 1, "duplicate image_id"),
        ("p1", 2, "duplicate image_id"),
    ]


def test_a_rerun_changes_nothing_and_a_change_is_one_row(spark: Any, tmp_path: Path) -> None:
    rows = [image(str(i), content=bytes([i + 1]), attributes=[("color", "red"), ("size", "m")]) for i in range(5)]
    first = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(first)
    version = first.tables.delta_version("images")
    again = run_of(spark, tmp_path / "root", first.settings.manifest or "")
    ingest(again)
    assert again.tables.delta_version("images") == version
    rows[2]["title"] = "new"
    rows[3]["content"] = b"new"
    changed = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m2.parquet", rows))
    ingest(changed)
    assert [row["image_id"] for row in ledger(changed) if row["run_id"] == changed.run_id] == ["2", "3"]


def by_uri(folder: Path, image_id: str, content: bytes | None = None, **columns: Any) -> dict[str, Any]:
    """A row whose picture is a file, if it has `content`."""
    path = folder / f"{image_id}.jpg"
    if content is not None:
        path.write_bytes(content)
    return image(image_id, content=None, uri=str(path), **columns)


def ingested(spark: Any, folder: Path, rows: list[dict[str, Any]], selection: Selection | None = None) -> Any:
    """Ingest `rows`, and take them for embedded by MODEL if they were accepted; gives the run."""
    run = run_of(spark, folder / "root", manifest_file(folder / "m.parquet", rows), selection)
    ingest(run)
    read = F.coalesce("content_hash", F.sha2("uri", 256))
    done = {"status": F.lit("embedded"), "model_id": F.lit(MODEL), "content_hash": read}
    waiting = run.tables.read("images").where("status IS NULL").withColumns(done).persist()
    if waiting.count():
        run.tables.upsert("images", waiting, KEY)
    return run


def outcomes(run: Any) -> dict[str, str]:
    return {row["image_id"]: row["reason"] or row["status"] for row in ledger(run)}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_an_image_whose_hash_the_manifest_says_is_not_read(spark: Any, tmp_path: Path) -> None:
    rows = [
        by_uri(tmp_path, "unread", content_hash=sha256(b"anything")),
        by_uri(tmp_path, "upper", content_hash=f" {sha256(b'other').upper()}"),
        by_uri(tmp_path, "md5", b"picture", content_hash=hashlib.md5(b"picture").hexdigest()),
        by_uri(tmp_path, "empty", b"picture", content_hash=""),
        image("carried", content=b"picture", content_hash=sha256(b"picture")),
        image("wrong", content=b"picture", content_hash=sha256(b"another")),
    ]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(run)
    found = {row["image_id"]: row["reason"] or row["content_hash"] for row in ledger(run)}
    assert found == {
        "unread": sha256(b"anything"), "upper": sha256(b"other"), "md5": "content_hash is no sha256 in hex",
        "empty": None, "carried": sha256(b"picture"), "wrong": "content is not that of content_hash",
    }  # fmt: skip


def test_deleted_images_are_not_read(spark: Any, tmp_path: Path) -> None:
    rows = [by_uri(tmp_path, "known", b"1"), image("carried"), by_uri(tmp_path, "new", deleted=True)]
    ingested(spark, tmp_path, rows)
    (tmp_path / "known.jpg").unlink()
    rows = [by_uri(tmp_path, "known", deleted=True), image("carried", content=None, deleted=True), rows[2]]
    run = ingested(spark, tmp_path, rows)
    assert outcomes(run) == {"known": "embedded", "carried": "embedded", "new": "deleted"}
    assert {row["deleted"] for row in ledger(run)} == {True}
    assert run.stages[0].counts == {"rows": 3, "waiting": 0, "reused": 2, "rejected": 1}
    # For another model, too, a deleted image has nothing to wait for.
    again = run_of(spark, tmp_path / "root", run.settings.manifest, model_id="model-2")
    ingest(again)
    assert again.stages[0].counts == run.stages[0].counts
    back = ingested(spark, tmp_path, [by_uri(tmp_path, "known", b"1"), image("carried"), by_uri(tmp_path, "new", b"3")])
    assert back.stages[0].counts == {"rows": 3, "waiting": 2, "reused": 1, "rejected": 0}


def test_a_mended_row_is_accepted_though_its_content_is_the_same(spark: Any, tmp_path: Path) -> None:
    ingested(spark, tmp_path, [image("a", category="x/../y"), image("b", product_id=" ", content_hash=sha256(b"x"))])
    run = ingested(spark, tmp_path, [image("a"), image("b", content_hash=sha256(b"x"))])
    assert outcomes(run) == {"a": "embedded", "b": "embedded"}


def test_rows_of_other_categories_are_not_even_hashed(spark: Any, tmp_path: Path) -> None:
    rows = [
        image("a", category="women"), image("b", category="women/dresses"), image("c", category="womenswear"),
        by_uri(tmp_path, "d", category="men"), image("e", category="kids"), image("f", category=None),
    ]  # fmt: skip
    run = ingested(spark, tmp_path, rows, Selection.of(["women/", "kids"]))
    assert outcomes(run) == {"a": "embedded", "b": "embedded", "e": "embedded"}
    assert run.stages[0].counts["rows"] == 3
    with pytest.raises(ManifestInvalid, match="no manifest row and no image is in wom: "):
        ingested(spark, tmp_path, rows, Selection.of(["wom"]))


def test_a_moved_image_moves_with_the_category_that_it_is_in_now(spark: Any, tmp_path: Path) -> None:
    ingested(spark, tmp_path, [image("a", category="old"), image("b", category="old")])
    rows = [image("a", category="new"), image("b", category="old")]
    run = ingested(spark, tmp_path, rows, Selection.of(["old"]))
    assert {row["category"] for row in ledger(run)} == {"old"}
    run = ingested(spark, tmp_path, rows, Selection.of(["new"]))
    assert [(row["category"], row["status"]) for row in ledger(run)] == [("new", "embedded"), ("old", "embedded")]
    assert run.stages[0].counts == {"rows": 1, "waiting": 0, "reused": 1, "rejected": 0}


def test_of_an_image_id_in_two_categories_the_same_row_stays_whichever_is_chosen(spark: Any, tmp_path: Path) -> None:
    rows = [image("a", category="x"), image("a", category="y")]
    run = ingested(spark, tmp_path, rows, Selection.of(["y"]))
    assert [(row["category"], row["occurrence"], row["reason"]) for row in ledger(run)] == [
        ("y", 1, "duplicate image_id")
    ]
    ingested(spark, tmp_path, rows, Selection.of(["x"]))
    assert [(row["category"], row["occurrence"]) for row in ledger(run)] == [("x", 0), ("y", 1)]


def test_bad_embeddings_are_rejected(spark: Any, tmp_path: Path) -> None:
    vectors = [[1.0, 0.0], [0.0, 0.0], [float("nan"), 1.0], [1.0, 2.0, 3.0], None, [0.5, 0.5]]
    rows = [{**image(str(i)), "content": None, "embedding": vector} for i, vector in enumerate(vectors)]
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "m.parquet", rows))
    ingest(run)
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
        "image_id: is int64 in",
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


def complete_run(spark: Any, tmp_path: Path, rows: list[dict[str, Any]], *categories: str, most: float = 1.0) -> Run:
    manifest = manifest_file(tmp_path / f"{len(rows)}.parquet", rows)
    selection = Selection.of(categories, complete=True)
    return run_of(spark, tmp_path / "root", manifest, selection, ingest={"max_left_out": most})


def test_what_a_complete_manifest_leaves_out_is_deleted(spark: Any, tmp_path: Path) -> None:
    rows = [image(name, category=category) for name, category in zip("abcde", "xxxyz", strict=True)]
    ingest(run_of(spark, tmp_path / "root", manifest_file(tmp_path / "all.parquet", rows)))
    moved = [rows[0], {**rows[1], "category": "y"}]

    run = complete_run(spark, tmp_path, moved, "x")
    ingest(run)
    assert {row["image_id"]: row["deleted"] for row in ledger(run)} == {
        "a": False, "b": False, "c": True, "d": False, "e": False,
    }, "`b` moved away, and the other categories are not selected"  # fmt: skip
    assert run.stages[-1].counts["left_out"] == 1

    with pytest.raises(ManifestInvalid, match=r"leaves out 2 of the 4 images .* a share of 0\.4: .*max_left_out=1"):
        ingest(complete_run(spark, tmp_path, moved, most=0.4))
    assert sum(row["deleted"] for row in ledger(run)) == 1

    ingest(complete_run(spark, tmp_path, moved, most=0.5))
    assert [row["image_id"] for row in ledger(run) if not row["deleted"]] == ["a", "b"]
    again = complete_run(spark, tmp_path, moved, most=0.0)
    before = again.tables.delta_version("images")
    ingest(again)
    assert again.tables.delta_version("images") == before, "what is gone is told once"


def test_times_that_the_ledger_cannot_hold_are_unknown_and_counted(spark: Any, tmp_path: Path) -> None:
    a_day, year_10000 = 86_400_000_000, 253_402_300_800_000_000
    year_1 = -62_135_596_800_000_000
    times = {"a": year_1 - 1, "b": year_1, "c": year_10000 - 1, "d": year_10000, "e": a_day, "f": None}
    rows = pa.Table.from_pylist([{**image(name), "uri": name, "content": None} for name in times])
    given = pa.array(times.values(), pa.timestamp("us", tz="UTC"))
    pq.write_table(rows.drop_columns("content").append_column("updated_at", given), tmp_path / "m.parquet")
    run = run_of(spark, tmp_path / "root", str(tmp_path / "m.parquet"))
    ingest(run)
    held = {row["image_id"]: row["updated_at"] for row in images_by_delta_rs(run)}
    assert {name for name, time in held.items() if time is None} == {"a", "d", "f"}
    assert held["b"] == datetime(1, 1, 1, tzinfo=UTC)
    assert held["c"] == datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert run.stages[-1].counts["unheld_times"] == 2


def images_by_delta_rs(run: Run) -> list[dict[str, Any]]:
    table = delta_log.open_table(run.tables.path("images"))
    return delta_log.read_rows(table).select(["image_id", "updated_at"]).to_pylist()


def test_times_of_older_ledgers_are_mended(spark: Any, tmp_path: Path) -> None:
    times = [datetime(year, 5, 17, tzinfo=UTC) for year in (1, 1500, 2026, 9999)]
    rows = [image(str(time.year), updated_at=time, category=f"c{time.year}") for time in times]
    spark.conf.set("spark.sql.parquet.outputTimestampType", "INT96")
    try:
        ingest(run_of(spark, tmp_path / "root", manifest_file(tmp_path / "old.parquet", rows)))
    finally:
        spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    run = run_of(spark, tmp_path / "root", manifest_file(tmp_path / "new.parquet", [*rows, image("another")]))
    assert {row["updated_at"] for row in ledger(run)} == {time.replace(tzinfo=None) for time in times}
    ingest(run)
    there = {row["image_id"]: row["updated_at"] for row in images_by_delta_rs(run)}
    assert there == {str(time.year): time for time in times} | {"another": None}
    version = run.tables.delta_version("images")
    run.tables.mend_times("images", "updated_at")
    assert run.tables.delta_version("images") == version, "once is enough"
