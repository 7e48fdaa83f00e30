"""The script that trained the weights that come with the library.

Run ``python -m captum_blackbox.demo.train --out weights.safetensors``; about ten minutes on two
processor cores. Every scene is rendered once, used once and forgotten, so nothing can be memorized.

Explanations show a network pictures of which parts are hidden. So that its answers mean something
there, squares of half of the training pictures are hidden in various ways, and the wanted
probability falls to chance as the visible share of the object falls from a half to nothing.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Generator, Tensor
from torch.nn import functional as F
from tqdm import tqdm

from captum_blackbox.concepts import render_scene
from captum_blackbox.demo.network import WEIGHTS_FILE, DemoNetwork
from captum_blackbox.shapes import Images, Labels, Maps, PerImage, Scores

Logits: TypeAlias = Float[Tensor, "batch classes"]

_BATCH = 64
_RATE = 4e-3
_SMOOTHING = 0.1
_CELLS = 8  # squares along one side of a picture that are hidden or shown as a whole
_ENOUGH = 0.5  # share of an object that suffices to be certain


def render_batches(seed: int, count: int) -> Iterator[tuple[Images, Labels, Maps]]:
    """Render scenes in batches, keeping none of them.

    Args:
        seed: Which collection of scenes.
        count: How many scenes.

    Yields:
        Images, shape (N, 3, 64, 64) in [0, 1]; labels, shape (N,); and where the objects are,
        shape (N, 1, 64, 64), 0 or 1.

    Example:
        >>> [len(labels) for _, labels, _ in render_batches(seed=0, count=100)]
        [64, 36]
    """
    for start in range(0, count, _BATCH):
        scenes = [render_scene(seed, index) for index in range(start, min(start + _BATCH, count))]
        objects = torch.stack([scene.masks["object"] for scene in scenes]) > 0
        yield (
            torch.stack([scene.image for scene in scenes]),
            torch.tensor([scene.label for scene in scenes]),
            objects.unsqueeze(1).float(),
        )


def hide_squares(
    images: Images, objects: Maps, generator: Generator
) -> tuple[Images, PerImage]:
    """Hide random squares of about half of the images, each image in one of five ways.

    Args:
        images: Shape (N, 3, H, W) in [0, 1].
        objects: Where the objects are, shape (N, 1, H, W), 0 or 1.
        generator: Source of randomness.

    Returns:
        The images, same shape, and the share of each object that can still be seen, shape (N,)
        in [0, 1].

    Example:
        >>> images, objects = torch.rand(8, 3, 64, 64), torch.ones(8, 1, 64, 64)
        >>> _, visible = hide_squares(images, objects, torch.Generator().manual_seed(0))
        >>> 0 <= visible.min() < visible.max() == 1
        tensor(True)
    """
    count = len(images)
    amount = torch.rand(count, 1, 1, 1, generator=generator) * 2 - 1  # half of them below 0
    squares = torch.rand(count, 1, _CELLS, _CELLS, generator=generator) < amount
    hidden = F.interpolate(squares.float(), size=images.shape[-2:])
    mean = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    blurred = F.avg_pool2d(images, 15, stride=1, padding=7, count_include_pad=False)
    noise = torch.rand(images.shape, generator=generator)
    covers = torch.stack([torch.zeros_like(images), mean.mean(1, keepdim=True).expand_as(images)])
    covers = torch.cat([covers, torch.stack([mean, blurred, noise])])
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


def train_network(seed: int, count: int) -> DemoNetwork:
    """Train a network on freshly rendered scenes.

    Args:
        seed: Decides the scenes, the first weights and what is hidden.
        count: How many scenes to train on.

    Returns:
        The network in evaluation mode.

    Example:
        >>> train_network(seed=0, count=64).training
        False
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DemoNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.02)
    steps = -(-count // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    batches = tqdm(render_batches(seed, count), total=steps, desc="training", unit="batch")
    for images, labels, objects in batches:
        shown, visible = hide_squares(images, objects, generator)
        logits = network(shown)
        wanted = wanted_probabilities(labels, visible, logits.shape[1])
        loss = F.cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        batches.set_postfix(loss=f"{loss.item():.3f}")
    return network.eval()


@torch.inference_mode()
def measure_accuracy(network: DemoNetwork, seed: int, count: int) -> float:
    """Return the share of freshly rendered scenes that a network classifies correctly.

    Args:
        network: The network, in evaluation mode.
        seed: Which collection of scenes.
        count: How many scenes.

    Returns:
        Accuracy in [0, 1].

    Example:
        >>> 0 <= measure_accuracy(DemoNetwork().eval(), seed=0, count=10) <= 1
        True
    """
    batches = tqdm(render_batches(seed, count), total=-(-count // _BATCH), desc="testing")
    right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels, _ in batches)
    return right / count


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, test and save the network; the facts go into the file's header.

    Args:
        arguments: Command line; the process's own if not given.
    """
    parser = argparse.ArgumentParser(prog="python -m captum_blackbox.demo.train")
    parser.add_argument("--out", type=Path, default=Path(WEIGHTS_FILE), help="file to write")
    parser.add_argument("--seed", type=int, default=1000, help="the test scenes' is one more")
    parser.add_argument("--train-scenes", type=int, default=40_000)
    parser.add_argument("--test-scenes", type=int, default=4_000)
    given = parser.parse_args(arguments)
    network = train_network(given.seed, given.train_scenes)
    facts = {
        "test_accuracy": measure_accuracy(network, given.seed + 1, given.test_scenes),
        "test_scenes": given.test_scenes,
        "train_scenes": given.train_scenes,
        "seed": given.seed,
        "epochs": 1,
        "torch": torch.__version__,
        "command": f"{parser.prog} --out {given.out.name} --seed {given.seed}"
        f" --train-scenes {given.train_scenes} --test-scenes {given.test_scenes}",
    }
    save_file(network.state_dict(), given.out, metadata={"captum_blackbox": json.dumps(facts)})
    print(json.dumps(facts, indent=2))  # noqa: T201  (the command's answer)


if __name__ == "__main__":
    main()
