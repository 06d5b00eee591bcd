"""Manifests made of plain lists and folders, checked against rows written out by hand and Python's own csv reader."""

import csv
import datetime
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lookalike import schemas
from lookalike.errors import ManifestInvalid
from lookalike.feeds import write
from lookalike.feeds.make_manifest import Options, Outcome, make_from_export, make_from_folder


def made(tmp_path: Path, text: str | bytes, columns: dict[str, str] | None = None) -> list[dict[str, Any]]:
    source = tmp_path / "list.csv"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    out = tmp_path / "out" / "manifest.parquet"
    try:
        make_from_export(str(source), str(out), Options(columns=columns or {}))
    except ManifestInvalid:
        assert not out.exists()
        raise
    return pq.read_table(out).to_pylist()


def outcome(source: Path, out: str | Path) -> Outcome:
    return make_from_export(str(source), str(out))


def message(tmp_path: Path, text: str | bytes, columns: dict[str, str] | None = None) -> str:
    with pytest.raises(ManifestInvalid) as caught:
        made(tmp_path, text, columns)
    return str(caught.value)


def test_paths_are_below_the_csv_folder_and_extra_columns_become_attributes(tmp_path: Path) -> None:
    rows = made(
        tmp_path,
        "image,product_id,category,title,color,size\n"
        "front/a b.jpg,p1,women/dresses,Red dress,red,\nb.jpg,p2,home,,,XL\n",
    )
    assert [row["uri"] for row in rows] == [f"file://{tmp_path}/front/a b.jpg", f"file://{tmp_path}/b.jpg"]
    assert [row["image_id"] for row in rows] == ["a b.jpg", "b.jpg"]
    assert [row["attributes"] for row in rows] == [[("color", "red")], [("size", "XL")]]
    assert [row["title"] for row in rows] == ["Red dress", None]
    assert [row["product_id"] for row in rows] == ["p1", "p2"]


def test_images_folder_beside_the_csv_is_preferred(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert made(tmp_path, "image,product_id,category\na.jpg,p,c\n")[0]["uri"] == f"file://{tmp_path}/images/a.jpg"


def test_uris_stay_as_they_are(tmp_path: Path) -> None:
    rows = made(
        tmp_path,
        "uri,image,product_id,category\nhttps://shop/x/1.jpg?w=9,,p,c\ns3a://b/2.png,,p,c\n/abs/3.jpg,,p,c\n,four.jpg,p,c\n",
    )
    assert [row["uri"] for row in rows] == [
        "https://shop/x/1.jpg?w=9",
        "s3a://b/2.png",
        "file:///abs/3.jpg",
        f"file://{tmp_path}/four.jpg",
    ]
    assert [row["image_id"] for row in rows] == ["1.jpg", "2.png", "3.jpg", "four.jpg"]


def test_only_the_path_of_an_address_ends_at_a_question_mark_or_hash(tmp_path: Path) -> None:
    rows = made(
        tmp_path,
        "image,product_id,category\nshoe #3.jpg,p,c\na?b.jpg,p,c\nhttps://shop/x.jpg#top,p,c\nHTTP://shop/y.jpg?w=1/2,p,c\n",
    )
    assert [row["image_id"] for row in rows] == ["shoe #3.jpg", "a?b.jpg", "x.jpg", "y.jpg"]


def test_typed_columns(tmp_path: Path) -> None:
    rows = made(
        tmp_path,
        "image,product_id,category,available,deleted,updated_at\na,p,c,Yes,0,2024-05-31T12:00:00+02:00\nb,p,c,false,TRUE,2024-05-31\nc,p,c,,,\n",
    )
    assert [row["available"] for row in rows] == [True, False, None]
    assert [row["deleted"] for row in rows] == [False, True, None]
    utc = datetime.UTC
    assert [row["updated_at"] for row in rows] == [
        datetime.datetime(2024, 5, 31, 10, tzinfo=utc),
        datetime.datetime(2024, 5, 31, tzinfo=utc),
        None,
    ]


def test_local_files_are_dated_where_the_csv_has_no_date(tmp_path: Path) -> None:
    """A folder's too; what is not there or not local has no date, and a date in the CSV is taken as it is."""
    (tmp_path / "shoes").mkdir()
    path = tmp_path / "shoes" / "a 1.jpg"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, 1_717_150_000_123_456_789))
    when = datetime.datetime(2024, 5, 31, 10, 6, 40, 123456, tzinfo=datetime.UTC)
    text = "image,product_id,category,content_hash{}\nshoes/a 1.jpg,p,c,AB{}\nnone.jpg,p,c,{}\nhttps://x/y.jpg,p,c,{}\n"
    rows = made(tmp_path, text.format("", "", "", ""))
    assert [row["updated_at"] for row in rows] == [when, None, None]
    assert [row["content_hash"] for row in rows] == ["AB", None, None]
    rows = made(tmp_path, text.format(",updated_at", ",2020-01-01", ",", ","))
    assert [row["updated_at"] for row in rows] == [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), None, None]
    make_from_folder(str(tmp_path / "shoes"), str(tmp_path / "m.parquet"))
    assert pq.read_table(tmp_path / "m.parquet")["updated_at"].to_pylist() == [when]


def test_attributes_column_is_spread_and_a_column_of_its_own_wins(tmp_path: Path) -> None:
    rows = made(
        tmp_path,
        "image,product_id,category,color,attributes\n"
        "a,p,c,red,color=blue;material=Wool|Silk;note=a=b; empty= ;\n"
        "b,p,c,,color=blue;;fabric=Cool&trade;|Wool;new=No\n"
        "c,p,c,,\n",
    )
    assert [dict(row["attributes"]) for row in rows] == [
        {"color": "red", "material": "Wool|Silk", "note": "a=b"},
        {"color": "blue", "fabric": "Cool&trade;|Wool", "new": "No"},
        {},
    ]


def test_columns_are_mapped(tmp_path: Path) -> None:
    text = "file,sku,group,color\na.jpg,1,mugs,red\n"
    (row,) = made(tmp_path, text, {"image": "file", "product_id": "sku", "category": "group", "image_id": "file"})
    assert (row["image_id"], row["product_id"], row["category"], row["attributes"]) == (
        "a.jpg",
        "1",
        "mugs",
        [("color", "red")],
    )


def test_all_missing_columns_are_listed_with_close_names(tmp_path: Path) -> None:
    text = message(tmp_path, "imge,Produkt ID,catagory\na,b,c\n")
    assert "product_id: missing; did you mean Produkt ID?" in text
    assert "category: missing; did you mean catagory?" in text
    assert "image, uri: both missing; one says where the image is; did you mean imge?" in text
    assert "--column product_id=NAME" in text


def test_misspelt_mapping_is_explained(tmp_path: Path) -> None:
    text = message(tmp_path, "image,sku,category\na,b,c\n", {"produkt_id": "sku", "title": "skuu"})
    assert "no field produkt_id; did you mean product_id?" in text
    assert "no column skuu; did you mean sku?" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("image,product_id,category\n", "no images"),
        ("image,product_id,category\na,b,c\na,b\n", "row 3: 2 values, but the header has 3"),
        ("image,product_id,category\na,b,c,d\n", "row 2: 4 values, but the header has 3"),
        ("image,image,product_id,category\n", "stand there twice: image"),
        ("image,product_id,category\na,bé,c\n".encode() + b"b,caf\xe9,c\n", "row 3: product_id is not UTF-8"),
        ("image,product_id,é\n".encode() + b"a,b,c\xc3\n", "category: missing"),
        ('image,product_id,category\na,b,c\nd,"e,f\ng,h,i\n', "row 3: a quote is never closed"),
        ('image,product_id,category\na,b,c\nd,e,"f\ng,h,i\n', "row 3: a quote is never closed"),
        ("image,product_id,category,available\na,b,c,yes\na,b,c,perhaps\n", "row 3: available is 'perhaps'"),
        ("image,product_id,category,updated_at\na,b,c,last May\n", "row 2: updated_at is 'last May'"),
        ("image,product_id,category,attributes\na,b,c,red\n", "row 2: attributes is 'red'"),
    ],
)
def test_bad_csv_is_one_clear_error(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in message(tmp_path, text)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    out = str(tmp_path / "m.parquet")
    with pytest.raises(ManifestInvalid, match="no such file"):
        outcome(tmp_path / "none.csv", out)
    (tmp_path / "a.csv").write_text("image,product_id,category\na,b,c\n")
    with pytest.raises(ManifestInvalid, match="no such folder"):
        make_from_export(str(tmp_path / "a.csv"), out, Options(images=str(tmp_path / "none")))
    with pytest.raises(ManifestInvalid, match="no such folder"):
        make_from_folder(str(tmp_path / "none"), out)


def test_folder_of_categories(tmp_path: Path) -> None:
    for name in (
        "pics/women/dresses/d.one.jpg",
        "pics/women/dresses/x.PNG",
        "pics/mugs/m.webp",
        "pics/loose.gif",
        "pics/notes.txt",
        "pics/.hid/a.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    out = tmp_path / "m.parquet"
    counts = make_from_folder(str(tmp_path / "pics"), str(out)).counts
    assert counts == write.Counts(rows=4, images=4, products=4, categories=3)
    table = pq.read_table(out)
    assert [(r["image_id"], r["product_id"], r["category"], r["uri"]) for r in table.to_pylist()] == [
        (path, stem, category, f"file://{tmp_path}/pics/{path}")
        for path, stem, category in [
            ("loose.gif", "loose", ""),
            ("mugs/m.webp", "m", "mugs"),
            ("women/dresses/d.one.jpg", "d.one", "women/dresses"),
            ("women/dresses/x.PNG", "x", "women/dresses"),
        ]
    ]
    assert table.schema.field("attributes").type == schemas.ATTRIBUTES


def test_blocks_keep_row_numbers_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "BLOCK_VALUES", 1_000)
    rows = [f'p{i}/a.jpg,p{i % 50},c{i % 3},"two\nlines {i}",{i % 2}' for i in range(1_000)]
    source, out = tmp_path / "a.csv", tmp_path / "m.parquet"
    source.write_text("image,product_id,category,note,available\n" + "\n".join(rows) + "\n")
    counts = outcome(source, out).counts
    assert (counts.rows, counts.images, counts.products, counts.categories) == (1_000, 1, 50, 3)
    assert pq.read_metadata(out).num_row_groups > 5
    assert [dict(a)["note"] for a in pq.read_table(out)["attributes"].to_pylist()] == [
        f"two\nlines {i}" for i in range(1_000)
    ]
    source.write_text("image,product_id,category,note,available\n" + "\n".join([*rows, "a,b,c,d,maybe"]) + "\n")
    with pytest.raises(ManifestInvalid, match="row 1002: available is 'maybe'"):
        outcome(source, out)


def test_rows_that_will_be_rejected_are_told(tmp_path: Path) -> None:
    source, out = tmp_path / "a.csv", str(tmp_path / "m.parquet")
    (tmp_path / "here.jpg").write_bytes(b"")
    rows = ["here.jpg,p,c,2026-01-01", "sub/here.jpg,p,c,2026-01-01", "gone.jpg,p,c,2026-01-01"]
    rows += ["https://h/a.jpg,p,c,2026-01-01"]
    source.write_text("image,product_id,category,updated_at\n" + "\n".join(rows))
    (repeated,) = outcome(source, out).counts.problems()
    assert repeated.startswith("1 rows repeat an image_id, such as here.jpg, and will be rejected")
    source.write_text(source.read_text().replace("updated_at", "season"))
    _, missing = outcome(source, out).counts.problems()
    assert missing == f"2 rows will be rejected, as their file is not there, such as file://{tmp_path}/sub/here.jpg"
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "a.jpg").write_bytes(b"")
    assert not list(make_from_folder(str(tmp_path / "shop"), out).counts.problems())


def test_real_sets(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.parquet"
    source = shared_data / "magento" / "images.csv"
    counts = outcome(source, out).counts
    with source.open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    assert counts.rows == len(expected) == 509
    rows = pq.read_table(out).to_pylist()
    assert [(r["image_id"], r["product_id"], r["category"], r["title"]) for r in rows] == [
        (e["image"], e["product_id"], e["category"], e["title"]) for e in expected
    ]
    assert all(Path(r["uri"].removeprefix("file://")).is_file() for r in rows)
    assert dict(rows[0]["attributes"])["climate"] == "All-weather|Cool|Indoor|Spring|Windy"
    clothing = str(shared_data / "clothing" / "images.csv")
    assert make_from_export(clothing, str(out), Options(columns={"product_id": "image"})).counts.products == 3218
