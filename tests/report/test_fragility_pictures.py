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
    assert [axes.get_title(loc="left") for axes in panels[:3]] == [
        "top pixels in common", "rank correlation", "shift of the centre, pixels"
    ]  # fmt: skip
    assert [axes.get_ylabel() for axes in panels[::3]] == ["top-k", "mass centre"]
    places = itertools.product(MODES, ("intersection", "rank_correlation", "center_shift"))
    for axes, (mode, measure) in zip(panels, places, strict=True):
        for container, method in zip(axes.containers, METHODS, strict=True):
            line, _, (bars,) = container
            found = [
                curves.mean(method, measure, mode=mode, radius=radius / 255) for radius in (1, 4, 8)
            ]
            np.testing.assert_allclose(line.get_ydata(), [each.mean for each in found])
            assert np.abs(line.get_xdata() - [1, 4, 8]).max() < 0.3
            ends = [segment[:, 1] for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, [(each.low, each.high) for each in found])


def test_methods_have_the_same_look_in_all_panels_and_different_ones_in_each(drawn):
    generator = torch.Generator().manual_seed(0)
    names = tuple(f"method {i}" for i in range(10))
    values = torch.rand((10, 2, 3, len(MEASURES), 6), generator=generator, dtype=torch.float64)
    fragility_png(FragilityCurves(names, MODES, RADII, values))
    looks = []
    for axes in drawn[0].axes:
        lines = [container[0] for container in axes.containers]
        looks.append([(line.get_color(), line.get_linestyle()) for line in lines])
        ends = {text.get_text(): text.get_color() for text in axes.texts}
        assert ends == {n: line.get_color() for n, line in zip(names, lines, strict=True)}
    assert all(each == looks[0] for each in looks)
    assert len(set(looks[0])) == 10


def test_panels_of_a_measure_have_one_scale_that_holds_all_lines(drawn):
    values = some_curves().values
    values[:, 1, :, MEASURES.index("center_shift")] *= 9
    values[:, 1, :, MEASURES.index("rank_correlation")] -= 1
    fragility_png(FragilityCurves(METHODS, MODES, RADII, values))
    for column in range(3):
        first, second = drawn[0].axes[column::3]
        assert first.get_ylim() == second.get_ylim()
        bottom, top = first.get_ylim()
        for axes in (first, second):
            assert bottom <= axes.dataLim.y0 and axes.dataLim.y1 <= top


def test_lines_stay_near_their_radius_however_many_there_are(drawn):
    generator = torch.Generator().manual_seed(0)
    names, radii = tuple(map(str, range(20))), (1 / 255, 2 / 255, 32 / 255)
    values = torch.rand((20, 1, 3, len(MEASURES), 2), generator=generator, dtype=torch.float64)
    fragility_png(FragilityCurves(names, ("topk",), radii, values))
    for axes in drawn[0].axes:
        for container in axes.containers:
            x = container[0].get_xdata()
            assert np.abs(x - [1, 2, 32]).max() < 0.4
            assert axes.get_xlim()[0] < x[0] and x[-1] < axes.get_xlim()[1]


LONG = r"a method with a rather long name, and $\no formula$"


@pytest.mark.parametrize("names", [METHODS, (*METHODS[:2], LONG), tuple(map(str, range(15)))])
def test_names_stand_at_the_ends_and_do_not_overlap(drawn, names):
    shape = (len(names), 2, 3, len(MEASURES), 6)
    values = 0.3 + 0.001 * torch.arange(len(names)).view(-1, 1, 1, 1, 1).expand(shape).double()
    fragility_png(FragilityCurves(names, MODES, RADII, values))  # all lines nearly alike
    figure = drawn[0]
    figure.canvas.draw()
    starts = [axes.get_tightbbox().x0 for axes in figure.axes]
    for number, axes in enumerate(figure.axes):
        room = figure.bbox.x1 if number % 3 == 2 else starts[number + 1]
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without its line
        assert sorted(text.get_text() for text in axes.texts) == sorted(names)
        for row, box in enumerate(boxes):
            for other in boxes[row + 1 :]:
                assert not (box.y0 < other.y1 - 0.5 and other.y0 < box.y1 - 0.5)
            assert box.x0 >= axes.bbox.x1 and box.x1 <= room
            assert axes.bbox.y0 - 1 <= (box.y0 + box.y1) / 2 <= axes.bbox.y1 + 1


def test_published_values_are_marked(drawn):
    published = {"intersection": {"gradient": {1: (0.4, 0.5), 8: (0.1, 0.2)}}}
    fragility_png(some_curves(), published=published)

    def marks(axes):
        hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
        return {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in hollow}

    assert [marks(axes) for axes in drawn[0].axes] == [
        {(1, 0.4), (8, 0.1)}, set(), set(), {(1, 0.5), (8, 0.2)}, set(), set()
    ]  # fmt: skip
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["published"]


def test_what_was_not_measured_is_left_out(drawn):
    curves = some_curves()
    curves.values[0, 0] = torch.nan
    curves.values[1, 1, 0] = torch.nan  # radius 8
    curves.values[..., MEASURES.index("center_shift"), :] = torch.nan
    fragility_png(curves)
    points = [
        [len(container[0].get_xdata()) for container in axes.containers] for axes in drawn[0].axes
    ]
    assert points == [[3, 3], [3, 3], [], [3, 2, 3], [3, 2, 3], []]
    curves.values[:, 0] = torch.nan
    fragility_png(curves)
    assert [axes.get_ylabel() for axes in drawn[1].axes] == ["mass centre", "", ""]
    curves.values[:] = torch.nan
    with pytest.raises(InputError, match="nothing to draw"):
        fragility_png(curves)


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
