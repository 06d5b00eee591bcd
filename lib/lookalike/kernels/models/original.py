"""What is kept of a network as it was before training: its own embedding, reduced to main axes.

The axes are those in which the weights of its classifier differ from class to class: what the network tells apart in
all that it was trained on. The main axes of one shop's pictures would tell apart what that shop has, and little else.
"""

import torch
from torch import Tensor, nn

from lookalike.kernels.models import colour
from lookalike.kernels.models.embedding import Embedding
from lookalike.kernels.models.model_file import Original

_COLOUR_AXES = 64


def keep_original(embedding: Embedding, embeddings: Tensor, share: float, dim: int) -> Original:
    """Keep `dim` dimensions of `embedding`, of a network as it was, with `share` of the score.

    `embeddings` (n, d) are its own, of training pictures; colours, and networks without a classifier, get the main axes
    of these.
    """
    has_colours = bool(embedding.colour_weight)
    width = embeddings.shape[1] - colour.DIM * has_colours
    axes = [_find_axes(embedding.network, embeddings[:, :width])[: dim - _COLOUR_AXES * has_colours]]
    if has_colours:
        axes.append(_find_main_axes(embeddings[:, width:])[:_COLOUR_AXES])
    weight: Tensor = torch.block_diag(*axes)  # type: ignore[no-untyped-call]
    return Original(share, (weight, torch.zeros(len(weight))))


def _find_axes(network: nn.Module, embeddings: Tensor) -> Tensor:
    """Orthonormal rows, the main ones first."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if layers and layers[-1].in_features == embeddings.shape[1]:
        return _find_main_axes(layers[-1].weight - layers[-1].weight.mean(dim=0))
    return _find_main_axes(embeddings)


def _find_main_axes(rows: Tensor) -> Tensor:
    axes: Tensor = torch.linalg.svd(rows, full_matrices=False).Vh
    return axes
