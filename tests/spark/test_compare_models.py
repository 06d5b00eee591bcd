"""Compare models: each embeds the gallery once, on the same gallery, and differences are paired by query."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests import catalogs
from tests.spark import versions
from tests.spark.pictures import model_of
from tests.spark.test_embed import EMBED

from lookalike.config import ModelSettings
from lookalike.errors import ConfigInvalid, ManifestInvalid
from lookalike.kernels.evaluation.bootstrap import mean_intervals
from lookalike.kernels.models.load import load_model
from lookalike.spark.queries.compare_models import compare_models, describe_differences, model_settings
from lookalike.spark.queries.query_figures import METRICS


def answers(ranks: list[int], products: list[str]) -> pd.DataFrame:
    """What queries found, of which each has one right image."""
    rank = pd.Series(ranks, dtype=float)
    rows = pd.DataFrame({"query_id": [f"q{i}" for i in range(len(ranks))], "product_id": products, "rank": rank})
    figures: dict[str, Any] = {"map@r": rank == 1, "ndcg@10": 1 / rank}
    return rows.assign(relevant="product", category="a", attributes=None, **figures)


def test_differences_are_of_the_same_queries() -> None:
    products = [f"p{i // 2}" for i in range(20)]
    before, after = answers([2] * 20, products), answers([1, 3] * 10, products)
    shuffled = after.sample(frac=1, random_state=0)[:18]
    found = dict(zip(METRICS, describe_differences(before, shuffled, "product", 0), strict=True))
    kept = sorted(shuffled.index)
    change = np.array([1.0 if i % 2 == 0 else 0.0 for i in kept])
    low, high = mean_intervals(change[None], np.array(products)[kept], 0)
    assert found["recall@1"].startswith(f"+{change.mean():.3f} (")
    ends = [float(end) for end in found["recall@1"].partition("(")[2].rstrip(")").split(" to ")]
    assert ends == pytest.approx([low[0], high[0]], abs=0.03)
    assert found["recall@5"] == "+0.000 (+0.000 to +0.000)"
    (worse, *_) = describe_differences(after, before, "product", 0)
    assert worse.startswith("\N{MINUS SIGN}0.500 (\N{MINUS SIGN}0.5")


def test_a_model_is_a_name_or_a_file(tmp_path: Path) -> None:
    current = ModelSettings(name="timm/x", weights="mine.pt", flip=True)
    assert model_settings(current, "timm/x") == current
    assert model_settings(current, "default") == ModelSettings()
    (tmp_path / "tuned.toml").write_text('[model]\nname = "timm/x"\nweights = "tuned.pt"\n')
    assert model_settings(current, f"@{tmp_path}/tuned.toml") == ModelSettings(name="timm/x", weights="tuned.pt")
    with pytest.raises(ConfigInvalid, match="no configuration file"):
        model_settings(current, "@none.toml")


def test_models_are_measured_on_one_gallery(spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [model_of(tmp_path, seed) for seed in (0, 1)]
    ids = [load_model(model).model_id for model in models]
    for number, model in enumerate(models):
        (tmp_path / f"{number}.toml").write_text(f'[model]\nname = "{model.name}"\nweights = "{model.weights}"\n')
    rows = catalogs.images("a", 3)
    rows.append({"image_id": "text", "product_id": "a-0", "category": "a", "content": b"no picture"})
    manifest = str(catalogs.write_manifest(tmp_path / "m.parquet", rows))
    run = versions.run_at(spark, tmp_path / "root", manifest=manifest, model=models[0], embed=EMBED)
    ledger = [versions.image_row("a", "embedded", i) | {"model_id": ids[0]} for i in range(len(rows))]
    for row, image in zip(ledger, rows, strict=True):
        own = {"image_id": image["image_id"], "product_id": image["product_id"]}
        row |= own | {"content_hash": hashlib.sha256(image["content"]).hexdigest()}
    versions.append(run, "images", ledger)
    vectors = np.random.default_rng(0).normal(size=(6, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = {"model_id": ids[0], "run_id": "r"}
    hashes = [row["content_hash"] for row in ledger]
    versions.append(
        run, "embeddings", [{"content_hash": h, "embedding": v, **known} for h, v in zip(hashes, vectors, strict=False)]
    )
    columns = {"query_id": [row["image_id"] for row in rows[:6]]}
    columns |= {name: [row[name] for row in rows[:6]] for name in ("content", "product_id", "category")}
    queries = str(tmp_path / "queries.parquet")
    pq.write_table(pa.table(columns), queries)
    before = run.tables.delta_version("images")

    given = [f"@{tmp_path}/{number}.toml" for number in range(2)]
    compare_models(run, queries, given)
    assert run.stages[-1].counts == {f"embedded: {given[0]}": 0, f"embedded: {given[1]}": 6, "queries": 6}
    assert run.tables.delta_version("images") == before
    stored = run.tables.read("embeddings").groupBy("model_id").count().collect()
    assert {row["model_id"]: row["count"] for row in stored} == dict.fromkeys(ids, 6)
    measured = run.tables.read("query_evaluations").where("metric = 'recall@1' AND grouped_by = 'all'").collect()
    assert {(row["model_id"], row["relevant"], row["n"]) for row in measured} == {
        (model_id, relevant, 6) for model_id in ids for relevant in ("product", "category")
    }
    assert len({row["gallery"] for row in measured}) == 1
    printed = capsys.readouterr().out
    assert "difference" in printed
    tables = {name: run.tables.delta_version(name) for name in ("embeddings", "query_answers", "query_evaluations")}

    compare_models(run, queries, given)
    assert {name: run.tables.delta_version(name) for name in tables} == tables
    assert capsys.readouterr().out == printed

    with pytest.raises(ConfigInvalid, match="the same model as another --model"):
        compare_models(run, queries, [given[0], models[0].name])
    pq.write_table(pa.table({"query_id": ["q"], "category": ["a"], "embedding": [[1.0]]}), queries)
    with pytest.raises(ManifestInvalid, match="give photos instead"):
        compare_models(run, queries, given)
