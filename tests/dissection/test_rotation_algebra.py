"""The algebra of rotations, and what they do to units that stand for something."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import block_diag, fractional_matrix_power
from torch.testing import assert_close

from captum_blackbox.dissection.rotation import fractional_rotation, random_rotation
from captum_blackbox.errors import InputError, ShapeError

DIMENSIONS = [1, 2, 3, 4, 7, 64]
SEEDS = st.integers(0, 2**31)


def assert_rotates(matrix):
    size = len(matrix)
    assert matrix.shape == (size, size) and matrix.dtype == torch.float64
    assert_close(matrix.T @ matrix, torch.eye(size).double(), rtol=0, atol=1e-12)
    assert abs(torch.linalg.det(matrix).item() - 1) < 1e-10


def in_random_basis(blocks, seed=1):
    basis = random_rotation(sum(len(block) for block in blocks), seed)
    return basis @ torch.from_numpy(block_diag(*blocks)).double() @ basis.T


def turn(angle):
    return [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]


@pytest.mark.parametrize("dimension", DIMENSIONS)
@given(SEEDS)
def test_a_random_rotation_rotates_and_its_seed_fixes_it(dimension, seed):
    rotation = random_rotation(dimension, seed)
    assert_rotates(rotation)
    assert torch.equal(rotation, random_rotation(dimension, seed))
    if dimension > 1:
        assert not torch.equal(rotation, random_rotation(dimension, seed + 1))


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    random_rotation(5, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_rotations_have_no_preferred_direction():
    drawn = torch.stack([random_rotation(3, seed) for seed in range(4000)])
    # Under the Haar measure entries have mean 0 and variance 1/D, and the trace has variance 1
    # (and mean 0); without the signs of R the diagonal would lean to one side.
    assert drawn.mean(0).abs().max() < 4 / math.sqrt(3 * 4000)
    assert (drawn.square().mean(0) - 1 / 3).abs().max() < 0.02
    traces = drawn.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(traces.mean()) < 0.07 and abs(traces.var() - 1) < 0.1


@pytest.mark.parametrize("dimension", DIMENSIONS)
@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_fractions_rotate_add_up_and_end_in_the_rotation(dimension, seed, first, second):
    rotation = random_rotation(dimension, seed)
    assert torch.equal(fractional_rotation(rotation, 0), torch.eye(dimension).double())
    assert torch.equal(fractional_rotation(rotation, 1), rotation)
    one, two = (fractional_rotation(rotation, alpha) for alpha in (first, second))
    assert_rotates(one)
    both = fractional_rotation(rotation, first + second)
    assert_close(one @ two, both, rtol=0, atol=1e-10)
    values = torch.randn(dimension, 5, dtype=torch.float64)
    assert_close((one @ values).norm(dim=0), values.norm(dim=0))


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_just_below_one_is_just_before_the_rotation(dimension):
    # Whatever takes the angles without their signs fails here.
    rotation = random_rotation(dimension, 3)
    assert_close(fractional_rotation(rotation, 1 - 1e-9), rotation, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dimension", [2, 3, 8])
def test_a_fraction_is_scipys_fractional_matrix_power(dimension):
    rotation = random_rotation(dimension, 0)
    expected = fractional_matrix_power(rotation.numpy(), 0.3)
    assert np.abs(expected.imag).max() < 1e-10
    assert_close(fractional_rotation(rotation, 0.3), torch.from_numpy(expected.real.copy()))


def test_by_hand_two_planes_turn_by_their_share():
    rotation = in_random_basis([turn(1.2), turn(-2.0), [[1.0]]])
    expected = in_random_basis([turn(0.3), turn(-0.5), [[1.0]]])
    assert_close(fractional_rotation(rotation, 0.25), expected)


@pytest.mark.parametrize("minus", [2, 4])
def test_pairs_of_minus_one_turn_by_pi(minus):
    rotation = in_random_basis([[[-1.0]]] * minus + [turn(0.7), [[1.0]]])
    half = fractional_rotation(rotation, 0.5)
    assert_rotates(half)
    assert_close(half @ half, rotation)
    assert_close(half.trace().item(), 2 * math.cos(0.35) + 1)
    plain = torch.diag(torch.tensor([-1.0] * minus))
    half = fractional_rotation(plain, 0.5)
    assert_rotates(half)
    assert_close(half @ half, plain.double())


def test_an_even_permutation_has_fractions_and_an_odd_one_only_its_ends():
    even = torch.eye(5)[[1, 2, 0, 3, 4]]
    third = fractional_rotation(even, 1 / 3)
    assert_rotates(third)
    assert_close(third @ third @ third, even.double())
    odd = torch.eye(3)[[1, 0, 2]]
    assert torch.equal(fractional_rotation(odd, 1), odd.double())
    assert torch.equal(fractional_rotation(odd, 0), torch.eye(3).double())
    for alpha in (0.5, 1.5):
        with pytest.raises(
            InputError,
            match="^a matrix of determinant -1 mirrors, and there is no way to it by rotations: "
            rf"alpha is 0 or 1, got {alpha}$",
        ):
            fractional_rotation(odd, alpha)


def test_a_rotation_in_float32_is_taken_as_it_is():
    rotation = random_rotation(16, 0)
    assert_close(
        fractional_rotation(rotation.float(), 0.4),
        fractional_rotation(rotation, 0.4),
        atol=1e-5,
        rtol=0,
    )


def test_what_is_no_rotation_is_refused():
    for alpha in (0.0, 0.5, 1.0):
        with pytest.raises(
            InputError, match=r"^a rotation is orthogonal, but an entry of QᵀQ misses .* by 3;"
        ):
            fractional_rotation(2 * torch.eye(3), alpha)
    with pytest.raises(InputError, match="by nan;"):
        fractional_rotation(torch.full((2, 2), torch.nan), 0.5)
    with pytest.raises(ShapeError, match=r"^expected a rotation \(D, D\), got shape \(2, 3\)$"):
        fractional_rotation(torch.zeros(2, 3), 0.5)
    with pytest.raises(InputError, match="^a rotation needs at least 1 dimension, got 0$"):
        random_rotation(0, 0)
    for alpha in (math.nan, math.inf):
        with pytest.raises(InputError, match=f"^alpha is a finite number, got {alpha}$"):
            fractional_rotation(torch.eye(2), alpha)


def best_overlaps(values, concepts, tau):
    """Return the IoU of each unit with the concept that its top values match best."""
    top = values > values.quantile(1 - tau, dim=1, keepdim=True)
    shared = top.double() @ concepts.double().T
    union = top.sum(1)[:, None] + concepts.sum(1) - shared
    return (shared / union).amax(1)


def test_rotating_independent_units_takes_their_meaning_away():
    # Each concept is where one unit is among its largest; dense units, since rotating one-hot
    # units leaves each with one concept that it ranks first.
    tau = 0.005
    values = torch.randn(64, 40_000, dtype=torch.float64)
    concepts = values > values.quantile(1 - tau, dim=1, keepdim=True)
    rotation = random_rotation(64, 0)
    means = [
        best_overlaps(fractional_rotation(rotation, alpha) @ values, concepts, tau).mean().item()
        for alpha in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert means[0] == 1
    assert all(later < earlier for earlier, later in pairwise(means))
    assert means[-1] < 0.1 and 0.2 < means[1] < 0.6
