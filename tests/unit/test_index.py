"""The index of a category: its choice by size, training, filling, and nprobe from a recall target."""

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.config import IndexSettings
from lookalike.kernels.index import shards
from lookalike.kernels.index.build import create_index, fill_index, measure_quantization_error, train_index
from lookalike.kernels.index.choose_search import choose_exact_search, choose_search
from lookalike.kernels.index.search import SearchSpec
from lookalike.kernels.index.shards import Shard, open_shard
from lookalike.kernels.index.spec import IndexSpec, choose_index, choose_subquantizers

DEFAULT = IndexSettings()
SMALL = IndexSettings(exact_below=500, pq_above=1_000, candidates=50, pack_below=1)


def clustered(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Clusters of few intrinsic dimensions, which are as hard to search as real embeddings."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(50, 8))[rng.integers(50, size=n)] + 0.3 * rng.normal(size=(n, 8))
    vectors = np.sin(points @ rng.normal(size=(8, dim))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def batches(vectors: np.ndarray, first_id: int = 0) -> list[pa.RecordBatch]:
    """The columns that `fill` takes, in batches of 100 rows; ids spread as hashes are."""
    n, dim = vectors.shape
    names = [f"p{first_id + number:06d}" for number in range(n)]
    table = pa.table(
        {
            "product_id": names,
            "image_id": names,
            "vector_id": (first_id + np.arange(n)) * 1_000_003 * 2**20 % 2**60,
            "available": np.ones(n, bool),
            "embedding": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * dim, vectors.ravel()),
        }
    )
    return table.to_batches(100)


def built(tmp_path: Path, vectors: np.ndarray, spec: IndexSpec, n_shards: int = 1) -> list[Shard]:
    trained = train_index(spec, vectors, 0) if spec.train_images else create_index(spec, vectors.shape[1])
    opened = []
    for number in range(n_shards):
        index = faiss.clone_index(trained)
        rows = fill_index(index, batches(vectors[number::n_shards], number * len(vectors)))
        row = shards.write_shard(str(tmp_path), "c", "v", "run", number, index, rows, "m")
        opened.append(open_shard(str(tmp_path), {**row, "shard": number}, tmp_path / "cache"))
    return opened


def brute_force_recall(opened: list[Shard], nprobe: int, count: int) -> float:
    """knn_recall@10 of every image, itself left out, by numpy over FAISS's own candidates."""
    vectors = np.concatenate([shard.vectors for shard in opened]).astype(np.float32)
    ids = np.concatenate([shard.vector_ids for shard in opened])
    place = {int(vector_id): row for row, vector_id in enumerate(ids)}
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1)
    least = -np.sort(-scores, axis=1)[:, 9]
    params = faiss.SearchParametersIVF(nprobe=nprobe)  # type: ignore[call-arg]
    found = np.hstack([shard.index.search(vectors, count, params=params)[1] for shard in opened])
    hits = [
        sum(scores[query, place[int(i)]] >= least[query] - 1e-6 for i in line if i >= 0)
        for query, line in enumerate(found)
    ]
    return float(np.minimum(hits, 10).mean() / 10)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 50_000_000), st.integers(1, 4096))
def test_a_spec_is_sound_for_any_size(images: int, dim: int) -> None:
    spec = choose_index(images, dim, DEFAULT)
    assert spec.kind == (
        "exact" if images < DEFAULT.exact_below else "ivf_sq8" if images <= DEFAULT.pq_above else "ivf_pq"
    )
    assert -(-images // DEFAULT.shard_images) <= spec.shards <= images
    assert spec.nlist <= spec.train_images <= images
    assert dim % spec.pq_m == 0 if spec.kind == "ivf_pq" else spec.pq_m == 0
    assert spec.size_bytes > images * dim * 2


@pytest.mark.parametrize(
    ("images", "dim", "factory"),
    [
        (DEFAULT.pack_below - 1, 256, "SQfp16"),
        (DEFAULT.pack_below, 256, "IDMap,Flat"),
        (DEFAULT.exact_below - 1, 256, "IDMap,Flat"),
        (100_000, 1280, "IVF256,SQ8"),
        (200_000, 256, "IVF512,PQ64x4fsr"),
        (400_000, 256, "IVF1024,PQ64x4fsr"),
        (400_000, 1280, "IVF1024,PQ128x4fsr"),
    ],
)
def test_the_index_is_chosen_by_size(images: int, dim: int, factory: str) -> None:
    assert choose_index(images, dim, DEFAULT).factory == factory


@pytest.mark.parametrize(
    ("dim", "m"), [(256, 64), (50, 25), (97, 97), (512, 128), (1280, 128), (2048, 128), (3, 1), (1, 1)]
)
def test_subquantizers_divide_the_dimensions(dim: int, m: int) -> None:
    assert choose_subquantizers(dim) == m


@pytest.mark.parametrize("images", [300, 900, 1_500])
@pytest.mark.parametrize("dim", [6, 50, 97])
def test_the_estimated_size_is_near_the_files(tmp_path: Path, images: int, dim: int) -> None:
    spec = choose_index(images, dim, SMALL)
    built(tmp_path, clustered(images, dim), spec)
    size = sum(path.stat().st_size for path in tmp_path.glob("shards/*/*/*"))
    assert spec.size_bytes == pytest.approx(size, rel=0.5)


def test_training_again_gives_the_same_index() -> None:
    spec = choose_index(2_000, 16, SMALL)
    sample = clustered(2_000, 16)
    faiss.omp_set_num_threads(1)
    first, second = (faiss.serialize_index(train_index(spec, sample, 3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, faiss.serialize_index(train_index(spec, sample, 4)))


def test_filling_keeps_ids_and_vectors() -> None:
    vectors = clustered(1_000, 50)
    spec = choose_index(1_000, 50, SMALL)
    index = train_index(spec, vectors, 0)
    rows = fill_index(index, batches(vectors))
    assert (spec.kind, index.ntotal) == ("ivf_sq8", 1_000)
    assert np.array_equal(rows.vectors, vectors.astype(np.float16))
    everywhere = faiss.SearchParametersIVF(nprobe=index.nlist)  # type: ignore[call-arg]
    _, found = index.search(vectors[:50], 1, params=everywhere)
    assert np.mean(found[:, 0] == rows.vector_ids[:50]) > 0.95


@pytest.mark.parametrize("images", [900, 3_000])
@pytest.mark.parametrize("n_shards", [1, 3])
def test_the_search_reaches_the_target_and_its_recall_is_as_measured(
    tmp_path: Path, images: int, n_shards: int
) -> None:
    spec = choose_index(images, 24, SMALL)
    opened = built(tmp_path, clustered(images, 24), spec, n_shards)
    search, recall = choose_search(opened, spec, SMALL)
    assert recall is not None and recall >= SMALL.knn_recall_target
    assert recall == pytest.approx(brute_force_recall(opened, search.nprobe, search.candidates), abs=0.02)
    assert search.nprobe == 1 or brute_force_recall(opened, 1, search.candidates) < recall


def test_coarse_codes_take_more_candidates(tmp_path: Path) -> None:
    spec = choose_index(3_000, 24, SMALL)
    assert spec.kind == "ivf_pq"
    few = SMALL.model_copy(update={"candidates": 12})
    search, recall = choose_search(built(tmp_path, clustered(3_000, 24), spec), spec, few)
    assert 12 < search.candidates <= 8 * 12
    assert recall is not None and recall > 0.9


def test_a_higher_target_takes_more_lists(tmp_path: Path) -> None:
    spec = choose_index(3_000, 24, SMALL)
    opened = built(tmp_path, clustered(3_000, 24), spec)
    chosen = [
        choose_search(opened, spec, SMALL.model_copy(update={"knn_recall_target": t}))[0].nprobe
        for t in (0.3, 0.9, 0.99)
    ]
    assert chosen == sorted(chosen) and chosen[0] < chosen[-1] <= spec.nlist


def test_exact_duplicates_count_as_found(tmp_path: Path) -> None:
    vectors = np.repeat(clustered(10, 16), 60, axis=0)
    spec = choose_index(len(vectors), 16, SMALL)
    _, recall = choose_search(built(tmp_path, vectors, spec), spec, SMALL)
    assert recall == 1.0


@pytest.mark.parametrize(("images", "expected"), [(1, None), (2, 1.0), (40, 1.0)])
def test_an_exact_index_has_no_lists(tmp_path: Path, images: int, expected: float | None) -> None:
    spec = choose_index(images, 16, SMALL)
    assert choose_search(built(tmp_path, clustered(images, 16), spec), spec, SMALL) == (SearchSpec(0, 50), expected)


@pytest.mark.parametrize(("images", "expected"), [(1, None), (2, 1.0), (40, 1.0)])
def test_an_exact_search_is_known_without_a_look(tmp_path: Path, images: int, expected: float | None) -> None:
    spec = choose_index(images, 16, SMALL)
    found = choose_search(built(tmp_path, clustered(images, 16), spec), spec, SMALL)
    assert choose_exact_search(images, images, SMALL) == found == (SearchSpec(0, 50), expected)
    assert choose_exact_search(7, 3, SMALL)[0].candidates == 150


@pytest.mark.parametrize("images", [900, 3_000])
def test_the_quantization_error_is_the_distance_to_what_is_reconstructed(images: int) -> None:
    vectors = clustered(images, 24)
    spec = choose_index(images, 24, SMALL)
    index = train_index(spec, vectors, 0)
    error = measure_quantization_error(index, vectors)
    index.add(vectors)
    index.make_direct_map()
    kept = np.stack([index.reconstruct(row) for row in range(images)])
    assert error == pytest.approx(float(((kept - vectors) ** 2).sum(axis=1).mean()), rel=1e-3)
    assert measure_quantization_error(index, clustered(images, 24, seed=9)) > error
