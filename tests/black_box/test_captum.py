"""A black box as the forward function of Captum's own methods and metrics."""

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    KernelShap,
    Lime,
    NoiseTunnel,
    Occlusion,
    ShapleyValueSampling,
)
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max

from captum_blackbox import BlackBox

WEIGHTS = torch.tensor([[0.05, 0.10, 0.02], [0.01, 0.03, 0.20], [0.08, 0.04, 0.06]])


def linear(x):
    """The probability of class 1 is a weighted sum of the nine pixels."""
    p = (WEIGHTS.to(x) * x[:, 0]).sum((1, 2))
    return torch.stack([1 - p, p], 1)


def a_box(**settings):
    return BlackBox(linear, output="probs", **settings)


@pytest.fixture
def images(device):
    return torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)).to(device)


def shares(images):
    """What each pixel adds to the probability of class 1: a linear box has one answer."""
    return WEIGHTS.to(images) * images


@pytest.mark.parametrize("cache", [None, ":memory:"])
def test_feature_ablation(images, cache):
    box = a_box(cache=cache)
    maps = FeatureAblation(box).attribute(images, target=1, perturbations_per_eval=4)
    torch.testing.assert_close(maps, shares(images))
    assert box.queries == 2 * (1 + 9)


def test_occlusion_counts_every_window(images):
    box = a_box(batch_size=3)
    maps = Occlusion(box).attribute(images, sliding_window_shapes=(1, 1, 1), target=[1, 0])
    torch.testing.assert_close(
        maps, shares(images) * torch.tensor([1, -1]).to(images)[:, None, None, None]
    )
    assert box.queries == 2 * (1 + 9)


def test_shapley_values(images):
    maps = ShapleyValueSampling(a_box()).attribute(images, target=1, n_samples=2)
    torch.testing.assert_close(maps, shares(images))


def test_kernel_shap_and_lime(images):
    settings = {"target": 1, "n_samples": 200, "perturbations_per_eval": 50}
    maps = KernelShap(a_box()).attribute(images[:1], **settings)
    torch.testing.assert_close(maps, shares(images[:1]), atol=1e-3, rtol=1e-2)
    from captum._utils.models.linear_model import SkLearnLinearRegression

    lime = Lime(a_box(), interpretable_model=SkLearnLinearRegression())
    torch.testing.assert_close(
        lime.attribute(images[:1], **settings), shares(images[:1]), atol=1e-3, rtol=1e-2
    )


def test_noise_tunnel_around_a_perturbation_method(images):
    tunnel = NoiseTunnel(FeatureAblation(a_box()))
    maps = tunnel.attribute(images, nt_samples=2, stdevs=0.0, target=1)
    torch.testing.assert_close(maps, shares(images))


def test_infidelity_by_hand(images):
    noise = torch.full_like(images, 0.1)

    @infidelity_perturb_func_decorator(False)
    def perturb(inputs):
        return inputs - 0.1

    for maps in (WEIGHTS.to(images).expand_as(images), torch.zeros_like(images)):
        score = infidelity(a_box(), perturb, images, maps, target=1, n_perturb_samples=2)
        change = 0.1 * WEIGHTS.sum().to(images)
        expected = ((noise * maps).sum((1, 2, 3)) - change) ** 2
        torch.testing.assert_close(score, expected, atol=1e-7, rtol=1e-4)


def test_sensitivity_by_hand(images):
    def perturb(inputs):
        return (
            (inputs + 0.1,) if isinstance(inputs, torch.Tensor) else tuple(i + 0.1 for i in inputs)
        )

    explain = FeatureAblation(a_box()).attribute
    score = sensitivity_max(explain, images, perturb_func=perturb, n_perturb_samples=2, target=1)
    change = (0.1 * WEIGHTS).norm()
    expected = change / shares(images).flatten(1).norm(dim=1)
    torch.testing.assert_close(score, expected.to(score), atol=1e-6, rtol=1e-4)


def test_a_numpy_function_is_enough(images):
    def fn(x):
        p = (WEIGHTS.numpy() * x[:, 0]).sum((1, 2))
        return [[1 - each, each] for each in p]

    box = BlackBox.from_numpy(fn, output="probs")
    maps = FeatureAblation(box).attribute(images, target=1)
    torch.testing.assert_close(maps, shares(images).double().to(maps.dtype), atol=1e-6, rtol=1e-5)
