import datetime
import gc
import hashlib
import itertools
import os
import pwd
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import faiss
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike import FORMAT_VERSION, config, errors, files, reader, schemas
from lookalike.kernels.categories.predictor import Predictor, write_predictor
from lookalike.kernels.index import search, shards
from lookalike.kernels.models import embedder

DIM = 16
NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)

Vectors = NDArray[Any]


class Images:
    """Random images of a category: a few of each product, some products unavailable."""

    def __init__(self, seed: int, products: int = 60, prefix: str = "p") -> None:
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((3 * products, DIM)).astype(np.float32)
        keep = np.arange(3 * products) % 3 <= np.arange(3 * products) // 3 % 3  # one, two or three images
        self.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True))[keep].astype(np.float16)
        number = np.repeat(np.arange(products), 3)[keep]
        self.product_ids = np.array([f"{prefix}{i:03d}" for i in number], dtype=object)
        self.image_ids = np.array([f"{p}-{i}.jpg" for i, p in enumerate(self.product_ids)], dtype=object)
        self.available = rng.random(products)[number] < 0.8

    def nearest(self, query: Vectors, k: int, without: str | None = None) -> list[tuple[str, float]]:
        """The truth, by brute force: (product_id, score) for query embeddings (q, DIM)."""
        scores = (self.vectors.astype(np.float64) @ np.atleast_2d(query).astype(np.float64).T).max(axis=1).clip(max=1)
        best: dict[str, float] = {}
        for product, available, score in zip(self.product_ids, self.available, scores, strict=True):
            if available and product != without:
                best[product] = max(score, best.get(product, -1))
        return sorted(best.items(), key=lambda item: -item[1])[:k]

    def of(self, product_id: str) -> Vectors:
        return self.vectors[self.product_ids == product_id]


def build(
    root: Path,
    category: str,
    version: str,
    images: Images,
    factory: str = "IDMap,Flat",
    n_shards: int = 1,
    model_id: str = "model-1",
    **changes: Any,
) -> None:
    """Shard files and `shards` rows, without Spark."""
    rows = []
    for shard in range(n_shards):
        mine = np.array([zlib.crc32(p.encode()) % n_shards == shard for p in images.product_ids])
        vector_ids = np.array([int(hashlib.sha256(i.encode()).hexdigest()[:15], 16) for i in images.image_ids])
        index = faiss.index_factory(images.vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(images.vectors.astype(np.float32))
        index.add_with_ids(images.vectors[mine].astype(np.float32), vector_ids[mine])
        columns = shards.ShardRows(
            vector_ids[mine],
            pa.array(images.product_ids[mine], pa.string()),
            pa.array(images.image_ids[mine], pa.string()),
            images.available[mine],
            images.vectors[mine],
        )
        row = shards.write_shard(str(root), category, version, "run", shard, index, columns, model_id)
        row |= {"category": category, "version": version, "shard": shard, "factory": factory, "run_id": "run"}
        row |= {"nprobe": 8 if "IVF" in factory else 0, "candidates": 100, "format_version": FORMAT_VERSION}
        rows.append(row | changes)
    table = pa.Table.from_pylist(rows, schema=schemas.SHARDS)
    deltalake.write_deltalake(f"{root}/tables/shards", table, mode="append")


def build_pack(root: Path, version: str, parts: dict[str, Images], model_id: str = "model-1") -> None:
    """One file for the images of many categories, and their `shards` rows."""
    images = list(parts.values())
    ids = np.concatenate([part.image_ids for part in images])
    columns = shards.ShardRows(
        np.array([int(hashlib.sha256(i.encode()).hexdigest()[:15], 16) for i in ids]),
        pa.array(np.concatenate([part.product_ids for part in images]), pa.string()),
        pa.array(ids, pa.string()),
        np.concatenate([part.available for part in images]),
        np.concatenate([part.vectors for part in images]),
    )
    categories = pa.array([category for category, part in parts.items() for _ in part.image_ids])
    rows = shards.write_pack(str(root), f"shards/packs/{version}/00000.arrow", categories, columns, model_id)
    more = {"version": version, "shard": 0, "factory": "SQfp16", "nprobe": 0, "candidates": 50, "run_id": "run"}
    table = pa.Table.from_pylist([row | more for row in rows], schema=schemas.SHARDS)
    deltalake.write_deltalake(f"{root}/tables/shards", table, mode="append")


def publish(root: Path, live: dict[str, str], **changes: Any) -> None:
    """Make `live`, version by category, what is published."""
    row = {"model_id": "model-1", "format_version": FORMAT_VERSION, "published_at": NOW, "run_id": "run"}
    row |= {"shards_table_version": 0, "similar_items_table_version": 0}
    rows = [row | {"category": category, "version": version} | changes for category, version in live.items()]
    table = pa.Table.from_pylist(rows, schema=schemas.PUBLICATIONS)
    deltalake.write_deltalake(f"{root}/tables/publications", table, mode="overwrite")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lookalike"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A catalog with one category, `shoes`, at version `v1`."""
    folder = tmp_path / "my catalog"  # a space, as people have
    build(folder, "shoes", "v1", Images(1))
    publish(folder, {"shoes": "v1"})
    return folder


def assert_matches(found: Sequence[reader.Match], truth: list[tuple[str, float]]) -> None:
    assert [match.product_id for match in found] == [product for product, _ in truth]
    assert [match.score for match in found] == pytest.approx([score for _, score in truth], abs=1e-6)


@pytest.mark.parametrize(("factory", "n_shards"), [("IDMap,Flat", 1), ("IDMap,Flat", 3), ("IVF8,Flat", 2)])
def test_similar_and_search_are_brute_force(tmp_path: Path, factory: str, n_shards: int) -> None:
    images = Images(1)
    build(tmp_path, "shoes", "v1", images, factory, n_shards)
    publish(tmp_path, {"shoes": "v1"})
    catalog = reader.open(str(tmp_path), "shoes")
    assert (catalog.category, catalog.version, catalog.model_id, catalog.dim) == ("shoes", "v1", "model-1", DIM)
    for product in np.unique(images.product_ids):
        assert_matches(catalog.similar(product, 7), images.nearest(images.of(product), 7, without=product))
    for query in np.random.default_rng(2).standard_normal((20, DIM)):
        assert_matches(catalog.search(query, 7), images.nearest(query / np.linalg.norm(query), 7))


def test_a_match_names_the_image_that_is_closest(root: Path) -> None:
    images = Images(1)
    query = images.vectors[np.flatnonzero(images.available)[5]]
    match = reader.open(str(root), "shoes").search(query.tolist(), 1)[0]
    assert match == (match.product_id, match.image_id, match.score)
    assert match.image_id == images.image_ids[np.flatnonzero(images.available)[5]]
    assert match.score == pytest.approx(1, abs=1e-3)


def test_asking_for_more_than_there_is_gives_what_there_is(root: Path) -> None:
    images = Images(1)
    available = set(images.product_ids[images.available])
    catalog = reader.open(str(root), "shoes")
    assert {match.product_id for match in catalog.similar("p000", 1000)} == available - {"p000"}
    assert {match.product_id for match in catalog.search(images.vectors[0], 1000)} == available


def test_a_product_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(errors.ProductUnknown, match=r"'p999'.*shoes version v1"):
        reader.open(str(root), "shoes").similar("p999")


@pytest.mark.parametrize(
    "embedding",
    [np.ones(DIM + 1), np.ones((1, DIM)), np.zeros(DIM), np.full(DIM, np.nan), [np.inf] + [0] * (DIM - 1)],
)
def test_what_no_model_of_the_catalog_made_is_refused(root: Path, embedding: Any) -> None:
    with pytest.raises(errors.ModelMismatch):
        reader.open(str(root), "shoes").search(embedding)


@pytest.mark.parametrize("length", [1e-300, 1e-45, 1e-25, 1e-19, 1.0, 1e19, 1e30, 3e38, 1e300])
def test_an_embedding_may_be_of_any_length(root: Path, length: float) -> None:
    catalog = reader.open(str(root), "shoes")
    direction = np.where(np.arange(DIM) % 3, 1.0, -1.0)  # exact in any of these lengths
    assert catalog.search(length * direction, 7) == catalog.search(direction, 7)
    if 1e-40 < length < 1e38:
        assert catalog.search((length * direction).astype(np.float32), 7) == catalog.search(direction, 7)


def test_an_embedding_may_be_of_half_precision(root: Path) -> None:
    catalog = reader.open(str(root), "shoes")
    halves = np.full(DIM, 6e4, np.float16)  # whose squares float16 can't hold
    assert catalog.search(halves, 7) == catalog.search(np.ones(DIM), 7)


@pytest.mark.parametrize("k", [0, -1])
def test_k_must_be_positive(root: Path, k: int) -> None:
    catalog = reader.open(str(root), "shoes")
    with pytest.raises(ValueError, match="at least 1"):
        catalog.similar("p000", k)
    with pytest.raises(ValueError, match="at least 1"):
        catalog.search(np.ones(DIM), k)


def test_a_folder_that_is_no_catalog_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.RootUnusable, match="is not a catalog"):
        reader.open(str(tmp_path), "shoes")
    with pytest.raises(errors.RootUnusable, match="is not a catalog"):
        reader.open(str(tmp_path / "missing"), "shoes")


def test_a_category_that_is_not_published_is_answered_with_close_names(root: Path) -> None:
    with pytest.raises(errors.NotPublished, match=r"'shoe'.*such as shoes"):
        reader.open(str(root), "shoe")


def test_before_the_first_publication_nothing_is_published(tmp_path: Path) -> None:
    publish(tmp_path, {})
    with pytest.raises(errors.NotPublished, match="nothing is"):
        reader.open(str(tmp_path), "shoes")


def test_a_program_may_end_as_soon_as_it_has_read(root: Path) -> None:
    program = "import sys; from lookalike import reader; reader.open(sys.argv[1], cache=sys.argv[1] + '/cache')"
    for _ in range(4):  # it does not fail each time
        done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_pinned_version_is_read_and_stays(root: Path) -> None:
    build(root, "shoes", "v2", Images(2))
    publish(root, {"shoes": "v2"})
    catalog = reader.open(str(root), "shoes", version="v1")
    assert not catalog.refresh()
    assert catalog.version == "v1"
    assert_matches(catalog.similar("p000", 5), Images(1).nearest(Images(1).of("p000"), 5, without="p000"))
    with pytest.raises(errors.NotPublished, match=r"'v3'.*v1"):
        reader.open(str(root), "shoes", version="v3")


def test_refresh_moves_to_the_live_version_and_back(root: Path) -> None:
    catalog = reader.open(str(root), "shoes")
    assert not catalog.refresh()
    build(root, "shoes", "v2", Images(2))
    assert not catalog.refresh()  # built, but not published
    publish(root, {"shoes": "v2"})
    assert catalog.refresh()
    assert catalog.version == "v2"
    assert_matches(catalog.similar("p000", 5), Images(2).nearest(Images(2).of("p000"), 5, without="p000"))
    publish(root, {"shoes": "v1"})
    assert catalog.refresh()
    assert catalog.version == "v1"


def test_a_refresh_that_fails_leaves_the_old_version_open(root: Path) -> None:
    catalog = reader.open(str(root), "shoes")
    build(root, "shoes", "v2", Images(2))
    publish(root, {"shoes": "v2"})
    next(root.glob("shards/*/v2/*.faiss")).unlink()
    with pytest.raises(errors.ShardDamaged, match="v2"):
        catalog.refresh()
    assert catalog.version == "v1"
    assert_matches(catalog.similar("p000", 5), Images(1).nearest(Images(1).of("p000"), 5, without="p000"))


def test_searches_during_refreshes_see_one_version_or_the_other(root: Path) -> None:
    build(root, "shoes", "v2", Images(2))
    answers = {tuple(p for p, _ in Images(s).nearest(Images(s).of("p000"), 5, without="p000")) for s in (1, 2)}
    catalog = reader.open(str(root), "shoes")
    seen, stop = set(), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            seen.add(tuple(match.product_id for match in catalog.similar("p000", 5)))

    asking = threading.Thread(target=ask)
    asking.start()
    moved = []
    for version in ["v2", "v1"] * 5:
        publish(root, {"shoes": version})
        moved.append(catalog.refresh())
    stop.set()
    asking.join()
    assert all(moved)
    assert seen
    assert seen <= answers


@pytest.mark.parametrize("suffix", ["faiss", "arrow"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(root: Path, suffix: str, damage: str) -> None:
    reader.open(str(root), "shoes")  # its files were checked once, and yet
    file = next(root.glob(f"shards/*/v1/*.{suffix}"))
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(errors.ShardDamaged, match=rf"00000\.{suffix}"):
        reader.open(str(root), "shoes")


def test_a_file_is_hashed_once_until_it_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = files.sha256

    def spy(path: Path) -> str:
        hashed.append(path.suffix)
        return real(path)

    monkeypatch.setattr(files, "sha256", spy)
    reader.open(str(root), "shoes")
    assert sorted(hashed) == [".arrow", ".faiss"]
    reader.open(str(root), "shoes")
    assert len(hashed) == 2
    os.utime(next(root.glob("shards/*/v1/*.faiss")), (1, 1))
    reader.open(str(root), "shoes")
    assert sorted(hashed) == [".arrow", ".faiss", ".faiss"]


def test_files_of_a_remote_root_are_downloaded_once_and_checked(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.is_local
    monkeypatch.setattr(files, "is_local", lambda uri: "/shards/" not in uri and real(uri))
    file = next(root.glob("shards/*/v1/*.faiss"))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"?")
    with pytest.raises(errors.ShardDamaged, match="sha256"):
        reader.open(str(root), "shoes")
    file.write_bytes(content)
    expected = reader.open(str(root), "shoes").similar("p000", 5)
    file.unlink()
    assert reader.open(str(root), "shoes").similar("p000", 5) == expected
    assert {path.read_bytes() for path in cache.glob("*.faiss")} == {content}


@pytest.mark.parametrize("table", ["publications", "shards"])
def test_a_newer_format_is_refused(tmp_path: Path, table: str) -> None:
    newer: dict[str, Any] = {"format_version": FORMAT_VERSION + 1}
    build(tmp_path, "shoes", "v1", Images(1), **(newer if table == "shards" else {}))
    build(tmp_path, "hats", "v1", Images(2))
    publish(tmp_path, {"shoes": "v1", "hats": "v1"})
    if table == "publications":
        publish(tmp_path, {"shoes": "v1"}, **newer)
    with pytest.raises(errors.FormatTooNew, match=rf"shoes.*format {FORMAT_VERSION + 1}.*upgrade"):
        reader.open(str(tmp_path), "shoes")


def test_a_parent_category_covers_what_is_below_it(tmp_path: Path) -> None:
    tops, skirts = Images(1, prefix="t"), Images(2, prefix="s")
    tops.product_ids[tops.product_ids == "t000"] = "both"
    skirts.product_ids[skirts.product_ids == "s000"] = "both"
    for part in (tops, skirts):
        part.available[part.product_ids == "both"] = True
    build(tmp_path, "women/tops", "v1", tops, n_shards=2)
    build(tmp_path, "women/skirts", "v7", skirts, "IVF4,Flat")
    build(tmp_path, "womens-books", "v1", Images(3))
    publish(tmp_path, {"women/tops": "v1", "women/skirts": "v7", "womens-books": "v1"})
    everything = Images(1)
    for column in ("vectors", "product_ids", "image_ids", "available"):
        setattr(everything, column, np.concatenate([getattr(tops, column), getattr(skirts, column)]))

    catalog = reader.open(str(tmp_path), "women")
    for product in ["t001", "s002", "both"]:
        found = catalog.similar(product, 12)
        assert_matches(found, everything.nearest(everything.of(product), 12, without=product))
    query = everything.vectors[7].astype(np.float64)
    query /= np.linalg.norm(query)
    assert_matches(catalog.search(query, 12), everything.nearest(query, 12))

    before = catalog.version
    build(tmp_path, "women/tops", "v2", tops)
    publish(tmp_path, {"women/tops": "v2", "women/skirts": "v7"})
    assert catalog.refresh()
    assert catalog.version != before


def test_a_parent_category_covers_packs_and_others_below_it(tmp_path: Path) -> None:
    parts = {
        f"women/c{number:02d}": Images(number, products=1 + number % 7, prefix=f"c{number}-") for number in range(40)
    }
    for part in (parts["women/c03"], parts["women/c11"], parts["women/c20"]):
        part.product_ids[part.product_ids == part.product_ids[0]] = "both"
        part.available[part.product_ids == "both"] = True
    alone = {name: parts[name] for name in ("women/c20", "women/c21")}
    pack = {name: part for name, part in parts.items() if name not in alone}
    build_pack(tmp_path, "v1", pack | {"men/shoes": Images(99)})
    for name, part in alone.items():
        build(tmp_path, name, "v1", part)
    publish(tmp_path, dict.fromkeys([*parts, "men/shoes"], "v1"))
    everything = Images(1)
    for column in ("vectors", "product_ids", "image_ids", "available"):
        setattr(everything, column, np.concatenate([getattr(part, column) for part in parts.values()]))

    catalog = reader.open(str(tmp_path), "women")
    for product in ["both", "c5-000", "c20-001", "c39-002"]:
        truth = everything.nearest(everything.of(product), 30, without=product)
        assert_matches(catalog.similar(product, 30), truth)
    query = np.random.default_rng(0).standard_normal(DIM)
    assert_matches(catalog.search(query, 1000), everything.nearest(query / np.linalg.norm(query), 1000))
    child = reader.open(str(tmp_path), "women/c05")
    assert_matches(child.similar("c5-000", 9), parts["women/c05"].nearest(parts["women/c05"].of("c5-000"), 9, "c5-000"))


def test_one_of_a_pack_is_replaced_alone(tmp_path: Path) -> None:
    build_pack(tmp_path, "v1", {"women/a": Images(1, prefix="a"), "women/b": Images(2, prefix="b")})
    publish(tmp_path, {"women/a": "v1", "women/b": "v1"})
    catalog = reader.open(str(tmp_path), "women")
    build_pack(tmp_path, "v2", {"women/b": Images(3, prefix="n")})
    publish(tmp_path, {"women/a": "v1", "women/b": "v2"})
    assert catalog.refresh()
    found = {match.product_id[0] for match in catalog.search(np.ones(DIM), 1000)}
    assert found == {"a", "n"}


def test_a_published_parent_is_itself_alone(tmp_path: Path) -> None:
    build(tmp_path, "women", "v1", Images(1))
    build(tmp_path, "women/tops", "v1", Images(2, prefix="t"))
    publish(tmp_path, {"women": "v1", "women/tops": "v1"})
    found = reader.open(str(tmp_path), "women").similar("p000", 1000)
    assert all(match.product_id.startswith("p") for match in found)


def test_categories_of_several_models_are_not_mixed(tmp_path: Path) -> None:
    build(tmp_path, "women/tops", "v1", Images(1), model_id="model-1")
    build(tmp_path, "women/skirts", "v1", Images(2), model_id="model-2")
    publish(tmp_path, {"women/tops": "v1", "women/skirts": "v1"})
    with pytest.raises(errors.ModelMismatch, match=r"model-1.*model-2|model-2.*model-1"):
        reader.open(str(tmp_path), "women")


def test_a_service_needs_neither_spark_nor_torch(root: Path) -> None:
    """In a process of its own, where those can't be imported."""
    program = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pyspark", "delta", "torch", "torchvision", "timm", "PIL", "pydantic", "pandas"}:
            raise ImportError(f"{name} is not for the reader")

sys.meta_path.insert(0, Blocker())
from lookalike import errors, reader

catalog = reader.open(sys.argv[1], "shoes")
print(catalog.refresh(), catalog.similar("p000", 1)[0].product_id, len(catalog.search([1.0] * catalog.dim, 3)))
try:
    catalog.search_image("p000.jpg")
except errors.ModelInvalid as error:
    print(str(error).rpartition(": ")[2])
"""
    ran = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    best = Images(1).nearest(Images(1).of("p000"), 1, without="p000")[0][0]
    assert ran.stdout.splitlines() == [f"False {best} 3", "pip install 'lookalike[model]'"]


Pictures = tuple[Path, Images, str]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Six pictures, each a product, in a folder; their images as the default model embeds them; its model_id."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    for i in range(6):
        coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        coarse.resize((240, 300), Image.Resampling.BICUBIC).save(folder / f"p{i:03d}.png")
    settings = config.load()
    worker = embedder.get_embedder(settings.model, settings.embed, os.cpu_count() or 1, "cpu")
    outcomes = list(worker.embed((path.stem, path.read_bytes()) for path in sorted(folder.glob("*.png"))))
    images = Images(0, products=2)
    images.vectors = np.stack([outcome.embedding for outcome in outcomes if outcome.embedding is not None]).astype(
        np.float16
    )
    images.product_ids = images.image_ids = np.array([outcome.key for outcome in outcomes], dtype=object)
    images.available = np.ones(6, dtype=bool)
    return folder, images, worker.model_id


def test_a_picture_finds_its_product(tmp_path: Path, pictures: Pictures) -> None:
    folder, images, model_id = pictures
    build(tmp_path, "shoes", "v1", images, model_id=model_id)
    publish(tmp_path, {"shoes": "v1"})
    catalog = reader.open(str(tmp_path), "shoes")
    for product, vector in zip(images.product_ids, images.vectors, strict=True):
        truth = images.nearest(vector, 3)
        found = catalog.search_image(folder / f"{product}.png", 3)
        assert [match.product_id for match in found] == [name for name, _ in truth]
        assert found[0].product_id == product
        assert found[0].score == pytest.approx(1, abs=1e-3)


def test_a_box_asks_about_a_part_of_a_picture(tmp_path: Path, pictures: Pictures) -> None:
    folder, images, model_id = pictures
    build(tmp_path, "shoes", "v1", images, model_id=model_id)
    publish(tmp_path, {"shoes": "v1"})
    catalog = reader.open(str(tmp_path), "shoes")
    both = Image.new("RGB", (480, 300))
    for place, product in enumerate(("p001", "p004")):
        with Image.open(folder / f"{product}.png") as picture:
            both.paste(picture, (240 * place, 0))
    both.save(tmp_path / "both.png")
    for product, box in (("p001", (0, 0, 0.5, 1)), ("p004", (0.5, 0, 1, 1))):
        (match,) = catalog.search_image(tmp_path / "both.png", 1, box=box)
        assert match.product_id == product
        assert match.score == pytest.approx(1, abs=1e-3)
    with pytest.raises(errors.BoxInvalid, match="divide pixels"):
        catalog.search_image(tmp_path / "both.png", 1, box=(0, 0, 240, 300))
    with pytest.raises(errors.ImageRejected, match="too small"):
        catalog.search_image(tmp_path / "both.png", 1, box=(0, 0, 0.01, 1))


def test_a_picture_that_is_none_is_named(tmp_path: Path, pictures: Pictures) -> None:
    _, images, model_id = pictures
    build(tmp_path, "shoes", "v1", images, model_id=model_id)
    publish(tmp_path, {"shoes": "v1"})
    catalog = reader.open(str(tmp_path), "shoes")
    (tmp_path / "notes.jpg").write_text("no picture")
    with pytest.raises(errors.ImageRejected, match=r"notes.jpg: not an image"):
        catalog.search_image(tmp_path / "notes.jpg")
    with pytest.raises(errors.ImageRejected, match=r"gone.jpg: unreadable"):
        catalog.search_image(str(tmp_path / "gone.jpg"))


def test_a_picture_is_not_compared_with_embeddings_of_another_model(root: Path, pictures: Pictures) -> None:
    folder, _, model_id = pictures
    with pytest.raises(errors.ModelMismatch, match=rf"model-1.*{model_id}"):
        reader.open(str(root), "shoes").search_image(folder / "p000.png")


def test_other_tools_open_the_tables(tmp_path: Path) -> None:
    build(tmp_path, "shoes", "v1", Images(1))
    table = f"{tmp_path}/tables/shards"
    expected = [("shoes", "v1", 0, len(Images(1).image_ids))]
    columns = ["category", "version", "shard", "ntotal"]
    assert pl.read_delta(table).select(columns).rows() == expected
    frame = deltalake.DeltaTable(table).to_pandas()[columns]
    assert list(frame.itertuples(index=False, name=None)) == expected
    dataset = deltalake.DeltaTable(table).to_pyarrow_dataset()
    assert duckdb.from_arrow(dataset).project(", ".join(columns)).fetchall() == expected


def test_the_path_may_be_relative_or_a_uri(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    expected = reader.open(str(root), "shoes").similar("p000")
    assert reader.open(root.name, "shoes").similar("p000") == expected
    assert reader.open(f"file://{root}", "shoes").similar("p000") == expected


def fit_predictor(
    root: Path,
    model_id: str = "model-1",
    fitted_at: datetime.datetime = NOW,
    shift: int = 0,
    categories: tuple[str, ...] = ("bags", "shoes", "shoes/boots"),
    dim: int = DIM,
) -> Path:
    """A predictor without Spark: each category has a direction; `shift` moves the categories round."""
    directions = np.eye(dim, dtype=np.float32)[: len(categories)]
    code = (np.arange(len(categories)) + shift) % len(categories)
    bias = np.zeros(len(categories), np.float32)
    predictor = Predictor(categories, np.arange(len(categories)), 8 * directions[np.argsort(code)], bias, directions,
                          code, 1, 1.0, 0.1, 0.5, 1.0)  # fmt: skip
    path = root / "categories" / f"{fitted_at:%H%M}{model_id}.npz"
    path.parent.mkdir(exist_ok=True)
    write_predictor(path, predictor)
    row = dict.fromkeys(schemas.CATEGORY_PREDICTORS.names, 0) | {"model_id": model_id, "fitted_at": fitted_at}
    row |= {"path": f"categories/{path.name}", "sha256": files.sha256(path), "size_bytes": path.stat().st_size}
    row |= {"format_version": FORMAT_VERSION, "inputs": "x", "run_id": "run", "figures": [], "same_product_reason": ""}
    table = pa.Table.from_pylist([row], schema=schemas.CATEGORY_PREDICTORS)
    deltalake.write_deltalake(f"{root}/tables/category_predictors", table, mode="append")
    return path


Tree = tuple[Path, dict[str, Images]]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A catalog of three categories, two of which share a file, that knows how to tell them apart."""
    parts = {"bags": Images(2, prefix="b"), "shoes/boots": Images(3, prefix="t")}
    build(tmp_path, "shoes", "v1", Images(1))
    build_pack(tmp_path, "v1", parts)
    publish(tmp_path, {"shoes": "v1", "bags": "v1", "shoes/boots": "v1"})
    return tmp_path, {"shoes": Images(1), **parts}


def query_of(place: int) -> Vectors:
    return np.eye(DIM)[place] + 0.2 * np.random.default_rng(place).standard_normal(DIM)


def test_a_search_without_a_category_goes_to_the_probable_ones(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root, parts = tree
    fit_predictor(root)
    opened: list[Any] = []
    open_galleries: Any = search.open_galleries

    def spy(root: Any, rows: Any, *rest: Any) -> Any:
        opened.extend(rows)
        return open_galleries(root, rows, *rest)

    monkeypatch.setattr(search, "open_galleries", spy)
    catalog = reader.open(str(root))
    for place, category in enumerate(("bags", "shoes", "shoes/boots")):
        query = query_of(place)
        first, second, third = catalog.predict_category(query)
        assert first.category == category
        assert first.probability > second.probability > third.probability
        assert sum(found.probability for found in (first, second, third)) == pytest.approx(1)
        assert catalog.predict_category(query, 1) == [first]
        assert_matches(
            catalog.search(query, 5, categories=1), parts[category].nearest(query / np.linalg.norm(query), 5)
        )
        assert len(opened) == place + 1
        assert catalog.search(query, 5, categories=1) == catalog.search(4 * query, 5, categories=1)
    both = {first.category, second.category}
    truth = [found for part in both for found in parts[part].nearest(query / np.linalg.norm(query), 5)]
    truth = sorted(truth, key=lambda item: -item[1])[:5]
    assert_matches(catalog.search(query, 5, categories=2), truth)
    everything = [found for part in parts.values() for found in part.nearest(query / np.linalg.norm(query), 5)]
    everything = sorted(everything, key=lambda item: -item[1])[:5]
    assert_matches(catalog.search(query, 5), everything)
    assert catalog.search(query, 5, categories=9) == catalog.search(query, 5)
    with pytest.raises(ValueError, match="at least 1"):
        catalog.search(query, 5, categories=0)
    with pytest.raises(ValueError, match="a version is one of a category"):
        reader.open(str(root), version="v1")


def test_predictions_stay_in_the_catalog_at_hand(tree: Tree) -> None:
    root, _ = tree
    fit_predictor(root)
    catalog = reader.open(str(root), "shoes/boots")
    assert catalog.predict_category(query_of(0)) == [("shoes/boots", 1.0)]
    publish(root, {"shoes": "v1", "bags": "v1"})
    assert {found.category for found in reader.open(str(root)).predict_category(query_of(2))} == {"shoes", "bags"}


def test_the_predictor_fitted_last_serves_after_a_refresh(tree: Tree) -> None:
    root, _ = tree
    fit_predictor(root)
    catalog = reader.open(str(root))
    later = NOW + datetime.timedelta(hours=1)
    fit_predictor(root, fitted_at=later, shift=1)
    fit_predictor(root, fitted_at=later + datetime.timedelta(hours=1), model_id="model-2")
    fresh = reader.open(str(root))
    assert fresh.predict_category(query_of(0))[0].category == "shoes"
    assert catalog.predict_category(query_of(0))[0].category == "shoes", "it is read when it is first needed"
    fit_predictor(root, fitted_at=later + datetime.timedelta(hours=2), shift=0)
    assert catalog.predict_category(query_of(0))[0].category == "shoes"
    assert not catalog.refresh()
    assert catalog.predict_category(query_of(0))[0].category == "bags"


def test_what_is_not_fitted_or_damaged_is_named(tree: Tree) -> None:
    root, _ = tree
    with pytest.raises(errors.NotPredictable, match="run fit_categories"):
        reader.open(str(root)).predict_category(query_of(0))
    path = fit_predictor(root)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(errors.PredictorDamaged, match=rf"{path.name} has .* bytes .*run fit_categories"):
        reader.open(str(root)).search(query_of(0), categories=1)
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(errors.PredictorDamaged, match=rf"{path.name} differs from its sha256"):
        reader.open(str(root)).search(query_of(0), categories=1)
    path.unlink()
    with pytest.raises(errors.PredictorDamaged, match=rf"{path.name} is missing"):
        reader.open(str(root)).search(query_of(0), categories=1)


def test_predicting_imports_neither_torch_nor_scikit_learn(tree: Tree) -> None:
    root, _ = tree
    fit_predictor(root)
    program = (
        "import sys; from lookalike import reader\n"
        f"catalog = reader.open({str(root)!r}); print(catalog.predict_category([1.0] * {DIM}))\n"
        "print([name for name in ('torch', 'pyspark', 'sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_searches_while_another_thread_refreshes_neither_fail_nor_grow(root: Path) -> None:
    """For a few seconds; for a minute where `LOOKALIKE_SOAK_S=60` says so."""
    build_pack(root, "v1", {"bags": Images(2, prefix="b"), "hats": Images(3, prefix="h")})
    build(root, "shoes", "v2", Images(4), "IVF4,Flat", 2)
    live = {"bags": "v1", "hats": "v1"}
    publish(root, live | {"shoes": "v1"})
    fit_predictor(root)
    catalog = reader.open(str(root))
    stop = threading.Event()
    failures: list[BaseException] = []

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                query = rng.standard_normal(DIM)
                assert len(catalog.search(query, 5)) == len(catalog.similar("b001", 5)) == 5
                assert catalog.search(query, 3, categories=1)
        except BaseException as error:
            failures.append(error)

    versions = itertools.cycle(["v2", "v1"])

    def refresh(seconds: float) -> int:
        moves, end = 0, time.monotonic() + seconds
        while (time.monotonic() < end or moves < 5) and not failures:
            publish(root, live | {"shoes": next(versions)})
            assert catalog.refresh()
            moves += 1
        return moves

    asking = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in asking:
        thread.start()
    seconds = float(os.environ.get("LOOKALIKE_SOAK_S", "4"))
    try:
        refresh(seconds / 2)
        before = measure_memory()
        moves = refresh(seconds / 2)
    finally:
        stop.set()
        for thread in asking:
            thread.join()
    assert not failures
    assert measure_memory() - before < 40 * 2**20 + moves * 10_000  # of each move the tables' logs keep a file


def measure_memory() -> int:
    """Bytes that this process holds of the machine's memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


BARE = """
import os, pathlib, pwd, sys, tempfile
from lookalike import reader

root, scratch, uid = sys.argv[1:]
for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME"):
    os.environ.pop(name, None)
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
{change}
catalog = reader.open(root, "shoes")
print(catalog.similar("p000", 1)[0].product_id, len(catalog.search([1.0] * catalog.dim, 3)), catalog.refresh())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize(
    "change",
    [
        "tempfile.tempdir = scratch",
        "tempfile.tempdir = scratch; os.environ['HOME'] = '/'",
        "tempfile.tempdir = scratch; os.environ['XDG_CACHE_HOME'] = root",
        "tempfile.gettempdir = lambda: open('/no/place/to/write')",
    ],
    ids=["no home", "a home of another", "a cache folder of another", "no place to write"],
)
def test_a_bare_number_reads_a_root_that_it_can_not_write_to(root: Path, change: str) -> None:
    """As containers run: a user with neither HOME nor a passwd entry."""
    uid = next(number for number in range(54321, 64321) if not has_passwd_entry(number))
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is root's alone
        Path(folder).chmod(0o755)
        scratch = Path(folder, "scratch")
        scratch.mkdir()
        os.chown(scratch, uid, uid)
        copy = shutil.copytree(root, Path(folder, "catalog"))
        program = BARE.format(change=change)
        ran = subprocess.run(
            [sys.executable, "-c", program, str(copy), str(scratch), str(uid)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        best = Images(1).nearest(Images(1).of("p000"), 1, without="p000")[0][0]
        assert ran.stdout.splitlines() == [f"{best} 3 False"]
        marked = list(Path(folder).rglob("*.checked"))
        assert len(marked) == (0 if "gettempdir" in change else 2)
        assert all(mark.parent == scratch / f"lookalike-{uid}" for mark in marked)


def has_passwd_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


@pytest.mark.parametrize(
    "name",
    ["a b", "é", "e\u0301", "日本", "a#b", "a+b", "a&b=c;d", "a,b", "a:b", "a@v1", "100%", "%zz", "a'b\"c`d", "a<b>"],
)
def test_odd_names_of_roots_are_taken_as_they_are_written(root: Path, name: str) -> None:
    moved = root.rename(root.parent / name)
    best = Images(1).nearest(Images(1).of("p000"), 1, without="p000")[0][0]
    for place in (str(moved), f"file://{moved}"):
        assert reader.open(place, "shoes").similar("p000", 1)[0].product_id == best
    publish(moved, {"shoes": "v1"})
    assert not reader.open(str(moved), "shoes").refresh()
    assert sorted(path.name for path in root.parent.iterdir()) == sorted(["cache", name])


@pytest.mark.parametrize(
    "name", ["a%20b", "a%C3%A9", "a[1]", "a{b}", "a*b", "a?b", "a|b", "a^b", "a\\b", "a\nb", "a\x7fb"]
)
def test_roots_that_some_tool_would_take_for_another_folder_are_refused(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guess would be that all tools read the path as it is written: delta-rs and Spark do not."""
    sign = next(part for part in ("%20", "%C3", *"[{*?|^\\\n\x7f") if part in name)
    moved = root.rename(root.parent / name)
    monkeypatch.chdir(moved.parent)
    (moved / "below").mkdir()
    for place in (str(moved), f"file://{moved}", name, f"s3a://bucket/{name}", f"{moved}/below"):
        with pytest.raises(errors.RootUnusable, match=re.escape(f"do not take {sign!r} in a path")):
            reader.open(place, "shoes")
