"""Small networks whose explanation is known, or that are difficult on purpose."""

import torch
import torch.nn.functional as F
from torch import nn


class TwoConvs(nn.Module):
    """Convolutions of different sizes with batch norm and dropout between them."""

    def __init__(self, classes=4, inplace=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.relu1 = nn.ReLU(inplace=inplace)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(5, 6, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=inplace)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(6, classes)

    def forward(self, x):
        x = self.pool(self.relu1(self.norm(self.conv1(x))))
        x = self.relu2(self.conv2(x)).mean((2, 3))
        return self.linear(self.dropout(x))


class FunctionalInPlace(TwoConvs):
    """The same, but functional ReLUs write over what the convolutions put out."""

    def forward(self, x):
        x = self.pool(F.relu_(self.norm(self.conv1(x))))
        x = F.relu(self.conv2(x), inplace=True).mean((2, 3))
        return self.linear(self.dropout(x))


class GapLinear(nn.Module):
    """One convolution, ReLU, global average pooling, linear: Grad-CAM is CAM / (height · width)."""

    def __init__(self, units=4, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(3, units, 3, padding=1)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(units, classes)

    def forward(self, x):
        return self.linear(self.relu(self.conv(x)).mean((2, 3)))


class RunsTwice(nn.Module):
    """One convolution that runs twice."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.shared(self.shared(x).relu()).mean((2, 3))


class SideBranch(nn.Module):
    """A convolution whose output does not reach the scores, and one that never runs."""

    def __init__(self):
        super().__init__()
        self.main = nn.Conv2d(3, 4, 3)
        self.side = nn.Conv2d(3, 4, 3)
        self.never = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        self.side(x)
        return self.main(x).relu().mean((2, 3))


class Raises(nn.Module):
    """Raises in the middle of a forward pass, after hooks were set."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.dropout = nn.Dropout()

    def forward(self, x):
        self.conv1(x)
        raise RuntimeError("a layer broke")


class Tokens(nn.Module):
    """A tiny vision transformer: patches, a class token, two mixing blocks."""

    def __init__(self, classes=3, width=8, side=4):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.block1 = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True)
        self.block2 = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.block2(self.block1(tokens)).mean(1))


class State:
    """Everything of a model that a call must leave as it was."""

    def __init__(self, model):
        self.hooks = [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ] + [len(m._backward_pre_hooks) for m in model.modules()]
        self.hooks += [len(p._backward_hooks or {}) for p in model.parameters()]
        self.places = [(p.device, p.dtype) for p in model.parameters()]
        self.training = [m.training for m in model.modules()]
        self.inplace = [getattr(m, "inplace", None) for m in model.modules()]
        self.forwards = ["forward" in vars(m) for m in model.modules()]
        self.requires_grad = [p.requires_grad for p in model.parameters()]
        self.gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        self.weights = {name: each.clone() for name, each in model.state_dict().items()}

    def differences(self, other):
        names = [
            name
            for name in (
                "hooks",
                "places",
                "training",
                "inplace",
                "forwards",
                "requires_grad",
            )
            if getattr(self, name) != getattr(other, name)
        ]
        for a, b in zip(self.gradients, other.gradients, strict=True):
            if (a is None) != (b is None) or (a is not None and not torch.equal(a, b)):
                names.append("gradients")
        names += [
            name
            for name, each in self.weights.items()
            if not torch.equal(each, other.weights[name])
        ]
        return names
