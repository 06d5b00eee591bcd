"""Placeholders among embeddings and titles made by hand, of which it is known what is one picture and one product."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests import catalogs
from tests.spark.rows import run_of
from tests.vectors import unit

from lookalike.spark.catalog import placeholders
from lookalike.spark.catalog.embed import embed
from lookalike.spark.catalog.ingest import ingest
from lookalike.spark.catalog.placeholders import (
    find_placeholders,
    group_pictures,
    select_only_pictures,
    select_placeholders,
    select_products,
)

DIM = 32


def images(spark: Any, rows: Iterable[tuple[str, str, str | None]]) -> Any:
    return spark.createDataFrame(list(rows), "product_id string, content_hash string, title string")


def test_a_picture_encoded_anew_for_each_product_is_met_in_a_large_catalog(
    spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are more pictures than are compared with all, and none is that of two products."""
    monkeypatch.setattr(placeholders, "_LEADERS", 50)
    rng = np.random.default_rng(0)
    centre = unit(rng.normal(size=(1, DIM)))
    near = unit(centre + 0.02 / np.sqrt(DIM) * rng.normal(size=(60, DIM)))
    vectors = np.concatenate([unit(rng.normal(size=(2_000, DIM))), near])
    names = [f"own-{n}" for n in range(2_000)] + [f"soon-{n}" for n in range(60)]
    table = pa.table({"content_hash": names, "embedding": vectors.tolist()})
    embeddings = spark.createDataFrame(table).selectExpr("content_hash", "CAST(embedding AS array<float>) embedding")
    pictures = select_only_pictures(images(spark, ((f"p-{name}", name, None) for name in names)))
    groups = {row["content_hash"]: row["placeholder"] for row in group_pictures(pictures, embeddings).collect()}
    assert {groups.get(name) for name in names[2_000:]} == {groups["soon-0"]}
    assert groups["soon-0"].startswith("soon-")
    assert sum(name.startswith("own-") for name in groups) < 50  # each of itself alone


def test_only_pictures_of_many_products_of_different_titles_are_placeholders(spark: Any) -> None:
    def products(name: str, n: int, title: str | None, content: str) -> list[tuple[str, str, str | None]]:
        return [(f"{name}-{i:03d}", content, title and title.format(i)) for i in range(n)]

    rows = images(
        spark,
        [
            *products("soon", 4, "thing{0} thing{0}", "a1"),
            *products("late", 3, "other{0}", "a2"),
            *products("offer", 150, "Oak table by seller {}", "b"),
            *products("unnamed", 5, None, "c"),
            *products("four", 4, "four{}", "d"),
            *products("several", 6, "several{}", "e"),
            *products("several", 6, "several{}", "own"),
            *products("twice", 1, "twice{}", "a1"),
            *products("twice", 1, "twice{}", "a2"),
        ],
    )
    counts = {row["content_hash"]: row["products"] for row in select_only_pictures(rows).collect()}
    assert counts == {"a1": 4, "a2": 3, "b": 150, "c": 5, "d": 4}
    near = [("a1", "a1"), ("a2", "a1"), *((name, name) for name in "bcde")]
    groups = spark.createDataFrame(near, "content_hash string, placeholder string")
    by_product = select_products(rows, groups)
    sizes = {row["placeholder"]: row["count"] for row in by_product.groupBy("placeholder").count().collect()}
    assert sizes == {"a1": 8, "b": 150, "c": 5, "d": 4}
    assert {row["placeholder"] for row in select_placeholders(by_product, 5).collect()} == {"a1", "c"}
    assert {row["placeholder"] for row in select_placeholders(by_product, 4).collect()} == {"a1", "c", "d"}
    assert {row["placeholder"] for row in select_placeholders(by_product, 9).collect()} == set()


def test_placeholders_by_equal_embeddings_of_the_shops_own(spark: Any, tmp_path: Path) -> None:
    """Told where the setting says so, and gone again where it does not."""
    rows = catalogs.embeddings("a", 8, views=1)
    for row, title in zip(
        rows, ("Blue vase", "Oak table", "Wool scarf", "Garden hose", "Silver ring", "Shoe"), strict=False
    ):
        row |= {"title": title, "embedding": rows[0]["embedding"]}
    manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", rows)

    def products(at_least: int) -> set[str]:
        run = run_of(spark, tmp_path / "root", str(manifest), ingest={"placeholder_products": at_least})
        embed(run, ingest(run))
        find_placeholders(run)
        return {row["product_id"] for row in run.tables.read("placeholders").collect()}

    assert products(at_least=7) == set()
    assert not (tmp_path / "root" / "tables" / "placeholders").exists()
    assert products(at_least=6) == {f"a-{n}" for n in range(6)}
    assert products(at_least=7) == set()
