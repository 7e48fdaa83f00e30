"""Maps of any form as one number per pixel, and the order of pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.metrics import one_channel, pixel_ranks

MAPS = torch.tensor([[[[1.0, -4.0]], [[2.0, 3.0]]]])  # one image, two channels, 1 x 2 pixels


@pytest.mark.parametrize(
    ("channels", "expected"),
    [("sum", [3.0, -1.0]), ("abs_sum", [3.0, 7.0]), ("max_abs", [2.0, 4.0])],
)
def test_channels_become_one_number_per_pixel(channels, expected):
    torch.testing.assert_close(one_channel(MAPS, channels), torch.tensor([[expected]]))


@pytest.mark.parametrize(("channels", "sign"), [("sum", 1), ("abs_sum", -1), ("max_abs", -1)])
def test_a_map_without_channels_is_a_map_of_one_channel(channels, sign):
    maps = -torch.rand(2, 3, 4)
    torch.testing.assert_close(one_channel(maps, channels), sign * maps)
    torch.testing.assert_close(one_channel(maps[:, None], channels), sign * maps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.bool, torch.int64])
def test_narrow_numbers_are_read_in_float32(dtype):
    maps = torch.ones(1, 300, 1, 1, dtype=dtype)
    torch.testing.assert_close(one_channel(maps), torch.full((1, 1, 1), 300.0))


def test_double_precision_stays():
    assert one_channel(torch.ones(1, 1, 1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("maps", "got"),
    [
        (torch.zeros(4, 4), "torch.float32 of shape (4, 4)"),
        (torch.zeros(1, 1, 1, 4, 4), "torch.float32 of shape (1, 1, 1, 4, 4)"),
        (torch.zeros(0, 4, 4), "torch.float32 of shape (0, 4, 4)"),
        (torch.zeros(1, 4, 4, dtype=torch.complex64), "torch.complex64 of shape (1, 4, 4)"),
    ],
)
def test_what_is_no_map_is_refused(maps, got):
    with pytest.raises(ShapeError) as error:
        one_channel(maps)
    assert str(error.value) == (
        f"expected real-valued maps (N, H, W), (N, 1, H, W) or (N, C, H, W), not empty, got {got}"
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_map_with_holes_is_refused(bad):
    maps = torch.zeros(2, 2, 2)
    maps[1, 0, 1] = bad
    with pytest.raises(ValueError) as error:
        one_channel(maps)
    assert str(error.value) == (
        "1 of 8 map values are NaN or infinite; such pixels have no place in an order of importance"
    )


def test_unknown_options_are_refused(as_users_call):
    message = "^channels is one of 'sum', 'abs_sum', 'max_abs', got 'mean'$"
    with pytest.raises(InputError, match=message):
        one_channel(MAPS, "mean")
    message = "^ties is one of 'index', 'random', 'reference', got 'best'$"
    with pytest.raises(InputError, match=message):
        pixel_ranks(MAPS[:, 0], "best")


def naive_ranks(saliency, ties):
    pixels = saliency.size
    if ties == "reference":
        order = np.flip(np.argsort(saliency.reshape(-1), kind="stable"))
    else:
        order = sorted(range(pixels), key=lambda pixel: (-saliency.reshape(-1)[pixel], pixel))
    ranks = np.empty(pixels, dtype=int)
    for place, pixel in enumerate(order):
        ranks[pixel] = place
    return ranks.reshape(saliency.shape)


@given(
    values=st.lists(st.sampled_from([-2.0, -0.0, 0.0, 1.0, 3.0]), min_size=12, max_size=12),
    ties=st.sampled_from(["index", "reference"]),
)
def test_ranks_follow_the_sorted_pixels(values, ties):
    saliency = torch.tensor(values).view(2, 2, 3)
    expected = np.stack([naive_ranks(each.numpy(), ties) for each in saliency])
    torch.testing.assert_close(pixel_ranks(saliency, ties), torch.from_numpy(expected).int())


def test_the_tie_rules_on_a_constant_map():
    constant = torch.zeros(1, 2, 2)
    assert pixel_ranks(constant, "index").flatten().tolist() == [0, 1, 2, 3]
    assert pixel_ranks(constant, "reference").flatten().tolist() == [3, 2, 1, 0]


@given(values=st.lists(st.integers(0, 3), min_size=9, max_size=9), seed=st.integers(0, 99))
def test_random_ties_break_ties_and_nothing_else(values, seed):
    saliency = torch.tensor(values).float().view(1, 3, 3)
    ranks = pixel_ranks(saliency, "random", seed=seed).flatten()
    assert sorted(ranks.tolist()) == list(range(9))
    in_order = saliency.flatten()[ranks.argsort()]
    assert in_order.tolist() == sorted(values, reverse=True)


def test_random_ties_are_one_seeded_permutation_for_every_image():
    constant = torch.zeros(3, 8, 8)
    ranks = pixel_ranks(constant, "random", seed=1)
    state = torch.random.get_rng_state()
    again = pixel_ranks(constant[:1], "random", seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(ranks, again.expand(3, 8, 8))
    assert not torch.equal(ranks, pixel_ranks(constant, "random", seed=2))
    assert not torch.equal(ranks, pixel_ranks(constant, "index"))


def test_every_device_gives_the_same_order(device):
    saliency = torch.randint(0, 3, (2, 5, 7)).float()
    for ties in ("index", "random", "reference"):
        ranks = pixel_ranks(saliency.to(device), ties)
        assert ranks.device.type == torch.device(device).type
        assert torch.equal(ranks.cpu(), pixel_ranks(saliency, ties))
