"""Nearly identical pictures and different titles, on embeddings and titles whose groups are known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.vectors import unit

from lookalike.kernels.pictures.placeholders import (
    choose_leaders,
    count_different_titles,
    find_leaders,
    make_sign_keys,
)

DIM = 64


def near(centre: NDArray[np.float32], cosine: float, n: int, seed: int) -> NDArray[np.float32]:
    """(n, DIM) at exactly this cosine to the centre, each aside in a direction of its own."""
    drawn = np.random.default_rng(seed).normal(size=(n, DIM))
    aside = unit(drawn - (drawn @ centre)[:, None] * centre)
    return unit(cosine * centre + np.sqrt(1 - cosine**2) * aside)


def pictures(n: int, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(n, DIM)))


def test_nearly_identical_pictures_have_one_leader() -> None:
    others = pictures(20)
    group = near(others[0], 0.995, 6, 1)
    leaders, least = choose_leaders(np.concatenate([others, group]))
    assert leaders.tolist() == list(range(20))
    assert find_leaders(group, others[leaders], least).tolist() == [0] * 6
    assert find_leaders(near(others[3], 0.97, 4, 2), others[leaders], least).tolist() == [-1] * 4


def test_steps_that_lead_away_are_no_group() -> None:
    """Each picture is near the one before, and the last is quite another one."""
    a, b = np.linalg.qr(np.random.default_rng(3).normal(size=(DIM, 2)))[0].T
    angles = np.arange(12)[:, None] * np.arccos(0.99)
    chain = unit(np.cos(angles) * a + np.sin(angles) * b)
    leaders, least = choose_leaders(np.concatenate([chain, pictures(20)]))
    assert len(leaders) == 6 + 20  # by twos
    assert find_leaders(chain[-1:], chain[:1], least).tolist() == [-1]


def test_a_model_that_puts_all_pictures_close_together_needs_closer_ones() -> None:
    crowd = near(pictures(1)[0], 0.995, 40, 4)  # unlike pictures, at about 0.99 to each other
    twin = near(crowd[0], 0.9999, 1, 5)
    leaders, least = choose_leaders(np.concatenate([crowd, twin, crowd[7:8]]))
    assert leaders.tolist() == list(range(40))
    assert find_leaders(twin, crowd, least).tolist() == [0]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_equal_pictures_are_one_whatever_else_there_is(n: int) -> None:
    leaders, least = choose_leaders(np.repeat(pictures(1), n, axis=0))
    assert leaders.tolist() == [0]
    assert find_leaders(pictures(1), pictures(1), least).tolist() == [0]


def test_keys_tell_unlike_pictures_apart_and_put_near_ones_together() -> None:
    others = pictures(3_000)
    keys = make_sign_keys(others)
    assert len(set(keys.tolist())) == 3_000
    assert (make_sign_keys(others.copy()) == keys).all()
    group = make_sign_keys(near(others[0], 0.999, 200, 6))
    assert np.unique(group, return_counts=True)[1].max() > 10
    assert make_sign_keys(others[:1])[0] == keys[0]


@pytest.mark.parametrize(
    ("titles", "products"),
    [
        (["Blue vase", "blue VASE ", "Vase, blue", "Blue  vase!"], 1),
        (["Blue vase", "Red lamp", "Oak table", "Blue lamp"], 4),
        (["Nike Air Max 90 white", "NIKE Air Max 90 - White (new)", "Air Max 90 white by Nike"], 1),
        (["Oak table, seller 1", "Oak table, seller 2", "Oak table, seller 3"], 1),
        (["Product number 1", "Product number 2", "Product number 3"], 3),
        (["T-shirt blue S", "T-shirt blue M", "T-shirt blue XL"], 1),
        ([None, None, "", "  ", "Blue vase"], 5),
        (["花瓶 青", "青 花瓶", "ランプ"], 2),
        ([], 0),
    ],
)
def test_different_titles(titles: list[str | None], products: int) -> None:
    assert count_different_titles(titles) == products
    assert count_different_titles(titles[::-1]) == products
