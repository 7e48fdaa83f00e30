"""Peers give what their papers say, or are refused."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from captum_blackbox.errors import LayerError
from captum_blackbox.patterns.peers import deconvnet, guided_backprop, lrp


class NaiveReLU(nn.Module):
    """A ReLU whose backward pass is written down."""

    def __init__(self, guided):
        super().__init__()
        self.guided = guided

    def forward(self, x):
        rule = self.guided

        class Rule(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.on = x > 0
                return x.clamp(min=0)

            @staticmethod
            def backward(ctx, arriving):
                passed = arriving.clamp(min=0)
                return passed * ctx.on if rule else passed

        return Rule.apply(x)


def network(gate, bias=True):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias), gate(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, bias=bias), gate(), nn.Flatten(), nn.Linear(32, 5, bias=bias),
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU()
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, x):
        return self.flatten(self.pool(self.relu(x + self.first(x))))


class Twice(Residual):
    def forward(self, x):
        return self.flatten(self.pool(self.relu(self.first(self.relu(self.first(x))))))


class Averaging(Residual):
    def forward(self, x):
        return self.relu(self.first(x)).mean((2, 3))


class Functional(Residual):
    def forward(self, x):
        return self.flatten(self.pool(F.relu(self.first(x))))


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize(("method", "guided"), [(deconvnet, False), (guided_backprop, True)])
def test_a_relu_passes_what_the_paper_says(method, guided, inplace):
    x, target = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 4, 2])
    leaf = x.clone().requires_grad_()
    scores = network(lambda: NaiveReLU(guided))(leaf)
    (expected,) = torch.autograd.grad(scores.gather(1, target[:, None]).sum(), leaf)
    torch.testing.assert_close(method(network(lambda: nn.ReLU(inplace)), x, target), expected)


def test_without_biases_the_relevance_sums_to_the_score():
    model, x, target = (
        network(nn.ReLU, bias=False),
        torch.rand(4, 3, 8, 8),
        torch.tensor([0, 1, 4, 2]),
    )
    # The flat rule hands out what arrives at any patch, padding included, so leave that out.
    model[0].padding = (0, 0)
    model[6] = nn.Linear(8, 5, bias=False)
    found = lrp(model, x, target)
    score = model(x).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(found.sum((1, 2, 3)), score, rtol=1e-3, atol=1e-4)


def test_a_residual_network_of_torchvision_is_canonized_and_left_as_it_was():
    torch.manual_seed(0)
    model, x = torchvision.models.resnet18(num_classes=4).eval(), torch.rand(2, 3, 32, 32)
    before = model(x)
    assert lrp(model, x, 1).shape == x.shape
    assert torch.equal(model(x), before)
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Residual,
            "Zennit has no rule for add in 'the model itself' (Residual), which is no module",
        ),
        (
            Averaging,
            "Zennit has no rule for mean in 'the model itself' (Averaging), which is no module",
        ),
        (Twice, "'first' runs twice, and Zennit keeps one input of it"),
    ],
)
def test_what_lrp_has_no_rule_for_is_named(model, message):
    with pytest.raises(LayerError) as caught:
        lrp(model(), torch.rand(1, 3, 4, 4), 0)
    assert str(caught.value) == message


@pytest.mark.parametrize("method", [deconvnet, guided_backprop])
@pytest.mark.parametrize(
    ("model", "where"),
    [
        (Functional(), "relu in 'the model itself' (Functional)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 3), nn.ReLU6()), "relu6 in '2' (ReLU6)"),
    ],
)
def test_activations_that_captum_would_overlook_are_refused(method, model, where):
    with pytest.raises(LayerError) as caught:
        method(model, torch.rand(1, 3, 4, 4), 0)
    assert str(caught.value) == (
        f"Captum changes the gradient of nn.ReLU modules, and {where} is none"
    )
