"""Pictures of a comparison decode, and show the numbers they were given."""

import io
import math

import pytest
from PIL import Image

from captum_blackbox.errors import InputError
from captum_blackbox.report.compare import metric_png, ranks_png

NAN = math.nan
MEANS = {
    "a": (0.4, 0.3, 0.5),
    "random": (0.2, 0.1, 0.3),
    "none": (NAN, NAN, NAN),
    "b": (0.9, 0.8, 1),
}
RANKS = {
    "deletion": {"a": 2.0, "random": 2.5, "none": NAN, "b": 1.5},
    "never": {"a": NAN, "random": NAN, "none": NAN, "b": NAN},
    "insertion": {"a": 1.0, "random": 3.0, "none": NAN, "b": 2.0},
}
OVERALL = {"a": 1.5, "random": 2.75, "none": NAN, "b": 1.75}


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(
        "captum_blackbox.report.compare.figure_png", lambda figure: figures.append(figure) or b""
    )
    return figures


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_best_method_of_a_metric_is_on_top(drawn):
    metric_png(MEANS, "deletion", higher_is_better=False)
    metric_png(MEANS, "insertion", higher_is_better=True)
    lower, higher = (figure.axes[0] for figure in drawn)
    assert labels(lower) == ["random", "a", "b", "none"]
    assert labels(higher) == ["b", "a", "random", "none"]
    assert lower.get_ylim()[0] > lower.get_ylim()[1]
    assert lower.get_xlabel() == "deletion (lower is better)"
    assert higher.get_xlabel() == "insertion (higher is better)"
    bar, dot = lower.get_lines()[:2]
    assert bar.get_xdata().tolist() == [0.1, 0.3] and bar.get_ydata().tolist() == [0, 0]
    assert dot.get_xdata().tolist() == [0.2]
    assert [text.get_text() for text in lower.texts] == ["0.2", "0.4", "0.9"]


def test_ranks_are_sorted_by_the_overall_one(drawn):
    ranks_png(RANKS, OVERALL)
    axes = drawn[0].axes[0]
    assert labels(axes) == ["a", "b", "random", "none"]
    lines = {line.get_label(): line.get_xdata().tolist() for line in axes.get_lines()}
    assert list(lines) == ["deletion", "insertion", "all"]
    assert lines["deletion"][:3] == [2.0, 1.5, 2.5] and lines["insertion"][:3] == [1.0, 2.0, 3.0]
    assert lines["all"][:3] == [1.5, 1.75, 2.75]


def test_they_decode_and_equal_numbers_give_equal_bytes():
    for draw in (
        lambda: metric_png(MEANS, "deletion", higher_is_better=False),
        lambda: ranks_png(RANKS, OVERALL),
    ):
        image = Image.open(io.BytesIO(draw()))
        image.load()
        assert image.size[0] > 1000 and draw() == draw()
    assert metric_png(MEANS, "deletion", higher_is_better=False) != metric_png(
        {**MEANS, "a": (0.5, 0.3, 0.6)}, "deletion", higher_is_better=False
    )


def test_more_methods_need_more_room():
    many = {f"method {i}": (i / 20, 0.0, 1.0) for i in range(20)}
    sizes = [
        Image.open(io.BytesIO(metric_png(each, "x", higher_is_better=True))).size[1]
        for each in (MEANS, many)
    ]
    assert sizes[0] < sizes[1]


def test_a_dollar_in_a_name_is_a_dollar():
    odd = "$\\frac$ of $x"  # as mathematics, an error
    metric_png({odd: (0.4, 0.3, 0.5), "$a$": (0.1, 0, 1)}, odd, higher_is_better=True)
    ranks_png({odd: {odd: 1.0, "$a$": 2.0}, "$b$": {odd: 1.0}}, {odd: 1.0, "$a$": 2.0})


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match="no method has a number by 'deletion' to draw"):
        metric_png({"a": (NAN, NAN, NAN)}, "deletion", higher_is_better=False)
    with pytest.raises(InputError, match="there is no rank to draw"):
        ranks_png({"never": RANKS["never"]}, OVERALL)
