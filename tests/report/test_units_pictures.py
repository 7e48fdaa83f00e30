"""Figures of dissections show each concept and unit, whole and in their own colours."""

import io
import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from captum_blackbox.concepts.concepts import Label
from captum_blackbox.dissection.result import Dissection
from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report.dissections import comparison_bars_png, comparison_lines_png
from captum_blackbox.report.figure import figure_png
from captum_blackbox.report.units import (
    category_colors,
    detector_bars_png,
    shown_name,
    unit_gallery_png,
)


def detecting(found, categories=("color", "object"), iou_threshold=0.04, units=10):
    """A dissection whose first unit overlaps by 0.9 with the first label, and so on.

    ``found``: concept → its category and its number of detectors.
    """
    labels = tuple(Label(name, category) for name, (category, _) in found.items())
    intersection = torch.zeros(units, len(labels), dtype=torch.int64)
    activation = torch.zeros(units, len(categories), dtype=torch.int64)
    unit = 0
    for column, (category, detectors) in enumerate(found.values()):
        for _ in range(detectors):
            intersection[unit, column] = 90 - unit
            activation[unit, categories.index(category)] = 100
            unit += 1
    one = torch.ones(units, 1)
    return Dissection(
        "conv5", categories, labels, one[:, 0], intersection, activation,
        torch.full((len(labels),), 100), one.long(), one,
        {"iou_threshold": iou_threshold, "images": 4, "data": "a"},
    )  # fmt: skip


SMALL = detecting(
    {"red-c": ("color", 1), "car": ("object", 1), "dog": ("object", 3), "pot_plant": ("object", 1)}
)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that became PNGs."""
    figures = []

    def keep(figure):
        figures.append(figure)
        return figure_png(figure)

    for module in ("units", "dissections"):
        monkeypatch.setattr(f"captum_blackbox.report.{module}.figure_png", keep)
    return figures


def assert_whole(figure):
    """Every text lies within the figure."""
    figure.canvas.draw()
    paper = figure.bbox
    (axes,) = figure.axes
    texts = [axes.xaxis.label, axes.yaxis.label]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    texts += [legend.get_title() for legend in figure.legends] + list(axes.texts)
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    for text in shown:
        box = text.get_window_extent()
        inside = paper.padded(0.5)
        assert inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1), text


def heights(axes):
    return [round(patch.get_height()) for patch in axes.patches]


def test_bars_stand_by_category_and_count(drawn):
    detector_bars_png(SMALL)
    (axes,) = drawn[0].axes
    assert [each.get_text() for each in axes.get_xticklabels()] == [
        "dog",
        "car",
        "pot plant",
        "red",
    ]
    assert heights(axes) == [3, 1, 1, 1]
    blue, light = category_colors(["object", "color"]).values()
    assert [to_hex(patch.get_facecolor()) for patch in axes.patches] == [blue, blue, blue, light]
    (legend,) = drawn[0].legends
    assert legend.get_title().get_text() == "6/10 units covering 4 concepts with IoU > 0.04"
    assert [text.get_text() for text in legend.get_texts()] == ["object 3", "color 1"]


def test_bars_follow_convention_and_threshold(drawn):
    both = SMALL.intersection.clone()
    both[0, 1] = 50  # the unit of red-c also overlaps with car
    activation = SMALL.activation.clone()
    activation[0, 1] = 100
    result = Dissection(
        "conv5", SMALL.categories, SMALL.labels, SMALL.thresholds, both, activation,
        SMALL.truth, SMALL.top_images, SMALL.top_activations, SMALL.settings,
    )  # fmt: skip
    detector_bars_png(result)
    assert heights(drawn[-1].axes[0]) == [3, 2, 1, 1]
    detector_bars_png(result, convention="best_only")
    assert heights(drawn[-1].axes[0]) == [3, 1, 1, 1]
    detector_bars_png(result, iou_threshold=0.75)
    assert heights(drawn[-1].axes[0]) == [3, 1, 1]
    assert (
        drawn[-1].legends[0].get_title().get_text().endswith("covering 3 concepts with IoU > 0.75")
    )
    with pytest.raises(InputError, match=r"iou_threshold must lie in \[0, 1\), got 2"):
        detector_bars_png(result, iou_threshold=2.0)


def test_many_bars_go_on_below_and_none_is_lost(drawn):
    found = {f"texture number {i}": ("texture", 1) for i in range(70)}
    png = detector_bars_png(detecting(found, ("texture",), units=70))
    assert len(drawn) == 2
    names = [each.get_text() for figure in drawn for each in figure.axes[0].get_xticklabels()]
    assert sorted(names) == sorted(found)
    assert sum(len(figure.axes[0].patches) for figure in drawn) == 70
    tall = [round(figure.get_figheight() * 200) for figure in drawn]
    assert abs(len(pixels(png)) - sum(tall)) <= 2
    for figure in drawn:
        assert_whole(figure)


def test_nothing_found_is_a_figure_too(drawn):
    detector_bars_png(detecting({"car": ("object", 0), "red": ("color", 0)}))
    assert drawn[0].legends[0].get_title().get_text() == (
        "0/10 units covering 0 concepts with IoU > 0.04"
    )
    assert drawn[0].axes[0].patches[:] == []


def test_no_text_is_cut_off(drawn):
    long = detecting(
        {
            "a_concept_whose_name_is_as_long_as_some_that_people_give": ("object", 2),
            "b": ("texture", 1),
            "c": ("color", 1),
            "d": ("scene", 1),
            "e": ("part", 1),
            "f": ("material", 1),
        },
        ("object", "scene", "part", "material", "texture", "color"),
    )
    detector_bars_png(long)
    comparison_bars_png({"a network with a rather long name, retrained": long, "b": long})
    comparison_lines_png([0, 0.5], [long, long], "strength of the rotation (1 = whole)")
    for figure in drawn:
        assert_whole(figure)


def test_categories_keep_their_colours_and_all_have_one():
    six = category_colors(["texture", "color", "scene", "object", "part", "material"])
    assert list(six) == ["object", "scene", "part", "material", "texture", "color"]
    assert len(set(six.values())) == 6
    assert category_colors(["color"])["color"] == six["color"]
    mixed = category_colors(["shape", "color", "size"])
    assert list(mixed) == ["color", "shape", "size"]
    assert len(set(mixed.values())) == 3
    many = category_colors([*six, *(f"own {i}" for i in range(8))])
    assert len(many) == 14
    assert shown_name("palace-s") == "palace"
    assert shown_name("grey-c") == "grey"


def test_the_gallery_is_dark_outside_the_mask():
    pictures = torch.full((2, 3, 3, 8, 8), 0.5)
    masks = torch.zeros(2, 3, 8, 8, dtype=torch.bool)
    masks[..., :4] = True
    drawing = pixels(unit_gallery_png(pictures, masks, ["unit 0", "unit 1"], edge=40))
    colors, counts = np.unique(drawing.reshape(-1, 3), axis=0, return_counts=True)
    found = {tuple(color): count for color, count in zip(colors.tolist(), counts, strict=True)}
    # 0.5 and 0.2 of it, of 255; each half of six pictures of 40 × 40 pixels.
    assert found[128, 128, 128] >= 6 * 800
    assert found[26, 26, 26] == 6 * 800
    assert found[128, 128, 128] <= 6 * 800 + 50  # and what the text has of that grey


def test_each_picture_stands_at_its_place():
    pictures = torch.linspace(0.1, 1, 6)[:, None, None, None].expand(6, 1, 8, 8)
    masks = torch.ones(2, 3, 8, 8, dtype=torch.bool)
    drawing = pixels(unit_gallery_png(pictures.view(2, 3, 1, 8, 8), masks, ["", "a"], edge=40))
    shades = [round(255 * value) for value in torch.linspace(0.1, 1, 6).tolist()]
    places = [np.argwhere((drawing == shade).all(2)) for shade in shades[:5]]
    boxes = [(place.min(0), place.max(0)) for place in places if len(place) >= 1600]
    assert len(boxes) == 5
    lefts = [box[0][1] for box in boxes]
    assert lefts[:3] == [8, 56, 104] and lefts[3:] == [8, 56]
    assert boxes[3][0][0] > boxes[0][1][0]  # the second unit below the first


def test_a_long_title_widens_the_gallery():
    arguments = torch.rand(1, 1, 3, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    short = pixels(unit_gallery_png(*arguments, ["unit 3"]))
    long = pixels(unit_gallery_png(*arguments, ["unit 3 · " + "a long name " * 6]))
    assert long.shape[1] > 2 * short.shape[1] and long.shape[0] >= short.shape[0]
    assert (long[:, -4:] == 255).all()


def test_pictures_that_do_not_fit_are_refused():
    pictures, masks = torch.rand(2, 3, 3, 8, 8), torch.ones(2, 3, 8, 8, dtype=torch.bool)
    for arguments, message in (
        (
            (pictures[0], masks, ["a", "b"]),
            "expected pictures (U, T, 3, H, W), at least one, got shape (3, 3, 8, 8)",
        ),
        (
            (pictures, masks.float(), ["a", "b"]),
            "expected masks (2, 3, 8, 8) bool for pictures (2, 3, 3, 8, 8), got (2, 3, 8, 8) "
            "torch.float32",
        ),
        (
            (pictures, masks[..., :4], ["a", "b"]),
            "expected masks (2, 3, 8, 8) bool for pictures (2, 3, 3, 8, 8), got (2, 3, 8, 4) "
            "torch.bool",
        ),
        ((pictures, masks, ["a"]), "expected a title for each of 2 units, got 1"),
        ((pictures * torch.nan, masks, ["a", "b"]), "the picture has a value that is not finite"),
    ):
        with pytest.raises(ShapeError) as caught:
            unit_gallery_png(*arguments)
        assert str(caught.value) == message


def test_compared_results_are_stacked_by_category(drawn):
    other = detecting({"car": ("object", 1), "big": ("size", 1)}, ("object", "size"))
    comparison_bars_png({"one": SMALL, "two": other})
    (axes,) = drawn[0].axes
    assert [each.get_text() for each in axes.get_yticklabels()] == ["one", "two"]
    bars = [(round(each.get_x()), round(each.get_width())) for each in axes.patches]
    assert bars == [(0, 3), (0, 1), (3, 1), (1, 0), (4, 0), (1, 1)]
    assert [text.get_text() for text in axes.texts] == ["4", "2"]
    assert axes.get_xlabel() == "unique detectors, IoU > 0.04"
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [
        "object", "color", "size"
    ]  # fmt: skip


def test_compared_results_follow_a_number_in_its_order(drawn):
    none = detecting({"car": ("object", 0), "red": ("color", 0)})
    comparison_lines_png([1.0, 0.0], [none, SMALL], "rotation")
    lines = {line.get_label(): line for line in drawn[0].axes[0].get_lines()}
    assert {name: line.get_ydata().tolist() for name, line in lines.items()} == {
        "all": [4, 0],
        "object": [3, 0],
        "color": [1, 0],
    }
    assert lines["all"].get_xdata().tolist() == [0, 1]
    assert drawn[0].axes[0].get_xlabel() == "rotation"
    comparison_lines_png([0.001, 0.1], [none, SMALL], "quantile", logarithmic=True)
    assert drawn[1].axes[0].get_xscale() == "log"


def test_results_that_cannot_be_compared_are_refused():
    other = detecting({"car": ("object", 1), "red": ("color", 1)}, iou_threshold=0.1)
    for draw, message in (
        (lambda: comparison_bars_png({}), "there is no dissection to draw"),
        (lambda: comparison_lines_png([], [], "x"), "there is no dissection to draw"),
        (
            lambda: comparison_bars_png({"a": SMALL, "b": other}),
            "the dissections count concepts above different IoUs, [0.04, 0.1]; give one "
            "iou_threshold for all",
        ),
        (
            lambda: comparison_lines_png([1.0], [SMALL, SMALL], "x"),
            "expected a value for each of 2 results, got 1",
        ),
        (
            lambda: comparison_lines_png([0.0], [SMALL], "x", logarithmic=True),
            "expected finite values above 0, got [0.0]",
        ),
        (
            lambda: comparison_lines_png([float("nan")], [SMALL], "x"),
            "expected finite values, got [nan]",
        ),
    ):
        with pytest.raises(InputError) as caught:
            draw()
        assert str(caught.value) == message
    assert comparison_bars_png({"a": SMALL, "b": other}, iou_threshold=0.04)[1:4] == b"PNG"


def test_the_same_results_give_the_same_bytes_and_no_global_figure():
    assert detector_bars_png(SMALL) == detector_bars_png(SMALL)
    assert comparison_bars_png({"a": SMALL}) == comparison_bars_png({"a": SMALL})
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
