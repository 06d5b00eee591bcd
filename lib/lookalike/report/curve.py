"""The course of a training as a picture: recall@1 on held-out pictures by epoch, a line for each kind of label."""

import base64
import io
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lookalike.formats import shorten

_INK = "#808080"  # to be read on paper and in the dark


@rc_context({"text.parse_math": False})  # a label is text, whatever is in it
def draw_training_curve(recall: Sequence[Mapping[str, float]]) -> str:
    """An SVG picture as a data URI. `recall`: of each epoch, from 0, by kind of label."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for kind in recall[0]:
        axes.plot([epoch[kind] for epoch in recall], marker="o", markersize=4, label=f"same {shorten(kind, 32)}")
    axes.set_xlabel("epoch", color=_INK)
    axes.set_ylabel("recall@1", color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.grid(axis="y", color=_INK, alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=_INK)
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode()
