"""Networks with data, one for each kind of layer, and what tests of both methods share."""

import torch
from pattern_networks import Residual, centred, with_statistics
from torch import nn

from captum_blackbox.patterns import Patterns

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
