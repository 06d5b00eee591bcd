"""Augmentation: what makes of a shop's picture something like a shopper's photo of the same thing.

Another background, another camera angle, things in front, other light, blur, noise and JPEG artefacts. Hue moves only a
little: colour must go on telling products apart. Everything is done for the whole batch at once, each picture by its
own draw, on the CPU or a GPU; torchvision's transforms draw once for a batch, and from a generator that all share.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

# By ITU T.81, annex K: how coarsely a JPEG of quality 50 keeps each frequency of brightness, and of colour.
_BRIGHTNESS = [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
               14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
               49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99]  # fmt: skip
_COLOUR = [17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
           47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32]  # fmt: skip
_BLOCK = 8
_TO_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]

_KEPT = 0.25  # share of pictures that are only resized
_ALIKE = 24.0  # of 255: distance to the border's colour below which a pixel is background
_SAME = 4.0  # and below which it is so wherever it stands
_LIGHT = 128.0  # least channel of a studio's background
_PLAIN = 0.8  # share of the border's pixels that must be alike for a background to be plain
_THING = (0.08, 0.92)  # share of a picture that what stands before a plain background may be
_SKIN = [(141.0, 85.0, 36.0), (198.0, 134.0, 66.0), (224.0, 172.0, 105.0), (255.0, 219.0, 172.0)]


def make_augmenter(size_px: int, strength: float, seed: int) -> Callable[[Tensor, int], Tensor]:
    """A function of (pictures, step): uint8 (n, px, px, 3) -> uint8 (n, size_px, size_px, 3), on the pictures' device.

    Each picture is changed in its own way, by chance, but the same for the same `seed` and step. `strength`: 0 only
    resizes, 1 is the usual. One in four is only resized at any strength: most of what is searched is the shop's own.
    """
    return partial(_augment, size_px, strength, seed)


def _augment(size_px: int, strength: float, seed: int, pictures: Tensor, step: int) -> Tensor:
    state = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    draw = _Draw(torch.Generator(pictures.device).manual_seed(state), len(pictures))
    pixels = pictures.permute(0, 3, 1, 2).float()
    if strength:
        kept = draw.flags(_KEPT).nonzero()[:, 0]
        as_they_are = _change_angle(pixels[kept], draw.of(len(kept)), 0.0, size_px)
        pixels = _change_background(pixels, draw, strength)
    pixels = _change_angle(pixels, draw, strength, size_px)
    if strength:
        pixels = _cover_partly(pixels, draw, strength)
        pixels = _change_light(pixels, draw, strength)
        for spoil, share in ((_blur, 0.4), (_add_noise, 0.3), (_compress, 0.5)):
            rows = draw.flags(share * strength).nonzero()[:, 0]
            if len(rows):
                pixels[rows] = spoil(pixels[rows], draw.of(len(rows)), strength)
        pixels[kept] = as_they_are
    return pixels.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class _Draw:
    """Chance for a batch of `n` pictures."""

    def __init__(self, generator: Generator, n: int) -> None:
        self._generator, self.n, self.device = generator, n, generator.device

    def of(self, n: int) -> "_Draw":
        return _Draw(self._generator, n)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(n, *shape) in [low, high)."""
        return low + (high - low) * torch.rand(self.n, *shape, generator=self._generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """(n, *shape), of deviation 1."""
        return torch.randn(self.n, *shape, generator=self._generator, device=self.device)

    def flags(self, share: float) -> Tensor:
        """(n,), true for that share."""
        return self.uniform(0, 1) < share

    def ratio(self, most: float, *shape: int) -> Tensor:
        """(n, *shape) in [1 / most, most), as often above 1 as below."""
        return torch.exp(self.uniform(-1, 1, *shape) * math.log(most))


def _change_background(pixels: Tensor, draw: _Draw, strength: float) -> Tensor:
    """Give most pictures with a plain background another one: another picture out of focus, or soft colours."""
    cover, plain = _find_foreground(pixels)
    rows = (plain & draw.flags(0.6 * strength)).nonzero()[:, 0]
    if not len(rows):
        return pixels
    draw = draw.of(len(rows))
    # At a quarter of the resolution, as it is out of focus.
    others = _crop_close_up(functional.avg_pool2d(pixels.roll(1, 0)[rows], 4), draw)
    soft = draw.uniform(30, 230, 1, 1, 1) + 25 * draw.normal(3, 1, 1)  # rooms are seldom gaudy
    soft = functional.interpolate(soft + 25 * draw.normal(1, 4, 4), others.shape[2:], mode="bicubic").clamp(0, 255)
    behind = torch.where(draw.flags(0.5)[:, None, None, None], others, soft)
    behind = functional.interpolate(behind, pixels.shape[2:], mode="bilinear")
    pixels[rows] = behind.lerp(pixels[rows], cover[rows])
    return pixels


def _find_foreground(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each pixel is foreground, (n, 1, h, w) in [0, 1]; and whether the background is plain, (n,).

    A pixel is background if its colour is like the border's, and so are all pixels in a straight line from it to a
    side. A pixel that hardly differs from the border is background anywhere, as between an arm and the body. So a white
    shirt on white stays.
    """
    half = functional.avg_pool2d(pixels, 2)
    border = torch.cat([half[:, :, 0], half[:, :, -1], half[:, :, :, 0], half[:, :, :, -1]], dim=2)
    colour = border.median(dim=2).values
    distance = (half - colour[..., None, None]).square().sum(dim=1).sqrt()
    alike, seen = (distance < _ALIKE).float(), (distance < _SAME).float()
    for axis in (1, 2):
        seen = seen.maximum(alike.cummin(axis).values)
        seen = seen.maximum(alike.flip(axis).cummin(axis).values.flip(axis))
    at_border = ((border - colour[..., None]).square().sum(dim=1) < _ALIKE**2).float().mean(dim=1)
    seen = functional.max_pool2d(seen[:, None], 3, 1, 1)  # the rim of a thing has something of what is behind it
    cover = 1 - functional.avg_pool2d(seen, 3, 1, 1, count_include_pad=False)
    share = cover.mean(dim=(1, 2, 3))
    # A dark border is a close-up's cloth.
    plain = (colour.amin(dim=1) > _LIGHT) & (at_border > _PLAIN) & (share > _THING[0]) & (share < _THING[1])
    return functional.interpolate(cover, pixels.shape[2:], mode="bilinear"), plain


def _crop_close_up(pixels: Tensor, draw: _Draw) -> Tensor:
    """A part of each picture, enlarged, so that it shows no whole thing."""
    scale, shift = draw.uniform(0.2, 0.6, 1), draw.uniform(-0.4, 0.4, 2, 1)
    matrix = torch.cat([torch.diag_embed(scale.expand(-1, 2)), shift], dim=2)
    grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _change_angle(pixels: Tensor, draw: _Draw, strength: float, size_px: int) -> Tensor:
    """Crop, zoom, rotation, perspective and mirror in one resampling: (n, 3, px, px) -> (n, 3, size_px, size_px).

    A matrix (n, 3, 3) leads from a place of the result, in [-1, 1], to the place that it shows.
    """
    angle = draw.uniform(-0.25, 0.25) * strength
    zoom = 1 - draw.uniform(-0.1, 0.35) * strength
    stretch = draw.ratio(1.15**strength)
    tilt = draw.uniform(-0.15, 0.15, 2) * strength
    # Cropped is anywhere, as long as it is inside.
    shift = draw.uniform(-1, 1, 2) * (1 - zoom).abs()[:, None]
    mirror = 1 - 2 * draw.flags(0.5 * min(strength, 1)).float()
    sine, cosine = angle.sin(), angle.cos()
    matrix = torch.zeros(draw.n, 3, 3, device=pixels.device)
    matrix[:, 0, 0], matrix[:, 0, 1] = zoom * stretch * cosine * mirror, -zoom * sine
    matrix[:, 1, 0], matrix[:, 1, 1] = zoom * sine * mirror, zoom / stretch * cosine
    matrix[:, :2, 2], matrix[:, 2, :2], matrix[:, 2, 2] = shift, tilt, 1
    x, y = _make_grid(size_px, pixels.device)
    places = torch.stack([x.expand(size_px, -1), y.expand(-1, size_px), torch.ones_like(x * y)]).flatten(1)
    seen = torch.matmul(matrix, places)  # (n, 3, size_px * size_px)
    grid = (seen[:, :2] / seen[:, 2:]).transpose(1, 2).reshape(draw.n, size_px, size_px, 2)
    return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _make_grid(px: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(1, px) and (px, 1) of the pixels' centres in [-1, 1]."""
    line = (torch.arange(px, device=device) * 2 + 1) / px - 1
    return line[None], line[:, None]


def _cover_partly(pixels: Tensor, draw: _Draw, strength: float) -> Tensor:
    """Cover a part of every third picture, from a side, with a hand's colour or a piece of another picture."""
    rows = draw.flags(0.35 * strength).nonzero()[:, 0]
    draw = draw.of(len(rows))
    x, y = _make_grid(pixels.shape[2], pixels.device)
    angle, reach = draw.uniform(0, 2 * math.pi, 1, 1), draw.uniform(0.8, 1.3, 1, 1)
    turn = angle + draw.uniform(-0.6, 0.6, 1, 1)
    from_x, from_y = x - reach * angle.cos(), y - reach * angle.sin()
    along = (from_x * turn.cos() + from_y * turn.sin()) / draw.uniform(0.4, 0.8, 1, 1)
    across = (from_y * turn.cos() - from_x * turn.sin()) / draw.uniform(0.12, 0.3, 1, 1)
    power = torch.where(draw.flags(0.5), 2.0, 8.0)[:, None, None]  # an ellipse, or nearly a rectangle
    inside = torch.sigmoid(20 * (1 - along.abs() ** power - across.abs() ** power))[:, None]
    skin = torch.tensor(_SKIN, device=pixels.device)[draw.uniform(0, len(_SKIN)).long()][..., None, None]
    other = torch.where(draw.flags(0.5)[:, None, None, None], skin, pixels.roll(1, 0)[rows])
    pixels[rows] = pixels[rows].lerp(other, inside)
    return pixels


def _change_light(pixels: Tensor, draw: _Draw, strength: float) -> Tensor:
    """Brightness, contrast, saturation, white balance and a little hue, as one matrix; and light from one side."""
    grey = torch.full((3, 3), 1 / 3, device=pixels.device)
    saturation = draw.ratio(1.3**strength, 1, 1)
    matrix = saturation * torch.eye(3, device=pixels.device) + (1 - saturation) * grey
    matrix = torch.matmul(_rotate_hue(draw.uniform(-0.12, 0.12) * strength), matrix)
    matrix = draw.ratio(1.08**strength, 3, 1) * matrix  # lamps have colours
    matrix = draw.ratio(1.3**strength, 1, 1) * matrix
    contrast = draw.ratio(1.25**strength, 1, 1)
    pixels = torch.matmul(contrast * matrix, pixels.flatten(2)).reshape(pixels.shape)
    pixels += (1 - 1 / contrast[..., None]) * -pixels.mean(dim=(1, 2, 3), keepdim=True)
    x, y = _make_grid(pixels.shape[2], pixels.device)
    slope = draw.uniform(-0.2, 0.2, 2, 1, 1, 1) * strength
    return pixels * (1 + slope[:, 0] * x + slope[:, 1] * y)


def _rotate_hue(angle: Tensor) -> Tensor:
    """(n, 3, 3) rotations of RGB about the axis of greys, by radians (n,)."""
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    third = torch.full((3, 3), 1 / 3, device=angle.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=angle.device) / math.sqrt(3)
    return cosine * (torch.eye(3, device=angle.device) - third) + third + sine * cross


def _blur(pixels: Tensor, draw: _Draw, strength: float) -> Tensor:
    """Blur as if out of focus or moved: with a Gaussian that has another width in each direction."""
    reach = 4
    sigma = 0.3 + draw.uniform(0, 1.7, 2, 1) * strength
    taps = torch.arange(-reach, reach + 1, device=pixels.device)
    weights = torch.exp(-((taps / sigma) ** 2) / 2)  # (n, 2, taps)
    weights = (weights / weights.sum(dim=2, keepdim=True)).repeat_interleave(3, dim=0)
    planes = functional.pad(pixels, [reach] * 4, mode="reflect").flatten(0, 1)[None]
    planes = functional.conv2d(planes, weights[:, 0, None, :, None], groups=len(weights))
    planes = functional.conv2d(planes, weights[:, 1, None, None, :], groups=len(weights))
    return planes.reshape(pixels.shape)


def _add_noise(pixels: Tensor, draw: _Draw, strength: float) -> Tensor:
    return pixels + draw.uniform(2, 12, 1, 1, 1) * strength * draw.normal(*pixels.shape[1:])


def _compress(pixels: Tensor, draw: _Draw, strength: float) -> Tensor:
    """Add the artefacts of a JPEG of quality 25 to 90 (at `strength` 1), with colours at half the resolution."""
    quality = (90 - draw.uniform(0, 65) * strength).clamp(min=5)
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)[:, None, None]
    size = pixels.shape[2]
    spare = -size % (2 * _BLOCK)
    matrix = torch.tensor(_TO_YCC, device=pixels.device)
    values = torch.matmul(matrix, pixels.clamp(0, 255).flatten(2)).reshape(pixels.shape)
    values = functional.pad(values, (0, spare, 0, spare), mode="replicate")
    brightness = _quantise(values[:, :1] - 128, factor, _BRIGHTNESS) + 128
    colours = _quantise(functional.avg_pool2d(values[:, 1:], 2), factor, _COLOUR)
    colours = functional.interpolate(colours, scale_factor=2, mode="bilinear")
    values = torch.cat([brightness, colours], dim=1)[..., :size, :size]
    return torch.matmul(torch.linalg.inv(matrix), values.flatten(2)).reshape(pixels.shape)


def _quantise(values: Tensor, factor: Tensor, table: list[int]) -> Tensor:
    """(n, c, h, w) with the frequencies of each block rounded to multiples of `factor` (n, 1, 1) times the table's."""
    n, channels, height, width = values.shape
    wave = torch.arange(_BLOCK, device=values.device)
    cosines = torch.cos((2 * wave + 1) * wave[:, None] * (math.pi / (2 * _BLOCK))) * math.sqrt(2 / _BLOCK)
    cosines[0] /= math.sqrt(2)  # (frequencies, places), orthonormal
    both = torch.kron(cosines, cosines)  # of a whole block at once
    rows, columns = height // _BLOCK, width // _BLOCK
    blocks = values.reshape(n, channels, rows, _BLOCK, columns, _BLOCK).transpose(3, 4).reshape(n, -1, _BLOCK**2)
    steps = (torch.tensor(table, device=values.device) * factor).clamp(min=1)
    kept = torch.matmul(torch.round(torch.matmul(blocks, both.T) / steps) * steps, both)
    return kept.reshape(n, channels, rows, columns, _BLOCK, _BLOCK).transpose(3, 4).reshape(values.shape)
