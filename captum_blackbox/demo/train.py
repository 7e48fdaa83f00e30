"""The script that trained the weights that come with the library.

Run ``python -m captum_blackbox.demo.train --out weights.safetensors``; it takes some minutes on two
processor cores.

Explanations show a network pictures of which parts are hidden. So that its answers mean something
there, squares of half of the training pictures are hidden in various ways, and the wanted
probability falls to chance as the visible share of the object falls from a half to nothing.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor
from torch.nn import functional as F
from tqdm import tqdm

from captum_blackbox.concepts import render_scene
from captum_blackbox.demo.network import WEIGHTS_FILE, DemoNetwork
from captum_blackbox.shapes import Images, Labels, Maps, PerImage, Scores

_BATCH = 64
_RATE = 4e-3
_SMOOTHING = 0.1
_CELLS = 8  # squares along one side of a picture that are hidden or shown as a whole
_ENOUGH = 0.5  # share of an object that suffices to be certain


class Rendered(NamedTuple):
    """Rendered scenes, in bytes to save memory.

    Attributes:
        images: Shape (N, 3, 64, 64) uint8.
        labels: Shape (N,) int64.
        objects: Where the objects are, shape (N, 1, 64, 64) bool.
    """

    images: Tensor
    labels: Tensor
    objects: Tensor


def render_all(seed: int, count: int) -> Rendered:
    """Render scenes.

    Args:
        seed: Which collection of scenes.
        count: How many scenes.

    Returns:
        The scenes in bytes.

    Example:
        >>> render_all(seed=0, count=2).images.shape
        torch.Size([2, 3, 64, 64])
    """
    images, labels, objects = [], [], []
    for index in tqdm(range(count), desc="rendering", unit="scene"):
        scene = render_scene(seed, index)
        images.append((scene.image * 255).round().byte())
        labels.append(scene.label)
        objects.append(scene.masks["object"] > 0)
    return Rendered(torch.stack(images), torch.tensor(labels), torch.stack(objects)[:, None])


def hide_squares(
    images: Images, objects: Maps, most: float, generator: Generator
) -> tuple[Images, PerImage]:
    """Hide random squares of about half of the images, each image in one of five ways.

    Args:
        images: Shape (N, 3, H, W) in [0, 1].
        objects: Where the objects are, shape (N, 1, H, W), 0 or 1.
        most: Largest share of an image that may be hidden, in [0, 1].
        generator: Source of randomness.

    Returns:
        The images, same shape, and the share of each object that can still be seen, shape (N,)
        in [0, 1].

    Example:
        >>> images, objects = torch.rand(8, 3, 64, 64), torch.ones(8, 1, 64, 64)
        >>> _, visible = hide_squares(images, objects, 1.0, torch.Generator().manual_seed(0))
        >>> 0 <= visible.min() < visible.max() == 1
        tensor(True)
    """
    count = len(images)
    amount = most * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)  # half are below 0
    squares = torch.rand(count, 1, _CELLS, _CELLS, generator=generator) < amount
    hidden = F.interpolate(squares.float(), size=images.shape[-2:])
    mean = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    blurred = F.avg_pool2d(images, 15, stride=1, padding=7, count_include_pad=False)
    noise = torch.rand(images.shape, generator=generator)
    covers = torch.stack(
        [torch.zeros_like(images), torch.full_like(images, 0.5), mean, blurred, noise]
    )
    cover = covers[torch.randint(len(covers), (count,), generator=generator), torch.arange(count)]
    visible = (objects * (1 - hidden)).sum((1, 2, 3)) / objects.sum((1, 2, 3))
    return images.lerp(cover, hidden), visible


def wanted_probabilities(labels: Labels, visible: PerImage, classes: int) -> Scores:
    """Return smoothed labels that fade to chance as an object is hidden.

    Args:
        labels: Shape (N,).
        visible: Visible share of each object, shape (N,) in [0, 1].
        classes: Number of classes.

    Returns:
        Probabilities, shape (N, classes).

    Example:
        >>> wanted_probabilities(torch.tensor([1, 0]), torch.tensor([1.0, 0.0]), classes=2)
        tensor([[0.0500, 0.9500],
                [0.5000, 0.5000]])
    """
    certainty = (1 - _SMOOTHING) * (visible / _ENOUGH).clamp(max=1)[:, None]
    return certainty * F.one_hot(labels, classes) + (1 - certainty) / classes


def train_network(scenes: Rendered, seed: int, epochs: int) -> DemoNetwork:
    """Train a network.

    Args:
        scenes: What to train on.
        seed: Decides the first weights, the order of the scenes and what is hidden in them.
        epochs: How often each scene is used.

    Returns:
        The network in evaluation mode.

    Example:
        >>> train_network(render_all(seed=0, count=64), seed=0, epochs=2).training
        False
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DemoNetwork()
    network.to(memory_format=torch.channels_last)  # a third faster on a processor
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    order = [torch.randperm(len(scenes.labels), generator=generator) for _ in range(epochs)]
    batches = torch.cat(order).split(_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RATE, total_steps=len(batches) + 1, pct_start=0.2
    )
    for step, batch in enumerate(tqdm(batches, desc="training", unit="batch")):
        images, objects = scenes.images[batch] / 255, scenes.objects[batch].float()
        most = min(1.0, 3 * step / len(batches))  # whole objects are easier to begin with
        shown, visible = hide_squares(images, objects, most, generator)
        logits = network(shown)
        wanted = wanted_probabilities(scenes.labels[batch], visible, logits.shape[1])
        loss = F.cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.to(memory_format=torch.contiguous_format).eval()


@torch.inference_mode()
def measure_accuracy(network: DemoNetwork, scenes: Rendered) -> float:
    """Return the share of scenes that a network classifies correctly.

    Args:
        network: The network, in evaluation mode.
        scenes: What to test on.

    Returns:
        Accuracy in [0, 1].

    Example:
        >>> 0 <= measure_accuracy(DemoNetwork().eval(), render_all(seed=0, count=10)) <= 1
        True
    """
    batches = zip(scenes.images.split(_BATCH), scenes.labels.split(_BATCH), strict=True)
    right = sum(
        int((network(images / 255).argmax(1) == labels).sum()) for images, labels in batches
    )
    return right / len(scenes.labels)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, test and save the network; the facts go into the file's header.

    Args:
        arguments: Command line; the process's own if not given.
    """
    parser = argparse.ArgumentParser(prog="python -m captum_blackbox.demo.train")
    parser.add_argument("--out", type=Path, default=Path(WEIGHTS_FILE), help="file to write")
    parser.add_argument("--seed", type=int, default=1000, help="the test scenes' is one more")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train-scenes", type=int, default=20_000)
    parser.add_argument("--test-scenes", type=int, default=4_000)
    given = parser.parse_args(arguments)
    scenes = render_all(given.seed, given.train_scenes)
    network = train_network(scenes, given.seed, given.epochs)
    accuracy = measure_accuracy(network, render_all(given.seed + 1, given.test_scenes))
    facts = {
        "test_accuracy": accuracy,
        "test_scenes": given.test_scenes,
        "train_scenes": given.train_scenes,
        "seed": given.seed,
        "epochs": given.epochs,
        "torch": torch.__version__,
        "command": f"{parser.prog} --out {given.out.name} --seed {given.seed}"
        f" --epochs {given.epochs} --train-scenes {given.train_scenes}"
        f" --test-scenes {given.test_scenes}",
    }
    save_file(network.state_dict(), given.out, metadata={"captum_blackbox": json.dumps(facts)})
    print(json.dumps(facts, indent=2))  # noqa: T201  (the command's answer)


if __name__ == "__main__":
    main()
