"""The figures of curvature put every number where it belongs."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.curvature_plane import CurvaturePlane
from captum_blackbox.fragility.curvature_result import Curvature, Movement
from captum_blackbox.report.curvature import curvature_png, plane_png

NAN = float("nan")


def numbers(*values):
    return torch.tensor(values).double()


def curvature(angle=(60.0, 85.0)):
    """Two images with gradients of length 2."""
    gradients = torch.zeros(2, 1, 2, 2)
    gradients[:, 0, 0, 0] = 2.0
    still = numbers(0.0, 0.0)
    moved = {
        "fragile": Movement(numbers(20.0, 40.0), still, numbers(1.0, 0.2)),
        "gradient": Movement(numbers(2.0, 4.0), still, numbers(2.0, 2.0)),
        "random": Movement(numbers(0.2, 0.4), still, numbers(0.0, 0.0)),
    }
    k = {"residuals": torch.zeros(2, 1), "converged": torch.ones(2, 1).bool()}
    return Curvature(
        target=torch.zeros(2).long(), scores=still, gradients=gradients,
        eigenvalues=numbers([20.0], [40.0]), eigenvectors=torch.zeros(2, 1, 1, 2, 2),
        angles=numbers(*angle)[:, None], iterations=torch.ones(2, 1).long(),
        along=moved, along_signs={}, beta=30.0, **k,
    )  # fmt: skip


def plane():
    """A score of ``x + y²``: with arrows ``(1, 2 y)``."""
    steps = torch.linspace(-1, 1, 5).double()
    x, y = steps[None, :].expand(5, 5), steps[:, None].expand(5, 5)
    slopes = torch.stack([torch.ones(5, 5).double(), 2 * y], 2)
    similarity = 1 / slopes.norm(dim=2)
    return CurvaturePlane(
        steps, (x + y**2)[None], slopes[None], similarity[None], numbers(88.04)
    )  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    """Draws, and returns the axes instead of the PNG."""
    figures = []
    monkeypatch.setattr(
        "captum_blackbox.report.curvature.figure_png", lambda figure: figures.append(figure) or b""
    )

    def draw(function, *arguments):
        function(*arguments)
        return figures[-1].axes[0]

    return draw


def points(axes):
    return {
        each.get_label().split()[0]: np.asarray(each.get_offsets()) for each in axes.collections
    }


def test_a_point_is_an_image_in_a_direction(drawn):
    axes = drawn(curvature_png, curvature())
    shown = points(axes)
    np.testing.assert_allclose(shown["fragile"], [[60, 10], [85, 20]])
    np.testing.assert_allclose(shown["prediction"], [[0, 1], [0, 2]])
    np.testing.assert_allclose(shown["random"], [[90, 0.1], [90, 0.2]])
    lines = [each.get_xydata() for each in axes.get_lines()]
    np.testing.assert_allclose(lines[0], [[0, 1], [60, 10], [90, 0.1]])
    assert axes.get_yscale() == "log"
    assert axes.get_xlim() == (0, 90)


def test_the_axis_on_top_is_the_cosine(drawn):
    (top,) = drawn(curvature_png, curvature()).child_axes
    to_share, to_degrees = top._functions
    np.testing.assert_allclose(to_share(np.array([0, 60, 90])), [1, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(to_degrees(np.array([1, 0.5, 0])), [0, 60, 90])


def test_images_without_an_angle_are_left_out(drawn):
    shown = points(drawn(curvature_png, curvature((NAN, 85.0))))
    assert all(len(each) == 1 for each in shown.values())
    np.testing.assert_allclose(shown["fragile"], [[85, 20]])
    with pytest.raises(InputError) as caught:
        curvature_png(curvature((NAN, NAN)))
    assert str(caught.value).startswith("no image has both curvature and a gradient")


def test_arrows_stand_across_the_lines_and_have_one_length(drawn):
    axes = drawn(plane_png, plane())
    (arrows,) = [each for each in axes.collections if type(each).__name__ == "Quiver"]
    np.testing.assert_allclose(np.hypot(arrows.U, arrows.V), 0.72 * 0.5)
    at = {tuple(place): (u, v) for place, u, v in zip(arrows.XY.tolist(), arrows.U, arrows.V)}  # noqa: B905
    assert len(at) == 25
    assert at[0.0, 0.0] == pytest.approx((0.36, 0))
    assert at[-1.0, 1.0] == pytest.approx((0.36 / math.sqrt(5), 0.72 / math.sqrt(5)))
    lines = [each for each in axes.collections if type(each).__name__ == "QuadContourSet"][-1]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        for x, y in path.vertices:
            if y in plane().steps.tolist():  # elsewhere the drawing interpolates
                assert x + y**2 == pytest.approx(level, abs=1e-9)


def test_axes_name_steps_angle_and_distance_of_the_lines(drawn):
    axes = drawn(plane_png, plane())
    assert axes.get_xlabel() == "step along the prediction gradient"
    assert "the leading eigenvector is at 88.0°" in axes.get_ylabel()
    labels = [each.get_text() for each in axes.figure.legends[0].get_texts()]
    assert labels == ["the image", "equal score, every 0.25", "direction of the gradient map"]


def test_a_large_grid_has_fewer_arrows_one_of_them_at_the_image(drawn):
    steps = torch.arange(-14, 15).double() / 14
    grid = torch.rand(1, 29, 29).double()
    big = CurvaturePlane(steps, grid, torch.rand(1, 29, 29, 2), grid, numbers(90.0))
    axes = drawn(plane_png, big)
    (arrows,) = [each for each in axes.collections if type(each).__name__ == "Quiver"]
    assert arrows.N <= 13**2
    assert [0.0, 0.0] in arrows.XY.tolist()


def test_flat_scores_and_maps_can_be_drawn():
    flat = plane()._replace(scores=torch.ones(1, 5, 5), slopes=torch.zeros(1, 5, 5, 2))
    assert plane_png(flat)[1:4] == b"PNG"


def test_pictures_open_and_are_the_same_twice():
    for function, given in ((curvature_png, curvature()), (plane_png, plane())):
        assert function(given) == function(given)
        picture = Image.open(io.BytesIO(function(given)))
        picture.load()
        assert min(picture.size) > 500


def test_an_image_that_is_not_there_is_refused():
    with pytest.raises(InputError) as caught:
        plane_png(plane(), 1)
    assert str(caught.value) == "image 1 is not among the 1 of the plane"


def test_many_images_have_no_lines(drawn):
    many = curvature()
    rows = torch.arange(2).repeat(20)
    fields = {
        each.name: getattr(many, each.name)[rows]
        for each in dataclasses.fields(many)
        if isinstance(getattr(many, each.name), torch.Tensor)
    }
    along = {key: Movement(*(each[rows] for each in value)) for key, value in many.along.items()}
    axes = drawn(curvature_png, dataclasses.replace(many, **fields, along=along))
    assert not axes.get_lines()
    assert len(points(axes)["fragile"]) == 40
