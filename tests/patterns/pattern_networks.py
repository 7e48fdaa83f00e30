"""Networks that are hard on tracing and on backward passes, and a slow backward pass for them."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from captum_blackbox.patterns.linear_layers import PATTERN_LAYERS


class Chain(nn.Module):
    """Runs ``forward_of(self, x)``; for networks of a line or two."""

    def __init__(self, forward_of, **parts):
        super().__init__()
        self.forward_of = forward_of
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x, *others):
        return self.forward_of(self, x, *others)


class Residual(nn.Module):
    """A stem, a block whose branches are added, and a head; ``add`` says how."""

    def __init__(self, add=lambda a, b: a + b, channels=3):
        super().__init__()
        self.add = add
        self.stem = nn.Conv2d(2, channels, 3, padding=1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, 2)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.add(self.norm(self.conv(x)), x).relu()
        return self.head(x.mean((2, 3)))


def statement_add(a, b):
    """Add in place, by a statement."""
    a.add_(b)
    return a


def augmented_add(a, b):
    """Add in place, by an assignment."""
    a += b
    return a


def with_statistics(model, seed=7):
    """Give every BatchNorm statistics and an affine map that are not trivial; in evaluation."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            size = module.running_mean.shape
            for name, low in (("running_mean", -0.5), ("running_var", 0.5)):
                getattr(module, name).copy_(torch.rand(size, generator=generator) + low)
            if module.affine:
                with torch.no_grad():
                    module.weight.copy_(torch.rand(size, generator=generator) + 0.5)
                    module.bias.copy_(torch.rand(size, generator=generator) - 0.5)
    return model.eval()


def centred(model, data, head="head"):
    """Move the bias of the last layer so that its outputs lie on either side of 0."""
    with torch.no_grad():
        model.get_submodule(head).bias -= model(data).mean(0)
    return model


def with_weight(layer, weight):
    """Return the layer with another weight and no bias."""
    other = copy.deepcopy(layer)
    other.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    other.bias = None
    return other


def naive_matrix(layer, weight, shape):
    """Return the layer with ``weight`` as a matrix ``(outputs, inputs)``, for one input."""
    size = int(torch.tensor(shape).prod())
    basis = torch.eye(size, dtype=weight.dtype).reshape(size, *shape)
    return with_weight(layer, weight)(basis).reshape(size, -1).T


def naive_taps(layer, x, units):
    """Return what each tap of each unit sees: one output ``(n, positions)`` for each weight.

    A patch is what a unit puts out if its weight is one for one tap, and zero for the others.
    """
    weight = torch.zeros_like(layer.weight)
    seen = []
    for index in range(weight.numel()):
        weight.zero_()
        weight.view(-1)[index] = 1
        seen.append(with_weight(layer, weight)(x))
    return seen


def naive_backward(modules, weights, x, target, *, negative=None, seed=None):
    """Return the backward pass of the method for a chain of modules, one input at a time.

    Args:
        modules: In order; layers, activations, pools, Flatten.
        weights: Index of a layer → what stands in place of its weight.
        target: Class.
        negative: The same for outputs up to 0.
        seed: What is sent back; by default the score.
    """
    maps = []
    for image in x:
        values = [image[None]]
        for module in modules:
            values.append(module(values[-1].clone()).detach())
        signal = torch.zeros_like(values[-1])
        signal[0, target] = values[-1][0, target] if seed is None else seed
        for index in reversed(range(len(modules))):
            module, given, out = modules[index], values[index], values[index + 1]
            if isinstance(module, PATTERN_LAYERS):
                other = (negative or weights)[index]
                signal = _through_layer(module, weights[index], other, signal, given, out)
            else:
                signal = _through_other(module, signal, given)
        maps.append(signal)
    return torch.cat(maps)


def _through_layer(layer, positive, negative, signal, given, out):
    is_on, signal = (out > 0).reshape(-1), signal.reshape(-1)
    shape = given.shape[1:]
    back = (signal * is_on) @ naive_matrix(layer, positive, shape)
    return (back + (signal * ~is_on) @ naive_matrix(layer, negative, shape)).reshape(given.shape)


def _through_other(module, signal, given):
    if isinstance(module, nn.ReLU6):  # a Hardtanh, not a ReLU
        return signal * ((given > 0) & (given < 6))
    if isinstance(module, nn.ReLU):
        return signal * (given > 0)
    if isinstance(module, nn.LeakyReLU):
        return torch.where(given > 0, signal, module.negative_slope * signal)
    if isinstance(module, nn.Flatten):
        return signal.reshape(given.shape)
    leaf = given.clone().requires_grad_()  # pools
    return torch.autograd.grad(module(leaf), leaf, signal)[0]


class SharedLayer(nn.Module):
    """A layer with BatchNorm that runs twice, one after the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        for _ in range(2):
            x = F.relu(self.norm(self.conv(x)))
        return self.head(x.mean((2, 3)))


class Siamese(nn.Module):
    """A layer that runs on two halves before its BatchNorm does."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        left, right = self.conv(x[:, :2]), self.conv(x[:, 2:])
        left, right = F.relu(self.norm(left)), F.relu(self.norm(right))
        return self.head(torch.cat([left, right], 1).mean((2, 3)))


def naive_pattern(component, w, x, y, *, is_centred=False):
    """Return the pattern of one unit (Kindermans et al., eq. 3 and 7); x ``(n, taps)``."""
    w, x, y = (np.asarray(each, dtype=np.float64) for each in (w, x, y))
    if component == "filter":
        return w / (w @ w)
    if component == "linear":
        covariance = (x * y[:, None]).mean(0) - x.mean(0) * y.mean()
        return covariance / (w @ covariance)
    chosen = y > 0 if component == "positive" else y <= 0
    inner = y[chosen].mean() if is_centred else y.mean()
    numerator = (x[chosen] * y[chosen, None]).mean(0) - x[chosen].mean(0) * inner
    return numerator / (w @ numerator)


def assert_derivative(function, x, found):
    """Compare a gradient with central differences in a few directions."""
    generator = torch.Generator().manual_seed(2)
    assert found.abs().max() > 1e-4
    for _ in range(4):
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        step = 1e-5 * direction
        expected = (function(x + step) - function(x - step)) / 2e-5
        assert_close((found * direction).sum(), expected, rtol=1e-6, atol=1e-9)
