"""Signals and signed maps have the colours of the paper; grids put every picture in its place."""

import io
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report import attribution_png, montage_png, signal_png

WHITE, DARK_RED, DARK_BLUE = [255] * 3, [128, 0, 0], [0, 0, 76]


def pixels(png):
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def flat(value):
    return np.full((24, 24, 3), value, dtype=np.uint8)


def test_a_signal_is_scaled_by_its_largest_absolute_value():
    signal = torch.tensor([[[0.0, 2.0]], [[-4.0, 1.0]], [[4.0, -3.0]]])
    # 255 · (x / 8 + 1/2), halves rounded to even
    assert pixels(signal_png(signal, edge=2)).tolist() == [[[128, 0, 255], [191, 159, 32]]]


def test_a_signal_of_one_channel_is_grey():
    drawn = pixels(signal_png(torch.tensor([[[1.0, 0.0, -2.0]]]), edge=3))
    assert drawn.tolist() == [[[191] * 3, [128] * 3, [0] * 3]]


def test_a_signal_of_zeros_is_mid_grey():
    assert (pixels(signal_png(torch.zeros(3, 4, 5), edge=5)) == 128).all()


def test_an_attribution_is_red_above_zero_blue_below_and_white_at_zero():
    drawn = pixels(attribution_png(torch.tensor([[2.0, 1.0, 0.0, -1.0, -2.0]]), edge=5))[0]
    # seismic: dark blue, blue, white, red, dark red at 0, 1/4, 1/2, 3/4, 1. Half of the largest
    # value is colour 127 + 63.5, to even 190, of 0 … 254: 0.002 before red, whose green is 2.
    assert drawn[[0, 2, 4]].tolist() == [DARK_RED, WHITE, DARK_BLUE]
    assert drawn[1].tolist() == [255, 2, 2]
    assert drawn[3].tolist() == [2, 2, 255]


def test_both_signs_are_equally_far_from_white():
    values = torch.linspace(-1, 1, 31)
    strength = 255 - pixels(attribution_png(values[None], edge=31))[0, :, 1]  # green
    np.testing.assert_allclose(strength, strength[::-1], atol=1)
    assert (np.diff(strength[15:]) >= 0).all()


def test_channels_of_an_attribution_are_summed_first():
    by_channel = torch.tensor([[[5.0, 1.0]], [[-5.0, 1.0]], [[0.0, 1.0]]])
    assert pixels(attribution_png(by_channel, edge=2))[0].tolist() == [WHITE, DARK_RED]
    summed = attribution_png(by_channel.sum(0))
    assert attribution_png(by_channel) == summed == attribution_png(by_channel.sum(0)[None])


def test_an_attribution_of_zeros_is_white():
    assert (pixels(attribution_png(torch.zeros(3, 6, 6))) == 255).all()
    assert (
        pixels(attribution_png(torch.ones(2, 6, 6) * torch.tensor([[[1.0]], [[-1]]]))) == 255
    ).all()


@pytest.mark.parametrize("draw", [signal_png, attribution_png])
def test_pixels_grow_by_whole_factors_and_keep_their_colours(draw):
    signal = torch.randn(3, 2, 3)
    small, large = pixels(draw(signal, edge=3)), pixels(draw(signal, edge=7))
    np.testing.assert_array_equal(large, small.repeat(3, axis=0).repeat(3, axis=1))


def test_a_large_map_shrinks_and_keeps_its_full_scale():
    large = torch.randn(3, 60, 40)  # averaging leaves much less than the largest value
    signal, attribution = (pixels(draw(large, edge=12)) for draw in (signal_png, attribution_png))
    assert signal.shape == attribution.shape == (12, 8, 3)
    assert signal.min() == 0 or signal.max() == 255
    strongest = (attribution == DARK_RED) | (attribution == DARK_BLUE)
    assert strongest.all(2).sum() == 1


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    scale=st.sampled_from([0.0, 1e-310, 1e-30, 1.0, 2.0**40, 1e300]),
)
def test_every_finite_signal_can_be_drawn_and_its_scale_does_not_matter(
    height, width, channels, scale
):
    generator = torch.Generator().manual_seed(height * 41 + width)
    signal = torch.randn(channels, height, width, generator=generator, dtype=torch.float64)
    for draw in (signal_png, attribution_png):
        drawn = pixels(draw(signal * scale, edge=24))
        expected = pixels(draw(signal if scale else torch.zeros_like(signal), edge=24))
        np.testing.assert_allclose(drawn, expected, atol=3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_every_type_of_number_is_drawn(dtype):
    signal = torch.tensor([[[3, -3], [0, 1]]])
    assert signal_png(signal.to(dtype)) == signal_png(signal.float())
    assert attribution_png(signal.to(dtype)) == attribution_png(signal.float())


def test_a_map_with_gradient_is_drawn_and_left_as_it_was():
    signal = torch.randn(3, 4, 4, requires_grad=True)
    before = signal.detach().clone()
    assert signal_png(signal) == signal_png(before)
    assert attribution_png(signal) == attribution_png(before)
    assert torch.equal(signal, before)


def test_what_cannot_be_drawn_is_refused():
    for draw, message in (
        (
            lambda: signal_png(torch.randn(2, 4, 4)),
            "expected a signal (1, H, W) or (3, H, W), got shape (2, 4, 4)",
        ),
        (
            lambda: signal_png(torch.randn(4, 4)),
            "expected a signal (1, H, W) or (3, H, W), got shape (4, 4)",
        ),
        (
            lambda: signal_png(torch.randn(3, 0, 4)),
            "expected a signal (1, H, W) or (3, H, W), got shape (3, 0, 4)",
        ),
        (
            lambda: signal_png(torch.full((3, 4, 4), float("nan"))),
            "the signal has a value that is not finite",
        ),
        (
            lambda: attribution_png(torch.randn(1, 3, 4, 4)),
            "expected a map (H, W) or (C, H, W), got (1, 3, 4, 4)",
        ),
        (
            lambda: attribution_png(torch.randn(3, 0, 4)),
            "expected a map (H, W) or (C, H, W), got (3, 0, 4)",
        ),
        (
            lambda: attribution_png(torch.full((4, 4), -float("inf"))),
            "the map has a value that is not finite",
        ),
    ):
        with pytest.raises(ShapeError) as caught:
            draw()
        assert str(caught.value) == message


def test_a_grid_has_every_picture_in_its_place_and_names_on_white():
    colors = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[9, 9, 9], [255, 255, 0], [0, 255, 255]]]
    rows = {"cat": [flat(each) for each in colors[0]], "dog": [flat(each) for each in colors[1]]}
    drawn = pixels(montage_png(rows, ["a", "b", "c"], edge=48))
    starts = {}
    for row in range(2):
        for column in range(3):
            ys, xs = np.nonzero((drawn == colors[row][column]).all(2))
            inside = (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1)
            assert (inside[1] - inside[0], inside[3] - inside[2]) == (48, 48)
            assert len(ys) == 48 * 48
            starts[row, column] = inside[0], inside[2]
    top, left = starts[0, 0]
    assert starts == {(r, c): (top + 56 * r, left + 56 * c) for r in range(2) for c in range(3)}
    # Names are above and beside, and nowhere else.
    assert (drawn[:top] < 200).any()
    assert (drawn[top:, :left] < 200).any()
    assert (drawn[:top, :left] == 255).all()
    assert (drawn[:, left + 2 * 56 + 48 :] == 255).all()


def test_pictures_keep_their_shape_and_lie_in_the_middle_of_their_place():
    wide = np.zeros((10, 40, 3), dtype=np.uint8)
    wide[:, :, 0] = 200
    large = np.zeros((300, 150), dtype=np.uint8) + 100
    drawn = pixels(montage_png({"": [wide, large]}, ["", ""], edge=48))
    ys, xs = np.nonzero((drawn == [200, 0, 0]).all(2))
    assert (np.ptp(ys) + 1, np.ptp(xs) + 1) == (10, 40)
    other_ys, other_xs = np.nonzero((drawn == 100).all(2))
    assert (np.ptp(other_ys) + 1, np.ptp(other_xs) + 1) == (48, 24)
    assert ys.min() + ys.max() == other_ys.min() + other_ys.max()
    assert other_xs.min() + other_xs.max() - xs.min() - xs.max() == 2 * 56


def test_pngs_and_arrays_are_the_same_to_a_grid():
    signal = torch.randn(3, 8, 8)
    as_array = pixels(signal_png(signal, edge=8)).astype(np.uint8)
    assert montage_png({"a": [signal_png(signal, edge=8)]}, ["b"]) == montage_png(
        {"a": [as_array]}, ["b"]
    )


@pytest.mark.parametrize("name", ["PatternAttribution two-component", "a"])
def test_no_name_is_cut_off(name):
    rows = {"a_photograph_with_an_endless_name.jpg": [flat(0)] * 3, "x": [flat(0)] * 3}
    drawn = pixels(montage_png(rows, [name] * 3, edge=48))
    border = np.concatenate([drawn[0], drawn[:, 0], drawn[:, -1]])
    assert (border == 255).all()


def test_the_same_grid_gives_the_same_bytes_and_no_global_figure():
    rows = {"cat": [flat(3), flat(4)]}
    assert montage_png(rows, ["a", "b"]) == montage_png(rows, ["a", "b"])
    assert montage_png(rows, ["a", "b"]) != montage_png(rows, ["a", "c"])
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_what_is_no_grid_is_refused():
    for draw, kind, message in (
        (
            lambda: montage_png({}, ["a"]),
            InputError,
            "there is no grid of 0 rows and 1 columns to draw",
        ),
        (
            lambda: montage_png({"cat": []}, []),
            InputError,
            "there is no grid of 1 rows and 0 columns to draw",
        ),
        (
            lambda: montage_png({"cat": [flat(0)]}, ["a", "b"]),
            InputError,
            "row 'cat' has 1 pictures for 2 columns",
        ),
        (
            lambda: montage_png({"cat": [b"nonsense"]}, ["a"]),
            InputError,
            "8 bytes were given as a picture and are none that can be read",
        ),
        (
            lambda: montage_png({"cat": [np.zeros((4, 4))]}, ["a"]),
            ShapeError,
            "expected a picture as PNG or as an array (H, W) or (H, W, 3) of uint8, got float64 "
            "of shape (4, 4)",
        ),
        (
            lambda: montage_png({"cat": [np.zeros((3, 4, 4), dtype=np.uint8)]}, ["a"]),
            ShapeError,
            "expected a picture as PNG or as an array (H, W) or (H, W, 3) of uint8, got uint8 of "
            "shape (3, 4, 4)",
        ),
    ):
        with pytest.raises(InputError) as caught:
            draw()
        assert (type(caught.value), str(caught.value)) == (kind, message)
