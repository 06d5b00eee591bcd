"""A shop makes its model better: fine-tune, or fit a PCA, run the pipeline with the new model, and go back."""

from pathlib import Path

import pytest
from tests import catalogs
from tests.pipeline.conftest import PLAIN, Shop

from lookalike import reader
from lookalike.config import ModelSettings
from lookalike.kernels.models import model_file
from lookalike.kernels.training.forgetting import Forgetting
from lookalike.spark.training import fine_tune

SETTINGS = [
    *('fine_tune.labels=["product", "category"]', "fine_tune.validation_share=0.3", "fine_tune.dim=8"),
    *("fine_tune.classes_per_batch=4", "fine_tune.pictures_per_class=2", "fine_tune.epochs=1"),
    *("fine_tune.original_dim=4", "fine_tune.max_forgotten=1"),  # of a network with random weights
]
NO_COMPARISON = ["gate.max_churn=1.0", "gate.max_recall_drop=1.0"]


def opened(root: Path) -> reader.Catalog:
    return reader.open(str(root), PLAIN, cache=root.parent / "cache")


def test_fine_tune_then_publish_then_go_back(own_shop: Shop, tmp_path: Path) -> None:
    root, out = own_shop.root, tmp_path / "models" / "tuned.safetensors"
    settings, before = [*own_shop.settings, *SETTINGS], opened(root).model_id
    versions, live = catalogs.versions(root), catalogs.live(root)
    ended = catalogs.run(
        "fine_tune", root, own_shop.manifest, [*settings, "fine_tune.processes=2"], ["--out", str(out)]
    )
    assert ended.code == 0, ended.err
    assert catalogs.versions(root) == versions
    assert not list((root / "staging").rglob("*.parquet"))
    assert sorted(path.name for path in out.parent.iterdir()) == ["tuned.md", "tuned.safetensors"]
    tuned = model_file.read(ModelSettings(name=str(out)))
    epochs = tuned.figures["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [0, 1]
    card = out.with_suffix(".md").read_text(encoding="utf-8")
    stages = catalogs.last_run(root)
    rows = len(catalogs.table(root, "images"))
    counts = stages["training_set"]
    assert counts.pop("rows") == rows == sum(counts.values())
    assert "of photos of groceries, which it was not trained on, the new model finds" in ended.out
    for text in (
        before,
        "| recall@1 | 0.",
        f"| ledger rows | {rows} |",
        f"| pictures, train | {counts['train']} |",
        "| 1 |",
        "Licence",
    ):
        assert text in card

    model = f"model.name={out}"
    ended = catalogs.run("pipeline", root, own_shop.manifest, [model, *NO_COMPARISON])
    assert ended.code == 0, ended.err
    after = opened(root)
    assert after.model_id != before
    assert f"another model was live before in {len(live)} categories: {before}" in ended.out
    assert after.model_id in card
    page = (root / "report.html").read_text(encoding="utf-8")
    for text in (after.model_id, before, "Before and after", "Before: similar to", "recall@1 by epoch"):
        assert text in page
    assert after.dim == 8 + 4

    changed = catalogs.live(root)
    assert all(changed[category] != version for category, version in live.items())
    (run_id,) = {row["run_id"] for row in catalogs.table(root, "publications")}
    back = catalogs.run("rollback", root, None, [], ["--run", run_id])
    assert back.code == 0, back.err
    assert f"run {run_id}: undone in {', '.join(sorted(live))}" in back.out
    assert catalogs.live(root) == live
    assert opened(root).model_id == before
    page = (root / "report.html").read_text(encoding="utf-8")
    assert f"<code>{before}</code>" in page
    assert after.model_id not in page


def test_a_model_that_forgot_too_much_is_not_written(
    own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run trains; the second one, which allows it, has nothing left to train."""
    monkeypatch.setattr(fine_tune, "measure_forgetting", lambda *_: Forgetting((0.5, 0.8), (0.4, 0.7)))
    out = tmp_path / "tuned.safetensors"

    def run(*given: str) -> catalogs.Ended:
        settings = [*own_shop.settings, *SETTINGS, *given]
        return catalogs.run("fine_tune", own_shop.root, own_shop.manifest, settings, ["--out", str(out)])

    refused = run("fine_tune.max_forgotten=0.03")
    assert refused.code == 3
    assert "finds 0.400 at once (recall@1), the network before training 0.500" in refused.error
    assert "fine_tune.max_forgotten=0.03" in refused.error
    assert not out.exists()
    checkpoint = out.with_name("tuned.safetensors.checkpoint")
    trained = checkpoint.read_bytes()
    allowed = run("fine_tune.max_forgotten=0.2")
    assert allowed.code == 0, allowed.err
    assert len(model_file.read(ModelSettings(name=str(out))).figures["epochs"]) == 2
    assert trained
    assert not checkpoint.exists()


def test_a_catalog_keeps_its_default_model_until_the_settings_name_another(tmp_path: Path) -> None:
    """As after an upgrade to a release with a new default."""
    root = tmp_path / "root"
    rows = catalogs.images(PLAIN, 3)
    manifest = catalogs.write_manifest(tmp_path / "manifest.parquet", rows)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(rows[0]["content"])

    def first_match() -> tuple[str, float]:
        match = opened(root).search_image(photo, 1)[0]
        return match.image_id, round(match.score, 2)

    before = catalogs.run("pipeline", root, manifest, ["model.name=default-1"])
    assert before.code == 0, before.err
    old, live = opened(root).model_id, catalogs.live(root)
    found = rows[0]["image_id"], 1.0
    assert first_match() == found

    same = catalogs.run("pipeline", root, manifest, [])
    assert same.code == 0, same.err
    assert catalogs.live(root) == live
    assert "this release has default-2" in catalogs.run("status", root, None, []).out

    ended = catalogs.run("pipeline", root, manifest, ["model.name=default-2", *NO_COMPARISON])
    assert ended.code == 0, ended.err
    assert opened(root).model_id not in (old, "")
    assert first_match() == found
    assert "this release has" not in catalogs.run("status", root, None, []).out

    (run_id,) = {row["run_id"] for row in catalogs.table(root, "publications")}
    assert catalogs.run("rollback", root, None, [], ["--run", run_id]).code == 0
    assert (opened(root).model_id, catalogs.live(root)) == (old, live)
    assert first_match() == found


def test_a_pca_is_a_model_too(own_shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    ended = catalogs.run(
        "fit_pca", own_shop.root, own_shop.manifest, own_shop.settings, ["--dim", "4", "--out", str(out)]
    )
    assert ended.code == 0, ended.err
    (weight, bias), *more = model_file.read(ModelSettings(name=str(out))).projections
    assert not more
    assert (weight.shape, bias.shape) == ((4, 512), (4,))
    refused = catalogs.run(
        "fit_pca", own_shop.root, own_shop.manifest, own_shop.settings, ["--dim", "999", "--out", str(out)]
    )
    assert refused.code == 2
    assert "can't be projected to 999" in refused.error
    refused = catalogs.run("fit_pca", own_shop.root, own_shop.manifest, own_shop.settings, ["--dim", "4", "--out", "a"])
    assert refused.code == 2
    assert "ends in .safetensors" in refused.error


def test_trainings_that_cannot_be(own_shop: Shop, tmp_path: Path) -> None:
    root, out = own_shop.root, tmp_path / "tuned.safetensors"
    settings = [*own_shop.settings, *SETTINGS]

    def refused(*given: str) -> str:
        ended = catalogs.run("fine_tune", root, own_shop.manifest, [*settings, *given], ["--out", str(out)])
        assert ended.code == 2
        assert not out.exists()
        return ended.error

    assert "no picture has the label colour" in refused('fine_tune.labels=["colour"]')
    assert "no layer nowhere in squeezenet1_1" in refused('fine_tune.layers=["nowhere"]')
    assert not list((root / "staging").rglob("*.parquet"))
