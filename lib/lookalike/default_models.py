"""The default models that come with the library, and which of them a catalog has.

A catalog keeps the default model that is live there, so that a new release embeds nothing anew by itself.
"""

from collections import Counter
from collections.abc import Iterable

from lookalike.config import DEFAULT_MODEL, NEWEST_DEFAULT, ModelSettings

_SETTINGS_BY_ID = {
    "efficientnet_lite0-23a078d158d4": ModelSettings(name="default-1"),
    "efficientnet_lite0-ad213899bcd8": ModelSettings(name="default-1", precision="bfloat16"),
    "efficientnet_lite0-174a513dde5d": ModelSettings(name="default-2"),
    "efficientnet_lite0-b41451be8807": ModelSettings(name="default-2", precision="bfloat16"),
}


def find_settings(model_id: str) -> ModelSettings | None:
    """The settings of the default model with that `model_id`, if it is one."""
    return _SETTINGS_BY_ID.get(model_id)


def settle_default(settings: ModelSettings, live_ids: Iterable[str]) -> ModelSettings:
    """Put a model's name in place of `default`: that of the default model of most categories, or else the newest one's.

    `live_ids` has a model_id for each live category. A model counts if it has the settings' precision.
    """
    if settings.name != DEFAULT_MODEL:
        return settings
    live = [found for model_id in live_ids if (found := find_settings(model_id))]
    names = Counter(model.name for model in live if model.precision == settings.precision)
    name = max(names, key=lambda name: (names[name], name), default=NEWEST_DEFAULT)
    return settings.model_copy(update={"name": name})
