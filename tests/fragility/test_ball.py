"""Where an attacked image may be: property tests of the ball."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.fragility.ball import Ball

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def change(ball, inputs):
    return (inputs.double() - ball.images.double()) * ball.scale


def is_inside(ball, inputs, lower, upper):
    size = change(ball, inputs)
    if ball.norm == "L2":
        near = size.flatten(1).norm(dim=1) <= ball.radius.flatten() * (1 + 1e-9)
    else:
        near = (size.abs() <= ball.radius * (1 + 1e-9)).flatten(1).all(1)
    return bool(near.all()) and bool(((inputs >= lower) & (inputs <= upper)).all())


@given(
    dtype=st.sampled_from(DTYPES),
    norm=st.sampled_from(["Linf", "L2"]),
    radius=st.floats(0, 2) | st.sampled_from([1 / 255, 8 / 255, 1e-6]),
    seed=st.integers(0, 99),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    spread=st.floats(0.1, 5),
    masked=st.booleans(),
)
def test_steps_stay_near_in_bounds_and_under_the_mask(
    dtype, norm, radius, seed, shape, spread, masked
):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    mask = torch.rand(shape, generator=generator) > 0.5 if masked else None
    ball = Ball(images, radius, norm, mask=mask, scale=spread)
    inputs = images
    for _ in range(3):
        direction = torch.randn(shape, generator=generator).to(dtype)
        inputs = ball.stepped(inputs, direction, ball.step_size(0.7 * radius + 1e-9))
        assert inputs.dtype == dtype
        assert is_inside(ball, inputs, 0, 1)
        if masked:
            assert torch.equal(inputs[~mask], images[~mask])


def test_a_radius_for_each_channel_is_kept_by_each_channel():
    images = torch.full((2, 3, 4, 4), 0.5)
    ball = Ball(images, torch.tensor([0.1, 0.0, 0.2]))
    moved = ball.stepped(images, torch.ones_like(images), ball.radius)
    by_channel = (moved - images).abs().amax((0, 2, 3))
    torch.testing.assert_close(by_channel, torch.tensor([0.1, 0.0, 0.2]))


def test_the_scale_says_how_many_pixels_an_input_is():
    # std 0.5: a change of 0.1 in pixels is one of 0.2 in the input.
    images = torch.zeros(1, 1, 1, 1)
    ball = Ball(images, 0.1, lower=-1.0, scale=0.5)
    moved = ball.stepped(images, torch.ones_like(images), ball.step_size(99.0))
    assert moved.item() == pytest.approx(0.2, rel=1e-5)
    assert ball.distances(moved)[0].item() == pytest.approx(0.1, rel=1e-5)


def test_a_long_change_is_brought_to_the_length_of_the_radius():
    images = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    ball = Ball(images, 0.05, "L2")
    moved = ball.project(images + torch.tensor([0.3, 0.4], dtype=torch.float64))
    torch.testing.assert_close(moved - images, torch.tensor([[[[0.03, 0.04]]]]).double())
    assert ball.distances(moved)[1].item() == pytest.approx(0.05)


def test_a_step_of_length_in_l2_follows_the_gradient_in_pixels():
    # In units of pixels the gradient is g / scale: (3 / 1, 4 / 2), and the step 0.1 of its length.
    images = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    ball = Ball(images, 9.0, "L2", lower=-9.0, upper=9.0, scale=torch.tensor([1.0, 2.0]))
    gradient = torch.tensor([3.0, 4.0], dtype=torch.float64).view(1, 2, 1, 1)
    moved = ball.stepped(images, gradient, ball.step_size(0.1))
    by_pixel = torch.tensor([3.0, 2.0], dtype=torch.float64) / 13**0.5 * 0.1
    torch.testing.assert_close(moved.flatten(), by_pixel / torch.tensor([1.0, 2.0]))


def test_a_step_in_l2_is_as_long_where_only_some_pixels_may_change():
    images = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    mask = torch.tensor([0, 1, 1])
    ball = Ball(images, 9.0, "L2", lower=-9.0, upper=9.0, mask=mask.view(1, 1, 1, 3))
    direction = torch.tensor([100.0, 3.0, 4.0]).double().view(1, 1, 1, 3)
    moved = ball.stepped(images, direction, ball.step_size(0.5))
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.0, 0.3, 0.4]).double())


def test_a_direction_of_zero_does_not_move():
    images = torch.rand(2, 1, 3, 3)
    for norm in ("Linf", "L2"):
        ball = Ball(images, 0.1, norm)
        assert torch.equal(ball.stepped(images, torch.zeros_like(images), ball.radius), images)


def test_a_step_is_a_sixteenth_of_the_radius_and_never_beyond_it():
    ball = Ball(torch.zeros(1, 1, 2, 2), 8 / 255)
    assert ball.step_size(None).item() == pytest.approx(0.5 / 255)
    assert ball.step_size(1.0).item() == pytest.approx(8 / 255)


def test_rows_are_the_ball_of_some_images():
    images = torch.rand(4, 2, 3, 3)
    mask = torch.rand(4, 1, 3, 3) > 0.5
    ball, chosen = Ball(images, 0.1, mask=mask), torch.tensor([3, 1])
    alone = Ball(images[chosen], 0.1, mask=mask[chosen])
    inputs = torch.rand(2, 2, 3, 3)
    assert torch.equal(ball.rows(chosen).project(inputs), alone.project(inputs))


def test_rounding_may_put_a_pixel_just_outside_the_bounds_and_it_stays_there():
    images = torch.tensor([[[[1.0 + 1e-6, 0.5]]]])
    ball = Ball(images, 0.0)
    assert torch.equal(ball.project(images + 0.3), images)
    Ball(torch.tensor([[[[1.0 + 5e-5, -5e-5]]]]), 0.1)
    for outside in (1.0 + 3e-4, -3e-4):
        with pytest.raises(InputError, match="outside the bounds"):
            Ball(torch.full((1, 1, 1, 1), outside), 0.1)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"radius": -0.1}, InputError, "radius is a finite number of 0 or more, got -0.1"),
        ({"radius": torch.inf}, InputError, "radius is a finite number"),
        ({"radius": torch.ones(2)}, ShapeError, "radius is one number, one for each of 3 channels"),
        ({"radius": torch.ones(3), "norm": "L2"}, ShapeError, "norm='L2' takes one radius"),
        ({"radius": 0.1, "norm": "L1"}, InputError, "norm is one of 'Linf', 'L2'"),
        ({"radius": 0.1, "lower": 1.0, "upper": 0.0}, InputError, "lower bound 1 is above"),
        ({"radius": 0.1, "mask": torch.ones(5)}, ShapeError, "mask is one number"),
        (
            {"radius": 0.1, "upper": 0.4},
            InputError,
            r"outside the bounds 0 … 0\.4.*InterpretationAttack\.normalized",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_a_ball_is_refused(settings, error, message, as_users_call):
    with pytest.raises(error, match=message):
        Ball(torch.linspace(0, 1, 24).view(1, 3, 2, 4), **settings)


@pytest.mark.parametrize("size", [0.0, -0.1, torch.inf, torch.nan])
def test_a_step_is_positive_and_finite(size):
    with pytest.raises(InputError, match=f"step_size is a positive number, got {size:g}"):
        Ball(torch.zeros(1, 1, 2, 2), 0.1).step_size(size)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_what_is_projected_gets_the_precision_of_the_images(norm):
    images = torch.full((1, 1, 2, 2), 0.3)
    moved = Ball(images, 0.1, norm).project(images.double() + 0.3)
    assert moved.dtype == torch.float32 and is_inside(Ball(images, 0.1, norm), moved, 0, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_saturated_pixels_that_are_normalised_in_half_precision_are_within_the_bounds(dtype):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = torch.tensor([0.0, 1.0]).expand(1, 3, 2, 2)
    images = ((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)).to(dtype)
    ball = Ball(images, 0.1, lower=-mean / std, upper=(1 - mean) / std, scale=std)
    assert torch.equal(ball.project(images), images)


def test_one_open_bound_does_not_open_the_other():
    with pytest.raises(InputError, match="outside the bounds"):
        Ball(torch.full((1, 1, 2, 2), -5.0), 0.1, upper=torch.inf)
