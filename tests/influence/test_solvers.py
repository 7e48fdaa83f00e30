"""Three solvers of one system."""

import pytest
import torch
from influence_cases import half_square, naive_gauss_newton, small_case, softmax_case
from torch import nn

from captum_blackbox.errors import ExplanationWarning, InputError
from captum_blackbox.influence import (
    ConjugateGradient,
    Curvature,
    ExactSolver,
    InfluenceFunction,
    LiSSA,
)
from captum_blackbox.influence.parameters import ParameterFunction
from captum_blackbox.influence.solvers import largest_eigenvalue
from captum_blackbox.influence.training_set import TrainingSet


def curvature_of(model, data, kind="gauss_newton", layers=None, batch_size=12, loss_fn=None):
    function = ParameterFunction(model, layers, loss_fn)
    return Curvature(function, TrainingSet(data, batch_size, function.values), kind)


def relative_error(found, expected):
    return float((found - expected).norm(dim=1).div(expected.norm(dim=1)).max())


@pytest.mark.parametrize("layers", [["linear"], None])
@pytest.mark.parametrize(
    ("solver", "most"), [(ExactSolver(), 1e-12), (ConjugateGradient(), 1e-7), (LiSSA(), 1e-6)]
)
def test_each_solves_the_damped_system(solver, most, layers):
    model, data, _ = small_case()
    curvature = curvature_of(model, data, layers=layers)
    hessian = naive_gauss_newton(model, data, curvature.function.names)
    vectors = torch.randn(3, len(hessian), dtype=torch.float64)
    vectors[1] *= 1e3
    expected = torch.linalg.solve(hessian + 0.05 * torch.eye(len(hessian)).double(), vectors.T).T
    found = solver.prepare(curvature, 0.05)(vectors)
    assert relative_error(found, expected) < most


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_conjugate_gradients_stop_when_the_residual_is_small_enough(tolerance):
    model, data, _ = small_case()
    curvature = curvature_of(model, data)
    hessian = curvature.matrix() + 0.05 * torch.eye(51).double()
    vectors = torch.randn(2, 51, dtype=torch.float64)
    found = ConjugateGradient(tolerance).prepare(curvature, 0.05)(vectors)
    assert tolerance / 1e3 < relative_error(found @ hessian, vectors) <= tolerance * 1.001


@pytest.mark.parametrize("layers", [["linear"], None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_three_give_the_same_influences(dtype, layers):
    model, data, tests = small_case(dtype=dtype)
    exact, *others = (
        InfluenceFunction(model, data, layers=layers, solver=solver, hessian_reg=0.1).influence(
            tests[:1]
        )
        for solver in ("exact", "cg", "lissa")
    )
    for other in others:
        assert relative_error(other, exact) < 1e-4


def test_any_scale_of_the_series_means_the_same_damping():
    model, data, _ = small_case()
    curvature = curvature_of(model, data, layers=["linear"])
    vectors = torch.randn(1, curvature.function.count, dtype=torch.float64)
    expected = ExactSolver().prepare(curvature, 0.1)(vectors)
    largest = float(torch.linalg.eigvalsh(curvature.matrix())[-1])
    for scale in (0.6 * largest + 0.1, 5 * largest):
        found = LiSSA(scale=scale).prepare(curvature, 0.1)(vectors)
        assert relative_error(found, expected) < 1e-4


def test_published_damping_is_the_scale_times_larger():
    """The recursion of the published code, with damping d, solves for H + d · scale · I."""
    model, data, _ = small_case()
    curvature = curvature_of(model, data, layers=["linear"])
    hessian, scale, damping = curvature.matrix(), 10.0, 0.02
    vector = torch.randn(1, len(hessian), dtype=torch.float64)
    u = vector
    for _ in range(800):
        u = vector + (1 - damping) * u - u @ hessian / scale
    ours = LiSSA(scale=scale).prepare(curvature, damping * scale)(vector)
    assert relative_error(ours, u / scale) < 1e-4


def test_the_series_refuses_a_scale_with_which_it_diverges():
    model, data, _ = small_case()
    curvature = curvature_of(model, data, layers=["linear"])
    largest = float(torch.linalg.eigvalsh(curvature.matrix())[-1])
    assert largest_eigenvalue(curvature) == pytest.approx(largest, rel=0.05)
    for scale in (0.45 * largest, -1.0):
        with pytest.raises(InputError, match="above half of the largest eigenvalue"):
            LiSSA(scale=scale).prepare(curvature, 0.01)


def test_random_points_give_a_noisy_answer_that_averages_out():
    _, inputs, targets = softmax_case()
    model = nn.Linear(4, 2, dtype=torch.float64)
    data = list(zip(inputs, targets, strict=True))
    curvature = curvature_of(model, data)
    vectors = torch.randn(2, curvature.function.count, dtype=torch.float64)
    expected = ExactSolver().prepare(curvature, 0.1)(vectors)
    solver = LiSSA(sample_size=8, samples=4, depth=50, seed=3)
    found = solver.prepare(curvature, 0.1)(vectors)
    assert relative_error(found, expected) < 0.2
    assert torch.equal(found, solver.prepare(curvature, 0.1)(vectors))
    each = [
        LiSSA(sample_size=8, depth=50, seed=seed).prepare(curvature, 0.1)(vectors)
        for seed in (3, 4, 5, 6)
    ]
    assert not torch.equal(each[0], each[1])
    torch.testing.assert_close(found, torch.stack(each).mean(0))
    content = LiSSA(sample_size=8, depth=50, tolerance=1e9, seed=3)  # all steps are made
    assert torch.equal(content.prepare(curvature, 0.1)(vectors), each[0])


def test_the_scale_of_random_points_is_that_of_the_steepest_batch():
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    data = [(torch.tensor([size]), torch.zeros(1)) for size in (0.1, 10.0, 0.1, 0.1)]
    curvature = curvature_of(model, data, batch_size=1, loss_fn=half_square)
    assert largest_eigenvalue(curvature) == pytest.approx(100.03 / 4)
    assert largest_eigenvalue(curvature, each_batch=True) == pytest.approx(100)
    LiSSA(scale=30.0).prepare(curvature, 0.1)
    with pytest.raises(InputError, match="largest eigenvalue, 100.1 damped, got scale 30"):
        LiSSA(scale=30.0, sample_size=1).prepare(curvature, 0.1)


def saddle():
    """A loss with curvature -1 in its only parameter."""

    def loss(outputs, targets):
        return half_square(outputs, targets) * -1

    return curvature_of(
        nn.Linear(1, 1, bias=False), [(torch.ones(1), torch.ones(1))], "exact", loss_fn=loss
    )


def test_an_indefinite_hessian_is_refused_by_name():
    with pytest.raises(InputError, match=r"smallest eigenvalue -1 before damping.*now 0.01"):
        ExactSolver().prepare(saddle(), 0.01)
    with pytest.raises(InputError, match="not positive definite"):
        ConjugateGradient().prepare(saddle(), 0.01)(torch.ones(1, 1))
    with pytest.raises(InputError, match="grows without end"):
        LiSSA().prepare(saddle(), 0.01)(torch.ones(1, 1))
    with pytest.raises(InputError, match="not positive definite"):
        ConjugateGradient().prepare(saddle(), 1.0)(torch.ones(1, 1))  # flat
    assert ExactSolver().prepare(saddle(), 1.5)(torch.ones(1, 1)).item() == pytest.approx(2)


def test_a_matrix_that_is_too_large_is_refused():
    model, data, _ = small_case()
    with pytest.raises(InputError, match=r"a matrix of 27 × 27 numbers, more than 20 on a side"):
        ExactSolver(most_parameters=20).prepare(curvature_of(model, data, layers=["linear"]), 0.1)
    ExactSolver(most_parameters=27).prepare(curvature_of(model, data, layers=["linear"]), 0.1)


@pytest.mark.parametrize(
    ("solver", "name"), [(ConjugateGradient(max_iterations=2), "cg"), (LiSSA(depth=3), "lissa")]
)
def test_too_few_steps_are_said(solver, name):
    model, data, _ = small_case()
    inverse = solver.prepare(curvature_of(model, data), 0.01)
    with pytest.warns(ExplanationWarning, match=f"solver '{name}' stopped with a relative error"):
        inverse(torch.randn(1, 51, dtype=torch.float64))


def test_how_far_conjugate_gradients_came_is_said():
    model, data, _ = small_case()
    curvature = curvature_of(model, data)
    vector = torch.randn(1, 51, dtype=torch.float64)
    with pytest.warns(ExplanationWarning, match="a relative error of about") as said:
        found = ConjugateGradient(max_iterations=3).prepare(curvature, 0.05)(vector)
    residual = relative_error(found @ (curvature.matrix() + 0.05 * torch.eye(51).double()), vector)
    assert f"a relative error of about {residual:.2g}," in str(said[0].message)


def test_a_vector_of_zeros_gives_zeros():
    model, data, _ = small_case()
    for solver in (ExactSolver(), ConjugateGradient(), LiSSA()):
        inverse = solver.prepare(curvature_of(model, data), 0.01)
        assert inverse(torch.zeros(1, 51, dtype=torch.float64)).abs().max() == 0


def test_nan_is_refused():
    model, data, _ = small_case()
    data[3] = (data[3][0] * torch.nan, 0)
    with pytest.raises(InputError, match="the Hessian is not finite"):
        ExactSolver().prepare(curvature_of(model, data), 0.01)
    with pytest.raises(InputError, match="the Hessian is not finite"):
        ConjugateGradient().prepare(curvature_of(model, data), 0.01)(torch.ones(1, 51).double())
    with pytest.raises(InputError, match="the Hessian is not finite"):
        LiSSA().prepare(curvature_of(model, data), 0.01)


def test_an_unknown_solver_is_refused(as_users_call):
    model, data, _ = small_case()
    with pytest.raises(InputError, match="solver is one of 'exact', 'cg', 'lissa', got 'newton'"):
        InfluenceFunction(model, data, solver="newton")
