"""A network, images and helpers that the tests of comparisons share."""

import torch
from torch import nn

from captum_blackbox.compare import FunctionMetric, compare


def network(seed=0, classes=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


def images(number=3, seed=1):
    return torch.rand(number, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


class Kept:
    """A metric that keeps the maps it is shown, and gives their mean."""

    def __init__(self):
        self.maps = {}

    def metric(self, name="kept"):
        return FunctionMetric(name, self._keep, higher_is_better=True)

    def _keep(self, context, method, maps):
        found = self.maps.setdefault(method.name, [])
        found.append(maps)
        return maps.double().mean((1, 2, 3))

    def all(self, name):
        return torch.cat(self.maps[name])


def quietly(*args, **kwargs):
    return compare(*args, **{"show_progress": False, **kwargs})


def maps_of(model, inputs, methods, **kwargs):
    kept = Kept()
    found = quietly(model, inputs, methods, [kept.metric()], **kwargs)
    return {name: kept.all(name) for name in kept.maps}, found
