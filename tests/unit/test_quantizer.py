"""Whether a quantizer is kept, on data that drifted and on data that did not."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lookalike.config import IndexSettings
from lookalike.kernels.index import shards
from lookalike.kernels.index.build import measure_quantization_error, train_index
from lookalike.kernels.index.shards import Float32s, ShardRows
from lookalike.kernels.index.spec import choose_index
from lookalike.spark.catalog.quantizer import Former, describe_decision, has_fallen, train_or_reuse

DIM = 16
SETTINGS = IndexSettings(exact_below=300, pq_above=700)


def points(n: int, seed: int, drift: float = 0.0) -> Float32s:
    """Points in 5 dimensions, bent into 16; with `drift` as far on the way to another bend."""
    rng = np.random.default_rng(seed)
    bends = np.random.default_rng(0).normal(size=(2, 5, DIM))
    bent = np.sin(rng.normal(size=(n, 5)) @ ((1 - drift) * bends[0] + drift * bends[1])).astype(np.float32)
    return bent / np.linalg.norm(bent, axis=1, keepdims=True)


@pytest.fixture(params=[500, 1_500], ids=["ivf_sq8", "ivf_pq"])
def former(request: Any, tmp_path: Path) -> Former:
    """An index that was trained on and holds points without drift."""
    vectors = points(request.param, seed=1)
    spec = choose_index(len(vectors), DIM, SETTINGS)
    trained = train_index(spec, vectors, 0)
    error = measure_quantization_error(trained, vectors)
    ids = np.arange(len(vectors)) * 2**40
    trained.add_with_ids(vectors, ids)
    names = pa.array([f"p{number}" for number in range(len(vectors))])
    rows = ShardRows(ids, names, names, np.ones(len(vectors), bool), vectors.astype(np.float16))
    row = shards.write_shard(str(tmp_path), "c", "v1", "run", 0, trained, rows, "m")
    row |= {"version": "v1", "trained_version": "v0", "trained_error": error}
    return Former(row | {"trained_nprobe": 2, "trained_candidates": 50, "trained_recall": 0.98})


def error_by_hand(found: Any, vectors: Float32s) -> float:
    found.reset()
    found.add(vectors)
    found.make_direct_map()
    kept = np.stack([found.reconstruct(row) for row in range(len(vectors))])
    return float(((kept - vectors) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("drift", [0.0, 0.02, 1.0])
def test_it_is_kept_while_its_error_is_about_that_of_its_training(tmp_path: Path, former: Former, drift: float) -> None:
    vectors = points(former.row["ntotal"], seed=1, drift=drift)
    spec = choose_index(len(vectors), DIM, SETTINGS)
    found, outcome = train_or_reuse(str(tmp_path), spec, former, vectors, SETTINGS)
    assert found.ntotal == 0 and found.is_trained
    assert outcome.error == pytest.approx(error_by_hand(found, vectors), rel=1e-3)
    old, _ = train_or_reuse(str(tmp_path), spec, former, points(len(vectors), seed=1), SETTINGS)
    grew = error_by_hand(old, vectors) > 1.1 * former.row["trained_error"]
    assert outcome.reused == (not grew)
    assert outcome.reused == (drift < 1 and outcome.former_error == outcome.error)
    text = describe_decision(former, outcome, 0.975 if outcome.reused else None, SETTINGS)
    assert text.startswith("reused: " if outcome.reused else "retrained: ")
    assert "when version v0 trained it" in text
    assert ("knn_recall@10 0.9750 with nprobe 2, 0.9800 then" in text) == outcome.reused


def test_recall_that_fell_too_far_retrains(tmp_path: Path, former: Former) -> None:
    vectors = points(former.row["ntotal"], seed=1)
    spec = choose_index(len(vectors), DIM, SETTINGS)
    _, outcome = train_or_reuse(str(tmp_path), spec, former, vectors, SETTINGS)
    assert [has_fallen(former, recall, SETTINGS) for recall in (0.99, 0.97, 0.95, None)] == [False, False, True, False]
    assert describe_decision(former, outcome, 0.95, SETTINGS).startswith("retrained: ")


def test_without_a_sound_former_index_one_is_trained(tmp_path: Path, former: Former) -> None:
    vectors = points(former.row["ntotal"], seed=1)
    spec = choose_index(len(vectors), DIM, SETTINGS)
    _, outcome = train_or_reuse(str(tmp_path), spec, None, vectors, SETTINGS)
    assert not outcome.reused
    assert describe_decision(None, outcome, None, SETTINGS).startswith("trained: no earlier index")
    path = tmp_path / former.row["path"]
    path.write_bytes(path.read_bytes()[:-1])
    found, outcome = train_or_reuse(str(tmp_path), spec, former, vectors, SETTINGS)
    assert found.is_trained and not outcome.reused
    assert "can't be reused" in describe_decision(former, outcome, None, SETTINGS)
