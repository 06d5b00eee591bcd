"""The search kernel against brute force in numpy over the same float16 vectors."""

from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest
from tests.vectors import unit

from lookalike.kernels.index import shards
from lookalike.kernels.index.search import Gallery, Matches, SearchSpec, search, search_similar, to_float32
from lookalike.kernels.index.shards import ShardRows, open_shard


def clustered(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dim))
    return unit(centres[rng.integers(20, size=n)] + 0.4 * rng.normal(size=(n, dim)))


def rows_of(product_ids: Sequence[str], vectors: np.ndarray, available: np.ndarray | None = None) -> ShardRows:
    n = len(product_ids)
    return ShardRows(
        np.random.default_rng(7).permutation(n).astype(np.int64) * (2**60 // n),
        pa.array(product_ids, pa.string()),
        pa.array([f"i{number:05d}" for number in range(n)], pa.string()),
        np.ones(n, bool) if available is None else available,
        vectors.astype(np.float16),
    )


def gallery_of(
    tmp_path: Path, rows: ShardRows, parts: np.ndarray, factory: str = "IDMap,Flat", spec: SearchSpec | None = None
) -> Gallery:
    """`rows` split into shards by `parts`, written and opened again."""
    vectors = to_float32(rows.vectors)
    empty = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    empty.train(vectors)
    opened = []
    for number in np.unique(parts):
        here = np.flatnonzero(parts == number)
        index = faiss.clone_index(empty)
        index.add_with_ids(vectors[here], rows.vector_ids[here])
        part = ShardRows(
            rows.vector_ids[here],
            rows.product_ids.take(pa.array(here)),
            rows.image_ids.take(pa.array(here)),
            rows.available[here],
            rows.vectors[here],
        )
        row = shards.write_shard(str(tmp_path), "c", f"v{len(np.unique(parts))}", "run", int(number), index, part, "m")
        opened.append(open_shard(str(tmp_path), {**row, "shard": int(number)}, tmp_path / "cache"))
    return Gallery(opened, spec or SearchSpec(0, 20))


def whole(rows: ShardRows) -> np.ndarray:
    return np.zeros(len(rows.vector_ids), int)


def by_product(rows: ShardRows, n_shards: int) -> np.ndarray:
    return np.array([sum(p.encode()) % n_shards for p in rows.product_ids.to_pylist()])


def listed(gallery: Gallery, matches: Matches) -> dict[int, list[tuple[str, str, float]]]:
    """Matches by group, as (product_id, image_id, score); checks order and ranks on the way."""
    lists: dict[int, list[tuple[str, str, float]]] = {}
    products = gallery.take("product_id", matches.row).to_pylist()
    images = gallery.take("image_id", matches.row).to_pylist()
    for group, rank, product, image, score in zip(
        matches.group, matches.rank, products, images, matches.score, strict=True
    ):
        found = lists.setdefault(int(group), [])
        found.append((product, image, float(score)))
        assert rank == len(found)
    assert list(lists) == sorted(lists)
    return lists


def brute_force(rows: ShardRows, queries: np.ndarray, k: int, own: str | None = None) -> list[tuple[str, float]]:
    """(product_id, score) of the k best available products by the best pair of images, one row at a time."""
    best: dict[str, float] = {}
    scores = queries.astype(np.float32) @ rows.vectors.astype(np.float32).T
    for product, available, score in zip(rows.product_ids.to_pylist(), rows.available, scores.max(axis=0), strict=True):
        if available and product != own:
            best[product] = max(best.get(product, -2.0), min(float(score), 1.0))
    return sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


def assert_similar_is_exact(gallery: Gallery, rows: ShardRows, k: int) -> None:
    names = rows.product_ids.to_pylist()
    seen = set()
    for place, shard in enumerate(gallery.shards):
        lists = listed(gallery, search_similar(gallery, place, range(shard.products), k))
        for number in range(shard.products):
            own = shard.product_ids[int(shard.product_starts[number])].as_py()
            seen.add(own)
            queries = rows.vectors[[name == own for name in names]]
            truth = brute_force(rows, queries, k, own)
            found = lists.get(number, [])
            assert [score for _, _, score in found] == pytest.approx([score for _, score in truth], abs=1e-6)
            assert len({product for product, _, _ in found} | {own}) == len(found) + 1
            assert {p for p, _, s in found if s > truth[-1][1] + 1e-6} <= {p for p, _ in truth}
    assert seen == set(names)


@pytest.mark.parametrize("images_per_product", [1, 3])
@pytest.mark.parametrize("n_shards", [1, 3])
def test_exact_index_finds_what_brute_force_finds(tmp_path: Path, images_per_product: int, n_shards: int) -> None:
    rng = np.random.default_rng(1)
    names = [f"p{number // images_per_product:03d}" for number in range(240)]
    rows = rows_of(rng.permutation(names).tolist(), clustered(240, 24), rng.random(240) < 0.8)
    gallery = gallery_of(tmp_path, rows, by_product(rows, n_shards))
    assert len(gallery.shards) == n_shards
    assert_similar_is_exact(gallery, rows, k=7)


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "IVF8,PQ12x4fsr"])
def test_ivf_with_all_lists_finds_what_brute_force_finds(tmp_path: Path, factory: str) -> None:
    rows = rows_of([f"p{number // 2:03d}" for number in range(600)], clustered(600, 24))
    gallery = gallery_of(tmp_path, rows, by_product(rows, 2), factory, SearchSpec(8, 150))
    assert_similar_is_exact(gallery, rows, k=5)


def test_several_shards_find_what_one_finds(tmp_path: Path) -> None:
    rows = rows_of([f"p{number // 2:03d}" for number in range(300)], clustered(300, 16))
    queries = clustered(40, 16, seed=3)
    one, three = (gallery_of(tmp_path, rows, by_product(rows, n)) for n in (1, 3))
    assert listed(one, search(one, queries, 10)) == listed(three, search(three, queries, 10))


def test_search_finds_the_query_itself_first_and_leaves_nobody_out(tmp_path: Path) -> None:
    rows = rows_of([f"p{number:03d}" for number in range(100)], clustered(100, 16))
    gallery = gallery_of(tmp_path, rows, whole(rows))
    lists = listed(gallery, search(gallery, rows.vectors[:10].astype(np.float32), 3))
    assert [lists[number][0][:2] for number in range(10)] == [(f"p{n:03d}", f"i{n:05d}") for n in range(10)]


def test_ties_are_ordered_by_product_id_within_and_across_shards(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    names = [f"p{number:02d}" for number in rng.permutation(40)]
    rows = rows_of(names, np.repeat(clustered(1, 16), 40, axis=0))
    for n_shards in (1, 2, 4):
        gallery = gallery_of(tmp_path, rows, by_product(rows, n_shards), spec=SearchSpec(0, 40))
        (found,) = listed(gallery, search(gallery, rows.vectors[:1].astype(np.float32), 6)).values()
        assert [product for product, _, _ in found] == [f"p{number:02d}" for number in range(6)]
        assert all(score <= 1 for _, _, score in found)


def test_many_images_of_one_product_do_not_crowd_out_the_others(tmp_path: Path) -> None:
    vectors = clustered(500, 16)
    crowd = unit(vectors[:1] + 0.01 * np.random.default_rng(2).normal(size=(470, 16)))
    rows = rows_of(["crowd"] * 470 + [f"p{number:02d}" for number in range(30)], np.vstack([crowd, vectors[:30]]))
    for factory, spec in (("IDMap,Flat", SearchSpec(0, 10)), ("IVF16,SQ8", SearchSpec(1, 10))):
        gallery = gallery_of(tmp_path, rows, whole(rows), factory, spec)
        assert_similar_is_exact_count(gallery, k=8, expected=8)
        assert_similar_is_exact_count(gallery, k=100, expected=30)


def assert_similar_is_exact_count(gallery: Gallery, k: int, expected: int) -> None:
    lists = listed(gallery, search_similar(gallery, 0, range(gallery.shards[0].products), k))
    assert [len(found) for found in lists.values()] == [expected] * gallery.shards[0].products


def test_unavailable_products_are_queries_but_never_results(tmp_path: Path) -> None:
    available = np.arange(60) % 3 == 0
    rows = rows_of([f"p{number:02d}" for number in range(60)], clustered(60, 16), available)
    gallery = gallery_of(tmp_path, rows, whole(rows), spec=SearchSpec(0, 5))
    lists = listed(gallery, search_similar(gallery, 0, range(60), 50))
    assert [len(lists[number]) for number in range(60)] == [19 if number % 3 == 0 else 20 for number in range(60)]
    assert all(int(product[1:]) % 3 == 0 for found in lists.values() for product, _, _ in found)


def test_one_product_alone_has_no_similar_ones(tmp_path: Path) -> None:
    rows = rows_of(["p", "p", "p"], clustered(3, 16))
    gallery = gallery_of(tmp_path, rows, whole(rows))
    assert listed(gallery, search_similar(gallery, 0, range(1), 10)) == {}
    assert [p for p, _, _ in listed(gallery, search(gallery, clustered(1, 16), 10))[0]] == ["p"]


def test_the_best_pair_of_images_is_named(tmp_path: Path) -> None:
    vectors = unit(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0.9, 0.1, 0]]))
    rows = rows_of(["a", "a", "b", "b"], vectors)
    gallery = gallery_of(tmp_path, rows, whole(rows))
    matches = search_similar(gallery, 0, range(1), 5)
    assert listed(gallery, matches)[0][0][:2] == ("b", "i00003")
    assert matches.query.tolist() == [1]


def test_a_block_of_products_gives_what_each_alone_gives(tmp_path: Path) -> None:
    rows = rows_of([f"p{number // 2:03d}" for number in range(200)], clustered(200, 16))
    gallery = gallery_of(tmp_path, rows, by_product(rows, 2))
    together = listed(gallery, search_similar(gallery, 1, range(10, 20), 5))
    for number in range(10):
        assert listed(gallery, search_similar(gallery, 1, range(10 + number, 11 + number), 5))[0] == together[number]


def test_to_float32_is_exact_for_every_finite_float16() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    assert np.array_equal(to_float32(halves), halves.astype(np.float32))
