"""Figures decode, differ where the data differ, and leave matplotlib's global state alone."""

import io
import sys

import pytest
import torch
from PIL import Image

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report import game_png, layers_png, loss_png
from captum_blackbox.report.figure import method_colors

CURVES = {"Layer sum": torch.rand(3, 9), "Random": torch.rand(3, 9)}


def size(png):
    image = Image.open(io.BytesIO(png))
    image.load()
    return image.size


@pytest.mark.parametrize("game", ["deletion", "insertion"])
def test_a_game_is_drawn_for_one_image_and_for_many(game):
    assert size(game_png(CURVES, game)) == size(
        game_png({name: each[:1] for name, each in CURVES.items()}, game)
    )


def test_the_same_curves_give_the_same_bytes_and_others_do_not():
    assert game_png(CURVES, "deletion") == game_png(CURVES, "deletion")
    assert game_png(CURVES, "deletion") != game_png(
        {**CURVES, "Random": CURVES["Random"] / 2}, "deletion"
    )


def test_one_epoch_is_enough_for_a_loss_curve():
    assert size(loss_png([0.5])) == size(loss_png([3.0, 2.0, 1.0]))


def test_the_layer_figure_grows_with_the_layers():
    few = {f"conv{i}": float(i) for i in range(3)}
    many = {f"features.{i}": float(i) for i in range(40)}
    assert size(layers_png(few, "x"))[1] < size(layers_png(many, "x"))[1]


def test_no_global_figure_is_made():
    game_png(CURVES, "deletion")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_a_method_keeps_its_colour_whatever_random_does():
    assert method_colors(["a", "Random", "b"])["b"] == method_colors(["a", "b"])["b"]


def test_nothing_to_draw_is_refused():
    for draw, message in (
        (lambda: game_png({}, "deletion"), "there is no curve to draw"),
        (lambda: loss_png([]), "there is no epoch to draw"),
        (lambda: layers_png({}, "x"), "there is no layer to draw"),
    ):
        with pytest.raises(InputError) as caught:
            draw()
        assert str(caught.value) == message
    with pytest.raises(ShapeError) as caught:
        game_png({"a": torch.rand(5)}, "deletion")
    assert str(caught.value) == "expected the curves of 'a' as (N, steps + 1), got (5,)"
