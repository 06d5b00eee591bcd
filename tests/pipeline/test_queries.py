"""Query photos from the command line: figures, the report, models beside each other, and bad input."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests import catalogs
from tests.pipeline.conftest import PLAIN, Shop


@pytest.mark.usefixtures("spark")
def test_photos_are_measured_and_shown(own_shop: Shop, tmp_path: Path) -> None:
    rows = [row for row in own_shop.rows if row["category"] == PLAIN and row["image_id"] not in own_shop.reasons]
    photos = {name: [row[name] for row in rows] for name in ("content", "product_id", "category")}
    queries = tmp_path / "queries.parquet"
    pq.write_table(pa.table({"query_id": [row["image_id"] for row in rows], **photos}), queries)
    before = catalogs.answers(own_shop.root)
    common = (own_shop.root, own_shop.manifest, own_shop.settings)
    flags = ["--queries", str(queries)]
    ended = catalogs.run("evaluate", *common, flags)
    assert ended.code == 0, ended.err
    assert "ndcg@10" in ended.out
    assert f"queries {len(rows)}" in ended.out
    assert "Answers to photos" in (own_shop.root / "report.html").read_text(encoding="utf-8")

    name = "torchvision/squeezenet1_1"
    ended = catalogs.run("compare_models", *common, [*flags, "--model", name])
    assert ended.code == 0, ended.err
    assert name in ended.out
    assert catalogs.last_run(own_shop.root)["compare_models"][f"embedded: {name}"] == 0
    assert catalogs.answers(own_shop.root) == before

    pq.write_table(pa.table({"query_id": ["a"], "uri": ["a.jpg"]}), queries)
    ended = catalogs.run("evaluate", *common, flags)
    assert ended.code == 2
    assert "product_id, category: both missing" in ended.error
