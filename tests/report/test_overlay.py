"""Overlays are pictures that can be read, whatever the map holds."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captum_blackbox.errors import ShapeError
from captum_blackbox.report import heat_png, overlay_png, picture_png


def pixels(png):
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def is_grey(array):
    return bool((array == array[..., :1]).all())


def test_a_small_picture_grows_by_a_whole_factor_and_keeps_its_pixels():
    picture = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]).expand(3, -1, -1)
    drawn = pixels(picture_png(picture, edge=5))
    expected = np.kron([[0, 255], [255, 0]], np.ones((3, 3)))
    np.testing.assert_array_equal(drawn, np.repeat(expected[..., None], 3, axis=2))


def test_a_large_picture_shrinks_to_the_edge():
    assert pixels(picture_png(torch.rand(3, 300, 100), edge=150)).shape == (150, 50, 3)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    scale=st.sampled_from([0.0, 1e-300, 1e-30, 1.0, 1e30]),
)
def test_every_finite_map_can_be_drawn(height, width, channels, scale):
    generator = torch.Generator().manual_seed(height * 41 + width)
    picture = torch.rand(channels, height, width, generator=generator)
    heat = torch.randn(1, height, width, generator=generator, dtype=torch.float64) * scale
    drawn = pixels(overlay_png(picture, heat, edge=24))
    assert drawn.shape == pixels(picture_png(picture, edge=24)).shape
    assert pixels(heat_png(heat, edge=24)).shape[:2] == drawn.shape[:2]


def test_a_map_without_contrast_is_drawn_without_colour():
    picture = torch.rand(3, 8, 8)
    assert is_grey(pixels(overlay_png(picture, torch.zeros(8, 8))))
    assert is_grey(pixels(heat_png(torch.zeros(8, 8))))
    assert is_grey(pixels(heat_png(torch.full((8, 8), 0.3), floor="minimum")))
    assert not is_grey(pixels(overlay_png(picture, torch.rand(8, 8))))


def test_more_heat_is_brighter_and_the_scale_of_the_map_does_not_matter():
    heat = torch.arange(64.0).reshape(8, 8) / 63
    drawn = pixels(heat_png(heat, edge=8)).sum(-1).ravel()
    assert (np.diff(drawn) >= 0).all()
    assert drawn[-1] > drawn[0] + 300
    assert heat_png(heat, edge=8) == heat_png(heat * 2**20, edge=8)


def test_below_zero_is_as_cold_as_zero():
    heat = torch.tensor([[-5.0, 0.0], [0.5, 1.0]])
    assert heat_png(heat) == heat_png(heat.clamp(min=0))


def test_the_hottest_place_is_where_the_overlay_changes_most():
    picture, heat = torch.full((3, 16, 16), 0.5), torch.zeros(16, 16)
    heat[2:5, 10:13] = 1.0
    change = np.abs(pixels(overlay_png(picture, heat, edge=16)) - 128).sum(-1)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert (2 <= row < 5, 10 <= column < 13) == (True, True)


@pytest.mark.parametrize("draw", [heat_png, lambda heat: overlay_png(torch.rand(3, 4, 4), heat)])
def test_a_map_that_cannot_be_drawn_is_refused(draw):
    with pytest.raises(ShapeError) as caught:
        draw(torch.rand(3, 4, 4))
    assert str(caught.value) == "expected a map (H, W) or (1, H, W), got (3, 4, 4)"
    with pytest.raises(ShapeError) as caught:
        draw(torch.full((4, 4), float("nan")))
    assert str(caught.value) == "the map has a value that is not finite"


def test_a_picture_that_cannot_be_drawn_is_refused():
    with pytest.raises(ShapeError) as caught:
        picture_png(torch.rand(2, 4, 4))
    assert str(caught.value) == "expected a picture (1, H, W) or (3, H, W), got shape (2, 4, 4)"
