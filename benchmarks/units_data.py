"""The networks and images that Network Dissection is judged on."""

import copy
import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from claims_data import real_data
from torch import Tensor, nn
from torch.nn import functional as F

from captum_blackbox.artifacts import tensor_bytes
from captum_blackbox.concepts import (
    SCENE_CLASSES,
    SCENE_CONCEPTS,
    Annotation,
    ColorConcepts,
    Concepts,
    MaskConcepts,
    SceneConcepts,
    Scenes,
)
from captum_blackbox.demo import DemoNetwork, load_demo_network

SCENE_SEED = 83_001  # no collection of the others' and none that the network was trained on
PHOTOGRAPH, MASK = 224, 112


@dataclass(frozen=True)
class Subject:
    """A network, the layers that are dissected, and images whose concepts are known.

    Attributes:
        name: What both are, for a reader.
        model: The trained network.
        untrained: Seed → the same architecture with first weights.
        layers: Names, from first to last.
        concepts: What is asked.
        sha256: Of images and masks.
        preprocess: Images in [0, 1] → what the network takes.
        batch_size: Images at a time.
        labels: The class of each image, where it is one of the network's.
    """

    name: str
    model: nn.Module
    untrained: Callable[[int], nn.Module]
    layers: tuple[str, ...]
    concepts: Concepts
    sha256: str
    preprocess: Callable[[Tensor], Tensor] | None = None
    batch_size: int = 32
    labels: Tensor | None = None


class Held(Concepts):
    """Concepts that are read once and kept, since they are asked for in many dissections."""

    def __init__(self, concepts: Concepts) -> None:
        self._digest = concepts.digest()
        self._read = [concepts[index] for index in range(len(concepts))]
        super().__init__(
            concepts.categories, concepts.labels, concepts.image_size, concepts.mask_size
        )

    def __len__(self) -> int:
        return len(self._read)

    def image(self, index: int) -> Tensor:
        return self._read[index][0]

    def annotations(self, index: int) -> dict[str, Annotation]:
        return self._read[index][1]

    def digest(self) -> str:
        return self._digest


def scenes(images: int | None) -> Subject:
    """Return the built-in network on scenes that it was not trained on."""
    count = images or 1000
    rendered = Scenes(count, seed=SCENE_SEED)
    masks = [rendered.masks(category) for category in SCENE_CONCEPTS]
    return Subject(
        "the built-in network on scenes",
        load_demo_network(),
        lambda seed: seeded(seed, DemoNetwork).eval(),
        tuple(f"features.{block}.2" for block in range(3, 7)),
        SceneConcepts(count, seed=SCENE_SEED),
        sha256(rendered.images, *masks),
        labels=rendered.labels,
    )


def squeezenet(images: int | None) -> Subject:
    """Return SqueezeNet on photographs: the outputs of fire modules, behind their ReLUs."""
    data = real_data()
    return Subject(
        "SqueezeNet 1.0 on photographs",
        data.squeezenet_imagenet(),
        lambda seed: seeded(seed, lambda: torchvision.models.squeezenet1_0(weights=None)).eval(),
        ("features.5", "features.8", "features.10", "features.12"),
        *_photographs(images),
        preprocess=lambda pixels: (pixels - data.MEAN) / data.STD,
        batch_size=10,
    )


def mobilenet(images: int | None) -> Subject:
    """Return MobileNet on photographs: before ReLU6, at whose 6 most units of the last tie."""
    data = real_data()
    return Subject(
        "MobileNet v2 on photographs",
        data.mobilenet_imagenet(),
        lambda seed: seeded(seed, lambda: torchvision.models.mobilenet_v2(weights=None)).eval(),
        ("features.10.conv.3", "features.13.conv.3", "features.17.conv.3", "features.18.1"),
        *_photographs(images),
        preprocess=lambda pixels: 2 * pixels - 1,
        batch_size=10,
    )


SUBJECTS: dict[str, Callable[[int | None], Subject]] = {
    "scenes": scenes,
    "squeezenet": squeezenet,
    "mobilenet": mobilenet,
}


def own_concepts(count: int = 200) -> dict[int, set[str]]:
    """Return class → its object's name and its parts', as scenes show them."""
    rendered = Scenes(count, seed=SCENE_SEED)
    parts = rendered.masks("part")
    found = {label: {name} for label, name in enumerate(SCENE_CLASSES)}
    for mask, label in zip(parts, rendered.labels.tolist(), strict=True):
        names = (mask.unique()[1:] - 1).tolist()
        found[label] |= {SCENE_CONCEPTS["part"][name] for name in names}
    return found


def images_that_show(concepts: Concepts) -> Tensor:
    """Return how many images show each label, ``(labels,)``."""
    shown = torch.zeros(len(concepts.labels) + 1, dtype=torch.int64)
    for number in range(len(concepts)):
        for annotation in concepts.annotations(number).values():
            shown[annotation.pixels.unique().long()] += 1
    return shown[1:]


def sha256(*tensors: Tensor) -> str:
    """Return a hash of all of them."""
    hashed = hashlib.sha256()
    for tensor in tensors:
        hashed.update(tensor_bytes(tensor))
    return hashed.hexdigest()


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """Return what ``make`` makes from torch's global random state, seeded for it alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _photographs(images: int | None) -> tuple[Concepts, str]:
    data = real_data()
    pixels, masks, _ = data.masks()
    found = MaskConcepts.from_folder(data.HERE / "masks", size=PHOTOGRAPH, mask_size=MASK)
    if images is not None:
        raise SystemExit("the photographs are dissected all together; leave --images out")
    return Held(ColorConcepts(found)), sha256(pixels, masks)


@dataclass(frozen=True)
class Recipe:
    """How a small network is built and trained.

    Attributes:
        widths: Channels of the blocks.
        halving: Positions of the blocks that halve height and width.
        batch_norm: Whether the blocks have batch normalization.
        dropout: Of whole channels, behind each block.
        weight_decay: Of AdamW.
        task: ``"objects"``, or ``"turns"``: by how many quarters a scene was turned; which needs no
            labels.
    """

    widths: tuple[int, ...] = (16, 16, 32, 32, 48)
    halving: tuple[int, ...] = (0, 2, 4)
    batch_norm: bool = True
    dropout: float = 0.0
    weight_decay: float = 0.05
    task: str = "objects"


RECIPES: dict[str, Recipe] = {
    "as it is": Recipe(),
    "without batch normalization": Recipe(batch_norm=False),
    "with dropout 0.2": Recipe(dropout=0.2),
    "without weight decay": Recipe(weight_decay=0.0),
    "half as wide": Recipe(widths=(8, 8, 16, 16, 24)),
    "twice as wide": Recipe(widths=(32, 32, 64, 64, 96)),
    "three blocks": Recipe(widths=(16, 32, 48), halving=(0, 1, 2)),
    "eight blocks": Recipe(widths=(16, 16, 16, 32, 32, 32, 48, 48), halving=(0, 3, 6)),
    "self-supervised: turns": Recipe(task="turns"),
}


class SmallNetwork(nn.Module):
    """Blocks of convolution, batch normalization and ReLU, then the mean and a linear layer."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        before = (3, *recipe.widths[:-1])
        self.features = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(*pair, 3, stride=2 if place in recipe.halving else 1, padding=1),
                    nn.BatchNorm2d(pair[1]) if recipe.batch_norm else nn.Identity(),
                    nn.ReLU(),
                    nn.Dropout2d(recipe.dropout),
                )
                for place, pair in enumerate(zip(before, recipe.widths, strict=True))
            )
        )
        self.classifier = nn.Linear(recipe.widths[-1], 10 if recipe.task == "objects" else 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))


def trained(
    recipe: Recipe,
    data: Mapping[str, Tensor],
    seed: int,
    epochs: int,
    moments: Collection[int] = (),
) -> dict[int, SmallNetwork]:
    """Train a network; return step → the network before it, for some steps and after the last."""
    network = seeded(seed, lambda: SmallNetwork(recipe)).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=recipe.weight_decay)
    orders = [torch.randperm(len(data["labels"]), generator=generator) for _ in range(epochs)]
    batches = torch.cat(orders).split(64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, total_steps=len(batches) + 1, pct_start=0.2
    )
    kept = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of dropout
        for step, batch in enumerate(batches):
            if step in moments:
                kept[step] = copy.deepcopy(network).eval()
            images, labels = asked(recipe, data["images"][batch], data["labels"][batch], generator)
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return kept | {len(batches): network.eval()}


def asked(
    recipe: Recipe, images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the pictures and the answers of a recipe's task."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    if recipe.task == "objects":
        return images, labels
    turns = torch.randint(4, (len(images),), generator=generator)
    turned = [image.rot90(int(turn), (1, 2)) for image, turn in zip(images, turns, strict=True)]
    return torch.stack(turned), turns
