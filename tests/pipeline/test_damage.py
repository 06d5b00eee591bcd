"""Damage below the root, and a model that is not what it was: a clear error, and nothing published is harmed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from tests import catalogs
from tests.pipeline.conftest import PLAIN, Shop

from lookalike import reader
from lookalike.errors import TableDamaged
from lookalike.spark.run import Run

Untouched = Callable[[Path], Callable[[], None]]


@pytest.mark.parametrize("table", ["images", "publications"])
def test_a_missing_log_file_is_named(own_shop: Shop, untouched: Untouched, tmp_path: Path, table: str) -> None:
    check = untouched(own_shop.root)
    log = own_shop.root / "tables" / table / "_delta_log"
    (missing, *_) = sorted(log.glob("*.json"))
    kept = missing.rename(tmp_path / missing.name)
    before = sorted(path for path in own_shop.root.rglob("*") if path.is_file())
    for job, manifest in (("status", None), ("pipeline", own_shop.manifest)):
        ended = catalogs.run(job, own_shop.root, manifest, own_shop.settings)
        assert ended.code == 1
        assert f"tables/{table}/_delta_log lacks {missing.name}: restore this file" in ended.error
    if table == "publications":
        with pytest.raises(TableDamaged, match=r"publications/_delta_log"):
            reader.open(str(own_shop.root), PLAIN, cache=tmp_path / "cache")
    kept.rename(missing)
    assert [p for p in before if not p.exists()] == []
    check()
    assert catalogs.run("pipeline", own_shop.root, own_shop.manifest, own_shop.settings).code == 0
    check()


def test_a_model_file_with_other_weights_is_another_model(own_shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    settings = ["model.name=torchvision/squeezenet1_1", f"model.weights={path}", "embed.engine=torch"]
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
        ended = catalogs.run("pipeline", own_shop.root, own_shop.manifest, [*settings, "gate.max_churn=1"])
        assert ended.code == 0, ended.err
    models = [row["model_id"] for row in catalogs.table(own_shop.root, "publications")]
    assert len(set(models)) == 1
    contents: dict[str, set[str]] = {}
    for row in catalogs.table(own_shop.root, "embeddings"):
        contents.setdefault(row["model_id"], set()).add(row["content_hash"])
    assert len(contents) == 3
    assert len({frozenset(hashes) for hashes in contents.values()}) == 1
    ledger = {row["model_id"] for row in catalogs.table(own_shop.root, "images") if row["status"] != "rejected"}
    assert ledger == set(models)


def test_a_worker_with_another_model_than_the_run_stops_it(
    own_shop: Shop, tmp_path: Path, untouched: Untouched, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = untouched(own_shop.root)
    manifest = catalogs.write_manifest(tmp_path / "new.parquet", catalogs.images("new", 3))
    with monkeypatch.context() as patched:
        patched.setattr(Run, "model_id", "another")
        ended = catalogs.run("pipeline", own_shop.root, manifest, own_shop.settings)
    assert ended.code == 2
    assert "the run's is another: give all machines the same model file" in ended.error
    check()
    assert {row["model_id"] for row in catalogs.table(own_shop.root, "embeddings")} != {"another"}
