"""One small run of the pipeline over pictures: every row accounted for, and what a service reads right."""

from pathlib import Path

import pytest
from tests import catalogs

from lookalike import reader

CATEGORY = "women/dresses"


@pytest.mark.fast
@pytest.mark.usefixtures("spark")
def test_a_small_catalog_is_published(small_model: list[str], tmp_path: Path) -> None:
    rows = catalogs.images(CATEGORY, 6, views=1)
    twin = {**rows[0], "image_id": "twin", "product_id": "twin"}  # the same bytes, so the nearest
    text = {**rows[0], "image_id": "text", "product_id": "text", "content": b"no picture"}
    manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", [*rows, twin, text])
    root = tmp_path / "root"
    ended = catalogs.run("pipeline", root, manifest, small_model)
    assert ended.code == 0, ended.err

    status = {row["image_id"]: row["status"] for row in catalogs.table(root, "images")}
    assert status.pop("text") == "rejected"
    assert sorted(status.values()) == ["embedded"] * 6 + ["reused"]
    assert len(catalogs.table(root, "embeddings")) == 6

    catalog = reader.open(str(root), CATEGORY, cache=tmp_path / "cache")
    matches = catalog.similar("twin", 10)
    assert {match.product_id for match in matches} == {row["product_id"] for row in rows}
    assert matches[0].product_id == rows[0]["product_id"]
    assert matches[0].score == pytest.approx(1, abs=1e-3)
    assert (root / "report.html").exists()
