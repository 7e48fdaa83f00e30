"""The picture of exemplars shows the right points, before and after, and what became new."""

import io
import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.fragility.influence_result import InfluenceAttackResult
from captum_blackbox.report.exemplars import exemplars_png
from captum_blackbox.report.figure import figure_png

CLEAN = [[0.9, 0.8, 0.7, 0.1, 0.0, -0.5], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]]
ATTACKED = [[0.1, 0.8, 0.2, 0.9, 0.0, -0.5], [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]]


def result_of(clean=CLEAN, attacked=ATTACKED, channels=1):
    count = len(clean)
    whole = torch.arange(count)
    yes = torch.ones(count, dtype=torch.bool)
    images = torch.full((count, channels, 4, 4), 0.25)
    return InfluenceAttackResult(
        images + 0.5, images, torch.tensor(clean), torch.tensor(attacked), yes, yes, whole, whole,
        torch.zeros(count, 1).long(), whole, torch.zeros(count, 2), yes[:, None].expand(-1, 2), {},
    )  # fmt: skip


def points(channels=1):
    return [(torch.full((channels, 4, 4), number / 10), number % 2) for number in range(6)]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that became PNGs."""
    figures = []

    def keep(figure):
        figures.append(figure)
        return figure_png(figure)

    monkeypatch.setattr(sys.modules["captum_blackbox.report.exemplars"], "figure_png", keep)
    return figures


def cells(figure):
    """Title, grey value and frame of each picture, row by row."""
    found = []
    for axes in figure.axes:
        spine = axes.spines["left"]
        frame = to_hex(spine.get_edgecolor()) if spine.get_visible() else None
        found.append(
            (axes.get_title(), round(float(np.mean(axes.images[0].get_array())), 4), frame)
        )
    return found


def test_it_shows_the_points_in_order_and_frames_the_new_ones(drawn):
    exemplars_png(result_of(), points(), k=3)
    blue, red = "#0072b2", "#d55e00"
    assert cells(drawn[0]) == [
        ("before: 0", 0.25, None),
        ("#0 0\n+0.9", 0.0, None),
        ("#1 1\n+0.8", 0.1, None),
        ("#2 0\n+0.7", 0.2, None),
        ("after: 0", 0.75, None),
        ("#3 1\n+0.9", 0.3, red),
        ("#1 1\n+0.8", 0.1, blue),
        ("#2 0\n+0.2", 0.2, blue),
    ]


def test_another_image_with_names_and_pictures_of_its_own(drawn):
    exemplars_png(
        result_of(channels=3), points(3), number=1, k=1, classes=["cat", "dog"],
        as_picture=lambda image: 1 - image,
    )  # fmt: skip
    assert [cell[:2] for cell in cells(drawn[0])] == [
        ("before: dog", 0.75),
        ("#5 dog\n+0.5", 0.5),
        ("after: dog", 0.25),
        ("#0 cat\n+0.5", 1.0),
    ]


def test_few_points_are_all_shown(drawn):
    exemplars_png(result_of(), points(), k=20)
    assert len(drawn[0].axes) == 14


def test_nothing_lies_on_anything_else(drawn):
    exemplars_png(result_of(), points(), classes=["a long name", "another name"])
    figure = drawn[0]
    boxes = [axes.get_tightbbox(figure.canvas.get_renderer()) for axes in figure.axes]
    width, height = figure.canvas.get_width_height()
    for number, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_the_same_picture_gives_the_same_bytes():
    first, second = (exemplars_png(result_of(), points()) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).size[0] > 800


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(
        InputError, match="number is between 0 and 1 and k at least 1, got number 2"
    ):
        exemplars_png(result_of(), points(), number=2)
    with pytest.raises(InputError, match="k 0"):
        exemplars_png(result_of(), points(), k=0)
    with pytest.raises(ShapeError, match=r"got shape \(2, 4, 4\)"):
        exemplars_png(result_of(), points(2))
    with pytest.raises(ShapeError, match="not finite"):
        exemplars_png(result_of(), points(), as_picture=lambda image: image * torch.nan)
