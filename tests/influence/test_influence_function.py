"""Influence: against its definition, against leaving points out, and against Captum."""

import pytest
import torch
from captum.influence import NaiveInfluenceFunction
from hypothesis import given, settings
from hypothesis import strategies as st
from influence_cases import (
    fitted,
    half_square,
    naive_gauss_newton,
    naive_gradient,
    naive_hessian,
    naive_influence,
    small_case,
    softmax_case,
)
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from captum_blackbox.influence import ExactSolver, InfluenceFunction

TARGETS = [2, 0, 1]


@pytest.mark.parametrize("layers", [None, ["linear"], "conv", ["norm", "linear"]])
def test_it_is_the_definition_by_gauss_newton(layers):
    model, data, tests = small_case()
    function = InfluenceFunction(model, data, layers=layers, hessian_reg=0.03, batch_size=5)
    names = function.function.names
    hessian = naive_gauss_newton(model, data, names)
    expected = naive_influence(model, data, tests, TARGETS, hessian, 0.03, names)
    torch.testing.assert_close(function.influence(tests, TARGETS), expected)


def test_it_is_the_definition_with_the_exact_hessian():
    model, data, tests = small_case(smooth=True)
    function = InfluenceFunction(model, data, hessian="exact", hessian_reg=2.0)
    expected = naive_influence(model, data, tests, TARGETS, naive_hessian(model, data), 2.0)
    torch.testing.assert_close(function.influence(tests, TARGETS), expected)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_it_foretells_leaving_one_out_of_ridge_regression(seed):
    """Each of 300 fits without a point in closed form; the objective is that of the class."""
    generator = torch.Generator().manual_seed(seed)
    n, d, reg = 300, 5, 0.01
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(d, generator=generator, dtype=torch.float64) + 0.3 * noise
    test, answer = x[:1] * 0.7 + 0.5, y[:1] + 1.0

    def fit(kept):
        covariance = x[kept].T @ x[kept] / n + reg * torch.eye(d, dtype=torch.float64)
        return torch.linalg.solve(covariance, x[kept].T @ y[kept] / n)

    def loss(weights):
        return float((test @ weights - answer) ** 2 / 2)

    everything = torch.arange(n)
    weights = fit(everything)
    true = torch.tensor([loss(fit(everything[everything != i])) - loss(weights) for i in range(n)])
    model = nn.Linear(d, 1, bias=False, dtype=torch.float64)
    model.weight.data.copy_(weights[None])
    function = InfluenceFunction(
        model, TensorDataset(x, y[:, None]), loss_fn=half_square, hessian_reg=reg
    )
    found = function.influence(test, answer[:, None])[0]
    assert torch.corrcoef(torch.stack([found, true.double()]))[0, 1] > 0.99
    assert float(found @ true.double() / (found @ found)) == pytest.approx(1, abs=0.1)


def test_without_a_helpful_point_the_loss_rises_and_without_a_harmful_one_it_falls():
    reg = 0.05
    model, inputs, targets = softmax_case(count=300, reg=reg)
    test, label = inputs[:1] + 0.3, targets[:1]
    function = InfluenceFunction(
        model, TensorDataset(inputs, targets), hessian_reg=reg, hessian="exact"
    )
    influence = function.influence(test, label)[0]
    before = F.cross_entropy(model(test), label).item()
    for number in (int(influence.argmax()), int(influence.argmin())):
        kept = torch.arange(len(inputs)) != number
        # The weight of the others stays what it was: 1/n each.
        share = kept.double().mean().item()
        other = fitted(
            nn.Linear(4, 2, dtype=torch.float64), inputs[kept], targets[kept], reg / share
        )
        rise = F.cross_entropy(other(test), label).item() - before
        assert rise == pytest.approx(influence[number].item(), rel=0.15)
        assert (rise > 0) == (number == int(influence.argmax()))


def test_the_other_sign_is_minus_it():
    model, data, tests = small_case()
    helpful = InfluenceFunction(model, data).influence(tests)
    upweight = InfluenceFunction(model, data, sign="upweight").influence(tests)
    assert torch.equal(upweight, -helpful)


def test_captum_says_the_same_where_it_is_damped_alike(tmp_path):
    """Captum's Hessian is that of the summed loss: its damping is n times ours."""
    model, data, tests = small_case(smooth=True)
    inputs, labels = torch.stack([x for x, _ in data]), torch.tensor([t for _, t in data])
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    reg, n = 0.5, len(data)

    def load(module, path):
        module.load_state_dict(torch.load(path, weights_only=True))
        return 1.0

    captums = NaiveInfluenceFunction(
        model,
        TensorDataset(inputs, labels),
        str(tmp_path / "weights.pt"),
        checkpoints_load_func=load,
        layers=["linear"],
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
        batch_size=n,
        projection_dim=27,
        hessian_reg=reg * n,
        hessian_inverse_tol=0.0,
    )
    expected = captums.influence((tests, torch.tensor(TARGETS)))
    ours = InfluenceFunction(model, data, layers=["linear"], hessian_reg=reg)
    torch.testing.assert_close(
        ours.influence(tests, TARGETS), expected.double(), rtol=1e-4, atol=1e-7
    )


def test_a_function_of_the_image_is_the_sum_and_has_its_gradient():
    model, data, tests = small_case(smooth=True)
    function = InfluenceFunction(model, data, layers=["linear"])
    numbers, targets = torch.tensor([[1, 4], [0, 0], [11, 3]]), torch.tensor(TARGETS)
    summed = function.of_points(numbers, targets)
    expected = function.influence(tests, TARGETS).gather(1, numbers).sum(1)
    torch.testing.assert_close(summed(tests), expected)
    assert torch.autograd.gradcheck(summed, tests.clone().requires_grad_())


def test_the_gradient_reaches_the_image_through_a_network_of_relus():
    model, data, tests = small_case()
    function = InfluenceFunction(model, data)
    summed = function.of_points(torch.tensor([[1], [2], [3]]), torch.tensor(TARGETS))
    leaf = tests.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(summed(leaf).sum(), leaf)
    for number, x in enumerate(tests):
        at = x.clone().requires_grad_()
        hessian = naive_gauss_newton(model, data)
        damped = hessian + 0.01 * torch.eye(len(hessian), dtype=torch.float64)
        response = torch.linalg.solve(damped, naive_gradient(model, *data[number + 1]))
        parameters = [p for _, p in model.named_parameters()]
        loss = F.cross_entropy(model(at[None]), torch.tensor([TARGETS[number]]))
        by_weights = torch.autograd.grad(loss, parameters, create_graph=True)
        value = torch.cat([g.flatten() for g in by_weights]) @ response / len(data)
        torch.testing.assert_close(gradient[number], torch.autograd.grad(value, at)[0])


def test_the_most_influential_points_in_order():
    model, data, tests = small_case()
    function = InfluenceFunction(model, data)
    influence = function.influence(tests)
    found = function.most_influential(tests, k=4)
    for row, numbers, scores in zip(influence, *found, strict=True):
        expected = sorted(range(len(data)), key=lambda i: -row[i])[:4]
        assert numbers.tolist() == expected
        assert torch.equal(scores, row[numbers])
    harmful = function.most_influential(tests, k=2, proponents=False)
    assert torch.equal(harmful.scores, influence.sort(dim=1).values[:, :2])


def test_equal_points_come_in_the_order_of_their_numbers():
    model, data, tests = small_case()
    data = [data[0]] * 3 + [data[1]] * 3
    indices = InfluenceFunction(model, data).most_influential(tests, k=6).indices
    assert all(row in ([0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]) for row in indices.tolist())


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_batches_change_nothing(batch_size):
    model, data, tests = small_case()
    whole = InfluenceFunction(model, data).influence(tests)
    function = InfluenceFunction(model, data, batch_size=batch_size)
    torch.testing.assert_close(function.influence(tests), whole)
    torch.testing.assert_close(function.influence(tests[1:2]), whole[1:2])


def test_the_prediction_is_the_default_target():
    model, data, tests = small_case()
    function = InfluenceFunction(model, data)
    expected = function.influence(tests, model(tests).argmax(1))
    assert torch.equal(function.influence(tests), expected)
    assert torch.equal(function.influence(tests, model(tests).argmax(1).tolist()), expected)


def test_it_takes_its_own_settings_of_a_solver():
    model, data, tests = small_case()
    found = InfluenceFunction(model, data, solver=ExactSolver(60)).influence(tests)
    assert torch.equal(found, InfluenceFunction(model, data).influence(tests))
