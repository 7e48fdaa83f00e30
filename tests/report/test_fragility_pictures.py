"""The picture of fragility curves: what is drawn, where, and that names do not overlap."""

import io
import itertools

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.curves_result import MEASURES, FragilityCurves
from captum_blackbox.report.fragility import fragility_png, spread_apart

METHODS = ("gradient", "DeepLIFT", "random")
MODES = ("topk", "mass_center")
RADII = (8 / 255, 1 / 255, 4 / 255)


def some_curves():
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, 3, len(MEASURES), 6)
    values = torch.rand(shape, generator=generator, dtype=torch.float64)
    return FragilityCurves(METHODS, MODES, RADII, values)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would become PNGs."""
    figures = []
    monkeypatch.setattr(
        "captum_blackbox.report.fragility.figure_png", lambda figure: figures.append(figure) or b""
    )
    return figures


def test_it_is_a_picture_and_the_same_one_each_time():
    curves = some_curves()
    png = fragility_png(curves)
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.width > 2 * image.height
    assert png == fragility_png(curves)
    changed = FragilityCurves(METHODS, MODES, RADII, curves.values / 2)
    assert png != fragility_png(changed)


def test_a_line_is_the_means_over_the_radii_from_small_to_large(drawn):
    curves = some_curves()
    fragility_png(curves)
    panels = drawn[0].axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "top pixels in common", "rank correlation", "shift of the centre, pixels"
    ]  # fmt: skip
    for axes, measure in zip(panels, ("intersection", "rank_correlation", "center_shift"),
                             strict=True):  # fmt: skip
        lines = axes.containers
        assert len(lines) == 6
        pairs = [(name, mode) for name in METHODS for mode in MODES]
        for container, (method, mode) in zip(lines, pairs, strict=True):
            line, _, (bars,) = container
            found = [
                curves.mean(method, measure, mode=mode, radius=radius / 255) for radius in (1, 4, 8)
            ]
            np.testing.assert_allclose(line.get_ydata(), [each.mean for each in found])
            assert np.abs(line.get_xdata() - [1, 4, 8]).max() < 0.3
            ends = [segment[:, 1] for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, [(each.low, each.high) for each in found])


def test_methods_have_colours_and_objectives_have_styles(drawn):
    fragility_png(some_curves())
    lines = [container[0] for container in drawn[0].axes[0].containers]
    colors = [line.get_color() for line in lines]
    assert colors[0::2] == colors[1::2] and len(set(colors)) == 3
    styles = (
        {line.get_linestyle() for line in lines[0::2]},
        {line.get_linestyle() for line in lines[1::2]},
    )
    assert all(len(each) == 1 for each in styles) and styles[0] != styles[1]
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == ["top-k", "mass centre"]


def test_names_stand_at_the_ends_and_do_not_overlap(drawn):
    curves = some_curves()
    values = curves.values.clone()
    values[:] = 0.3 + 0.001 * torch.arange(3).view(3, 1, 1, 1, 1)  # all lines nearly alike
    fragility_png(FragilityCurves(METHODS, MODES, RADII, values))
    drawn[0].canvas.draw()
    for axes in drawn[0].axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without its line
        assert [text.get_text() for text in axes.texts].count("gradient") == 2
        for number, box in enumerate(boxes):
            for other in boxes[number + 1 :]:
                assert not (box.y0 < other.y1 - 0.5 and other.y0 < box.y1 - 0.5)
            assert box.x0 >= 0 and box.x1 <= axes.figure.bbox.x1


def test_published_values_are_marked(drawn):
    published = {"intersection": {"gradient": {1: (0.4, 0.5), 8: (0.1, 0.2)}}}
    fragility_png(some_curves(), published=published)
    marks = [line for line in drawn[0].axes[0].lines if line.get_markerfacecolor() == "none"]
    points = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in marks}
    assert points == {(1, 0.4), (1, 0.5), (8, 0.1), (8, 0.2)}
    assert "published" in [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert not any(line.get_markerfacecolor() == "none" for line in drawn[0].axes[1].lines)


def test_what_was_not_measured_is_left_out(drawn):
    curves = some_curves()
    curves.values[0, 0] = torch.nan
    curves.values[1, 1, 0] = torch.nan  # radius 8
    fragility_png(curves)
    lines = [container[0] for container in drawn[0].axes[0].containers]
    assert [len(line.get_xdata()) for line in lines] == [3, 3, 2, 3, 3]
    with pytest.raises(InputError, match="nothing to draw"):
        fragility_png(
            FragilityCurves(METHODS, MODES, RADII, torch.full_like(curves.values, torch.nan))
        )


@pytest.mark.parametrize("seed", range(5))
def test_places_are_moved_as_little_as_the_best_of_a_search(seed):
    """Isotonic regression by brute force: the smallest sum of squares on a fine grid."""
    generator = np.random.default_rng(seed)
    places = np.sort(generator.integers(0, 7, size=3)).astype(float)
    found = spread_apart(places.tolist(), 2.0, 8.0)
    assert all(b - a >= 2 - 1e-9 for a, b in itertools.pairwise(found))
    assert found[0] >= -1e-9 and found[-1] <= 8 + 1e-9
    grid = np.arange(0, 8.01, 0.25)
    best = min(
        ((np.array([a, b, c]) - places) ** 2).sum()
        for a in grid
        for b in grid[grid >= a + 2]
        for c in grid[grid >= b + 2]
    )
    assert ((np.array(found) - places) ** 2).sum() <= best + 1e-9
