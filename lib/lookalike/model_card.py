"""The model card (Mitchell et al., 2019) that stands beside a model file that was fine-tuned, in Markdown."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_FIGURES = "recall@1 among the held-out pictures, each a query, itself left out."
_OUTSIDE = (
    "Photos of groceries, on which no model is trained: one photo of each of 48 products is the gallery, the others "
    "are queries. Before training means the network that the training began with."
)
_LICENCE = (
    "Its weights come from those of the base model and from the pictures above: it may be used as the licences of both "
    "allow. It finds products that look alike; it is not made to recognise people."
)


def render_model_card(
    model_id: str,
    base: str,
    settings: Mapping[str, Any],
    manifest: str,
    code_version: str,
    counts: Mapping[str, int],
    epochs: Sequence[Mapping[str, Any]],
    best: int,
    outside: Sequence[Sequence[Any]],
) -> str:
    """Say what the model was made from, how, and how good it is. `best` is the number of the epoch that was kept.

    `outside`: lines of a figure's name, its value before training, and after.
    """
    return (
        "\n\n".join(
            [
                f"# {model_id}",
                f"Fine-tuned from {base} on {datetime.now(UTC):%Y-%m-%d}, by lookalike {code_version}.",
                "## Data",
                f"Pictures of the manifest {manifest}. Products of the validation had no part in the training.",
                _render_table(["", "count"], [[name, f"{count:,}"] for name, count in counts.items()]),
                "## Figures",
                f"{_FIGURES} Epoch 0 is {base} with a projection that was only fitted; epoch {best} is the model.",
                _render_epochs(epochs),
                "## Outside of its training",
                _OUTSIDE,
                _render_table(
                    ["", "before", "after"], [[name, *map("{:.3f}".format, pair)] for name, *pair in outside]
                ),
                "## Settings",
                _render_table(["fine_tune", "value"], [[name, f"`{value}`"] for name, value in settings.items()]),
                "## Licence and use",
                _LICENCE,
            ]
        )
        + "\n"
    )


def _render_epochs(epochs: Sequence[Mapping[str, Any]]) -> str:
    kinds = list(epochs[0]["recall@1"])
    losses = [f"{epoch['loss']:.3f}" if "loss" in epoch else "" for epoch in epochs]
    rows = [
        [epoch["epoch"], loss, *(epoch["recall@1"][kind] for kind in kinds)]
        for epoch, loss in zip(epochs, losses, strict=True)
    ]
    return _render_table(["epoch", "loss", *(f"same {kind}" for kind in kinds)], rows)


def _render_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
