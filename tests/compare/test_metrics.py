"""Every metric is what it is called, and sees what it should."""

from functools import partial

import captum.metrics
import numpy as np
import pytest
import torch
from compared import images, network, quietly
from torch import nn

from captum_blackbox import BlackBox, metrics
from captum_blackbox.compare import (
    METRICS,
    DegradationArea,
    Deletion,
    Infidelity,
    Insertion,
    Localisation,
    SensitivityMax,
)
from captum_blackbox.metrics import localisation

MODEL = network().eval()
TARGETS = torch.tensor([0, 1, 2])
MAPS = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(9))


def of_maps(x, y):
    """Return the map that was drawn for an image."""
    known = images()
    rows = [int((known == each).flatten(1).all(1).nonzero()[0]) for each in x]
    return MAPS[rows]


def scores(metric, model=MODEL, method=of_maps, **kwargs):
    found = quietly(model, images(), {"it": method}, [metric], target=TARGETS, **kwargs)
    assert found.failures == ()
    return found.values[0, 0]


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-7)


def test_games_are_those_of_the_library():
    box = BlackBox(MODEL, output="logits")
    assert_equal(scores("deletion"), metrics.deletion(box, images(), MAPS, TARGETS).auc)
    assert_equal(scores("insertion"), metrics.insertion(box, images(), MAPS, TARGETS).auc)
    expected = metrics.patch_degradation(box, images(), MAPS, TARGETS, patch=1)
    assert_equal(scores("degradation"), expected.aopc)
    other = metrics.deletion(
        box, images(), MAPS, TARGETS, step=7, substrate="blur", score="logit", channels="max_abs"
    )
    ours = Deletion(step=7, substrate="blur", score="logit", channels="max_abs")
    assert_equal(scores(ours), other.auc)
    expected = metrics.insertion(box, images(), MAPS, TARGETS, step=5, substrate="zeros").auc
    assert_equal(scores(Insertion(step=5, substrate="zeros")), expected)
    expected = metrics.patch_degradation(box, images(), MAPS, TARGETS, patch=2, steps=3).aopc
    assert_equal(scores(DegradationArea(patch=2, steps=3)), expected)


def test_patches_have_nine_pixels_where_they_fit_often_enough():
    big = torch.rand(1, 2, 72, 80)
    found = quietly(MODEL, big, {"it": lambda x, y: x}, ["degradation"], target=0)
    expected = metrics.patch_degradation(MODEL, big, big, 0, patch=9).aopc
    assert_equal(found.values[0, 0], expected)


def score(target, image):
    return float(MODEL(image[None])[0, target])


def naive_infidelity(score, image, saliency, changes):
    """(β Iᵀφ - (f(x) - f(x - I)))², β the best factor, image by image and change by change."""
    dots = [float((change.double() * saliency.double()).sum()) for change in changes]
    falls = [score(image) - score(image - change) for change in changes]
    beta = sum(d * f for d, f in zip(dots, falls, strict=True)) / sum(d * d for d in dots)
    return sum((beta * d - f) ** 2 for d, f in zip(dots, falls, strict=True)) / len(dots)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.randn(3, 128, generator=torch.Generator().manual_seed(4))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


def test_infidelity_against_its_definition(monkeypatch):
    drawn = {}

    def recorded(forward_func, perturb_func, inputs, *args, **kwargs):
        def change(x):
            perturbation, changed = perturb_func(x)
            drawn.setdefault(inputs.flatten()[0].item(), []).extend(perturbation)
            return perturbation, changed

        return captum.metrics.infidelity(forward_func, change, inputs, *args, **kwargs)

    monkeypatch.setattr("captum_blackbox.compare.faithfulness.infidelity", recorded)
    found = scores(Infidelity(samples=6, noise=0.3), batch_size=1)
    with torch.no_grad():
        for i, image in enumerate(images()):
            changes = drawn[image.flatten()[0].item()]
            assert len(changes) == 6
            spread = torch.stack(changes).std() / (image.max() - image.min())
            assert 0.25 < float(spread) < 0.35
            expected = naive_infidelity(partial(score, TARGETS[i]), image, MAPS[i], changes)
            np.testing.assert_allclose(float(found[i]), expected, rtol=1e-2)


def test_infidelity_is_zero_for_the_weights_of_a_linear_model_in_any_unit():
    model = Linear()

    def weights(x, y):
        return model.weight[y].view(-1, 2, 8, 8)

    exact = scores("infidelity", model, weights)
    scaled = scores("infidelity", model, lambda x, y: 1000 * weights(x, y))
    wrong = scores("infidelity", model, of_maps)
    assert float(exact.max()) < 1e-5 < 1e-2 < float(wrong.min())
    assert float(scaled.max()) < 1e-5


def test_infidelity_spreads_a_map_of_one_channel():
    def one(x, y):
        return of_maps(x, y)[:, :1]

    def both(x, y):
        return one(x, y).expand(-1, 2, -1, -1) / 2

    torch.testing.assert_close(scores("infidelity", method=one), scores("infidelity", method=both))
    three = {"it": lambda x, y: torch.rand(len(x), 3, 8, 8)}
    found = quietly(MODEL, images(), three, ["infidelity"])
    assert "infidelity needs a map of one channel or of 2" in found.failures[0].reason


def test_sensitivity_max_against_its_definition():
    # A map that is the square of the image: its change is known for each neighbour.
    seen = []

    def squares(x, y):
        seen.append(x)
        return x**2

    found = scores(SensitivityMax(samples=5, radius=0.1), method=squares, batch_size=1)
    neighbours = [each for each in seen if len(each) == 5]
    assert len(neighbours) == 3
    for i, (image, near) in enumerate(zip(images(), neighbours, strict=True)):
        moved = (near - image).abs().max() / (image.max() - image.min())
        assert 0.09 < float(moved) <= 0.1001
        changes = [(each**2 - image**2).norm() / (image**2).norm() for each in near]
        torch.testing.assert_close(float(found[i]), float(max(changes)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("metric", ["sensitivity_max", "infidelity"])
def test_noise_means_the_same_for_images_of_another_range(metric):
    mean, std = 0.45, 0.22

    def judged(given, model):
        method = {"it": lambda x, y: MODEL(model(x)).sum(1)[:, None, None, None] * model(x)}
        found = quietly(nn.Sequential(model, MODEL), given, method, [metric], target=0)
        assert found.failures == ()
        return found.values.mean()

    class Undone(nn.Module):
        def forward(self, x):
            return x * std + mean

    plain = judged(images(), nn.Identity())
    normalised = judged((images() - mean) / std, Undone())
    # The noise is drawn by the content of an image, so that it is not the same here.
    torch.testing.assert_close(normalised, plain, rtol=0.2, atol=0)


def test_a_map_that_never_changes_is_the_most_stable():
    assert scores("sensitivity_max", method=lambda x, y: torch.ones_like(x)).tolist() == [0, 0, 0]


def test_localisation_calls_the_measures_of_the_library():
    masks = torch.rand(3, 8, 8) > 0.5
    for name in ("pointing_game", "relevance_mass", "relevance_rank"):
        expected = getattr(localisation, name)(MAPS, masks)
        assert_equal(scores(name, masks=masks), expected)
        assert Localisation(name).needs_masks and Localisation(name).higher_is_better


def test_every_name_is_the_name_of_its_metric():
    for name, make in METRICS.items():
        assert make().name == name and str(make()) == repr(make())
    lower = {name for name, make in METRICS.items() if not make().higher_is_better}
    assert lower == {"deletion", "infidelity", "sensitivity_max"}
    masked = {name for name, make in METRICS.items() if make().needs_masks}
    assert masked == {"pointing_game", "relevance_mass", "relevance_rank"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_metric_in_every_type(dtype, device):
    model, given = network().to(device, dtype), images().to(device, dtype)
    methods = ["random", "saliency", "layer_sum", "grad_cam"]
    found = quietly(model, given, methods, list(METRICS), masks=torch.ones(3, 8, 8), target=0)
    assert found.failures == () and bool(found.values.isfinite().all())
    assert found.values.dtype == torch.float64 and found.values.device.type == "cpu"
    single = quietly(network().to(device), images(), methods, ["deletion"], target=0)
    torch.testing.assert_close(found.values[:, :1], single.values, rtol=0.05, atol=0.01)
