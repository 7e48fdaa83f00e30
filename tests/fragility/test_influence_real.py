"""The attack on exemplars of real digits: they change, the label stays, noise does less."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from captum_blackbox.fragility.influence_attack import InfluenceAttack
from captum_blackbox.influence import ConjugateGradient, InfluenceFunction, LiSSA

RADIUS = 32 / 255 * 2  # the network takes pixels from -1 to 1


@pytest.fixture(scope="module")
def digits(data):
    """Training digits and, of other people's, some that are attacked."""
    all_ = data.mnist()
    train, test = (
        torch.randperm(len(all_[f"{part}_labels"]), generator=torch.Generator().manual_seed(1))
        for part in ("train", "test")
    )
    return (
        data.centred(all_["train_images"][train]),
        all_["train_labels"][train],
        data.centred(all_["test_images"][test]),
        all_["test_labels"][test],
    )


class Tiny(nn.Sequential):
    """1306 parameters."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 12, 3, 2), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 10),
        )  # fmt: skip


def trained(images, labels):
    """Train a tiny network on 2000 digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tiny()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, 300)
    for number in range(300):
        rows = torch.arange(number * 64, (number + 1) * 64) % 2000
        optimizer.zero_grad()
        F.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    return model.requires_grad_(False).eval()


def assert_it_beats_noise(attack, images):
    ours = attack.run(images, RADIUS)
    several = attack.run(images, RADIUS, step_num=8)
    noise = attack.run(images, RADIUS, mode="random")
    for result in (ours, several, noise):
        assert bool(result.label_kept.all())
        assert float((result.inputs - images).abs().max()) <= RADIUS * (1 + 1e-6)
    assert several.success.double().mean() > 0.9
    for result in (ours, several):
        assert result.overlap().mean() < noise.overlap().mean() - 0.05
        assert result.rank_correlation.mean() < noise.rank_correlation.mean() - 0.05
    assert several.overlap().mean() < 0.7 and several.rank_correlation.mean() < 0.8
    assert several.trajectory.amin(1).mean() < ours.trajectory.amin(1).mean()


@pytest.mark.real
def test_exemplars_of_the_last_layer_change(data, digits):
    train, train_labels, images, labels = digits
    model = data.cnn_mnist()
    points = TensorDataset(train[:300], train_labels[:300])
    attack = InfluenceAttack(model, points, layers=["dense2"], lower_bound=-1.0)
    right = (model(images[:16]).argmax(1) == labels[:16]).nonzero().flatten()
    assert_it_beats_noise(attack, images[right])


@pytest.mark.real
def test_exemplars_of_a_whole_small_network_change(digits):
    train, train_labels, images, labels = digits
    model = trained(train, train_labels)
    right = (model(images[:40]).argmax(1) == labels[:40]).nonzero().flatten()[:16]
    assert len(right) == 16
    points = TensorDataset(train[:300], train_labels[:300])
    attack = InfluenceAttack(model, points, lower_bound=-1.0)
    assert attack.influence.function.count == 1306
    assert_it_beats_noise(attack, images[right])


def assert_solvers_agree(model, points, tests, reg):
    results = [
        InfluenceFunction(model, points, hessian_reg=reg, batch_size=100, solver=solver).influence(
            tests
        )
        for solver in ("exact", ConjugateGradient(), LiSSA(tolerance=1e-5))
    ]
    for other in results[1:]:
        assert float((other - results[0]).norm() / results[0].norm()) < 1e-4


@pytest.mark.real
@pytest.mark.slow
def test_the_solvers_agree_on_real_digits(data, digits):
    train, labels, images, _ = digits
    model = trained(train, labels)
    points = TensorDataset(train[:60].double(), labels[:60])
    assert_solvers_agree(model.double(), points, images[:2].double(), reg=0.5)
    # The last layer alone, as a network of its own.
    network = data.cnn_mnist()
    last, network.dense2 = network.dense2.double(), nn.Identity()
    with torch.no_grad():
        features, at_test = network(train[:300]).double(), network(images[:2]).double()
    assert_solvers_agree(last, TensorDataset(features, labels[:300]), at_test, reg=0.1)
