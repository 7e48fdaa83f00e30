"""Curvature beside full Hessians, finite differences, and closed forms."""

import json
import math

import pytest
import torch
from networks import FunctionalInPlace, State, TwoConvs
from torch import nn

from captum_blackbox.errors import ExplanationWarning, InputError, ShapeError, TargetError
from captum_blackbox.fragility.curvature import explanation_curvature
from captum_blackbox.fragility.hessian_products import InputHessian
from captum_blackbox.fragility.surrogate import RelativeBeta, softened

SHAPE = (2, 4, 4)
SIZE = math.prod(SHAPE)


class Of(nn.Module):
    """A score from a function of flat images; the second class is its negative."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        score = self.function(x.flatten(1))
        return torch.stack([score, -score], 1)


def smooth_network(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Softplus(3.0), nn.Conv2d(4, 3, 3), nn.Tanh(),
        nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip
    return network.to(dtype)


def images(count=3, seed=0, dtype=torch.float64):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def full_hessians(network, x, target):
    """By forward over reverse mode, a column at a time: ``(N, D, D)``."""

    def score(flat, i):
        return network(flat.view(1, *SHAPE))[0, target[i]]

    return torch.stack(
        [torch.func.hessian(score)(each.flatten(), i).detach() for i, each in enumerate(x)]
    )


def test_products_equal_the_full_hessian_and_finite_differences():
    network, x, target = smooth_network(), images(), torch.tensor([0, 2, 1])
    v = images(seed=1)
    hessian = InputHessian(network, x, target)
    products = hessian.product(v)
    expected = torch.einsum("nij,nj->ni", full_hessians(network, x, target), v.flatten(1))
    torch.testing.assert_close(products.flatten(1), expected, rtol=1e-10, atol=1e-12)
    step = 1e-5
    above, below = (InputHessian(network, x + s * step * v, target).gradients for s in (1, -1))
    torch.testing.assert_close(products, (above - below) / (2 * step), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(hessian.scores, network(x).detach()[range(3), target])
    assert expected.norm() > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_pairs_equal_those_of_the_full_hessian(seed):
    network, x = smooth_network(seed), images(seed=seed)
    curvature = explanation_curvature(network, x, [0, 2, 1], k=4, tolerance=1e-9)
    for i, hessian in enumerate(full_hessians(network, x, [0, 2, 1])):
        values, vectors = torch.linalg.eigh(hessian)
        order = values.abs().argsort(descending=True)[:4]
        torch.testing.assert_close(curvature.eigenvalues[i], values[order], rtol=1e-8, atol=1e-10)
        cosines = (curvature.eigenvectors[i].flatten(1) * vectors[:, order].T).sum(1).abs()
        torch.testing.assert_close(cosines, torch.ones(4).double(), rtol=0, atol=1e-8)
    assert (curvature.eigenvalues < 0).any() and (curvature.eigenvalues > 0).any()
    assert curvature.converged.all() and (curvature.residuals < 1e-8).all()
    assert (curvature.iterations <= SIZE).all()


def test_everything_else_follows_from_hessian_and_gradient():
    network, x = smooth_network(), images()
    found = explanation_curvature(network, x, [0, 2, 1], k=2, tolerance=1e-10)
    for i, hessian in enumerate(full_hessians(network, x, [0, 2, 1])):
        g = found.gradients[i].flatten()
        leaf = x[i : i + 1].clone().requires_grad_()
        network(leaf)[0, [0, 2, 1][i]].backward()
        torch.testing.assert_close(g, leaf.grad.flatten())
        for j in range(2):
            v = found.eigenvectors[i, j].flatten()
            assert v @ g >= 0  # the score grows along it
            torch.testing.assert_close(v.norm(), torch.ones(()).double())
            angle = math.degrees(math.acos(abs(float(v @ g / g.norm()))))
            assert float(found.angles[i, j]) == pytest.approx(angle, abs=1e-6)
        v = found.eigenvectors[i, 0].flatten()
        across = torch.eye(SIZE).double() - torch.outer(g, g) / (g @ g)
        steps = {"fragile": (v, v.sign()), "gradient": (g / g.norm(), g.sign())}
        for direction, both in steps.items():
            for moved, step in zip((found.along, found.along_signs), both, strict=True):
                expected = (
                    (hessian @ step).norm(),
                    (across @ hessian @ step).norm(),
                    (g @ step).abs(),
                )
                for a, b in zip(moved[direction], expected, strict=True):
                    torch.testing.assert_close(a[i], b)
        random, signs = (each["random"] for each in (found.along, found.along_signs))
        # A step of all signs has the length √D.
        torch.testing.assert_close(signs.explanation / math.sqrt(SIZE), random.explanation)
        expected = 0.1 * (hessian @ v.sign()).norm() / g.norm()
        torch.testing.assert_close(found.relative_change(0.1)[i], expected)
        by_length = found.relative_change(0.1, "L2")[i]
        torch.testing.assert_close(by_length, 0.1 * found.eigenvalues[i, 0].abs() / g.norm())
        assert by_length >= found.relative_change(0.1, "L2", "gradient")[i]
        assert by_length >= found.relative_change(0.1, "L2", "random")[i]


def test_a_function_of_one_projection_is_fragile_along_its_gradient():
    w, x = images(1, seed=5)[0].flatten(), images()
    network = Of(lambda flat: (0.3 * flat @ w).exp())
    found = explanation_curvature(network, x, 0, k=2, tolerance=1e-9)
    # H = g'' w wᵀ with g = exp(0.3 u): rank one.
    score = (0.3 * x.flatten(1) @ w).exp()
    torch.testing.assert_close(found.eigenvalues[:, 0], 0.09 * score * (w @ w))
    assert (found.eigenvalues[:, 1].abs() < 1e-12 * found.eigenvalues[:, 0]).all()
    torch.testing.assert_close(
        found.eigenvectors[:, 0].flatten(1), (w / w.norm()).expand(3, -1), rtol=1e-9, atol=1e-12
    )
    assert (found.angles[:, 0] < 1e-6).all()
    # ‖H sign(w)‖ / ‖g‖ = ‖w‖₁ |g'' / g'|; the map only grows, it does not turn.
    expected = 0.05 * w.abs().sum() * 0.3
    torch.testing.assert_close(found.relative_change(0.05), expected.expand(3))
    for moved in (found.along, found.along_signs):
        for movement in moved.values():
            assert (movement.turning <= 1e-9 * found.eigenvalues[:, 0]).all()


def test_a_quadratic_moves_its_gradient_by_the_hessian_exactly():
    a = images(SIZE // 2, seed=3).reshape(-1, SIZE)
    matrix = a.T @ a - 2 * torch.eye(SIZE)
    network, x, step = (
        Of(lambda flat: 0.5 * (flat @ matrix * flat).sum(1)),
        images(),
        images(seed=9),
    )
    before, after = (InputHessian(network, each, torch.zeros(3).long()) for each in (x, x + step))
    torch.testing.assert_close(before.gradients.flatten(1), x.flatten(1) @ matrix)
    torch.testing.assert_close(after.gradients - before.gradients, before.product(step))
    found = explanation_curvature(network, x, 0, k=SIZE, tolerance=1e-10)
    values = torch.linalg.eigvalsh(matrix)
    expected = values[values.abs().argsort(descending=True)]
    # -2 occurs SIZE / 2 times.
    torch.testing.assert_close(found.eigenvalues, expected.expand(3, -1), rtol=1e-8, atol=1e-8)


def test_a_network_whose_fragile_direction_is_across_the_gradient():
    # The score is x₀, and bends by x₁ only.
    network = Of(lambda flat: flat[:, 0] + 2.5 * flat[:, 1] ** 2)
    x = images()
    x[:, 0, 0, 1] = 0
    found = explanation_curvature(network, x, 0)
    torch.testing.assert_close(found.eigenvalues, torch.full((3, 1), 5.0).double())
    torch.testing.assert_close(found.angles, torch.full((3, 1), 90.0).double())
    for direction, explanation, score in (("fragile", 5.0, 0.0), ("gradient", 0.0, 1.0)):
        assert found.along[direction].explanation.tolist() == pytest.approx([explanation] * 3)
        assert found.along[direction].score.tolist() == pytest.approx([score] * 3, abs=1e-9)


@pytest.mark.parametrize("make", [TwoConvs, FunctionalInPlace])
def test_relus_are_softened_with_beta(make, device):
    torch.manual_seed(0)
    network, x = make().double().to(device), torch.randn(2, 3, 8, 8).double().to(device)
    label = network.eval()(x).argmax(1)
    network.train()
    before, own = State(network), x.clone()
    found = explanation_curvature(network, x, beta=7.0, tolerance=1e-9)
    assert before.differences(State(network)) == []
    assert torch.equal(x, own)
    assert found.target.tolist() == label.tolist()
    assert found.beta == 7.0
    assert found.eigenvectors.device == found.angles.device == x.device
    v, step = found.eigenvectors[:, 0], 1e-6
    network.eval()
    with softened(network, 7.0):
        sides = [InputHessian(network, x + s * step * v, label).gradients for s in (1, -1)]
    torch.testing.assert_close(
        (sides[0] - sides[1]) / (2 * step), found.eigenvalues[:, :1, None, None] * v,
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    others = explanation_curvature(network, x, beta=20.0)
    assert not torch.allclose(others.eigenvalues, found.eigenvalues, rtol=0.01)


def test_a_relative_beta_is_the_number_it_comes_to_and_goes_to_json():
    """With one activation and one image it is a number, held fixed in the derivatives."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = images(2)
    found = explanation_curvature(network, x, 0, beta=RelativeBeta(6.0), tolerance=1e-9)
    for row in range(2):
        size = network[1](x[row].flatten()).detach().square().mean().sqrt()
        alone = explanation_curvature(
            network, x[row : row + 1], 0, beta=6.0 / float(size), tolerance=1e-9
        )
        torch.testing.assert_close(
            found.eigenvalues[row], alone.eigenvalues[0], rtol=1e-5, atol=1e-8
        )
    assert json.loads(json.dumps(found.to_dict()))["beta"] == "RelativeBeta(ratio=6.0)"
    assert alone.to_dict()["beta"] == alone.beta
    assert explanation_curvature(network, x, 0).to_dict()["beta"] == 30.0


def test_a_relu_network_as_it_is_has_no_curvature():
    torch.manual_seed(0)
    network, x = TwoConvs(), torch.randn(2, 3, 8, 8)
    with pytest.warns(ExplanationWarning) as caught:
        found = explanation_curvature(network, x, beta=None, k=2)
    assert "image 0 (2 of 2) has no second derivative" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert len(caught) == 1
    assert not found.eigenvalues.any() and not found.eigenvectors.any()
    assert found.angles.isnan().all()
    assert found.converged.all()
    assert (found.gradient_norms > 0).all()
    assert not found.relative_change(1.0).any()


def test_a_linear_network_has_no_curvature():
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 3)).double(), images()
    with pytest.warns(ExplanationWarning, match=r"image 0 \(3 of 3\) has no second derivative"):
        found = explanation_curvature(network, x, 1)
    torch.testing.assert_close(found.gradients.flatten(1), network[1].weight[1].expand(3, -1))
    assert not found.eigenvalues.any()


def test_no_gradient_no_angle():
    network = Of(lambda flat: (flat**2).sum(1))
    with pytest.warns(ExplanationWarning, match=r"gradient of image 1 \(1 of 2\) is 0"):
        found = explanation_curvature(
            network, torch.stack([images(1)[0], torch.zeros(SHAPE).double()]), 0
        )
    assert found.angles.isnan().tolist() == [[False], [True]]
    torch.testing.assert_close(found.eigenvalues, torch.full((2, 1), 2.0).double())
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_search_that_is_cut_short_says_so():
    network, x = smooth_network(), images()
    with pytest.warns(ExplanationWarning, match=r"image 0 \(3 of 3\) has not converged"):
        found = explanation_curvature(network, x, 0, iterations=2, tolerance=1e-6)
    assert found.iterations.tolist() == [[2], [2], [2]]
    assert not found.converged.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_images_one_by_one(dtype):
    network, x = smooth_network(dtype=dtype), images(dtype=dtype)
    together = explanation_curvature(network, x, [0, 1, 2], k=2)
    exact = {torch.float32: 1e-4, torch.float64: 1e-9}[dtype]
    for i in range(3):
        alone = explanation_curvature(network, x[i : i + 1], [i], k=2)
        for name in ("eigenvalues", "eigenvectors", "angles", "iterations", "target", "scores"):
            a, b = getattr(together, name)[i : i + 1], getattr(alone, name)
            torch.testing.assert_close(a, b, rtol=exact, atol=exact)
        for a, b in zip(together.along["random"], alone.along["random"], strict=True):
            torch.testing.assert_close(a[i : i + 1], b, rtol=exact, atol=exact)


def test_equal_calls_are_equal_and_seeds_agree():
    network, x = smooth_network(), images()
    first, again, other = (explanation_curvature(network, x, seed=each) for each in (0, 0, 1))
    assert first.to_dict() == again.to_dict()
    assert torch.equal(first.eigenvectors, again.eigenvectors)
    assert not torch.equal(first.along["random"].score, other.along["random"].score)
    torch.testing.assert_close(first.eigenvalues, other.eigenvalues, rtol=1e-5, atol=0)
    torch.testing.assert_close(first.eigenvectors, other.eigenvectors, rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    torch.manual_seed(0)
    network, x = TwoConvs().to(dtype), torch.randn(2, 3, 8, 8).to(dtype)
    before = State(network)
    found = explanation_curvature(network, x, 1)
    assert before.differences(State(network)) == []
    wide = explanation_curvature(TwoConvsLike(network), x.float(), 1)
    torch.testing.assert_close(found.eigenvalues, wide.eigenvalues, rtol=1e-3, atol=0)
    assert found.eigenvectors.dtype == found.gradients.dtype == torch.float32


def TwoConvsLike(network):  # noqa: N802
    copy = TwoConvs()
    copy.load_state_dict({name: each.float() for name, each in network.state_dict().items()})
    return copy


def test_autocast_and_no_grad_around_it_change_nothing():
    network, x = smooth_network(dtype=torch.float32), images(dtype=torch.float32)
    expected = explanation_curvature(network, x, 0)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        found = explanation_curvature(network, x.clone(), 0)
    torch.testing.assert_close(found.eigenvalues, expected.eigenvalues)


def test_additional_arguments_reach_the_model():
    class Scaled(nn.Module):
        def forward(self, x, scale):
            return (scale[:, None] * x.flatten(1) ** 2).sum(1, keepdim=True)

    scale = torch.tensor([1.0, 3.0, -5.0]).double()
    found = explanation_curvature(Scaled(), (images(),), None, scale)
    torch.testing.assert_close(found.eigenvalues[:, 0], 2 * scale)
    assert found.target.tolist() == [0, 0, 0]


def test_additional_arguments_of_a_half_precision_model_are_widened_if_they_are_half():
    class Scaled(nn.Module):
        def forward(self, x, scale, number):
            assert number.dtype == torch.int64
            size = scale * scale  # beyond half precision
            return (size[:, None] * x.flatten(1) ** 2).sum(1, keepdim=True) * number

    scale, x = torch.tensor([1.0, 3.0, 500.0]).half(), images().half()
    found = explanation_curvature(Scaled(), x, None, (scale, torch.tensor(3)))
    torch.testing.assert_close(found.eigenvalues[:, 0], 6 * scale.double() ** 2)


def test_the_model_is_untouched_after_an_error():
    class Breaks(TwoConvs):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("a layer broke")
            return super().forward(x)

    network = Breaks().train()
    before = State(network)
    with pytest.raises(RuntimeError, match="a layer broke"):
        explanation_curvature(network, torch.randn(1, 3, 8, 8))
    assert before.differences(State(network)) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, InputError, "k lies between 1 and the 32 numbers of an image, got 0"),
        ({"k": 33}, InputError, "k lies between 1 and the 32 numbers of an image, got 33"),
        ({"iterations": 0}, InputError, "iterations must be at least 1, got 0"),
        ({"tolerance": 0.0}, InputError, "tolerance must lie in (0, 1), got 0.0"),
        ({"tolerance": math.nan}, InputError, "tolerance must lie in (0, 1), got nan"),
        ({"beta": -1.0}, InputError, "beta is a positive finite number, got -1.0"),
        ({"target": 3}, TargetError, "target 3 is out of range for 3 classes (0 … 2)"),
        ({"target": [0, 1]}, TargetError, "expected one target or 3 of them"),
        ({"inputs": torch.zeros(2, 4, 4)}, ShapeError, "expected images (N, C, H, W), got shape"),
        ({"inputs": torch.zeros(1, 2, 4, 4)}, InputError, "the model has torch.float64 weights"),
        ({"inputs": images() * math.nan}, InputError, "the gradient of image 0 is not finite"),
        ({"model": lambda x: x}, InputError, "second derivatives need an nn.Module, got function"),
        ({"model": nn.Softplus()}, InputError, "expected the network to give scores (3, classes)"),
    ],
)  # fmt: skip
def test_bad_input(change, error, message, as_users_call):
    given = {"model": smooth_network(), "inputs": images(), "target": 0} | change
    with pytest.raises(error) as caught:
        explanation_curvature(**given)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"radius": -1.0}, "radius must be finite and not negative, got -1.0"),
        ({"radius": 1.0, "norm": "L1"}, "norm is one of 'Linf', 'L2', got 'L1'"),
        ({"radius": 1.0, "direction": "up"}, "direction is one of 'fragile', 'gradient', 'random'"),
    ],
)
def test_bad_questions_to_the_result(given, message, as_users_call):
    found = explanation_curvature(smooth_network(), images(1), 0)
    with pytest.raises(InputError) as caught:
        found.relative_change(**given)
    assert str(caught.value).startswith(message)


def test_the_result_as_json():
    found = explanation_curvature(smooth_network(), images(), 0, k=2)
    fields = json.loads(json.dumps(found.to_dict()))
    assert fields["eigenvalues"] == found.eigenvalues.tolist()
    assert fields["gradient_norms"] == found.gradient_norms.tolist()
    assert fields["along_signs"]["random"]["score"] == found.along_signs["random"].score.tolist()
    assert fields["converged"] == [[True, True]] * 3
    assert set(fields) == {
        "beta", "target", "scores", "gradient_norms", "eigenvalues", "angles", "residuals",
        "converged", "iterations", "along", "along_signs",
    }  # fmt: skip


def test_the_bar_counts_products(capsys):
    found = explanation_curvature(smooth_network(), images(1), 0, show_progress=True)
    shown = capsys.readouterr().err
    # Those of the search, one to measure the residual, and one for each of six movements.
    assert f"curvature: {int(found.iterations[0, 0]) + 1 + 6}product" in shown


@pytest.mark.slow
@pytest.mark.real
def test_squeezenet_is_fragile_across_its_gradient(data):
    network = data.squeezenet_imagenet()
    x = data.normalise(data.photographs(2, size=160)[0])
    found = explanation_curvature(network, x, tolerance=1e-2)
    assert found.converged.all()
    assert (found.angles > 60).all()
    fragile, gradient, random = (found.along[each] for each in ("fragile", "gradient", "random"))
    # The map moves fastest along the eigenvector, by far, and the score hardly moves.
    assert (fragile.explanation > 3 * gradient.explanation).all()
    assert (fragile.explanation > 50 * random.explanation).all()
    assert (fragile.score < 0.2 * gradient.score).all()
    assert (fragile.turning > 0.9 * fragile.explanation).all()
