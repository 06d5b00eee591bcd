"""The training set: every ledger row is in it or counted by reason, and no copy and no person is on both sides."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.catalogs import picture
from tests.spark.rows import image, manifest_file, run_of

from lookalike import reasons, schemas
from lookalike.config import FineTuneSettings
from lookalike.errors import TrainingImpossible
from lookalike.kernels.models.networks import PACKAGED_PREPROCESSING
from lookalike.kernels.training.training_data import TrainingData
from lookalike.spark.run import Run
from lookalike.spark.tables import to_spark_schema
from lookalike.spark.training.training_rows import attach_splits
from lookalike.spark.training.training_set import write_training_set

PREPROCESSING = replace(PACKAGED_PREPROCESSING, size_px=24)
MODEL = "m"
SPEC = FineTuneSettings(labels=("color", "category"), split_by="sender", validation_share=0.3, classes_per_batch=2)


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def ledger_row(number: int, **columns: Any) -> dict[str, Any]:
    attributes = {"color": ["red", "green", "blue"][number % 3], "sender": f"s{number // 4}"}
    row = {
        "image_id": f"i{number:02}",
        "occurrence": 0,
        "product_id": f"p{number // 2}",
        "category": "ab"[number // 2 % 2],
        "attributes": attributes,
        "available": True,
        "deleted": False,
        "vector_id": number,
        "model_id": MODEL,
        "content_hash": hash_of(picture(number)),
        "status": "embedded",
        "run_id": "r",
    }
    return row | columns


def run_with(spark: Any, folder: Path, rows: list[dict[str, Any]], contents: dict[str, Any], spec: Any) -> Run:
    """A run whose ledger holds `rows`; its manifest carries their pictures, but for what `contents` says."""
    manifest = [
        image(row["image_id"], content=contents.get(row["image_id"], picture(row["vector_id"])), uri=row.get("uri"))
        for row in rows
    ]
    run = run_of(spark, folder / "root", manifest_file(folder / "m.parquet", manifest), model_id=MODEL, fine_tune=spec)
    schema = to_spark_schema(schemas.IMAGES)
    run.tables.append("images", spark.createDataFrame([tuple(r.get(n) for n in schema.names) for r in rows], schema))
    return run


def test_every_row_is_in_the_set_or_counted(spark: Any, tmp_path: Path) -> None:
    rows = [ledger_row(number) for number in range(32)]
    (tmp_path / "other.jpg").write_bytes(picture(99))
    none: dict[str, Any] = {"content_hash": None, "status": "rejected", "model_id": None}
    rows += [
        ledger_row(40, deleted=True),
        ledger_row(41, **none),
        ledger_row(42, status=None),
        ledger_row(43, model_id="another"),
        ledger_row(44, attributes={"sender": "s1"}, category=None),
        ledger_row(45, attributes={"color": "red"}),
        ledger_row(46, attributes={"color": "red", "sender": "  "}),
        ledger_row(47, content_hash=hash_of(picture(0)), attributes={"color": "red", "sender": "s5"}),
        ledger_row(48, uri=str(tmp_path / "gone.jpg")),
        ledger_row(49, uri=str(tmp_path / "other.jpg")),
        ledger_row(50),
        ledger_row(51, uri=str(tmp_path / "late.jpg"), attributes={"color": "grey", "sender": "s1"}, category=None),
    ]
    (tmp_path / "late.jpg").write_bytes(picture(51))
    contents = dict.fromkeys(("i48", "i49", "i51")) | {"i47": picture(0), "i50": picture(98)}
    run = run_with(spark, tmp_path, rows, contents, SPEC)
    folder = f"file://{tmp_path}/training"
    counts = write_training_set(run, PREPROCESSING, folder)

    assert counts.skipped == {
        "deleted": 1, "rejected": 1, "not embedded by this model": 2, "no label": 1,
        "no attribute sender to split by": 2, reasons.COPY.text: 1, reasons.NOT_FOUND.text: 1, reasons.GONE.text: 1,
    }  # fmt: skip
    assert counts.rows == len(rows) == sum(counts.pictures.values()) + sum(counts.skipped.values())
    assert run.stages[-1].counts == {"rows": len(rows), **counts.pictures, **counts.skipped}
    assert counts.clicks is None

    sides = {split: TrainingData(folder, split, ["color", "category"]) for split in ("train", "validation")}
    ids = {split: data.image_ids.to_pylist() for split, data in sides.items()}
    assert {split: len(found) for split, found in ids.items()} == counts.pictures
    assert sorted(ids["train"] + ids["validation"]) == [f"i{n:02}" for n in [*range(32), 49, 51]]
    said = {row["image_id"]: row for row in rows}
    senders = [{said[key]["attributes"]["sender"] for key in found} for found in ids.values()]
    assert not senders[0] & senders[1]
    # The copy of i00 that sender s5 has puts both on one side.
    assert any({"s0", "s5"} <= side for side in senders)
    numbers: dict[str, set[Any]] = {"color": set(), "category": set()}
    for data in sides.values():
        for row, key in enumerate(data.image_ids.to_pylist()):
            truth = {"color": said[key]["attributes"]["color"], "category": said[key]["category"]}
            for kind, value in truth.items():
                numbers[kind].add((value, int(data.labels[kind][row])))
    assert (None, -1) in numbers["category"]
    for kind, pairs in numbers.items():
        pairs.discard((None, -1))
        assert sorted(number for _, number in pairs) == list(range(len({value for value, _ in pairs})))
        trained = {number for number in sides["train"].labels[kind].tolist() if number >= 0}
        assert trained == set(range(counts.classes[kind]))
    pixels = sides["train"].pictures(np.arange(3))
    assert pixels.shape == (3, 24, 24, 3)
    assert len({tuple(p.flatten().tolist()) for p in pixels}) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"labels": ("colour",)}, "no picture has the label colour: did you mean color?"),
        (
            {"labels": ("size",)},
            "no picture has the label size: set fine_tune.labels to some of product, category, brand",
        ),
        ({"labels": ("brand",)}, "all pictures are of one brand, so there is nothing to tell apart"),
        (
            {"labels": ("category",), "classes_per_batch": 3},
            "2 classes of category have two pictures in training, a batch",
        ),
        (
            {"labels": ("color", "serial")},
            "not two classes of serial have two pictures in training, so there is nothing to learn of it",
        ),
        (
            {"validation_share": 0.1},
            "no two pictures of the validation have a label in common, so nothing would tell whether training helps: "
            "raise fine_tune.validation_share=0.1",
        ),
        ({"validation_share": 1e-6}, "nothing falls to the validation: raise fine_tune.validation_share=1e-06"),
    ],
)
def test_what_is_no_training_set_is_said(spark: Any, tmp_path: Path, spec: dict[str, Any], message: str) -> None:
    rows = [ledger_row(number) for number in range(12)]
    for row in rows:
        row["attributes"] |= {"brand": "X", "serial": row["image_id"]}
    rows.append(ledger_row(12, deleted=True))
    settings = FineTuneSettings(**({"labels": ("color",), "classes_per_batch": 2, "validation_share": 0.3} | spec))
    run = run_with(spark, tmp_path, rows, {}, settings)
    with pytest.raises(TrainingImpossible) as error:
        write_training_set(run, PREPROCESSING, f"file://{tmp_path}/training")
    assert str(error.value).startswith(message)
    assert "left out are: 1 deleted" in str(error.value)


def test_a_catalog_that_this_model_never_saw_is_said(spark: Any, tmp_path: Path) -> None:
    run = run_with(
        spark, tmp_path, [ledger_row(number, model_id="another") for number in range(3)], {}, FineTuneSettings()
    )
    with pytest.raises(
        TrainingImpossible, match=r"no picture can be used.*3 not embedded by this model.*pipeline first"
    ):
        write_training_set(run, PREPROCESSING, f"file://{tmp_path}/training")


def test_products_that_share_a_picture_are_on_one_side(spark: Any) -> None:
    """Variants of a thing share pictures; half the shop shares "no photo yet", which makes them no variants."""
    rows = [(f"c{n // 2}", f"p{n}", None) for n in range(100)]
    rows += [("no photo yet", f"p{n}", None) for n in range(100)]
    rows += [(f"own {n}", f"p{n}", None) for n in range(100)]
    judged = spark.createDataFrame(rows, "content_hash string, unit string, reason string")
    judged = judged.withColumn("product_id", judged["unit"])
    found = attach_splits(judged, FineTuneSettings(validation_share=0.3)).collect()
    sides = {row["product_id"]: row["split"] for row in found}
    assert len({(row["product_id"], row["split"]) for row in found}) == 100
    assert all(sides[f"p{n}"] == sides[f"p{n + 1}"] for n in range(0, 100, 2))
    assert 15 < Counter(sides.values())["validation"] < 45
