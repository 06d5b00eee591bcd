"""A catalog with the odd rows that real ones have is published, and every row of it is accounted for."""

import pytest
from tests import catalogs
from tests.pipeline.conftest import BROKEN, FOREIGN, PLAIN, SINGLE, SPACED, Shop

from lookalike import reader
from lookalike.errors import NotPublished


def test_every_row_is_accounted_for(shop: Shop) -> None:
    assert shop.ended.code == 0, shop.ended.err
    ledger = {row["image_id"]: row for row in catalogs.table(shop.root, "images")}
    assert len(ledger) == len(shop.rows) == len(catalogs.table(shop.root, "images"))
    assert {i: row["reason"] for i, row in ledger.items() if row["status"] == "rejected"} == shop.reasons
    good = len(shop.rows) - len(shop.reasons)
    assert sum(row["status"] == "embedded" for row in ledger.values()) == good - 1
    assert sum(row["status"] == "reused" for row in ledger.values()) == 1
    assert len(catalogs.table(shop.root, "embeddings")) == good - 1
    parts = f"embedded {good - 1} + reused 1 + rejected {len(shop.reasons)}"
    assert f"manifest rows {len(shop.rows)} = {parts}" in shop.ended.out


def test_bomb_is_rejected_by_its_header(shop: Shop) -> None:
    (bomb,) = (row for row in catalogs.table(shop.root, "images") if row["image_id"] == "bomb")
    assert (bomb["width"], bomb["height"]) == (15_000, 10_000)


def test_whatever_a_category_is_called_it_opens(shop: Shop) -> None:
    live = {row["category"] for row in catalogs.table(shop.root, "publications")}
    assert live == {PLAIN, SPACED, FOREIGN, SINGLE}
    for category in (PLAIN, SPACED, FOREIGN):
        products = {row["product_id"] for row in shop.rows if row["category"] == category} - {"p-bomb"}
        catalog = reader.open(str(shop.root), category)
        for product in products:
            assert {match.product_id for match in catalog.similar(product, 10)} == products - {product}
    assert reader.open(str(shop.root), "Schöne Möbel").similar(f"{SPACED}-0", 1)
    assert {path.name for path in shop.root.parent.iterdir()} <= {"catalog", "manifest.parquet", "cache"}


def test_a_lone_image_has_no_similar_items_and_is_found_by_search(shop: Shop) -> None:
    assert not [row for row in catalogs.table(shop.root, "similar_items") if row["category"] == SINGLE]
    catalog = reader.open(str(shop.root), SINGLE)
    assert catalog.similar(f"{SINGLE}-0", 5) == []
    (content_hash,) = (r["content_hash"] for r in catalogs.table(shop.root, "images") if r["category"] == SINGLE)
    (embedding,) = (
        r["embedding"] for r in catalogs.table(shop.root, "embeddings") if r["content_hash"] == content_hash
    )
    (match,) = catalog.search(embedding, 5)
    assert (match.product_id, match.image_id) == (f"{SINGLE}-0", f"{SINGLE}-0-0")
    assert match.score == pytest.approx(1, abs=2e-3)


def test_a_category_of_which_nothing_decodes_is_not_published(shop: Shop) -> None:
    with pytest.raises(NotPublished, match=BROKEN):
        reader.open(str(shop.root), BROKEN)
    for table in ("shards", "similar_items", "evaluations"):
        assert BROKEN not in {row["category"] for row in catalogs.table(shop.root, table)}
