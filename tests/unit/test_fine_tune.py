"""Training on a handful of pictures: what it learns, where it goes on, and what it refuses."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image

from lookalike import schemas
from lookalike.config import FineTuneSettings, ModelSettings
from lookalike.errors import ModelInvalid, TrainingImpossible
from lookalike.kernels.models import model_file
from lookalike.kernels.models.load import build_model, load_model
from lookalike.kernels.training import fine_tune
from lookalike.kernels.training.augment import make_augmenter
from lookalike.kernels.training.fine_tune import Training, train
from lookalike.kernels.training.training_data import TrainingData

NETWORK = "test_efficientnet"
PRODUCTS, VIEWS = 12, 4


def picture(product: int, view: int) -> bytes:
    """Noise, but for one quarter in the category's colour, of a shade of the product's own."""
    noise = np.random.default_rng((product, view)).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    shade = np.random.default_rng(product).integers(0, 60, 3)
    noise[2:, 2:] = shade + ([190, 30, 30] if product % 2 else [30, 30, 190])
    file = io.BytesIO()
    Image.fromarray(noise).resize((176, 176), Image.Resampling.NEAREST).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_training_set(folder: Path, validation: int = 4) -> None:
    """PRODUCTS products of VIEWS pictures each, the last `validation` of them held out."""
    rows = []
    for product in range(PRODUCTS):
        for view in range(VIEWS):
            rows.append(
                {
                    "image_id": f"i{product}-{view}",
                    "product_id": f"p{product}",
                    "category": "a",
                    "labels": [("product", product), ("category", product % 2)],
                    "split": "validation" if product >= PRODUCTS - validation else "train",
                    "picture": picture(product, view),
                }
            )
    (folder / "pictures").mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schemas.TRAINING_PICTURES)
    pq.write_table(table, folder / "pictures" / "part.parquet", row_group_size=8)


@pytest.fixture
def training(tmp_path: Path) -> Training:
    torch.manual_seed(0)
    weights = tmp_path / "weights.pt"
    torch.save(timm.create_model(NETWORK).state_dict(), weights)
    write_training_set(tmp_path / "set")
    settings = FineTuneSettings(
        labels=("product", "category"),
        classes_per_batch=4,
        pictures_per_class=2,
        dim=16,
        original_share=0.0,
        epochs=3,
        augmentation=0.0,
    )
    model = ModelSettings(name=f"timm/{NETWORK}", weights=str(weights))
    out = str(tmp_path / "tuned.safetensors")
    return Training(str(tmp_path / "set"), out, f"{out}.checkpoint", model, settings, threads=2)


def changed(training: Training, **settings: object) -> Training:
    return replace(training, settings=training.settings.model_copy(update=settings))


def test_training_learns_and_the_best_is_kept(training: Training) -> None:
    progress = train(
        changed(training, labels=("category",), classes_per_batch=2, pictures_per_class=8, epochs=8, patience=8)
    )
    epochs = progress.epochs
    assert [epoch["epoch"] for epoch in epochs] == list(range(9))
    assert epochs[-1]["loss"] < epochs[1]["loss"]
    assert progress.best > 0
    model = load_model(ModelSettings(name=training.out))
    assert model.dim == 16
    assert model.model_id != load_model(training.model).model_id

    held_out = [picture(product, view) for product in range(8, PRODUCTS) for view in range(VIEWS)]
    side = model.preprocessing.size_px
    pixels = []
    for content in held_out:
        with Image.open(io.BytesIO(content)) as image:
            array = torch.from_numpy(np.array(image))[None]
        pixels.append(make_augmenter(side, 0.0, 0)(array, 0))
    with torch.inference_mode():
        embeddings = model.module(torch.cat(pixels)).numpy()
    scores = embeddings @ embeddings.T
    np.fill_diagonal(scores, -1)
    nearest = scores.argmax(axis=1) // VIEWS
    by_category = float((nearest % 2 == np.arange(len(held_out)) // VIEWS % 2).mean())
    assert epochs[progress.best]["recall@1"] == pytest.approx({"category": by_category}, abs=1e-4)


def test_training_at_a_smaller_size_than_the_model_is_used_at(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def recorded(size_px: int, strength: float, seed: int) -> object:
        sizes.append(size_px)
        return make_augmenter(size_px, strength, seed)

    monkeypatch.setattr(fine_tune, "make_augmenter", recorded)
    train(changed(training, size_px=96, epochs=1, layers=("conv_head",)))
    assert set(sizes) == {96}
    assert load_model(ModelSettings(name=training.out)).preprocessing.size_px == 160


def test_the_original_stands_beside_what_was_trained(training: Training) -> None:
    train(changed(training, original_share=0.25, original_dim=8, layers=("conv_head",), epochs=1))
    model = load_model(ModelSettings(name=training.out))
    file = model_file.read(ModelSettings(name=training.out))
    assert model.dim == 16 + 8
    assert file.original
    assert file.network
    images = torch.randint(0, 256, (3, 160, 160, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found = model.module(images)
        plain = load_model(training.model).module(images)
        alone = build_model(replace(file, original=None), "alone").module(images)
    weight, bias = file.original.projection
    kept = torch.nn.functional.normalize(plain @ weight.T + bias, dim=1)
    torch.testing.assert_close(found[:, :16], 0.75**0.5 * alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 16:], 0.25**0.5 * kept, atol=1e-5, rtol=0)
    assert weight.shape == (8, 256)
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-4, rtol=0)


@pytest.mark.parametrize("layers", [(), ("conv_head",)])
def test_training_goes_on_from_a_model_that_keeps_its_original(training: Training, layers: tuple[str, ...]) -> None:
    train(changed(training, original_share=0.25, original_dim=8, layers=("conv_head",), epochs=1))
    first = model_file.read(ModelSettings(name=training.out))
    again = replace(
        changed(training, original_share=0.0, layers=layers, epochs=1),
        model=ModelSettings(name=training.out),
        out=training.out.replace("tuned", "again"),
        checkpoint=f"{training.out}.again",
    )
    train(again)
    second = model_file.read(ModelSettings(name=again.out))
    assert first.original
    assert second.original
    assert second.original.share == 0.25
    assert torch.equal(second.original.projection[0], first.original.projection[0])
    assert second.figures["epochs"][0]["recall@1"].keys() == {"product", "category"}
    assert len(second.projections) == 2


def test_each_batch_is_about_one_kind_of_label_the_kinds_in_turn(training: Training) -> None:
    data = TrainingData(training.folder, "train", training.settings.labels)
    data.labels["once"] = np.arange(len(data))  # a kind with nothing to tell apart
    batches = list(fine_tune._draw_batches(data, training.settings, first=3, batches=4, seed=0))
    for number, (codes, rows) in enumerate(batches, 3):
        kind = ("product", "category")[number % 2]
        assert codes.tolist() == data.labels[kind][rows].tolist()
        assert len(set(codes.tolist())) == {"product": 4, "category": 2}[kind]
        assert len(rows) == 8


def test_a_stopped_training_goes_on_to_the_same_model(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    training = changed(training, layers=("blocks.2", "conv_head"), augmentation=1.0)
    train(training)
    whole = load_model(ModelSettings(name=training.out)).model_id
    tensors = model_file.read(ModelSettings(name=training.out)).network
    assert tensors
    assert all(name.startswith(("blocks.2.", "conv_head.")) for name in tensors)
    Path(training.checkpoint).unlink()
    Path(training.out).unlink()

    write_checkpoint = fine_tune._Trainer._write_checkpoint

    def write_two(trainer: fine_tune._Trainer, schedule: object) -> None:
        write_checkpoint(trainer, schedule)
        if len(trainer.progress.epochs) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fine_tune._Trainer, "_write_checkpoint", write_two)
        with pytest.raises(KeyboardInterrupt):
            train(training)
    assert not Path(training.out).exists()
    assert [epoch["epoch"] for epoch in train(training).epochs] == [0, 1, 2, 3]
    assert load_model(ModelSettings(name=training.out)).model_id == whole


def test_it_ends_where_recall_no_longer_grows(training: Training) -> None:
    progress = train(changed(training, epochs=50, patience=2, learning_rate=1e-6))
    assert len(progress.epochs) - 1 == progress.best + 2 < 50


def test_checkpoints_that_do_not_fit(training: Training) -> None:
    train(changed(training, epochs=1))
    with pytest.raises(ModelInvalid, match=r"another model or with other settings: delete it.*another --out"):
        train(changed(training, epochs=1, dim=8))
    Path(training.checkpoint).write_bytes(b"no checkpoint")
    with pytest.raises(ModelInvalid, match="is damaged: delete it"):
        train(training)


def test_layers_that_the_network_does_not_have(training: Training) -> None:
    with pytest.raises(ModelInvalid, match=r"no layer block\.2 in test_efficientnet.*conv_head"):
        train(changed(training, layers=("block.2",)))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_held_out_pictures_without_a_pair(training: Training, tmp_path: Path, share: float) -> None:
    write_training_set(tmp_path / "none", validation=0)
    training = replace(changed(training, original_share=share), folder=str(tmp_path / "none"))
    with pytest.raises(TrainingImpossible, match=r"no two held-out pictures.*validation_share"):
        train(training)
