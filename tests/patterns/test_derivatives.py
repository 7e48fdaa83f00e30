"""Maps are differentiated by their true derivative."""

import pytest
import torch
import torch.nn.functional as F
from pattern_networks import (
    Residual,
    assert_derivative,
    centred,
    with_statistics,
)
from torch import nn
from torch.testing import assert_close

from captum_blackbox.patterns import PatternAttribution, PatternNet, Patterns

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around"),
    pytest.mark.filterwarnings("ignore:.* units of layer .* have no pattern"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    pytest.mark.filterwarnings("ignore:the map of image . is 0 everywhere"),
]
METHODS = [PatternNet, PatternAttribution]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
NETS = {
    "linear": lambda: ([nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)], (5,)),
    "tokens": lambda: ([nn.Linear(4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(15, 3)], (3, 4)),
    "strided": lambda: (
        [
            nn.Conv2d(2, 3, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(3, 4, 2, dilation=2),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(16, 3),
        ],
        (2, 7, 7),
    ),
    "transposed": lambda: (
        [
            nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2, dilation=(1, 2)),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3),
            nn.Flatten(),
            nn.Linear(16, 3),
        ],
        (2, 3, 3),
    ),
    "same and leaky": lambda: (
        [nn.Conv1d(2, 4, 4, padding="same"), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(28, 3)],
        (2, 7),
    ),
    "conv3d and relu6": lambda: (
        [nn.Conv3d(1, 3, 2), nn.ReLU6(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(3, 3)],
        (1, 3, 3, 3),
    ),
    "reflect": lambda: (
        [
            nn.Conv2d(2, 4, 3, padding=(2, 1), padding_mode="reflect", groups=2),
            nn.ReLU(),
            nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"),
            nn.LeakyReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(60, 3),
        ],
        (2, 4, 5),
    ),
    "depthwise": lambda: (
        [
            nn.Conv2d(3, 3, 3, groups=3),
            nn.ReLU(),
            nn.Conv2d(3, 5, 1),
            nn.Flatten(),
            nn.Linear(20, 3),
        ],
        (3, 4, 4),
    ),
}


def case(name, n=40):
    modules, shape = NETS[name]()
    model = nn.Sequential(*modules).double().eval()
    return model, torch.randn(n, *shape, dtype=torch.float64) * 2 + 0.3


def fit(model, data, regime="linear", **settings):
    return Patterns.fit(model, data, regime=regime, show_progress=False, **settings)


def gradient(model, x, target):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, target].sum(), leaf)[0]


def residual(**settings):
    model = with_statistics(Residual(**settings)).double()
    data = torch.randn(30, 2, 6, 6, dtype=torch.float64)
    return centred(model, data), data


# Derivatives of maps.


def softplus_network():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")
            self.norm = nn.BatchNorm2d(3)
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            x = F.softplus(self.norm(self.stem(x)))
            return self.head(F.softplus(x + self.conv(x)).mean((2, 3)))

    return with_statistics(Net()).double(), torch.randn(30, 2, 4, 4, dtype=torch.float64)


@each_method
@pytest.mark.parametrize("kind", ["gradient", "pattern"])
@pytest.mark.parametrize("seed", ["logit", "one", "probability"])
def test_a_map_is_differentiated_by_its_true_derivative(method, kind, seed):
    model, data = softplus_network()
    with pytest.warns(UserWarning, match="no rule is known for softplus"):
        patterns = fit(model, data, allow_non_relu=True)
    made = method(model, patterns, residual=kind)
    weights = torch.randn(2, 2, 4, 4, dtype=torch.float64)

    def function(x):
        return (made.attribute(x, target=1, output_seed=seed) * weights).sum()

    x = data[:2].clone().requires_grad_()
    maps = made.attribute(x, target=1, output_seed=seed, grad_kwargs={"create_graph": True})
    assert_close(maps.detach(), made.attribute(data[:2], target=1, output_seed=seed))
    (found,) = torch.autograd.grad((maps * weights).sum(), x)
    assert_derivative(function, data[:2], found)


@each_method
def test_the_derivative_of_a_rectifier_networks_map_with_two_components_is_right(method):
    model, data = case("same and leaky")
    patterns = fit(model, data, "two_component")
    made = method(model, patterns)
    weights = torch.randn(2, 2, 7, dtype=torch.float64)
    x = data[:2].clone().requires_grad_()
    maps = made.attribute(x, target=1, grad_kwargs={"create_graph": True})
    (found,) = torch.autograd.grad((maps * weights).sum(), x)
    assert_derivative(lambda x: (made.attribute(x, target=1) * weights).sum(), data[:2], found)
