"""Shard files: what is written is read back, memory-mapped; damage and newer formats are refused by name."""

import hashlib
from pathlib import Path
from typing import Any

import faiss
import fsspec
import numpy as np
import pyarrow as pa
import pytest

from lookalike import FORMAT_VERSION, files
from lookalike.errors import FormatTooNew, ShardDamaged
from lookalike.kernels.index.shards import (
    Shard,
    ShardRows,
    open_merged,
    open_shard,
    open_shards,
    slug,
    write_pack,
    write_shard,
)

NAMES = ["b", "a", "c", "a", "ä", "b", "B"]


def rows(dim: int = 6) -> ShardRows:
    vectors = np.random.default_rng(0).normal(size=(len(NAMES), dim)).astype(np.float16)
    ids = np.array([int(hashlib.sha256(bytes([n])).hexdigest()[:15], 16) for n in range(len(NAMES))])
    images = [f"i{9 - number}" for number in range(len(NAMES))]
    return ShardRows(ids, pa.array(NAMES), pa.array(images), np.arange(len(NAMES)) % 2 == 0, vectors)


def written(root: str, shard_rows: ShardRows) -> dict[str, Any]:
    index = faiss.index_factory(shard_rows.vectors.shape[1], "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
    index.add_with_ids(shard_rows.vectors.astype(np.float32), shard_rows.vector_ids)
    return {**write_shard(root, "women/dresses", "v1", "run", 3, index, shard_rows, "model"), "shard": 3}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def opened(root: Path, row: dict[str, Any], cache: Path) -> Shard:
    return open_shard(str(root), row, cache)


def test_rows_come_back_sorted_by_product_and_image(tmp_path: Path, cache: Path) -> None:
    source = rows()
    shard = opened(tmp_path, written(str(tmp_path), source), cache)
    expected = sorted(zip(NAMES, source.image_ids.to_pylist(), range(len(NAMES)), strict=True))
    order = [number for _, _, number in expected]
    assert shard.product_ids.to_pylist() == [product for product, _, _ in expected]
    assert shard.image_ids.to_pylist() == [image for _, image, _ in expected]
    assert np.array_equal(shard.vector_ids, source.vector_ids[order])
    assert np.array_equal(shard.available, source.available[order])
    assert np.array_equal(shard.vectors, source.vectors[order])
    assert not shard.vectors.flags.owndata
    assert (shard.number, shard.images, shard.products, shard.dim) == (3, 7, 5, 6)


def test_a_vector_id_leads_to_its_row(tmp_path: Path, cache: Path) -> None:
    shard = opened(tmp_path, written(str(tmp_path), rows()), cache)
    ids = np.append(shard.vector_ids, [-1]).reshape(2, 4)
    assert shard.find_rows(ids).tolist() == [[0, 1, 2, 3], [4, 5, 6, -1]]


def test_a_product_id_leads_to_its_rows(tmp_path: Path, cache: Path) -> None:
    shard = opened(tmp_path, written(str(tmp_path), rows()), cache)
    for name in set(NAMES):
        number = shard.find_product(name)
        assert number is not None
        start, stop = shard.product_starts[number : number + 2]
        assert shard.product_ids[start:stop].to_pylist() == [name] * NAMES.count(name)
    assert [shard.find_product(name) for name in ("", "A", "aa", "z", "ö")] == [None] * 5


def test_the_row_describes_the_files(tmp_path: Path) -> None:
    row = written(str(tmp_path), rows(dim=50))
    index = tmp_path / row["path"]
    vectors = tmp_path / row["vectors_path"]
    assert row["sha256"] == hashlib.sha256(index.read_bytes()).hexdigest()
    assert row["vectors_sha256"] == hashlib.sha256(vectors.read_bytes()).hexdigest()
    assert (row["size_bytes"], row["vectors_size_bytes"]) == (index.stat().st_size, vectors.stat().st_size)
    assert (row["ntotal"], row["dim"], row["faiss_version"]) == (7, 50, faiss.__version__)
    read: Any = faiss.read_index(str(index))
    assert sorted(faiss.vector_to_array(read.id_map)) == sorted(rows().vector_ids)
    with pa.ipc.open_file(vectors) as file:
        assert file.num_record_batches == 1
        assert file.schema.field("vector").type == pa.list_(pa.field("item", pa.float16(), False), 50)
        assert file.schema.metadata == {
            b"format_version": str(FORMAT_VERSION).encode(),
            b"model_id": b"model",
            b"category": b"women/dresses",
            b"version": b"v1",
        }
    assert sorted(path.suffix for path in index.parent.iterdir()) == [".arrow", ".faiss"]


def test_writing_again_gives_the_same_files(tmp_path: Path) -> None:
    assert written(str(tmp_path), rows()) == written(str(tmp_path), rows())


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, flip_byte, Path.unlink])
@pytest.mark.parametrize("column", ["path", "vectors_path"])
@pytest.mark.parametrize("opened_before", [False, True])
def test_a_damaged_file_is_named(tmp_path: Path, cache: Path, damage: Any, column: str, opened_before: bool) -> None:
    row = written(str(tmp_path), rows())
    if opened_before:
        opened(tmp_path, row, cache)
    damage(tmp_path / row[column])
    with pytest.raises(ShardDamaged, match=row[column]):
        opened(tmp_path, row, cache)


def test_a_newer_format_is_refused(tmp_path: Path, cache: Path) -> None:
    row = written(str(tmp_path), rows())
    with pytest.raises(FormatTooNew, match="upgrade lookalike"):
        opened(tmp_path, {**row, "format_version": FORMAT_VERSION + 1}, cache)


@pytest.mark.parametrize("merged", [False, True])
def test_rows_of_format_1_are_read(tmp_path: Path, cache: Path, merged: bool) -> None:
    """They lack what packs brought; once newer rows are in the table it is null there."""
    row = written(str(tmp_path), rows())
    lacked = ("first_row", "vectors_rows")
    older = {name: value for name, value in row.items() if name not in lacked} | {"format_version": 1}
    if merged:
        older |= dict.fromkeys(lacked)
    assert opened(tmp_path, older, cache).image_ids == opened(tmp_path, row, cache).image_ids


def test_an_index_that_this_faiss_cannot_read_names_the_faiss_that_can(tmp_path: Path, cache: Path) -> None:
    row = written(str(tmp_path), rows())
    content = b"none of FAISS's"
    (tmp_path / row["path"]).write_bytes(content)
    future = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content), "faiss_version": "9.9"}
    with pytest.raises(FormatTooNew, match=r"FAISS 9\.9"):
        opened(tmp_path, {**row, **future}, cache)


def test_a_remote_shard_is_copied_once(cache: Path) -> None:
    root = "memory://catalog"
    row = written(root, rows())
    first = open_shard(root, row, cache)
    memory = fsspec.filesystem("memory")
    memory.rm("/catalog", recursive=True)
    second = open_shard(root, row, cache)
    assert np.array_equal(first.vectors, second.vectors)
    with pytest.raises(ShardDamaged, match="missing"):
        open_shard(root, row, cache / "another")


def test_a_damaged_remote_shard_is_never_kept(cache: Path) -> None:
    root = "memory://damaged"
    row = written(root, rows())
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/damaged/{row['path']}", b"x" * row["size_bytes"])
    with pytest.raises(ShardDamaged, match=row["path"]):
        open_shard(root, row, cache)
    assert [path.suffix for path in cache.iterdir()] == [".arrow"]


def packed(root: str, shard_rows: ShardRows, categories: list[str]) -> list[dict[str, Any]]:
    written = write_pack(root, "shards/packs/run/00000.arrow", pa.array(categories), shard_rows, "model")
    return [{**row, "shard": 0} for row in written]


def test_a_pack_holds_each_category_as_a_shard_of_its_own(tmp_path: Path, cache: Path) -> None:
    source, categories = rows(), ["x", "y", "y", "x", "é", "x", "y"]
    described = packed(str(tmp_path), source, categories)
    assert [(row["category"], row["ntotal"], row["products"]) for row in described] == [
        ("x", 3, 2), ("y", 3, 3), ("é", 1, 1)
    ]  # fmt: skip
    assert len(list(tmp_path.rglob("*.arrow"))) == 1
    for row, shard in zip(described, open_shards(str(tmp_path), described, cache), strict=True):
        alone = [number for number, category in enumerate(categories) if category == row["category"]]
        expected = sorted((NAMES[number], source.image_ids[number].as_py(), number) for number in alone)
        order = [number for _, _, number in expected]
        assert shard.product_ids.to_pylist() == [name for name, _, _ in expected]
        assert shard.image_ids.to_pylist() == [image for _, image, _ in expected]
        assert np.array_equal(shard.vectors, source.vectors[order])
        assert not shard.vectors.flags.owndata
        assert shard.product.tolist() == np.unique(shard.product_ids.to_pylist(), return_inverse=True)[1].tolist()
        assert shard.find_rows(shard.vector_ids).tolist() == list(range(len(order)))
        scores = source.vectors[order].astype(np.float32) @ source.vectors[order].astype(np.float32).T
        found = shard.find_nearest(source.vectors[order].astype(np.float32), len(order), 0)
        assert np.array_equal(np.take_along_axis(scores, found, axis=1), -np.sort(-scores, axis=1))


def test_a_pack_is_hashed_once_for_all_its_categories(tmp_path: Path, cache: Path, monkeypatch: Any) -> None:
    described = packed(str(tmp_path), rows(), ["x", "y", "y", "x", "z", "x", "y"])
    hashed: list[Path] = []
    real = files.sha256

    def spy(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(files, "sha256", spy)
    open_shards(str(tmp_path), described, cache)
    open_shard(str(tmp_path), described[1], cache)
    assert len(hashed) == 1


@pytest.mark.parametrize("damage", [cut_short, flip_byte, Path.unlink])
def test_a_damaged_pack_is_named(tmp_path: Path, cache: Path, damage: Any) -> None:
    described = packed(str(tmp_path), rows(), ["x", "y", "y", "x", "z", "x", "y"])
    damage(tmp_path / described[0]["vectors_path"])
    with pytest.raises(ShardDamaged, match=r"packs/run/00000\.arrow"):
        open_shards(str(tmp_path), described[1:2], cache)


def test_merged_shards_are_one_in_which_each_product_is_once(tmp_path: Path, cache: Path) -> None:
    source = rows()
    described = packed(str(tmp_path), source, ["x", "y", "y", "x", "z", "x", "y"])
    merged = open_merged(str(tmp_path), described, cache)
    everything = opened(tmp_path, written(str(tmp_path), source), cache)
    assert merged.products == len(set(NAMES))
    assert merged.image_ids.to_pylist() == everything.image_ids.to_pylist()
    assert np.array_equal(merged.vectors, everything.vectors)
    assert np.array_equal(merged.product, everything.product)


def test_a_slug_is_a_safe_and_unique_file_name() -> None:
    categories = [
        "women/dresses",
        "women dresses",
        "Women/Dresses",
        "../../etc",
        "服/裤",
        "été",
        "a" * 5000,
        "a" * 5001,
        " ",
    ]
    slugs = [slug(category) for category in categories]
    assert len(set(slugs)) == len(categories)
    assert slugs[0].startswith("women-dresses-")
    for name in slugs:
        assert name.isascii() and len(name) <= 53 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
