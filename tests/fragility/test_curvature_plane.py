"""The plane of gradient and fragile direction holds what the network says at each of its points."""

import pytest
import torch
from networks import State, TwoConvs
from torch import nn

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.fragility.curvature import explanation_curvature
from captum_blackbox.fragility.curvature_plane import curvature_plane
from captum_blackbox.fragility.surrogate import softened


class Scaled(nn.Module):
    """Bends by the second pixel only; the score is a multiple of it and the first."""

    def forward(self, x, scale):
        flat = x.flatten(1)
        return (scale * (flat[:, 0] + 2.5 * flat[:, 1] ** 2))[:, None]


def test_a_plane_known_in_closed_form():
    x = torch.zeros(2, 1, 2, 2).double()
    x[:, 0, 0, 0] = torch.tensor([1.0, 2.0])
    scale = torch.tensor([1.0, -3.0]).double()
    curvature = explanation_curvature(Scaled(), x, 0, scale)
    plane = curvature_plane(Scaled(), x, curvature, scale, radius=2.0, points=5)
    steps = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).double()
    torch.testing.assert_close(plane.steps, steps)
    along, fragile = steps[None, :], steps[:, None]
    for i, s in enumerate(scale):
        # The gradient of the second image points to smaller x₀.
        expected = s * (x[i, 0, 0, 0] + s.sign() * along + 2.5 * fragile**2)
        torch.testing.assert_close(plane.scores[i], expected)
        torch.testing.assert_close(plane.slopes[i, ..., 0], s.abs().expand(5, 5))
        # The sign of the axis is open: across the gradient the score grows to neither side.
        bend = (5 * s * fragile).expand(5, 5)
        torch.testing.assert_close(plane.slopes[i, ..., 1], bend)
        length = (1 + 25 * fragile**2).sqrt().expand(5, 5)
        torch.testing.assert_close(plane.similarity[i], 1 / length)
    torch.testing.assert_close(plane.angles, torch.full((2,), 90.0).double())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_points_are_those_of_the_softened_network(dtype):
    torch.manual_seed(0)
    network, x = TwoConvs().to(dtype).train(), torch.randn(2, 3, 8, 8).to(dtype)
    curvature = explanation_curvature(network, x, [1, 2], beta=5.0)
    before = State(network)
    plane = curvature_plane(network, x, curvature, radius=0.5, points=3)
    assert before.differences(State(network)) == []
    wide = TwoConvs().eval().to(curvature.gradients.dtype)
    wide.load_state_dict({k: v.to(wide.linear.weight.dtype) for k, v in before.weights.items()})
    g = curvature.gradients / curvature.gradients.flatten(1).norm(dim=1)[:, None, None, None]
    v = curvature.eigenvectors[:, 0]
    v = v - (v * g).sum((1, 2, 3), keepdim=True) * g
    v = v / v.flatten(1).norm(dim=1)[:, None, None, None]
    for row, column in ((0, 0), (0, 2), (1, 1), (2, 1)):
        point = (x.to(g) + 0.5 * (column - 1) * g + 0.5 * (row - 1) * v).requires_grad_()
        with softened(wide, 5.0):
            scores = wide(point)[[0, 1], [1, 2]]
        (gradient,) = torch.autograd.grad(scores.sum(), point)
        close = {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
        torch.testing.assert_close(plane.scores[:, row, column], scores.detach(), **close)
        for k, axis in enumerate((g, v)):
            expected = (gradient * axis).sum((1, 2, 3))
            torch.testing.assert_close(plane.slopes[:, row, column, k], expected, **close)
        cosine = torch.cosine_similarity(gradient.flatten(1), g.flatten(1))
        torch.testing.assert_close(plane.similarity[:, row, column], cosine, **close)


def test_bad_input():
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Tanh()), torch.rand(2, 1, 2, 2)
    curvature = explanation_curvature(network, x, 0)
    for given, message in (
        ({"radius": 0.0}, "radius must be positive and finite, got 0.0"),
        ({"radius": 1.0, "points": 4}, "points must be odd and at least 3, got 4"),
        ({"radius": 1.0, "points": 1}, "points must be odd and at least 3, got 1"),
    ):
        with pytest.raises(InputError) as caught:
            curvature_plane(network, x, curvature, **given)
        assert str(caught.value) == message
    with pytest.raises(ShapeError, match=r"the curvature is that of images \(2, 1, 2, 2\), got"):
        curvature_plane(network, x[:1], curvature, radius=1.0)
    # A function of one projection bends along its gradient.
    with pytest.raises(InputError, match=r"image 0 span no plane: .* parallel \(angle .* degrees"):
        curvature_plane(network, x, curvature, radius=1.0)


def test_the_bar_counts_points(capsys):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    x = torch.rand(1, 1, 2, 2)
    curvature = explanation_curvature(network, x, 0)
    curvature_plane(network, x, curvature, radius=1.0, points=3, show_progress=True)
    assert "9/9" in capsys.readouterr().err
