"""The sample catalog: whole, repeatable, and true to its truth.json, read with Pillow alone."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from lookalike import reasons
from lookalike.sample import catalog, make_sample

PRODUCTS = 48


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample(tmp_path_factory.mktemp("sample"), PRODUCTS).parent


@pytest.fixture(scope="module")
def rows(sample: Path) -> list[dict[str, Any]]:
    return pq.read_table(sample / "manifest.parquet").to_pylist()


@pytest.fixture(scope="module")
def truth(sample: Path) -> dict[str, Any]:
    return json.loads((sample / "truth.json").read_text())


def content(row: dict[str, Any]) -> bytes:
    return Path(row["uri"].removeprefix("file://")).read_bytes()


def test_every_row_is_either_good_or_rejected(rows: list[dict[str, Any]], truth: dict[str, Any]) -> None:
    known = [*truth["images"], *(bad["image_id"] for bad in truth["rejected"])]
    assert sorted(known) == sorted(row["image_id"] for row in rows)


def test_good_images_open_as_pictures_of_shop_size(rows: list[dict[str, Any]], truth: dict[str, Any]) -> None:
    rejected = {(bad["image_id"], bad["product_id"]) for bad in truth["rejected"]}
    good = [row for row in rows if (row["image_id"], row["product_id"]) not in rejected]
    assert len(good) == len(truth["images"])
    modes, kinds = set(), set()
    for row in good:
        with Image.open(io.BytesIO(content(row))) as picture:
            modes.add(picture.mode)
            kinds.add(picture.format)
            assert min(picture.size) >= 400 and max(picture.size) <= 1000
            assert np.asarray(ImageOps.exif_transpose(picture).convert("RGB")).std() > 5
            assert truth["images"][row["image_id"]]["product_id"] == row["product_id"]
    assert modes == {"RGB", "RGBA", "P", "CMYK"}
    assert kinds == {"JPEG", "PNG", "WEBP"}


def test_duplicates_are_exactly_those_planted(rows: list[dict[str, Any]], truth: dict[str, Any]) -> None:
    by_hash: dict[str, set[str]] = {}
    for row in rows:
        if row["image_id"] in truth["images"]:
            by_hash.setdefault(hashlib.sha256(content(row)).hexdigest(), set()).add(row["image_id"])
    shared = sorted(sorted(ids) for ids in by_hash.values() if len(ids) > 1)
    assert shared == sorted(sorted(pair) for pair in truth["duplicates"].items())
    assert shared


def test_damaged_files_are_damaged(rows: list[dict[str, Any]], truth: dict[str, Any]) -> None:
    by_id = {row["image_id"]: row for row in rows}
    told = {bad["image_id"]: bad["reason"] for bad in truth["rejected"]}
    assert len(set(told.values())) == 12
    for image_id, reason in told.items():
        if reason in (reasons.TRUNCATED.text, reasons.NOT_AN_IMAGE.text):
            with pytest.raises((OSError, SyntaxError)):
                Image.open(io.BytesIO(content(by_id[image_id]))).load()
        elif reason == reasons.ZERO_BYTES.text:
            assert content(by_id[image_id]) == b""
        elif reason == "unreadable uri: not found":
            assert not Path(by_id[image_id]["uri"].removeprefix("file://")).exists()
        elif reason == reasons.ONE_COLOUR.text:
            assert np.ptp(np.asarray(Image.open(io.BytesIO(content(by_id[image_id]))))) == 0


def test_scenes_show_products_of_the_catalog(rows: list[dict[str, Any]], truth: dict[str, Any]) -> None:
    assert truth["scenes"]
    by_id = {row["image_id"]: row for row in rows}
    for image_id, shown in truth["scenes"].items():
        assert len(shown) > 3
        assert set(shown) <= set(truth["products"])
        assert dict(by_id[image_id]["attributes"])["shows"].split() == shown


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    def digests(folder: str, seed: int) -> dict[str, str]:
        made = make_sample(tmp_path / folder, 4, seed).parent / "images"
        return {str(p.relative_to(made)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(made.rglob("*.*"))}

    first = digests("one", 1)
    assert first == digests("two", 1)
    assert set(first.values()).isdisjoint(v for k, v in digests("three", 2).items() if "damaged" not in k)


def test_products_of_a_style_differ_in_colour_and_nothing_else() -> None:
    made = catalog.products(240, 0)
    assert len({p.product_id for p in made}) == 240
    assert len({p.category for p in made}) == 16
    assert 0 < sum(not p.available for p in made) < 24
    by_style: dict[tuple[int, ...], list[catalog.Product]] = {}
    for product in made:
        by_style.setdefault(product.style_seed, []).append(product)
    for same in by_style.values():
        assert len({p.color for p in same}) == len(same)
        assert len({(p.style, p.pattern, p.material, tuple(p.shape.items())) for p in same}) == 1


def test_drawn_product_is_cut_out_and_fills_its_picture() -> None:
    for product in catalog.products(16, 3):
        cut = product.draw(160, np.random.default_rng(0))
        left, top, right, bottom = cut.getbbox() or (0, 0, 0, 0)
        assert cut.mode == "RGBA"
        assert 0.75 < max(right - left, bottom - top) / 160 <= 1.0, product.product_id
