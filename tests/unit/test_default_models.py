"""Which default model a catalog has."""

import pytest

from lookalike.config import DEFAULT_MODELS, NEWEST_DEFAULT, ModelSettings
from lookalike.default_models import find_settings, settle_default
from lookalike.kernels.models.load import load_model

OLD = "efficientnet_lite0-23a078d158d4"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", DEFAULT_MODELS)
def test_each_default_model_is_known_by_its_model_id(name: str, precision: str) -> None:
    settings = ModelSettings.model_validate({"name": name, "precision": precision})
    assert find_settings(load_model(settings).model_id) == settings


def test_default_is_the_newest_in_a_new_catalog() -> None:
    assert settle_default(ModelSettings(), []).name == NEWEST_DEFAULT
    assert settle_default(ModelSettings(), ["given-8", "squeezenet1_1-0123456789ab"]).name == NEWEST_DEFAULT


def test_default_is_the_one_that_most_live_categories_have() -> None:
    new = load_model(ModelSettings(name=NEWEST_DEFAULT)).model_id
    assert settle_default(ModelSettings(), [OLD, OLD, new]).name == "default-1"
    assert settle_default(ModelSettings(), [OLD, new, new]).name == NEWEST_DEFAULT
    assert settle_default(ModelSettings(precision="bfloat16"), [OLD]).name == NEWEST_DEFAULT


@pytest.mark.parametrize("name", [NEWEST_DEFAULT, "efficientnet_lite0", "shop.safetensors"])
def test_a_model_that_is_named_stays(name: str) -> None:
    assert settle_default(ModelSettings(name=name), [OLD]).name == name
