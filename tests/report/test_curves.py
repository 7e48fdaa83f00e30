"""Figures decode, differ where the data differ, and leave matplotlib's global state alone."""

import io
import sys

import pytest
import torch
from PIL import Image

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report import degradation_png, game_png, layers_png, loss_png
from captum_blackbox.report.figure import method_colors

CURVES = {"Layer sum": torch.rand(3, 9), "Random": torch.rand(3, 9)}


def size(png):
    image = Image.open(io.BytesIO(png))
    image.load()
    return image.size


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would become PNGs."""
    figures = []
    monkeypatch.setattr(
        "captum_blackbox.report.curves.figure_png", lambda figure: figures.append(figure) or b""
    )
    return figures


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


def test_a_degradation_is_drawn_for_one_image_and_for_many():
    one = {name: each[:1] for name, each in CURVES.items()}
    assert size(degradation_png(CURVES)) == size(degradation_png(one))
    assert degradation_png(CURVES) == degradation_png(CURVES) != degradation_png(one)
    assert degradation_png(CURVES) != degradation_png(CURVES, every=5)


def test_methods_that_share_a_colour_have_different_lines(drawn):
    names = [f"method {i}" for i in range(12)] + ["random"]
    game_png({name: torch.rand(2, 4) for name in names}, "deletion")
    degradation_png({name: torch.rand(2, 4) for name in names}, every=10)
    for figure in drawn:
        lines = figure.axes[0].get_lines()
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 13
    lines = drawn[1].axes[0].get_lines()
    assert all(line.get_xdata().tolist() == [0, 10, 20, 30] for line in lines)


def test_a_degradation_names_the_mean_area_over_the_curve_best_first(drawn):
    slow = torch.tensor([[0.9, 0.8, 0.7], [0.7, 0.6, 0.5]])
    fast = torch.tensor([[0.9, 0.3, 0.0], [0.5, 0.1, 0.0]])
    degradation_png({"slow": slow, "fast": fast})
    lines = drawn[0].axes[0].get_lines()
    # 0.7 less the mean of 0.7, 0.2 and 0; 0.8 less the mean of 0.8, 0.7 and 0.6
    assert [line.get_label() for line in lines] == ["0.400  fast", "0.100  slow"]
    torch.testing.assert_close(lines[0].get_ydata(), fast.double().mean(0).numpy())
    low, high = drawn[0].axes[0].collections[1].get_datalim(lines[0].axes.transData).intervaly
    # The standard error of 0.9 and 0.7 is 0.1, and so is that of 0.7 and 0.5.
    assert (round(low, 6), round(high, 6)) == (0.5, 0.9)


@pytest.mark.parametrize("count", [1, 4, 9])
@pytest.mark.parametrize("game", ["deletion", "insertion", "degradation"])
def test_a_legend_covers_no_curve(game, count, drawn):
    curves = {f"a method of a long name, {i}": torch.ones(2, 5) for i in range(count)}
    degradation_png(curves) if game == "degradation" else game_png(curves, game)
    drawn[0].draw_without_rendering()
    axes, legend = drawn[0].axes[0], drawn[0].legends[0]
    assert axes.get_legend() is None and len(legend.get_texts()) == count
    assert legend.get_window_extent().x0 > axes.get_window_extent().x1
    assert legend.get_window_extent().x1 <= drawn[0].bbox.x1
    assert axes.get_window_extent().width > 1.5 * drawn[0].dpi


@pytest.mark.parametrize(("game", "order"), [("deletion", "ba"), ("insertion", "ab")])
def test_a_game_names_the_mean_area_under_the_curve_best_first(game, order, drawn):
    curves = {
        "a": torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.5, 0.0]]),
        "b": torch.tensor([[1.0, 0.0, 0.0]]),
    }
    areas = {"a": "0.750", "b": "0.250"}
    game_png(curves, game)
    assert [line.get_label() for line in drawn[0].axes[0].get_lines()] == [
        f"{areas[name]}  {name}" for name in order
    ]


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
        (lambda: degradation_png({}), "there is no curve to draw"),
        (lambda: degradation_png(CURVES, every=0), "every must be at least 1, got 0"),
        (lambda: loss_png([]), "there is no epoch to draw"),
        (lambda: layers_png({}, "x"), "there is no layer to draw"),
    ):
        with pytest.raises(InputError) as caught:
            draw()
        assert str(caught.value) == message
    with pytest.raises(ShapeError) as caught:
        game_png({"a": torch.rand(5)}, "deletion")
    assert str(caught.value) == "expected the curves of 'a' as (N, steps + 1), got (5,)"
