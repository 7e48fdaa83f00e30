"""The walk of an attack where it is tempted: by other labels, by what is no number, by chance."""

import pytest
import slow_attack
import torch
from attacked_networks import SIZE, Edge, small_cnn, some_images
from captum.attr import Saliency
from torch import nn

from captum_blackbox import InterpretationAttack, metrics
from captum_blackbox.fragility import GrowingBeta, softened
from captum_blackbox.fragility.chance import generators, unit_vectors

RADIUS, STEP, K = 0.1, 0.01, 6


def saliency(model, images):
    return Saliency(model).attribute(images.clone().requires_grad_(), target=0).detach()


def surrogate_of(model, beta):
    def surrogate(images):
        with softened(model, beta):
            return model(images)

    return surrogate


class Island(nn.Module):
    """A label that holds near 0.5 only: every random change of the images is another one."""

    def __init__(self):
        super().__init__()
        self.inner = small_cnn(nn.Softplus, classes=1)

    def forward(self, x):
        bent = self.inner(x)[:, 0]
        return torch.stack([bent, bent + (x - 0.5).abs().amax((1, 2, 3)) - 0.01], 1)


def test_a_random_change_is_drawn_sixteen_times_at_most():
    images = torch.full((2, 3, SIZE, SIZE), 0.5, dtype=torch.float64)
    attack = InterpretationAttack(Saliency(Island()), beta=None)
    result = attack.run(images, 0.1, step_num=40, mode="random")
    assert result.steps.tolist() == list(range(17))
    assert torch.equal(result.inputs, images) and not result.success.any()


class Broken(nn.Module):
    """Where one number is far from 0.5, a score or only its derivative is no number."""

    def __init__(self, what):
        super().__init__()
        self.inner, self.what = small_cnn(nn.Softplus, classes=2), what

    def forward(self, x):
        scores = self.inner(x) + torch.tensor([9.0, 0.0])
        far = (x[:, 0, 0, 0] - 0.5).abs()
        if self.what == "score":
            return scores + torch.where(far < 0.03, 0.0, torch.nan)[:, None]
        root = torch.where(far < 0.03, 1.0, far - far.detach()).sqrt()
        return scores + 0 * root[:, None]  # 0 times infinity


@pytest.mark.parametrize("what", ["score", "derivative"])
@pytest.mark.parametrize("mode", ["topk", "random_walk"])
def test_an_iterate_that_is_no_number_is_never_returned(what, mode):
    images = some_images(2)
    images[:, 0, 0, 0] = 0.5
    attack = InterpretationAttack(Saliency(Broken(what)), beta=None)
    result = attack.run(images, 0.2, 0.02, 20, mode=mode, criterion="correlation")
    assert not result.eligible.all(), "no iterate was broken, the test shows nothing"
    assert result.inputs.isfinite().all() and result.attacked_maps.isfinite().all()
    assert Broken(what)(result.inputs).isfinite().all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_where_a_map_has_no_derivative_nothing_moves(norm):
    class Power(nn.Module):
        def forward(self, x):
            return x**1.5  # has a first derivative at 0, and no second one

    images = some_images(2)
    images[0, 1, 2, 2] = 0
    model = nn.Sequential(Power(), small_cnn(nn.Softplus))
    attack = InterpretationAttack(Saliency(model), beta=None)
    result = attack.run(images, 0.1, 0.02, 3, k=K, criterion="correlation", norm=norm)
    assert result.success.all()
    assert (result.inputs[0] == images[0]).nonzero().tolist() == [[1, 2, 2]]


def walked_to_the_edge(images, **settings):
    model = Edge(float(images.mean((1, 2, 3)).max()) + 0.002)
    attack = InterpretationAttack(Saliency(model), beta=None)
    return attack.run(images, 0.2, 0.02, 20, k=K, stop_on_success=True, **settings)


@pytest.mark.parametrize("size", [0.0, 0.05])
def test_what_stops_an_image_is_returned_whatever_its_criterion_but_with_its_label(size):
    images = some_images(2)
    result = walked_to_the_edge(
        images,
        success=lambda _, attacked: attacked.linf > size,
        criterion=lambda maps, task: metrics.rank_correlation(task.clean, maps) - 2,
    )
    assert result.label_kept.all()
    for row in range(2):
        walked = ~result.trajectory[row].isnan()
        kept = result.eligible[row] & walked
        if result.success[row]:
            assert int(result.best_step[row]) == int(result.steps[kept][-1]) > 0
            assert not torch.equal(result.inputs[row], images[row])
    assert result.success.any()


def test_an_image_does_not_stop_where_it_has_another_label():
    images = some_images(2)
    result = walked_to_the_edge(images, success=lambda _, attacked: attacked.confidence < 0.5)
    assert not result.eligible.all(), "no iterate crossed the border, the test shows nothing"
    assert result.label_kept.all() and result.trajectory.isfinite().all()


@pytest.mark.parametrize("mode", ["topk", "mass_center"])
def test_a_growing_beta_has_a_surrogate_of_its_own_at_every_step(mode):
    model, images, beta = small_cnn(), some_images(2), GrowingBeta(1, 100, 3)
    away = unit_vectors(generators(images, 0))
    attack = InterpretationAttack(Saliency(model), beta=beta)
    result = attack.run(images, RADIUS, STEP, 5, mode=mode, k=K)
    for row, image in enumerate(images):
        best, values = slow_attack.attack(
            model,
            lambda step: surrogate_of(model, beta(step)),
            image,
            mode=mode,
            radius=RADIUS,
            step=STEP,
            steps=5,
            k=K,
            away=away[row].tolist(),
            growing=True,
        )
        torch.testing.assert_close(result.inputs[row], best, atol=1e-12, rtol=0)
        assert result.trajectory[row].tolist() == pytest.approx(values, abs=1e-7)


def test_a_defended_network_is_judged_by_its_own_explanations_at_every_step():
    model, images = small_cnn(), some_images()
    attack = InterpretationAttack(Saliency(model), beta=20.0, defence_beta=1.0)
    result = attack.run(images, RADIUS, STEP, 5, target=0, k=K, criterion="correlation")
    with softened(model, 1.0):
        maps = [saliency(model, each) for each in (images, result.inputs)]
    expected = -metrics.rank_correlation(*maps)
    torch.testing.assert_close(result.trajectory.amax(1), expected)
    torch.testing.assert_close(-result.attacked.rank_correlation, expected)
