"""Part of a real shop, from its CSV to the published catalog, with the default model."""

import csv
import importlib
from pathlib import Path

import pytest
from tests import catalogs

from lookalike import reader

CATEGORY = "Women/Tops/Jackets"


@pytest.mark.usefixtures("spark")
def test_a_real_category_from_csv_to_reader(shared_data: Path, tmp_path: Path) -> None:
    with (shared_data / "magento" / "images.csv").open(encoding="utf-8", newline="") as file:
        found = csv.DictReader(file)
        rows = [row for row in found if row["category"] == CATEGORY]
    source = tmp_path / "jackets.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, found.fieldnames or [])
        writer.writeheader()
        writer.writerows(rows)
    manifest, root = tmp_path / "manifest.parquet", tmp_path / "root"
    images = shared_data / "magento" / "images"
    options = ["--csv", str(source), "--images", str(images), "--out", str(manifest)]
    assert importlib.import_module("jobs.make_manifest").main(options) == 0

    ended = catalogs.run("pipeline", root, manifest)
    assert ended.code == 0, ended.err
    assert f"embedded {len(rows)} + reused 0 + rejected 0" in ended.out
    catalog = reader.open(str(root), CATEGORY)
    styles = {row["product_id"]: row["style_id"] for row in rows}
    several = [p for p, style in styles.items() if list(styles.values()).count(style) > 1]
    hits = sum(styles[catalog.similar(product, 1)[0].product_id] == styles[product] for product in several)
    assert hits / len(several) > 0.5  # the same style in another colour comes first
    figures = {row["metric"]: row["value"] for row in catalogs.table(root, "evaluations")}
    assert figures["knn_recall@10"] > 0.95
    assert figures["dangling"] == 0
