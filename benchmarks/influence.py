"""How far the attack on influence functions moves the training points that explain a prediction.

The published figure, on subjects that fit a CPU: for each radius the share of the five most helpful
training points that stays, and the rank correlation of all influences, of the attack in one step,
in several, and of random signs.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import fingerprint
from claims_data import real_data
from harness import RESULTS, SCHEMA, environment, write_json
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from captum_blackbox.concepts import SCENE_CLASSES, Scenes
from captum_blackbox.demo import load_demo_network
from captum_blackbox.fragility.influence_attack import InfluenceAttack
from captum_blackbox.fragility.influence_result import InfluenceAttackResult
from captum_blackbox.report.exemplars import exemplars_png

RADII = {  # of 255
    "mnist": (1, 2, 4, 8, 16, 32, 64),
    "cifar": (1, 2, 4, 8, 16),
    "scenes": (1, 2, 4, 8, 16, 32),
}
REG = 0.01
RESAMPLES = 10_000
METHODS: Mapping[str, Mapping[str, Any]] = {
    "attack, one step": {},
    "attack, 10 steps": {"step_num": 10},
    "random signs": {"mode": "random"},
}
PUBLISHED = {
    "source": "Ghorbani, Abid, Zou, AAAI 2019: Inception v3 with its last layer retrained on roses "
    "and sunflowers, 1000 training images, mean of test images",
    "attack, radius 8": "on average 2 of the 5 most helpful stay; influences before and after are "
    "essentially uncorrelated",
    "random signs, radius about 10": "rank correlation about 0.8",
}


@dataclass(frozen=True)
class Subject:
    """A network, what it was trained on, and the images that are attacked.

    Attributes:
        model: The network.
        train: Images and labels whose influence is measured.
        images: Attacked; all are classified correctly.
        layers: Whose parameters count.
        lower: Least value of an input, a number or one per channel.
        upper: Largest value.
        facts: What else a reader has to know.
    """

    model: nn.Module
    train: tuple[Tensor, Tensor]
    images: Tensor
    layers: list[str] | None
    lower: float | Tensor
    upper: float | Tensor = 1.0
    facts: Mapping[str, Any] = field(default_factory=dict)


def shuffled(data: Any, part: str, seed: int) -> tuple[Tensor, Tensor]:
    """Return digits as the networks take them, and their labels, in a random order."""
    digits = data.mnist()
    labels = digits[f"{part}_labels"]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return data.centred(digits[f"{part}_images"][order]), labels[order]


def right(model: nn.Module, images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, float]:
    """Return the first images that are classified correctly, and the accuracy on all."""
    with torch.no_grad():
        hit = torch.cat([model(some).argmax(1) for some in images.split(250)]) == labels
    return images[hit][:count], round(float(hit.float().mean()), 4)


def mnist_last_layer(plan: argparse.Namespace) -> Subject:
    """Return the MNIST network as it was trained, explained through its last layer."""
    data = real_data()
    model = data.cnn_mnist()
    train, labels = shuffled(data, "train", plan.seed)
    images, accuracy = right(model, *shuffled(data, "test", plan.seed), plan.images)
    train = train[: plan.points], labels[: plan.points]
    return Subject(model, train, images, ["dense2"], -1.0, facts={"accuracy": accuracy})


def mnist_two_classes(plan: argparse.Namespace) -> Subject:
    """Return it with its last layer refitted on 3 and 8 alone: the published setting."""
    data = real_data()
    model = data.cnn_mnist()
    sets = []
    for part in ("train", "test"):
        images, labels = shuffled(data, part, plan.seed)
        chosen = (labels == 3) | (labels == 8)
        sets.append((images[chosen], (labels[chosen] == 8).long()))
    train = tuple(each[: plan.points] for each in sets[0])
    refit(model, "dense2", *train)
    images, accuracy = right(model, *sets[1], plan.images)
    return Subject(model, train, images, ["dense2"], -1.0, facts={"accuracy": accuracy})


def refit(model: nn.Module, name: str, images: Tensor, labels: Tensor) -> None:
    """Give the model the last layer with the least mean cross-entropy, weights penalised by REG."""
    setattr(model, name, nn.Identity())
    with torch.no_grad():
        wide = torch.cat([model(some) for some in images.split(250)]).double()
    layer = nn.Linear(wide.shape[1], int(labels.max()) + 1, dtype=torch.float64)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        length = sum((parameter**2).sum() for parameter in layer.parameters())
        loss = F.cross_entropy(layer(wide), labels) + REG / 2 * length
        loss.backward()
        return loss

    optimizer.step(closure)
    setattr(model, name, layer.float())


def mnist_whole(plan: argparse.Namespace) -> Subject:
    """Return a network of 1306 parameters, trained here, explained through all of them."""
    data = real_data()
    train, labels = (each[: plan.points] for each in shuffled(data, "train", plan.seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = nn.Sequential(
            nn.Conv2d(1, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 12, 3, 2), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 10),
        )  # fmt: skip
    steps = 1500
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, steps)
    generator = torch.Generator().manual_seed(plan.seed)
    for _ in range(steps):
        rows = torch.randint(len(train), (64,), generator=generator)
        optimizer.zero_grad()
        length = sum((parameter**2).sum() for parameter in model.parameters())
        (F.cross_entropy(model(train[rows]), labels[rows]) + 1e-3 / 2 * length).backward()
        optimizer.step()
        schedule.step()
    images, accuracy = right(model.eval(), *shuffled(data, "test", plan.seed), plan.images)
    return Subject(model, (train, labels), images, None, -1.0, facts={"accuracy": accuracy})


def cifar(plan: argparse.Namespace, classes: tuple[str, ...] | None) -> Subject:
    """Return the CIFAR-10 ResNet-20 with its last layer refitted on all or some of the classes."""
    data = real_data()
    model = data.resnet20_cifar10()
    pixels, labels, names = data.cifar10()
    classes = classes or tuple(names)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(plan.seed))
    new = torch.full((len(names),), -1)
    new[[names.index(name) for name in classes]] = torch.arange(len(classes))
    order = order[new[labels[order]] >= 0]
    images, labels = data.normalise(pixels[order]), new[labels[order]]
    # Of two classes there are 800 images in all.
    points = min(plan.points, 3 * len(images) // 4)
    train = images[:points], labels[:points]
    refit(model, "linear", *train)
    chosen, accuracy = right(model, images[points:], labels[points:], plan.images)
    lower, upper = (
        data.normalise(torch.full((1, 3, 1, 1), value))[0, :, 0, 0] for value in (0, 255)
    )
    return Subject(model, train, chosen, ["linear"], lower, upper, {"accuracy": accuracy})


def cifar_ten_classes(plan: argparse.Namespace) -> Subject:
    """Return the CIFAR-10 ResNet-20 with its last layer refitted."""
    return cifar(plan, None)


def cifar_two_classes(plan: argparse.Namespace) -> Subject:
    """Return it with its last layer refitted on two classes alone: the published setting."""
    return cifar(plan, ("cat", "dog"))


def scenes_last_layer(plan: argparse.Namespace) -> Subject:
    """Return the built-in network on rendered scenes, explained through its last layer."""
    model = load_demo_network()
    train = Scenes(plan.points, seed=1000)  # the built-in network's own
    test = Scenes(2 * plan.images, seed=83_001 + plan.seed)
    images, accuracy = right(model, test.images, test.labels, plan.images)
    facts = {"accuracy": accuracy, "training points": "the first scenes it was trained on"}
    return Subject(model, (train.images, train.labels), images, ["classifier"], 0.0, facts=facts)


STUDIES: Mapping[str, Mapping[str, Callable[[argparse.Namespace], Subject]]] = {
    "mnist": {
        "last layer, ten digits": mnist_last_layer,
        "last layer refitted, 3 and 8": mnist_two_classes,
        "whole network of 1306 parameters": mnist_whole,
    },
    "cifar": {
        "last layer refitted, ten classes": cifar_ten_classes,
        "last layer refitted, cats and dogs": cifar_two_classes,
    },
    "scenes": {"last layer, ten objects": scenes_last_layer},
}


def interval(values: Tensor) -> dict[str, float]:
    """Return the mean and its 95 % bootstrap interval, resampling images."""
    each = values.double().numpy()
    chosen = np.random.default_rng(0).integers(len(each), size=(RESAMPLES, len(each)))
    low, high = np.quantile(each[chosen].mean(1), [0.025, 0.975])
    numbers = ("mean", each.mean()), ("low", low), ("high", high)
    return {name: round(float(number), 4) for name, number in numbers}


def summary(result: InfluenceAttackResult) -> dict[str, Any]:
    """Return what the figure shows."""
    return {
        "of_top_5": interval(5 * result.overlap(5)),
        "rank_correlation": interval(result.rank_correlation),
        "top_1_replaced": interval(1 - result.overlap(1)),
        "label_kept": round(float(result.label_kept.double().mean()), 4),
        "moved": round(float((result.best_step > 0).double().mean()), 4),
        "success": round(float(result.success.double().mean()), 4),
    }


def measure(subject: Subject, radii: Sequence[int], figure: Path | None) -> dict[str, Any]:
    """Attack at every radius; perhaps draw the image whose exemplars change most at radius 8."""
    points = TensorDataset(*subject.train)
    attack = InfluenceAttack(
        subject.model,
        points,
        layers=subject.layers,
        hessian_reg=REG,
        lower_bound=subject.lower,
        upper_bound=subject.upper,
    )
    span = subject.upper - subject.lower
    rows: dict[str, dict[str, Any]] = {method: {} for method in METHODS}
    for radius in radii:
        for method, settings in METHODS.items():
            result = attack.run(subject.images, radius / 255 * span, **settings)
            rows[method][str(radius)] = summary(result)
            print(radius, method, rows[method][str(radius)], flush=True)
            if figure is not None and radius == 8 and method == "attack, 10 steps":
                picture = exemplars_png(
                    result, points, number=int(result.overlap(5).argmin()), classes=SCENE_CLASSES
                )
                figure.parent.mkdir(parents=True, exist_ok=True)
                Image.open(BytesIO(picture)).convert("RGB").quantize(64).save(figure, optimize=True)
    return {
        **subject.facts,
        "parameters": attack.influence.function.count,
        "training_points": len(points),
        "images": len(subject.images),
        "sha256": fingerprint([subject.images, *subject.train]),
        "radii": rows,
    }


def main() -> None:
    """Measure one data set and write its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=list(STUDIES))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--points", type=int, default=1000, help="training points")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    plan = parser.parse_args()
    torch.set_num_threads(plan.threads)
    figure = plan.out / "figures" / "influence-scenes.png" if plan.dataset == "scenes" else None
    content = {
        "schema": SCHEMA,
        "suite": f"influence-{plan.dataset}",
        "environment": environment("cpu"),
        "settings": {
            "images": plan.images,
            "points": plan.points,
            "seed": plan.seed,
            "hessian": "gauss_newton",
            "hessian_reg": REG,
            "solver": "exact",
            "top": 3,
            "radius": "of 255, where a pixel goes from 0 to 255",
            "returned": "the clean image where no iterate keeps the label: see moved",
        },
        "published": PUBLISHED,
        "subjects": {
            name: measure(make(plan), RADII[plan.dataset], figure)
            for name, make in STUDIES[plan.dataset].items()
        },
    }
    print(write_json(plan.out / f"influence-{plan.dataset}.json", content))


if __name__ == "__main__":
    main()
