"""Clicks: which products of a log become triplets, and a reason for every row that does not."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from tests.catalogs import picture
from tests.spark.rows import image, manifest_file, run_of

from lookalike import reasons, schemas
from lookalike.config import EmbedSettings, FineTuneSettings, ModelSettings
from lookalike.errors import ClicksInvalid, TrainingImpossible
from lookalike.kernels.models.load import load_model
from lookalike.kernels.models.networks import PACKAGED_PREPROCESSING
from lookalike.kernels.pictures.images import DecodedPicture, decode
from lookalike.kernels.training.training_data import TrainingData
from lookalike.spark.run import Run
from lookalike.spark.tables import to_spark_schema
from lookalike.spark.training.training_set import write_training_set

PREPROCESSING = replace(PACKAGED_PREPROCESSING, size_px=24)
MODEL = "m"
# The products, every other of one category.
FOLDS = dict.fromkeys(("q", "near", "twin", "back", "far", "val1", "mid", "val2"), "one") | {
    "val1": "two",
    "val2": "two",
}
# Where a product's embedding points to, degrees.
ANGLES = {"q": 0, "near": 10, "twin": 12, "mid": 50, "far": 60, "back": 120, "val1": 20, "val2": 55}


def row(query: str, product: str | None, clicked: bool | None, position: int | None, **picture: Any) -> dict[str, Any]:
    picture = picture or {"query_image_id": "q"}
    return {"query_id": query, "product_id": product, "clicked": clicked, "position": position, **picture}


def write_log(path: Path, rows: list[dict[str, Any]]) -> str:
    schema = pa.schema([*schemas.CLICKS_REQUIRED, *schemas.CLICKS_OPTIONAL])
    schema = schema.set(schema.get_field_index("position"), pa.field("position", pa.int64()))
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return str(path)


def catalog(
    spark: Any, folder: Path, spec: FineTuneSettings, model_id: str = MODEL, dim: int = 2, **settings: Any
) -> Run:
    """A catalog of one image a product, with embeddings by hand; and a product whose only image was rejected."""
    numbers = {name: number for number, name in enumerate(FOLDS)}
    manifest = [image(name, content=picture(number)) for name, number in numbers.items()] + [image("bad")]
    path = manifest_file(folder / "m.parquet", manifest)
    run = run_of(spark, folder / "root", path, model_id=model_id, fine_tune=spec, **settings)
    common = {"occurrence": 0, "available": True, "deleted": False, "vector_id": 0, "model_id": model_id, "run_id": "r"}
    rows = [
        {
            "image_id": name,
            "product_id": name,
            "category": "odd" if number % 2 else "even",
            "attributes": {"fold": FOLDS[name]},
            "content_hash": hashlib.sha256(picture(number)).hexdigest(),
            "status": "embedded",
        }
        for name, number in numbers.items()
    ]
    rows.append({"image_id": "bad", "product_id": "bad", "category": "odd", "status": "rejected"})
    append(run, "images", [common | given for given in rows])
    radians = {name: math.radians(angle) for name, angle in ANGLES.items()}
    vectors = {name: [math.cos(a), math.sin(a)] + [0.0] * (dim - 2) for name, a in radians.items()}
    hashes = {given["product_id"]: given.get("content_hash") for given in rows}
    embeddings = [
        {"content_hash": hashes[name], "model_id": model_id, "embedding": vector, "run_id": "r"}
        for name, vector in vectors.items()
    ]
    append(run, "embeddings", embeddings)
    return run


def append(run: Run, table: str, rows: list[dict[str, Any]]) -> None:
    schema = to_spark_schema(schemas.TABLES[table])
    values = [tuple(given.get(name) for name in schema.names) for given in rows]
    run.tables.append(table, run.spark.createDataFrame(values, schema))


SPEC = FineTuneSettings(
    labels=("category",), split_by="fold", validation_share=0.5, classes_per_batch=2, triplets_per_query=2,
    clicked_within=2.0, unclicked_beyond=0.4, seed=2,  # by which fold one is trained on
)  # fmt: skip


def test_every_row_of_the_log_is_used_or_counted(spark: Any, tmp_path: Path) -> None:
    log = [
        # Above the click, seen and far: wrong. Just below, but like the query: perhaps right. Further down: not seen.
        *[row("1", "far", False, 1), row("1", "near", True, 2), row("1", "twin", False, 3), row("1", "mid", False, 4)],
        *[row("2", "near", False, 1), row("2", "far", False, 2)],
        row("3", "near", True, 1),
        *[row("4", "nobody's", True, 1), row("4", "far", False, 2)],
        *[row("5", "bad", True, 1), row("5", "far", False, 2)],
        *[row("6", "near", True, 2), row("6", "near", False, 4), row("6", "far", False, 1)],
        *[row("7", None, True, 1), row("7", "near", None, 1)],
        *[row("8", p, p == "near", 1, query_image_id="nobody's") for p in ("near", "far")],
        *[row("9", p, p == "near", 1, at=None) for p in ("near", "far")],
        *[row("10", p, p == "near", 1, query_image_id=p) for p in ("near", "far")],
        *[row("11", "q", True, 1), row("11", "near", True, 3), row("11", "far", False, 2)],
        *[row("12", "back", True, 1), row("12", "near", True, 3), row("12", "far", False, 2)],
        *[row("13", "val2", False, 1), row("13", "near", True, 3), row("13", "far", False, 2)],
        *[row("14", p, p == "near", 1, uri=f"{tmp_path}/none.jpg") for p in ("near", "far")],
        # Bytes that are a picture of the catalog's.
        *[row("15", p, p == "near", None, content=picture(0)) for p in ("near", "far")],
        *[row("16", p, p == "near", n, query_image_id="q") for n, p in enumerate(("far", "mid", "back", "near"))],
        *[row("17", p, p == "val1", None, query_image_id="val2") for p in ("val1", "near", "far")],
    ]
    spec = SPEC.model_copy(update={"clicks": write_log(tmp_path / "log.parquet", log)})
    folder = f"file://{tmp_path}/training"
    counts = write_training_set(catalog(spark, tmp_path, spec), PREPROCESSING, folder).clicks

    assert counts is not None
    assert counts.skipped == {
        reasons.UNCLICKED_NEAR.text: 1,  # 1
        reasons.UNSEEN.text: 1,  # 1
        reasons.NO_CLICK.text: 2 + 1 + 1,  # 2, 4, 5
        reasons.ONLY_CLICKS.text: 1 + 1,  # 3, 17
        reasons.UNKNOWN_PRODUCT.text: 1,  # 4
        reasons.NO_PICTURE.text: 1,  # 5
        reasons.SHOWN_TWICE.text: 1,  # 6
        reasons.INCOMPLETE.text: 2,  # 7
        reasons.UNKNOWN_QUERY.text: 2,  # 8
        reasons.NO_QUERY.text: 2,  # 9
        reasons.SEVERAL_QUERIES.text: 2,  # 10
        reasons.OWN.text: 1,  # 11
        reasons.CLICK_FAR.text: 1,  # 12
        reasons.OTHER_SIDE.text: 1 + 2,  # 13, 17
        f"{reasons.OF_QUERY}{reasons.NOT_FOUND.text}": 2,  # 14
        reasons.BEYOND.text: 1,  # 16
    }
    assert counts.rows == len(log) == counts.used + sum(counts.skipped.values())
    assert counts.triplets == {"train": 8}
    data = TrainingData(folder, "train", ["category"])
    named = [[data.image_ids[place].as_py() for place in triplet] for triplet in data.triplets.tolist()]
    assert sorted(named) == sorted([["q", "near", "far"]] * 7 + [["q", "near", "mid"]])
    assert len(TrainingData(folder, "validation", ["category"]).triplets) == 0


@pytest.mark.parametrize(
    ("log", "error", "message"),
    [
        ([row("1", "near", False, 1)], TrainingImpossible, "no triplet to train with; of its 1 rows 0 are in"),
        ([], ClicksInvalid, "the click log has no rows"),
        (pa.table({"query_id": [1], "product": ["near"]}), ClicksInvalid, "product_id: missing; rename"),
    ],
)  # fmt: skip
def test_a_log_without_use_is_refused(spark: Any, tmp_path: Path, log: Any, error: Any, message: str) -> None:
    path = tmp_path / "log.parquet"
    if isinstance(log, pa.Table):
        pq.write_table(log, path)
    else:
        write_log(path, log)
    run = catalog(spark, tmp_path, SPEC.model_copy(update={"clicks": str(path)}))
    with pytest.raises(error, match=message):
        write_training_set(run, PREPROCESSING, f"file://{tmp_path}/training")


def test_queries_that_shoppers_bring_are_stored_and_embedded(spark: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.pt")
    model = ModelSettings(name="timm/test_efficientnet", weights=str(tmp_path / "weights.pt"))
    (tmp_path / "photo.jpg").write_bytes(picture(100))
    brought: list[dict[str, Any]] = [{"content": picture(101)}, {"uri": str(tmp_path / "photo.jpg")}]
    log = [row(str(q), p, p < "near", None, **given) for q, given in enumerate(brought) for p in FOLDS]
    loose = {"clicked_within": 10.0, "unclicked_beyond": 0.0, "triplets_per_query": 5}
    spec = SPEC.model_copy(update={"clicks": write_log(tmp_path / "log.parquet", log), **loose})
    loaded = load_model(model)
    more = {"model": model, "embed": EmbedSettings(engine="torch")}
    folder = f"file://{tmp_path}/training"
    run = catalog(spark, tmp_path, spec, loaded.model_id, loaded.dim, **more)
    counts = write_training_set(run, PREPROCESSING, folder).clicks

    assert counts is not None
    # Clicked and in training are back, far and mid; the others there are near, q and twin: nine pairs a query.
    assert (counts.rows, counts.used + sum(counts.skipped.values())) == (16, 16)
    assert counts.skipped[reasons.OTHER_SIDE.text] == 4
    assert (counts.queries, counts.triplets) == ({"train": 2}, {"train": 10})
    data = TrainingData(folder, "train", ["category"])
    found = set()
    for query, positive, negative in data.triplets.tolist():
        names = [data.image_ids[place].as_py() for place in (query, positive, negative)]
        assert names[0] is None
        assert names[1] in ("back", "far", "mid")
        assert names[2] in ("near", "q", "twin")
        shown = data.pictures(np.array([query]))[0].numpy().astype(int)
        apart = [np.abs(shown - pixels(picture(number))).mean() for number in (100, 101)]
        assert min(apart) < 15 < max(apart)
        found.add((query, positive, negative))
    assert len(found) == 10


def pixels(content: bytes) -> Any:
    found = decode(content, PREPROCESSING, 10**8, 16)
    assert isinstance(found, DecodedPicture)
    return found.pixels.astype(int)
