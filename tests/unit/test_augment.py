"""Augmentation: another picture each time, the same for a seed, and its thing still there in its colour."""

import numpy as np
import pytest
import torch

from lookalike.kernels.training.augment import make_augmenter

THINGS = {"red": (200, 20, 30), "green": (30, 150, 60), "blue": (30, 60, 190), "yellow": (225, 200, 40)}


def pictures(per_colour: int, px: int = 74) -> torch.Tensor:
    """A block of one colour before white, colour after colour."""
    values = np.full((len(THINGS), per_colour, px, px, 3), 255, np.uint8)
    for place, colour in enumerate(THINGS.values()):
        values[place, :, px // 4 : -px // 4, px // 4 : -px // 4] = colour
    return torch.from_numpy(values.reshape(-1, px, px, 3))


def test_it_is_the_same_for_a_seed_and_a_step() -> None:
    given = pictures(4)
    before = given.clone()
    found = make_augmenter(64, 1.0, 7)(given, 3)
    assert (found.dtype, found.shape) == (torch.uint8, (16, 64, 64, 3))
    torch.rand(5)  # chance elsewhere plays no part
    assert torch.equal(found, make_augmenter(64, 1.0, 7)(given, 3))
    assert not torch.equal(found, make_augmenter(64, 1.0, 7)(given, 4))
    assert not torch.equal(found, make_augmenter(64, 1.0, 8)(given, 3))
    assert torch.equal(given, before)


def test_equal_pictures_become_different_ones_but_for_some_that_stay() -> None:
    given = pictures(32)
    found, resized = (make_augmenter(64, strength, 0)(given, 0)[:32].flatten(1).float() for strength in (1.0, 0.0))
    is_changed = (found != resized).any(dim=1)
    assert 2 <= (~is_changed).sum() <= 16
    apart = torch.cdist(found[is_changed], found[is_changed]) / 64
    assert apart.fill_diagonal_(torch.inf).min() > 1


def test_strength_0_only_resizes() -> None:
    ramp = torch.arange(74, dtype=torch.uint8)[None, None, :, None].repeat(2, 74, 1, 3) * 3
    found = make_augmenter(64, 0.0, 0)(ramp, 0)
    expected = ((torch.arange(64) + 0.5) * 74 / 64 - 0.5) * 3
    assert (found.float() - expected[None, None, :, None]).abs().max() <= 1
    assert torch.equal(make_augmenter(74, 0.0, 0)(ramp, 5), ramp)


@pytest.mark.parametrize("px", [64, 75])
def test_any_size_goes(px: int) -> None:
    assert make_augmenter(px, 1.5, 0)(pictures(2, px=81), 0).shape == (8, px, px, 3)


def test_a_colour_stays_what_it_is() -> None:
    """Of what is coloured in a picture, the nearest of the four names is its own for nearly all."""
    per_colour = 64
    found = (
        make_augmenter(64, 1.0, 1)(pictures(per_colour), 0)[:, 16:48, 16:48].float().flatten(1, 2).median(dim=1).values
    )
    chroma = found - found.mean(dim=1, keepdim=True)
    names = torch.tensor(list(THINGS.values())).float()
    names = names - names.mean(dim=1, keepdim=True)
    nearest = torch.nn.functional.cosine_similarity(chroma[:, None], names[None], dim=2).argmax(dim=1)
    right = (nearest == torch.arange(4).repeat_interleave(per_colour)).float().mean()
    assert right > 0.95


def test_a_plain_background_is_changed_for_another() -> None:
    corners = make_augmenter(64, 1.0, 2)(pictures(64), 0)[:, [2, 2, -3, -3], [2, -3, 2, -3]].float()
    lighter = (corners.amin(dim=2) > 200).float().mean(dim=1)
    assert 0.2 < (lighter < 0.5).float().mean() < 0.9  # light alone darkens few


def test_a_dark_border_is_no_background() -> None:
    dark = 255 - pictures(64)
    found = make_augmenter(64, 1.0, 2)(dark, 0).float()
    corners = found[:, [2, 2, -3, -3], [2, -3, 2, -3]].mean(dim=2)
    assert (corners < 60).float().mean() > 0.8
