"""Training data: the rows that are there, shared among processes, and batches balanced by class."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lookalike import schemas
from lookalike.kernels.training.training_data import UNKNOWN, TrainingData, draw_balanced_batches

COLOURS = {f"i{n}": (20 * n, 255 - 20 * n, 120) for n in range(10)}
COLOURS |= {"q0": (0, 0, 250), "q1": (250, 0, 0)}


def encoded(key: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), COLOURS[key]).save(file, "JPEG", quality=95)
    return file.getvalue()


def write(folder: Path, name: str, schema: pa.Schema, rows: list[dict[str, Any]], parts: int = 2) -> None:
    (folder / name).mkdir()
    for part in range(parts):
        table = pa.Table.from_pylist(rows[part::parts], schema)
        pq.write_table(table, folder / name / f"part-{part}.parquet", row_group_size=2)


def picture(number: int) -> dict[str, Any]:
    key, labels = f"i{number}", [("product", number // 2), ("category", number % 2)]
    split = "validation" if number >= 8 else "train"
    row = {"image_id": key, "product_id": f"p{number // 2}", "category": "a", "split": split, "picture": encoded(key)}
    return row | {"labels": labels[: 1 if number == 3 else 2]}


def triplet(query: str, positive: int, negative: int) -> dict[str, Any]:
    of_catalog = query.startswith("i")
    return {
        "query_id": None if of_catalog else query, "query_image_id": query if of_catalog else None,
        "positive_image_id": f"i{positive}", "negative_image_id": f"i{negative}", "split": "train",
    }  # fmt: skip


TRIPLETS = [triplet("q0", 0, 2), triplet("i5", 4, 1), triplet("q1", 3, 6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "pictures", schemas.TRAINING_PICTURES, [picture(n) for n in range(10)])
    queries = [{"query_id": key, "split": "train", "picture": encoded(key)} for key in ("q0", "q1")]
    write(tmp_path, "queries", schemas.TRAINING_QUERIES, queries)
    write(tmp_path, "triplets", schemas.TRAINING_TRIPLETS, TRIPLETS, parts=1)
    return tmp_path


def colours(data: TrainingData, rows: Any) -> np.ndarray:
    return data.pictures(np.asarray(rows)).numpy().astype(int).mean(axis=(1, 2))


def test_each_row_has_its_own_picture_and_labels(folder: Path) -> None:
    data = TrainingData(str(folder), "train", ["product", "category"])
    assert sorted(data.image_ids.to_pylist()[:8]) == [f"i{n}" for n in range(8)]
    assert data.image_ids.to_pylist()[8:] == [None, None]
    for row, key in enumerate(data.image_ids.to_pylist()[:8]):
        number = int(key[1:])
        np.testing.assert_allclose(colours(data, [row])[0], COLOURS[key], atol=3)
        assert data.product_ids[row].as_py() == f"p{number // 2}"
        assert data.labels["product"][row] == number // 2
        assert data.labels["category"][row] == (UNKNOWN if number == 3 else number % 2)
    assert data.labels["product"][8:].tolist() == [UNKNOWN, UNKNOWN]
    assert data.pictures(np.arange(10)).shape == (10, 16, 16, 3)


def test_triplets_name_their_pictures(folder: Path) -> None:
    data = TrainingData(str(folder), "train", ["product"])
    keys = [[t["query_id"] or t["query_image_id"], t["positive_image_id"], t["negative_image_id"]] for t in TRIPLETS]
    expected = [[COLOURS[key] for key in row] for row in keys]
    np.testing.assert_allclose(colours(data, data.triplets.ravel()).reshape(3, 3, 3), expected, atol=3)


def test_processes_share_classes_and_triplets(folder: Path) -> None:
    shares = [TrainingData(str(folder), "train", ["product"], rank, 2) for rank in range(2)]
    assert [len(share.triplets) for share in shares] == [2, 1]
    named = [{f"i{n}" for n in numbers} for numbers in ((0, 1, 4, 5, 2, 3, 6), (2, 3, 6, 7, 5, 4, 1))]
    for share, expected in zip(shares, named, strict=True):
        assert {key for key in share.image_ids.to_pylist() if key} == expected
        assert (share.triplets >= 0).all()
    assert [share.image_ids.null_count for share in shares] == [2, 0]


def test_the_validation_part_without_a_click_log(tmp_path: Path) -> None:
    write(tmp_path, "pictures", schemas.TRAINING_PICTURES, [picture(n) for n in range(10)])
    data = TrainingData(str(tmp_path), "validation", ["product", "category"])
    assert sorted(data.image_ids.to_pylist()) == ["i8", "i9"]
    assert data.triplets.shape == (0, 3)


def test_batches_are_balanced() -> None:
    sizes = [1, 2, 3, 50, 4, 9]
    labels = np.random.default_rng(0).permutation(np.concatenate([np.repeat(np.arange(6), sizes), [UNKNOWN] * 20]))
    batches = list(draw_balanced_batches(labels, classes=3, pictures=4, batches=200, seed=1))
    drawn: Counter[int] = Counter()
    for batch in batches:
        groups = labels[batch].reshape(3, 4)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0].tolist())) == 3
        drawn.update(groups[:, 0].tolist())
        for rows, label in zip(batch.reshape(3, 4), groups[:, 0], strict=True):
            assert len(set(rows.tolist())) == min(4, sizes[label])
    assert set(drawn) == {1, 2, 3, 4, 5}
    assert max(drawn.values()) < 1.3 * min(drawn.values())
    assert {row for batch in batches for row in batch.tolist()} == set(np.flatnonzero(labels > 0).tolist())
    again = draw_balanced_batches(labels, classes=3, pictures=4, batches=200, seed=1)
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))


def test_a_coarse_label_has_more_pictures_of_each_class() -> None:
    labels = np.array([0] * 20 + [1] * 5 + [2] * 2)
    (batch,) = draw_balanced_batches(labels, classes=12, pictures=4, batches=1, seed=0)
    assert np.bincount(labels[batch]).tolist() == [16, 5, 4]
    assert len(set(batch.tolist())) == 16 + 5 + 2
    with pytest.raises(ValueError, match="1 classes with two pictures"):
        next(draw_balanced_batches(np.array([0, 0, 1]), classes=2, pictures=2, batches=1, seed=0))
