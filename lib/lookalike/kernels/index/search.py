"""The one search: ANN candidates of every shard, exact re-rank by the float16 vectors, merged per product.

Goes in: query embeddings and the open shards of one version. Comes out: matches, best first, each another available
product with its best image. The batch stage and the reader both call it, so they agree.

A product's score is that of its best pair of images. Results are ordered by score, then `product_id`. Candidates are
taken by image, so that many images of one product, or unavailable ones, could leave too few products: then the search
is repeated for those queries with more lists and candidates, until it has k products or the gallery has no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.kernels.index.shards import Bools, Float16s, Float32s, Int32s, Int64s, Shard, open_shards

CHUNK_CANDIDATES = 100_000  # candidates in hand at once, so that memory stays bounded
RERANK_CANDIDATES = 2_000  # candidates whose vectors are in hand at once, so that they stay in the processor's cache
WIDENING = 4  # factor by which lists and candidates grow where products lack
_INVALID = np.iinfo(np.int64).max  # a packed candidate that no score and row can give


@dataclass(frozen=True)
class SearchSpec:
    """How wide to search: lists per query (0 for an exact index) and images from each shard."""

    nprobe: int
    candidates: int

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "SearchSpec":
        """As wide as `rows` of `shards` say, if they are searched together."""
        return cls(rows[0]["nprobe"], max(row["candidates"] for row in rows))


@dataclass(frozen=True)
class Gallery:
    """The open shards of one version. A product's number in the gallery is its number in the shard plus the offset."""

    shards: Sequence[Shard]
    spec: SearchSpec

    @cached_property
    def product_offsets(self) -> Int64s:
        return np.cumsum([0] + [shard.products for shard in self.shards])

    @cached_property
    def row_offsets(self) -> Int64s:
        return np.cumsum([0] + [shard.images for shard in self.shards])

    @cached_property
    def available_products(self) -> Bools:
        """(products,) whether the product may stand in results."""
        return np.concatenate([np.logical_or.reduceat(s.available, s.product_starts[:-1]) for s in self.shards])

    @cached_property
    def available_count(self) -> int:
        return int(self.available_products.sum())

    @cached_property
    def widest(self) -> SearchSpec:
        """The search that leaves nothing out."""
        return SearchSpec(max(shard.nlist for shard in self.shards), max(shard.images for shard in self.shards))

    def take(self, column: str, rows: Int64s) -> pa.StringArray:
        """Values of a text column (`product_id` or `image_id`) at rows of the gallery, in their order."""
        place = np.searchsorted(self.row_offsets, rows, side="right") - 1
        order = np.argsort(place, kind="stable")
        parts = [
            getattr(shard, f"{column}s").take(pa.array(rows[place == number] - self.row_offsets[number]))
            for number, shard in enumerate(self.shards)
        ]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        values: pa.StringArray = pa.concat_arrays(parts).take(pa.array(back))
        return values

    def look_up_products(self, rows: Int64s) -> Int64s:
        """Product numbers of rows of the gallery."""
        place = np.searchsorted(self.row_offsets, rows, side="right") - 1
        products = np.empty(len(rows), np.int64)
        for number, shard in enumerate(self.shards):
            here = place == number
            products[here] = shard.product[rows[here] - self.row_offsets[number]] + self.product_offsets[number]
        return products


def open_galleries(
    root: str, versions: Sequence[Sequence[Mapping[str, Any]]], cache: Path | None = None
) -> list[Gallery]:
    """Open `versions`, each given as its rows of `shards` in order; see `open_shards`."""
    shards = iter(open_shards(root, [row for rows in versions for row in rows], cache))
    return [Gallery([next(shards) for _ in rows], SearchSpec.of(rows)) for rows in versions]


@dataclass(frozen=True)
class Matches:
    """Columns of n matches, ordered by group and rank. A group is one question: one product's images, or one image."""

    group: Int64s  # (n,) number of the group
    rank: Int64s  # (n,) from 1, without gaps
    score: Float32s  # (n,) cosine similarity
    query: Int64s  # (n,) number of the group's query embedding of the best pair
    row: Int64s  # (n,) row in the gallery of the matching image; see `Gallery.take`


@dataclass(frozen=True)
class _Queries:
    """Query embeddings with the group of each, ascending, and the product that each group leaves out."""

    embeddings: Float32s  # (q, dim)
    group: Int64s  # (q,)
    own: Int64s  # (groups,) product number in the gallery, or -1

    def only(self, groups: Int64s) -> tuple["_Queries", Int64s]:
        """These groups alone, numbered anew, and the places that their queries had."""
        places = np.flatnonzero(np.isin(self.group, groups))
        renumbered = np.searchsorted(groups, self.group[places])
        return _Queries(self.embeddings[places], renumbered, self.own[groups]), places


def search(gallery: Gallery, embeddings: Float32s, k: int) -> Matches:
    """The k best products for each of `embeddings` (q, dim), L2-normalised. Group and query number are the row's."""
    (q, _) = embeddings.shape
    return _search(gallery, _Queries(embeddings, np.arange(q), np.full(q, -1)), k, gallery.spec)


def search_similar(gallery: Gallery, shard: int, products: range, k: int) -> Matches:
    """The k best other products for consecutive products of a shard.

    `shard` is the place in `gallery.shards`, `products` are numbers in that shard. Group numbers count from the first
    product, query numbers from its first image.
    """
    source = gallery.shards[shard]
    rows = slice(source.product_starts[products.start], source.product_starts[products.stop])
    group = source.product[rows].astype(np.int64) - products.start
    own = np.arange(products.start, products.stop) + gallery.product_offsets[shard]
    return _search(gallery, _Queries(to_float32(source.vectors[rows]), group, own), k, gallery.spec)


def _search(gallery: Gallery, queries: _Queries, k: int, spec: SearchSpec) -> Matches:
    matches = _search_shards(gallery, queries, k, spec)
    wanted = np.minimum(k, gallery.available_count - _is_own_available(gallery, queries.own))
    short = np.flatnonzero(np.bincount(matches.group, minlength=len(queries.own)) < wanted)
    if not len(short) or spec == gallery.widest:
        return matches
    wider = SearchSpec(
        min(spec.nprobe * WIDENING, gallery.widest.nprobe),
        min(max(spec.candidates, k) * WIDENING, gallery.widest.candidates),
    )
    subset, places = queries.only(short)
    more = _search(gallery, subset, k, wider)
    more = Matches(short[more.group], more.rank, more.score, places[more.query], more.row)
    return _replace_groups(matches, more, short)


def _is_own_available(gallery: Gallery, own: Int64s) -> Bools:
    known: Bools = own >= 0
    known[known] = gallery.available_products[own[known]]
    return known


def _replace_groups(matches: Matches, more: Matches, replaced: Int64s) -> Matches:
    """`matches`, but the groups `replaced` as `more` has them."""
    kept = ~np.isin(matches.group, replaced)
    order = np.argsort(np.concatenate([matches.group[kept], more.group]), kind="stable")

    def column(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(matches, name)[kept], getattr(more, name)])[order]

    return Matches(column("group"), column("rank"), column("score"), column("query"), column("row"))


def _search_shards(gallery: Gallery, queries: _Queries, k: int, spec: SearchSpec) -> Matches:
    """The k best products of each group, from those of each image in each shard."""
    parts = []
    for number, shard in enumerate(gallery.shards):
        own = (queries.own - gallery.product_offsets[number])[queries.group]
        query, score, row = _search_shard(shard, queries.embeddings, own, k, spec)
        parts.append((query, score, row + gallery.row_offsets[number]))
    query, score, row = (np.concatenate(column) for column in zip(*parts, strict=True))
    group = queries.group[query]
    if len(gallery.shards) > 1 or len(queries.own) < len(queries.group):
        best = _pick_best_pairs(gallery, group, score, row, query)
        group, score, row, query = group[best], score[best], row[best], query[best]
    rank = _count_in_runs(group) + 1
    top = rank <= k
    return Matches(group[top], rank[top], np.minimum(score[top], np.float32(1)), query[top], row[top])


def _pick_best_pairs(gallery: Gallery, group: Int64s, score: Float32s, row: Int64s, query: Int64s) -> Int64s:
    """Places of the best pair of each group and product, by group, score and `product_id`."""
    product = gallery.look_up_products(row)
    order = np.lexsort((query, row, -score, product, group))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(product[order]) != 0) | (np.diff(group[order]) != 0)
    best = order[first]
    return best[np.lexsort((_rank_names(gallery, row[best]), -score[best], group[best]))]


def _rank_names(gallery: Gallery, rows: Int64s) -> Int64s:
    """Numbers that sort as the `product_id`s of these rows do."""
    if len(gallery.shards) == 1:
        return rows  # a shard is sorted by product_id
    _, first, inverse = np.unique(gallery.look_up_products(rows), return_index=True, return_inverse=True)
    names = gallery.take("product_id", rows[first])
    ranks = np.empty(len(names), np.int64)
    ranks[pc.sort_indices(names).to_numpy()] = np.arange(len(names))
    return ranks[inverse]


def _count_in_runs(values: Int64s) -> Int64s:
    """Number of each element in its run of equal neighbours, from 0."""
    places = np.arange(len(values))
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return places - np.repeat(starts, np.diff(starts, append=len(values)))


def _search_shard(
    shard: Shard, embeddings: Float32s, own: Int64s, k: int, spec: SearchSpec
) -> tuple[Int64s, Float32s, Int64s]:
    """The k best products of a shard for each query alone: query numbers, scores and rows, by query, score and row.

    `own` (q,) is the number in the shard of the product to leave out.
    """
    (q, _) = embeddings.shape
    count = min(max(spec.candidates, k), shard.images)
    step = max(1, CHUNK_CANDIDATES // count)
    parts = []
    for start in range(0, q, step):
        chunk = slice(start, min(start + step, q))
        rows, scores = find_candidates(shard, embeddings[chunk], count, spec.nprobe)
        valid = (rows >= 0) & shard.available[rows] & (shard.product[rows] != own[chunk, None])
        query, score, row = _pick_top_products(shard, rows, scores, valid, k)
        parts.append((query + start, score, row))
    query, score, row = (np.concatenate(column) for column in zip(*parts, strict=True))
    return query, score, row


def find_candidates(shard: Shard, embeddings: Float32s, count: int, nprobe: int) -> tuple[Int64s, Float32s]:
    """Rows (q, count) that the index finds for `embeddings` (q, dim), -1 where it finds fewer, and their exact scores.

    The order is the index's, not that of the scores.
    """
    rows = shard.find_nearest(embeddings, count, nprobe)
    return rows, score_exactly(embeddings, shard.vectors, rows)


def score_exactly(embeddings: Float32s, vectors: Float16s, rows: Int64s) -> Float32s:
    """(q, c) cosine of each of `embeddings` (q, dim) with `vectors[rows]`, where `rows` is (q, c)."""
    q, c = rows.shape
    scores = np.empty((q, c), np.float32)
    step = max(1, RERANK_CANDIDATES // c)
    for top in range(0, q, step):
        for left in range(0, c, RERANK_CANDIDATES):
            block = np.s_[top : top + step, left : left + RERANK_CANDIDATES]
            scores[block] = np.vecdot(embeddings[block[0], None], to_float32(vectors[rows[block]]))
    return scores


def to_float32(halves: Float16s) -> Float32s:
    """The same finite numbers as float32; several times as fast as numpy's own conversion.

    From the highest bit down, a float16 has 1 bit of sign, 5 of exponent and 10 of fraction; a float32 has 1, 8 and 23.
    Widening to int32 copies the sign into bits 31 to 15. The shift by 23 - 10 bits puts the fraction and the 5 bits of
    the exponent in their places. The 3 high bits of the new exponent are then copies of the sign, and are cleared.
    Multiplying by 2 ** (127 - 15), the difference of the exponents' biases, gives the same number as before, exactly.
    """
    bits = halves.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(~0x70000000)  # bits 30 to 28
    floats = bits.view(np.float32)
    floats *= np.float32(2.0**112)
    return floats


def _pick_top_products(
    shard: Shard, rows: Int64s, scores: Float32s, valid: Bools, k: int
) -> tuple[Int64s, Float32s, Int64s]:
    """Best valid row of each product, k products for each query: flat columns query, score and row, best first.

    `rows`, `scores` and `valid` are (q, c). Each candidate becomes one int64, its score above its row (see
    `_pack`): so a sort of plain integers orders each query's candidates by falling score, then by row, and carries the
    rows along. It is several times as fast as `argsort`, which sorts places. Invalid candidates come last.
    """
    candidates = np.where(valid, _pack(_to_falling(scores), rows), _INVALID)
    candidates.sort(axis=1)
    kept = candidates != _INVALID
    sorted_rows = _low(candidates)
    sorted_rows[~kept] = 0  # of _INVALID they lie outside of the shard
    if shard.products < shard.images:
        kept &= _mark_first_of_product(shard.product[sorted_rows])
    kept &= np.cumsum(kept, axis=1) <= k
    query, place = np.nonzero(kept)
    return query, _to_scores(_high(candidates[query, place])), sorted_rows[query, place]


def _mark_first_of_product(products: Int32s) -> Bools:
    """(q, c) whether no place further left in the same line has the same product.

    Each place becomes one int64, product above place (see `_pack`). Sorted, the places of a product stand side by side,
    the leftmost first.
    """
    q, c = products.shape
    by_product = _pack(products, np.arange(c))
    by_product.sort(axis=1)
    repeated = np.zeros((q, c), bool)
    repeated[:, 1:] = _high(by_product[:, 1:]) == _high(by_product[:, :-1])
    first = np.ones((q, c), bool)
    line, column = np.nonzero(repeated)
    first[line, _low(by_product[line, column])] = False
    return first


def _pack(high: Int32s, low: Int64s) -> Int64s:
    """Two numbers in one int64 that sorts by `high`, then by `low`; `low` must be in [0, 2**32), or `high` is lost.

    Bits 63 to 32 hold `high` with its sign, bits 31 to 0 hold `low`.
    """
    return (high.astype(np.int64) << 32) | low


def _high(packed: Int64s) -> Int32s:
    return (packed >> 32).astype(np.int32)


def _low(packed: Int64s) -> Int64s:
    return packed & 0xFFFFFFFF


def _to_falling(scores: Float32s) -> Int32s:
    """Integers that rise as the scores fall; `_to_scores` turns them back, bit by bit.

    A float32 is sign, exponent and fraction, from bit 31 down. Read as int32, these sort like the number if it is not
    negative, and in reverse if it is: then the 31 bits below the sign are flipped.
    """
    return _flip_negative((-scores).view(np.int32))


def _to_scores(falling: Int32s) -> Float32s:
    return -_flip_negative(falling).view(np.float32)


def _flip_negative(bits: Int32s) -> Int32s:
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)  # the shift gives 0, or 32 ones of a negative number
