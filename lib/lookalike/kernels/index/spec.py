"""Which index a category gets, by its size: exact, IVF-SQ8 or IVF-PQ, and of how many lists and shards.

4-bit product quantizers with fast scan are from André, Kermarrec, Le Scouarnec, "Quicker ADC" (2019); the rest is
FAISS's inverted file (Jégou, Douze, Schmid 2011).
"""

import math
from dataclasses import dataclass
from typing import Literal

from lookalike.config import IndexSettings

LEAST_IVF_IMAGES = 256  # fewer can't train a quantizer
LEAST_TRAIN_IMAGES = (
    1_024  # random sample for a small category; FAISS asks for 39 images per centroid of a sub-quantizer
)
LIST_IMAGES = 300  # images per list at least; from about 1,400,000 images on, lists grow with their number
SUBQUANTIZER_DIMS = 4  # dimensions of a 4-bit sub-quantizer at most, as long as MAX_SUBQUANTIZERS lasts
MAX_SUBQUANTIZERS = 128
SHARD_VECTOR_BYTES = 2**30  # float16 vectors in a shard at most, so that a task can hold them
ROW_BYTES = 64  # of a row's ids in the vectors file, roughly
PACKED = "SQfp16"  # the vectors as they stand


@dataclass(frozen=True)
class IndexSpec:
    """What will be built for a category."""

    kind: Literal["exact", "ivf_sq8", "ivf_pq"]
    packed: bool  # shares a file with other categories, which is searched as it stands
    factory: str  # FAISS index factory string; in a pack, of what a reader makes of the vectors
    nlist: int  # 0 for an exact index
    pq_m: int  # 0 without product quantizer
    shards: int
    train_images: int  # random sample that trains; 0 for an exact index
    size_bytes: int  # of all files, estimated


def choose_index(images: int, dim: int, settings: IndexSettings) -> IndexSpec:
    """The index for a category of `images` embeddings of `dim` dimensions."""
    shards = max(math.ceil(images / settings.shard_images), math.ceil(images * dim * 2 / SHARD_VECTOR_BYTES))
    vector_bytes = images * (dim * 2 + ROW_BYTES)
    if images < max(settings.exact_below, LEAST_IVF_IMAGES):
        if shards == 1 and images < settings.pack_below:
            return IndexSpec("exact", True, PACKED, 0, 0, 1, 0, vector_bytes)
        return IndexSpec("exact", False, "IDMap,Flat", 0, 0, shards, 0, images * (dim * 4 + 8) + vector_bytes)
    nlist = 2 ** round(math.log2(min(images / LIST_IMAGES, 4 * math.sqrt(images))))
    train_images = min(images, max(nlist * settings.train_images_per_list, LEAST_TRAIN_IMAGES))
    other_bytes = images * 8 + shards * nlist * dim * 4 + vector_bytes
    if images <= settings.pq_above:
        return IndexSpec(
            "ivf_sq8", False, f"IVF{nlist},SQ8", nlist, 0, shards, train_images, images * dim + other_bytes
        )
    m = choose_subquantizers(dim)
    return IndexSpec(
        "ivf_pq", False, f"IVF{nlist},PQ{m}x4fsr", nlist, m, shards, train_images, images * m // 2 + other_bytes
    )


def choose_subquantizers(dim: int) -> int:
    """The least divisor of `dim` that leaves each 4-bit sub-quantizer few dimensions."""
    least = min(math.ceil(dim / SUBQUANTIZER_DIMS), MAX_SUBQUANTIZERS)
    return next(m for m in range(least, dim + 1) if dim % m == 0)
