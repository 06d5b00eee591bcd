"""The colour descriptor: a soft histogram of hue, saturation and value, which a network trained on objects is weak on.

Every pixel is shared among the bins next to it, so that a slightly other light moves little. Square roots make of the
histogram's cosine the Bhattacharyya coefficient (Arandjelovic and Zisserman, "RootSIFT", 2012).
"""

import math

import torch
from torch import Tensor, nn

HUES, SATURATIONS, VALUES = 16, 4, 4
DIM = HUES * SATURATIONS * VALUES

_POOLED_PX = 4  # pixels a side that are averaged first: colours of areas count, and it is cheap
_GREY = 0.1  # chroma below which a hue means nothing
_PLAIN = 0.1  # distance from the border's colour at which a pixel is no longer background


class ColourHistogram(nn.Module):
    """RGB pixels (n, 3, h, w) in [0, 255] -> float32 (n, DIM), L2-normalised."""

    def forward(self, pixels: Tensor) -> Tensor:
        rgb = nn.functional.avg_pool2d(pixels.float() / 255, _POOLED_PX)
        weights = _weigh_foreground(rgb).flatten(1)  # (n, p)
        red, green, blue = rgb.flatten(2).unbind(dim=1)  # (n, p) each
        value = rgb.flatten(2).amax(dim=1)
        chroma = value - rgb.flatten(2).amin(dim=1)
        hue = torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue + 1e-6)
        coloured = (chroma / _GREY).clamp(max=1)[..., None]
        hues = coloured * _share_by_angle(hue) + (1 - coloured) / HUES  # (n, p, HUES)
        saturations = _share_by_value(chroma / (value + 1e-6), SATURATIONS)
        values = _share_by_value(value, VALUES)
        rest = (saturations[..., :, None] * values[..., None, :]).flatten(2)  # (n, p, SATURATIONS * VALUES)
        histogram = torch.matmul((hues * weights[..., None]).transpose(1, 2), rest).flatten(1)
        return nn.functional.normalize((histogram + 1e-12).sqrt(), dim=1)


def _weigh_foreground(rgb: Tensor) -> Tensor:
    """(n, h, w) weights in [0.05, 1], by how much a pixel differs from the mean colour of the picture's border."""
    border = torch.cat([rgb[:, :, 0], rgb[:, :, -1], rgb[:, :, :, 0], rgb[:, :, :, -1]], dim=2).mean(dim=2)
    distance = (rgb - border[:, :, None, None]).pow(2).sum(dim=1).sqrt()
    return 0.05 + 0.95 * (1 - torch.exp(-((distance / _PLAIN) ** 2)))


def _share_by_angle(angle: Tensor) -> Tensor:
    """Angles (n, p) as shares (n, p, HUES) of the two bins that each lies between."""
    centres = torch.arange(HUES, device=angle.device) * (2 * math.pi / HUES)
    away = torch.remainder(angle[..., None] - centres + math.pi, 2 * math.pi) - math.pi
    return (1 - away.abs() * (HUES / (2 * math.pi))).clamp(min=0)


def _share_by_value(values: Tensor, bins: int) -> Tensor:
    """Values in [0, 1] (n, p) as shares (n, p, bins) of the two bins that each lies between."""
    places = values[..., None] * (bins - 1)
    return (1 - (places - torch.arange(bins, device=values.device)).abs()).clamp(min=0)
