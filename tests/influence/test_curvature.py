"""Products with the Hessian: against finite differences, torch.func and the definition."""

import pytest
import torch
from influence_cases import flat, half_square, naive_gauss_newton, naive_hessian, small_case
from torch import nn
from torch.nn import functional as F

from captum_blackbox.errors import InputError
from captum_blackbox.influence import Curvature
from captum_blackbox.influence.parameters import ParameterFunction
from captum_blackbox.influence.training_set import TrainingSet


def curvature_of(model, data, kind, layers=None, batch_size=5, loss_fn=None):
    function = ParameterFunction(model, layers, loss_fn)
    return Curvature(function, TrainingSet(data, batch_size, function.values), kind)


def eye_of(curvature):
    return torch.eye(curvature.function.count, dtype=torch.float64)


@pytest.mark.parametrize("layers", [None, ["linear"], ["conv", "norm"]])
def test_products_and_matrix_are_the_second_derivative(layers):
    model, data, _ = small_case(smooth=True)
    curvature = curvature_of(model, data, "exact", layers)
    expected = naive_hessian(model, data, curvature.function.names)
    torch.testing.assert_close(curvature.times(eye_of(curvature)), expected)
    torch.testing.assert_close(curvature.matrix(), expected)


@pytest.mark.parametrize("layers", [None, ["linear"], ["conv"]])
def test_products_and_matrix_are_gauss_newtons(layers):
    model, data, _ = small_case()
    curvature = curvature_of(model, data, "gauss_newton", layers)
    expected = naive_gauss_newton(model, data, curvature.function.names)
    torch.testing.assert_close(curvature.times(eye_of(curvature)), expected)
    torch.testing.assert_close(curvature.matrix(), expected)
    assert float(torch.linalg.eigvalsh(curvature.matrix())[0]) > -1e-12


def test_products_are_finite_differences_of_the_gradient():
    model, data, _ = small_case(smooth=True)
    vector, outputs = flat(model)
    inputs, targets = torch.stack([x for x, _ in data]), torch.tensor([t for _, t in data])
    direction = torch.randn(len(vector), dtype=torch.float64)

    def gradient(at):
        at = at.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(outputs(at, inputs), targets), at)[0]

    step = 1e-5
    slope = gradient(vector + step * direction) - gradient(vector - step * direction)
    product = curvature_of(model, data, "exact").times(direction[None])[0]
    torch.testing.assert_close(product, slope / (2 * step), rtol=1e-6, atol=1e-9)


def test_the_two_agree_on_a_last_layer_and_differ_below():
    model, data, _ = small_case(smooth=True)
    last, all_ = (
        [curvature_of(model, data, kind, layers).matrix() for kind in ("exact", "gauss_newton")]
        for layers in (["linear"], None)
    )
    torch.testing.assert_close(*last)
    assert (all_[0] - all_[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["exact", "gauss_newton"])
def test_any_loss_and_shape_of_output(kind):
    model = nn.Sequential(nn.Linear(2, 4, dtype=torch.float64), nn.Unflatten(1, (2, 2)))

    def loss(outputs, targets):
        return ((outputs - targets) ** 4).flatten(1).sum(1)

    data = [tuple(torch.randn(2, *s, dtype=torch.float64)) for s in [(2,)] * 4]
    data = [(x, y[:, None].expand(2, 2)) for x, y in data]
    expected = naive_hessian(model, data, loss=lambda o, t: loss(o, t).mean())
    torch.testing.assert_close(curvature_of(model, data, kind, loss_fn=loss).matrix(), expected)


def test_a_loss_without_curvature_has_none():
    model = nn.Linear(2, 1, dtype=torch.float64)
    data = [(torch.ones(2), torch.ones(1))]

    def distance(outputs, targets):
        return (outputs - targets).abs().sum(1)

    assert curvature_of(model, data, "gauss_newton", loss_fn=distance).matrix().abs().max() == 0
    product = curvature_of(model, data, "exact", loss_fn=distance).times(torch.ones(1, 3))
    assert product.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("kind", ["gauss_newton", "exact"])
@pytest.mark.parametrize("learnt", [False, True])
def test_a_loss_that_is_linear_in_the_outputs_has_none(kind, learnt):
    model = nn.Linear(2, 1, dtype=torch.float64)
    factor = torch.ones(1, dtype=torch.float64, requires_grad=learnt)

    def slope(outputs, targets):
        return (outputs * targets * factor).sum(1)

    curvature = curvature_of(model, [(torch.ones(2), torch.ones(1))], kind, loss_fn=slope)
    assert curvature.times(eye_of(curvature)).abs().max() == 0
    assert curvature.matrix().abs().max() == 0


@pytest.mark.parametrize("kind", ["gauss_newton", "exact"])
def test_it_is_that_of_the_network_in_evaluation_mode_also_without_gradients(kind):
    model, data, _ = small_case()
    expected = curvature_of(model, data, kind).matrix()
    curvature = curvature_of(model.train(), data, kind)
    with torch.no_grad():
        product, matrix = curvature.times(eye_of(curvature)), curvature.matrix()
    torch.testing.assert_close(product, expected)
    torch.testing.assert_close(matrix, expected)
    assert model.training


def test_of_a_few_points_it_is_their_mean():
    model, data, _ = small_case()
    curvature = curvature_of(model, data, "gauss_newton", loss_fn=None)
    vectors = torch.randn(2, curvature.function.count, dtype=torch.float64)
    some = curvature.times_on(curvature.points.some([3, 1, 3]), vectors)
    expected = naive_gauss_newton(model, [data[3], data[1], data[3]])
    torch.testing.assert_close(some, vectors @ expected)


def test_an_unknown_kind_is_refused(as_users_call):
    with pytest.raises(InputError, match="hessian is one of 'gauss_newton', 'exact', got 'fisher'"):
        curvature_of(nn.Linear(2, 2), [(torch.ones(2), 0)], "fisher", loss_fn=half_square)
