"""A published catalog whose images change in every way: what is read, embedded, built and published is what must be."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests import catalogs

from lookalike import reader

CATEGORIES = ("changed", "moved/from", "moved/to", "unavailable", "deleted", "added", "unchanged")
DAY_1, DAY_2 = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))


def on_disk(folder: Path, row: catalogs.Row, updated_at: datetime) -> catalogs.Row:
    """`row` with its picture in a file."""
    path = folder / f"{row['image_id'].replace('/', ' ')}.jpg"
    path.write_bytes(row["content"])
    rest = {key: value for key, value in row.items() if key != "content"}
    return {**rest, "uri": str(path), "updated_at": updated_at}


def similar(root: Path, category: str, product: str) -> list[str]:
    return [match.product_id for match in reader.open(str(root), category).similar(product, 10)]


def indexed(root: Path) -> set[str]:
    """image_ids in the live shards."""
    versions = catalogs.live(root)
    found = set()
    for shard in catalogs.table(root, "shards"):
        if versions.get(shard["category"]) == shard["version"]:
            with pa.ipc.open_file(root / shard["vectors_path"]) as file:
                rows = file.read_all().slice(shard["first_row"], shard["ntotal"])
                found |= set(rows["image_id"].to_pylist())
    return found


@pytest.mark.usefixtures("spark")
def test_each_change_costs_what_it_must_and_no_more(tmp_path: Path, small_model: list[str]) -> None:
    root, pictures = tmp_path / "root", tmp_path / "pictures"
    pictures.mkdir()
    rows = {
        row["image_id"]: on_disk(pictures, row, DAY_1)
        for category in CATEGORIES
        for row in catalogs.images(category, 3, views=2)
    }

    def pipeline(*flags: str) -> dict[str, Any]:
        manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", rows.values())
        ended = catalogs.run("pipeline", root, manifest, small_model, flags)
        assert ended.code == 0, ended.err
        return catalogs.last_run(root)

    assert pipeline()["embed"] == {"embedded": 42, "reused": 0, "rejected": 0}
    before = catalogs.live(root)
    assert before.keys() == set(CATEGORIES)

    # From here on every file that need not be read is gone, so that a read would be a rejection.
    for path in pictures.iterdir():
        path.unlink()
    rows["changed-0-0"] = on_disk(pictures, catalogs.images("changed", 1, views=1, seed=1)[0], DAY_2)
    for view in range(2):
        rows[f"moved/from-0-{view}"]["category"] = "moved/to"
        rows[f"unavailable-0-{view}"]["available"] = False
    rows["deleted-0-0"]["deleted"] = True
    rows["added-9-0"] = on_disk(pictures, {**catalogs.images("added", 1, seed=2)[0], "image_id": "added-9-0"}, DAY_2)
    rows["added-9-0"]["product_id"] = "added-9"
    counts = pipeline()
    assert counts["ingest"] == {"rows": 43, "waiting": 2, "reused": 41, "rejected": 0}
    assert counts["embed"] == {"embedded": 2, "reused": 0, "rejected": 0}
    assert counts["build_index"]["categories"] == 6
    assert counts["publish"] == {"published": 6, "withdrawn": 0}
    after = catalogs.live(root)
    assert [category for category in CATEGORIES if after[category] == before[category]] == ["unchanged"]
    assert "moved/from-0" in similar(root, "moved/to", "moved/to-0")
    assert "moved/from-0" not in similar(root, "moved/from", "moved/from-1")
    assert similar(root, "unavailable", "unavailable-1") == ["unavailable-2"]
    assert indexed(root) == rows.keys() - {"deleted-0-0"}
    assert "added-9" in similar(root, "added", "added-0")

    # A full build of one part: the same images, none of them read or embedded, and nothing else is touched.
    counts = pipeline("--category", "moved", "--full")
    assert counts["ingest"] == {"rows": 12, "waiting": 0, "reused": 12, "rejected": 0}
    assert counts["build_index"]["categories"] == 2
    full = catalogs.live(root)
    assert full == after | {category: f"{after[category]}-1" for category in ("moved/from", "moved/to")}
    assert indexed(root) == rows.keys() - {"deleted-0-0"}

    counts = pipeline()
    assert "build_index" not in counts
    assert counts["publish"] == {"published": 0, "withdrawn": 0}
    assert catalogs.live(root) == full
