"""What is attacked, how hard, in which order; and what was published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import DeepLift, IntegratedGradients, NoiseTunnel, Saliency
from claims_data import real_data
from torch import Tensor, nn

from captum_blackbox import InterpretationAttack
from captum_blackbox.fragility import GrowingBeta

METHODS = ("gradient", "DeepLIFT", "integrated gradients")
MODES = ("topk", "mass_center", "random")
RADII = (1, 2, 4, 8)
SHOWN = ("intersection", "rank_correlation", "center_shift")
IG_STEPS = 10
SMOOTHGRAD = {"nt_samples": 4, "nt_samples_batch_size": 4, "stdevs": 0.2}
# Of a photograph; 32 steps of 0.5 leave about as much, at twice the price.
WALK: Mapping[str, Any] = {"steps": 16, "step": 1.0, "check_every": 1}
DEFENCE_BETA = 3.0

# Ghorbani, Abid, Zou, AAAI 2019, fig. 3, read off the picture in the authors' repository (within
# 0.005, 0.02 where curves overlap, 1 pixel). Radius of 255 → top-k, mass centre, random signs.
PUBLISHED: Mapping[str, Mapping[str, Mapping[int, tuple[float, float, float]]]] = {
    "intersection": {
        "gradient": {1: (0.06, 0.16, 0.56), 2: (0.005, 0.067, 0.427), 4: (0.005, 0.035, 0.303),
                     8: (0.005, 0.03, 0.211)},
        "DeepLIFT": {1: (0.17, 0.23, 0.576), 2: (0.041, 0.101, 0.442), 4: (0.011, 0.054, 0.32),
                     8: (0.013, 0.043, 0.224)},
        "integrated gradients": {1: (0.3, 0.28, 0.607), 2: (0.215, 0.217, 0.477),
                                 4: (0.19, 0.211, 0.351), 8: (0.183, 0.214, 0.259)},
    },
    "rank_correlation": {
        "gradient": {1: (0.54, 0.553, 0.785), 2: (0.379, 0.409, 0.705), 4: (0.301, 0.324, 0.624),
                     8: (0.286, 0.288, 0.553)},
        "DeepLIFT": {1: (0.61, 0.617, 0.785), 2: (0.46, 0.474, 0.703), 4: (0.321, 0.371, 0.623),
                     8: (0.273, 0.317, 0.553)},
        "integrated gradients": {1: (0.69, 0.676, 0.83), 2: (0.633, 0.613, 0.763),
                                 4: (0.611, 0.59, 0.697), 8: (0.6, 0.588, 0.632)},
    },
    "center_shift": {
        "gradient": {1: (15, 34, 1.6), 2: (21, 52, 2.4), 4: (23, 66, 3.7), 8: (23, 74, 5.3)},
        "DeepLIFT": {1: (11, 25, 1.7), 2: (18, 40, 2.4), 4: (23, 55, 3.5), 8: (23, 64, 5.1)},
        "integrated gradients": {1: (10, 12, 1.6), 2: (12, 18, 2.4), 4: (13, 21, 3.7),
                                 8: (12, 21, 5.4)},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A network and photographs that it classifies correctly.

    Attributes:
        network: That is attacked.
        images: ``(N, 3, H, W)``, normalised.
        labels: Right, and predicted.
        k: How many pixels are most important.
        mean: Of the pixels, by channel.
        std: Likewise.
        batch: Images at once on a CPU, by method.
        judge: Makes an attack on the explanation of another network; or ``None``.
        facts: What else a reader has to know.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    k: int
    mean: Tensor
    std: Tensor
    batch: Mapping[str, int]
    judge: Callable[[], InterpretationAttack] | None
    facts: Mapping[str, Any]

    def attack(self, method: str, **settings: Any) -> InterpretationAttack:
        """Return the attack on a method, by its name."""
        made: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
            "gradient": lambda: (Saliency(self.network), {}),
            "DeepLIFT": lambda: (DeepLift(self.network), {}),
            "integrated gradients": lambda: (
                IntegratedGradients(self.network),
                {"n_steps": IG_STEPS, "method": "riemann_right"},
            ),
            "SmoothGrad": lambda: (NoiseTunnel(Saliency(self.network)), SMOOTHGRAD),
        }
        attribution, own = made[method]()
        return InterpretationAttack.normalized(
            attribution,
            mean=self.mean,
            std=self.std,
            attribute_kwargs=own,
            **settings,
        )


def squeezenet(count: int, seed: int, device: str) -> Subject:
    """Return ImageNet's SqueezeNet, and MobileNet v2 as the judge of what was made on it."""
    data = real_data()
    pixels, labels, _ = data.photographs()

    def judge() -> InterpretationAttack:
        network = data.mobilenet_imagenet().to(device)
        return InterpretationAttack(Saliency(network), lower_bound=-1.0, upper_bound=1.0)

    batch = {"gradient": 4, "DeepLIFT": 2, "integrated gradients": 1, "SmoothGrad": 2}
    facts = {
        "network": "SqueezeNet 1.0, ImageNet",
        "images": "ImageNet photographs, the first of a random order that are classified correctly",
        "judge": "MobileNet v2, ImageNet, gradient",
    }
    network = data.squeezenet_imagenet().to(device)
    return _subject(data, network, pixels, labels, 1000, batch, judge, facts, count, seed, device)


def cifar(count: int, seed: int, device: str) -> Subject:
    """Return a CIFAR-10 ResNet-20."""
    data = real_data()
    pixels, labels, _ = data.cifar10()
    batch = dict.fromkeys((*METHODS, "SmoothGrad"), 16)
    facts = {
        "network": "ResNet-20, CIFAR-10",
        "images": "CIFAR-10 test images, the first of a random order that are classified correctly",
    }
    network = data.resnet20_cifar10().to(device)
    return _subject(data, network, pixels, labels, 100, batch, None, facts, count, seed, device)


SUBJECTS: Mapping[str, Callable[[int, int, str], Subject]] = {
    "squeezenet": squeezenet,
    "cifar": cifar,
}


def _subject(
    data: Any,
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    k: int,
    batch: Mapping[str, int],
    judge: Callable[[], InterpretationAttack] | None,
    facts: Mapping[str, Any],
    count: int,
    seed: int,
    device: str,
) -> Subject:
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    chosen: list[int] = []
    seen = 0
    for rows in order.split(16):  # no more than needed are classified
        with torch.no_grad():
            predicted = network(data.normalise(pixels[rows]).to(device)).argmax(1).cpu()
        chosen += rows[predicted == labels[rows]].tolist()
        seen += len(rows)
        if len(chosen) >= count:
            break
    chosen = chosen[:count]
    return Subject(
        network,
        data.normalise(pixels[chosen]).to(device),
        labels[chosen],
        k,
        data.MEAN.flatten(),
        data.STD.flatten(),
        batch if device == "cpu" else dict.fromkeys(batch, 64),
        judge,
        {**facts, "classified correctly": f"{len(chosen)} of the first {seen}"},
    )


@dataclass(frozen=True)
class Job:
    """An attack on a slice of the images; the order of jobs is their importance.

    Attributes:
        group: ``"curves"``, ``"defences"``, ``"surrogate"`` or ``"steps"``.
        name: Of the row; in ``"curves"`` the method.
        method: Whose explanation is attacked.
        radius: Of 255.
        first: Image.
        last: Image after the last one.
        steps: Of the walk.
        step: Its size, of 255.
        check_every: Steps between two judgements.
        modes: Objectives.
        settings: Of the attack.
        transfer: Whether the other network judges.
    """

    group: str
    name: str
    method: str
    radius: int
    first: int
    last: int
    steps: int
    step: float
    check_every: int
    modes: tuple[str, ...] = MODES
    settings: tuple[tuple[str, Any], ...] = ()
    transfer: bool = False


def jobs(network: str, budget: str) -> list[Job]:
    """Return what is run, the most important first.

    All methods walk alike within a budget and a radius, so that they can be compared.
    """
    if budget == "paper":
        return _paper(64)
    if budget == "quick":
        return [_curve(method, 8, 0, 2, steps=4, step=2.0) for method in METHODS]
    return _squeezenet() if network == "squeezenet" else _cifar()


def _curve(method: str, radius: int, first: int, last: int, **walk: Any) -> Job:
    walk = dict(WALK) | walk
    return Job("curves", method, method, radius, first, last, **walk)


def _squeezenet() -> list[Job]:
    gradient, deep_lift, integrated = METHODS
    return [
        _with_transfer(_curve(gradient, 8, 0, 8)),
        _curve(deep_lift, 8, 0, 3),
        _curve(integrated, 8, 0, 2),
        _curve(gradient, 2, 0, 8),
        _curve(deep_lift, 2, 0, 2),
        _with_transfer(_curve(gradient, 8, 8, 16)),
        _curve(deep_lift, 8, 3, 6),
        _curve(integrated, 8, 2, 4),
        _curve(gradient, 4, 0, 6),
        _curve(gradient, 1, 0, 6),
        *_others(8, 4, WALK),
        _curve(integrated, 2, 0, 2),
    ]


def _with_transfer(job: Job) -> Job:
    return Job(**{**vars(job), "transfer": True})


def _cifar() -> list[Job]:
    walk = {"steps": 60, "step": 0.5, "check_every": 1}
    sizes = dict(zip(METHODS, (64, 32, 16), strict=True))
    found = [_curve(method, 8, 0, count, **walk) for method, count in sizes.items()]
    full = Job("steps", "300 steps of 0.5/255", "gradient", 8, 0, 32, 300, 0.5, 1, ("topk",))
    found.append(full)
    found += [_curve(method, 2, 0, count // 2, **walk) for method, count in sizes.items()]
    found += [_curve("gradient", radius, 0, 32, **walk) for radius in (4, 1)]
    return [*found, *_others(8, 32, walk)]


def _others(radius: int, images: int, walk: Mapping[str, Any]) -> list[Job]:
    """Return defences, each attacked in full knowledge of it, and other surrogates."""
    modes = ("topk", "random")
    found = [
        Job("defences", "softplus", "gradient", radius, 0, images, modes=modes, **walk,
            settings=(("beta", DEFENCE_BETA), ("defence_beta", DEFENCE_BETA))),
        Job("defences", "SmoothGrad", "SmoothGrad", radius, 0, images, modes=modes, **walk),
    ]  # fmt: skip
    betas: dict[str, Any] = {f"beta {beta:g}": beta for beta in (1.0, 3.0, 10.0, 30.0)}
    betas["beta 1 to 30"] = GrowingBeta(1.0, 30.0, walk["steps"])
    for name, beta in betas.items():
        found.append(
            Job("surrogate", name, "gradient", radius, 0, images, modes=("topk",), **walk,
                settings=(("beta", beta),))
        )  # fmt: skip
    return found


def _paper(images: int) -> list[Job]:
    """Return the published protocol: 300 steps of 0.5/255, judged after each; 64 images."""
    walk = {"steps": 300, "step": 0.5, "check_every": 1}
    found = [
        _curve(method, radius, 0, images, **walk)
        for radius in reversed(RADII)
        for method in METHODS
    ]
    return [_with_transfer(found[0]), *found[1:], *_others(8, images, walk)]
