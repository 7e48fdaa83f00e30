"""A small network with everything that matters to a derivative, and what can be attacked on it."""

import captum.attr as captum
import torch
from torch import nn

from captum_blackbox._compat import captum_notices_ignored
from captum_blackbox.fragility.victims import victim_of

SIZE = 8
CLASSES = 3
BETA = 5.0


class Residual(nn.Module):
    """Convolutions, BatchNorm, overlapping max pooling, a residual addition and linear layers."""

    def __init__(self, inplace=False, pool=None):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu1 = nn.ReLU(inplace)
        self.pool = pool or nn.MaxPool2d(3, 2)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu2 = nn.ReLU(inplace)
        self.linear1 = nn.LazyLinear(6)
        self.relu3 = nn.ReLU(inplace)
        self.linear2 = nn.Linear(6, CLASSES)

    def forward(self, x, shift=0.0):
        x = self.pool(self.relu1(self.norm(self.conv1(x + shift))))
        x = self.relu2(x + self.conv2(x))
        return self.linear2(self.relu3(self.linear1(x.flatten(1))))


def residual(inplace=False, pool=None, seed=0):
    """The network, trained a little so that no statistic is trivial, in double precision."""
    torch.manual_seed(seed)
    model = Residual(inplace, pool).double()
    for _ in range(5):
        model(torch.randn(16, 2, SIZE, SIZE, dtype=torch.float64))
    return model.eval()


def images(count=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, SIZE, SIZE, generator=generator, dtype=torch.float64)


def targets(count=4):
    return torch.arange(count) % CLASSES


def captum_cases(model):
    """Name → attribution of Captum and what it is called with; every accepted method but noise."""
    rows = images(4, seed=9)
    paths = ("gausslegendre", "riemann_left", "riemann_middle", "riemann_right")
    return {
        "Saliency": (captum.Saliency(model), {}),
        "Saliency signed": (captum.Saliency(model), {"abs": False}),
        "InputXGradient": (captum.InputXGradient(model), {}),
        **{
            f"IntegratedGradients {method}": (
                captum.IntegratedGradients(model),
                {"n_steps": 5, "method": method},
            )
            for method in (*paths, "riemann_trapezoid")
        },
        "IntegratedGradients local": (
            captum.IntegratedGradients(model, multiply_by_inputs=False),
            {"n_steps": 4, "baselines": 0.3},
        ),
        "IntegratedGradients row": (
            captum.IntegratedGradients(model),
            {"n_steps": 4, "baselines": rows[:1]},
        ),
        "IntegratedGradients rows": (
            captum.IntegratedGradients(model),
            {"n_steps": 4, "baselines": (rows,)},
        ),
        "IntegratedGradients chunked": (
            captum.IntegratedGradients(model),
            {"n_steps": 5, "internal_batch_size": 8},
        ),
        "DeepLift": (captum.DeepLift(model), {}),
        "DeepLift number": (captum.DeepLift(model, eps=1e-6), {"baselines": 0.4}),
        "DeepLift local": (
            captum.DeepLift(model, multiply_by_inputs=False),
            {"baselines": rows},
        ),
        "GuidedBackprop": (captum.GuidedBackprop(model), {}),
        "Deconvolution": (captum.Deconvolution(model), {}),
        "GuidedGradCam": (captum.GuidedGradCam(model, model.conv2), {}),
        "GuidedGradCam input": (
            captum.GuidedGradCam(model, model.conv2),
            {"interpolate_mode": "bilinear", "attribute_to_layer_input": True},
        ),
        "LayerGradCam": (captum.LayerGradCam(model, model.conv1), {"relu_attributions": True}),
        "LayerGradCam small": (captum.LayerGradCam(model, model.conv2), {}),
        "LayerGradientXActivation": (captum.LayerGradientXActivation(model, model.conv1), {}),
        "InternalInfluence": (captum.InternalInfluence(model, model.conv1), {"n_steps": 4}),
    }


CAPTUM_CASES = list(captum_cases(residual()))


def captum_case(name, model):
    """The attribution, what it is called with, and its victim."""
    attribution, settings = captum_cases(model)[name]
    return attribution, settings, victim_of(attribution, attribute_kwargs=settings)


def captums_own(attribution, x, target, **settings):
    """What Captum answers, at the size of the images."""
    with captum_notices_ignored():
        maps = attribution.attribute(x.clone(), target=target, **settings).detach()
    if maps.shape[2:] != x.shape[2:]:
        maps = captum.LayerAttribution.interpolate(maps, tuple(x.shape[2:]), "bilinear")
    return maps
