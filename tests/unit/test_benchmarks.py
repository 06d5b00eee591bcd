"""Public sets, each as a tiny folder in its layout; and the real ones where they are at hand."""

import gzip
import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lookalike.errors import ManifestInvalid
from lookalike.import_benchmark import LAYOUTS, import_benchmark

Row = dict[str, Any]


def imported(layout: str, folder: Path, out: Path) -> tuple[dict[str, Row], dict[str, Row]]:
    """Gallery rows by image_id, query rows by query_id."""
    counts = import_benchmark(layout, folder, str(out))
    gallery, queries = (pq.read_table(out / f"{name}.parquet").to_pylist() for name in ("gallery", "queries"))
    assert (counts.gallery, counts.queries) == (len(gallery), len(queries))
    by_id = {row["image_id"]: row for row in gallery}, {row["query_id"]: row for row in queries}
    assert (len(by_id[0]), len(by_id[1])) == (len(gallery), len(queries))
    return by_id


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_stanford_online_products(tmp_path: Path) -> None:
    header = "image_id class_id super_class_id path"
    write(tmp_path / "Ebay_train.txt", header, "1 1 1 bicycle_final/111_0.JPG")
    lines = [f"59552 11319 1 bicycle_final/222_{n}.JPG" for n in (0, 1)]
    write(tmp_path / "Ebay_test.txt", header, *lines, "59999 11400 4 coffee_maker_final/333_0.JPG")
    gallery, queries = imported("stanford-online-products", tmp_path, tmp_path / "out")
    assert set(gallery) == set(queries)
    assert len(gallery) == 3
    row = queries["coffee_maker_final/333_0.JPG"]
    assert (row["product_id"], row["category"], row["image_id"]) == ("11400", "coffee_maker", row["query_id"])
    assert row["uri"] == f"file://{tmp_path}/coffee_maker_final/333_0.JPG"
    assert gallery["bicycle_final/222_0.JPG"]["product_id"] == gallery["bicycle_final/222_1.JPG"]["product_id"]


@pytest.mark.parametrize("nested", [False, True])
def test_deepfashion_inshop(tmp_path: Path, nested: bool) -> None:
    name = "Eval/list_eval_partition.txt" if nested else "list_eval_partition.txt"
    images = tmp_path / "Img" if nested else tmp_path
    (images / "img").mkdir(parents=True)
    folder = "img/WOMEN/Blouses_Shirts"
    write(
        tmp_path / name,
        "3",
        "image_name item_id evaluation_status",
        f"{folder}/id_00000001/02_1_front.jpg id_00000001 train",
        f"{folder}/id_00000004/03_7_additional.jpg    id_00000004 query",
        f"{folder}/id_00000004/02_1_front.jpg id_00000004 gallery",
    )
    gallery, queries = imported("deepfashion-inshop", tmp_path, tmp_path / "out")
    (found,), (asked,) = gallery.values(), queries.values()
    assert found["uri"] == f"file://{images}/{folder}/id_00000004/02_1_front.jpg"
    assert found["product_id"] == asked["product_id"] == "id_00000004"
    assert found["category"] == asked["category"] == "WOMEN/Blouses_Shirts"
    assert asked["image_id"] is None
    assert dict(asked["attributes"]) == {"view": "additional"}


def test_fashion_mnist(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    for prefix, some, labels in (("train", pixels[:2], [0, 9]), ("t10k", pixels[2:], [8])):
        shape = np.array(some.shape, ">u4").tobytes()
        images = gzip.compress(b"\0\0\x08\x03" + shape + some.tobytes())
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(images)
        labelled = b"\0\0\x08\x01" + np.array([len(some)], ">u4").tobytes() + bytes(labels)
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labelled))
    gallery, queries = imported("fashion-mnist", tmp_path, tmp_path / "out")
    assert {name: row["category"] for name, row in gallery.items()} == {
        "train-00000": "t-shirt", "train-00001": "ankle boot",
    }  # fmt: skip
    (query,) = queries.values()
    assert (query["category"], query["product_id"], query["image_id"]) == ("bag", None, None)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(query["content"]))), pixels[2])
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labelled[:-1]))
    with pytest.raises(ManifestInvalid, match=r"t10k-labels-idx1-ubyte[.]gz: not an IDX file of bytes in 1 dimensions"):
        imported("fashion-mnist", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("test", ["test.csv", "test_kaggletest.csv"])
def test_products_10k(tmp_path: Path, test: str) -> None:
    write(tmp_path / "train.csv", "name,class,group", "0.jpg,7,3", "1.jpg,8,3")
    write(tmp_path / test, "name,class,group,Usage", "0.jpg,8,3,Public")
    gallery, queries = imported("products-10k", tmp_path, tmp_path / "out")
    assert {name: row["product_id"] for name, row in gallery.items()} == {"train/0.jpg": "7", "train/1.jpg": "8"}
    (query,) = queries.values()
    assert (query["product_id"], query["category"], query["image_id"]) == ("8", "3", None)
    assert query["uri"] == f"file://{tmp_path}/test/0.jpg"


def test_magento(tmp_path: Path) -> None:
    header = "image,product_id,style_id,category,title,color,price,description,attributes"
    lines = [
        f"mh01-{color.lower()}_main.jpg,MH01-{color},MH01,Men/Tops,Hoodie,{color},52,," for color in ("Red", "Gray")
    ]
    write(tmp_path / "images.csv", header, *lines)
    gallery, queries = imported("magento", tmp_path, tmp_path / "out")
    assert set(gallery) == set(queries)
    assert queries["mh01-gray_main.jpg"]["image_id"] == "mh01-gray_main.jpg"
    assert gallery["mh01-gray_main.jpg"]["title"] == "Hoodie"
    assert {row["product_id"] for row in queries.values()} == {"MH01-Red", "MH01-Gray"}
    assert dict(queries["mh01-gray_main.jpg"]["attributes"]) == {"color": "Gray", "view": "main"}
    _, queries = imported("magento-styles", tmp_path, tmp_path / "out")
    assert {row["product_id"] for row in queries.values()} == {"MH01"}


def test_clothing_has_nobody_on_both_sides(tmp_path: Path) -> None:
    lines = [f"{n}.jpg,Shorts,False,{n % 20}" for n in range(60)]
    write(tmp_path / "images.csv", "image,category,kids,sender_id", *lines)
    gallery, queries = imported("clothing", tmp_path, tmp_path / "out")
    senders = [{int(name.split(".")[0]) % 20 for name in side} for side in (gallery, queries)]
    assert not senders[0] & senders[1]
    assert len(gallery) + len(queries) == 60
    assert {row["product_id"] for row in queries.values()} == {None}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_folder_is_an_error_that_names_what_is_missing(
    tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--layout", layout, "--folder", str(tmp_path), "--out", str(tmp_path / "out")]
    assert importlib.import_module("jobs.import_benchmark").main(options) == 2
    said = capsys.readouterr().err
    assert f"error: {tmp_path}" in said
    assert "no such file" in said or "give the folder of the unpacked set" in said
    assert not (tmp_path / "out" / "gallery.parquet").exists()


def test_a_line_that_is_cut_is_named(tmp_path: Path) -> None:
    write(tmp_path / "Ebay_test.txt", "image_id class_id super_class_id path", "1 2 3 a/b.JPG", "1 2 3")
    with pytest.raises(ManifestInvalid, match=r"Ebay_test[.]txt: line 3: 3 fields, must be 4"):
        imported("stanford-online-products", tmp_path, tmp_path / "out")


def test_real_sets(shared_data: Path, tmp_path: Path) -> None:
    gallery, queries = imported("magento", shared_data / "magento", tmp_path / "magento")
    assert len(gallery) == len(queries) == 509
    assert all(Path(row["uri"].removeprefix("file://")).is_file() for row in gallery.values())
    gallery, queries = imported("clothing", shared_data / "clothing", tmp_path / "clothing")
    assert len(gallery) + len(queries) == 3_218
    assert min(len(gallery), len(queries)) > 1_000
