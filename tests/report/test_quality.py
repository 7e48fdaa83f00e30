"""The figure of signal quality shows every layer, and only what has a number."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report import quality_png

NAN = float("nan")


def size(png):
    image = Image.open(io.BytesIO(png))
    image.load()
    return image.size


@pytest.fixture
def drawn(monkeypatch):
    """Draws, and returns the axes instead of the PNG."""
    figures = []
    monkeypatch.setattr(
        "captum_blackbox.report.quality.figure_png", lambda figure: figures.append(figure) or b""
    )

    def draw(quality):
        quality_png(quality)
        return figures[-1].axes[0]

    return draw


def test_a_line_is_the_mean_of_the_units_that_have_a_number(drawn):
    rho = {"conv1": torch.tensor([0.2, NAN, 0.4]), "conv2": torch.tensor([0.9])}
    axes = drawn({"linear": rho})
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.3, 0.9])
    assert [each.get_text() for each in axes.get_xticklabels()] == ["conv1", "conv2"]


def test_a_band_holds_the_middle_half_of_the_units(drawn):
    rho = {"conv1": torch.tensor([0.0, 0.1, 0.2, 0.6, 1.0]), "conv2": torch.full((3,), 0.5)}
    axes = drawn({"linear": rho})
    (band,) = axes.collections
    assert {tuple(each) for each in band.get_paths()[0].vertices.round(6).tolist()} == {
        (0.0, 0.1), (0.0, 0.6), (1.0, 0.5)
    }  # fmt: skip


def test_rho_is_clipped_in_the_figure_only(drawn):
    rho = torch.tensor([1.2, 1.2])
    axes = drawn({"linear": {"a": rho, "b": -rho}})
    assert axes.get_lines()[0].get_ydata().tolist() == [1.0, 0.0]
    assert axes.get_ylim() == (0, 1)
    assert rho.tolist() == torch.tensor([1.2, 1.2]).tolist()


def test_a_layer_without_a_number_leaves_a_gap(drawn):
    axes = drawn(
        {
            "linear": {"a": torch.rand(2), "b": torch.full((3,), NAN), "c": torch.rand(2)},
            "two_component": {"b": torch.rand(2), "d": torch.rand(0)},
        }
    )
    gaps = [np.isnan(line.get_ydata()).tolist() for line in axes.get_lines()]
    assert gaps == [[False, True, False, True], [True, False, True, True]]


def test_the_figure_grows_with_the_layers_and_is_the_same_twice():
    few = {"filter": {f"conv{i}": torch.rand(4) for i in range(3)}}
    many = {"filter": {f"features.{i}.conv": torch.rand(4) for i in range(60)}}
    assert size(quality_png(few))[0] < size(quality_png(many))[0]
    assert quality_png(few) == quality_png(few)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_nothing_to_draw_is_refused():
    for quality in ({}, {"linear": {}}):
        with pytest.raises(InputError) as caught:
            quality_png(quality)
        assert str(caught.value) == "there is no layer to draw"
    with pytest.raises(ShapeError) as caught:
        quality_png({"linear": {"conv1": torch.rand(2, 3)}})
    assert str(caught.value) == "expected rho of 'linear' in layer 'conv1' as (units,), got (2, 3)"
