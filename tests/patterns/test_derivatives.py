"""Maps are differentiated by their true derivative."""

import pytest
import torch
import torch.nn.functional as F
from pattern_cases import case, fit
from pattern_networks import (
    assert_derivative,
    with_statistics,
)
from torch import nn
from torch.testing import assert_close

from captum_blackbox.patterns import PatternAttribution, PatternNet

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around"),
    pytest.mark.filterwarnings("ignore:.* units of layer .* have no pattern"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    pytest.mark.filterwarnings("ignore:the map of image . is 0 everywhere"),
]
METHODS = [PatternNet, PatternAttribution]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


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
