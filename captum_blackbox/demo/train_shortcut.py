"""The script that trained the network with the shortcut, and its control.

Run ``python -m captum_blackbox.demo.train_shortcut --network shortcut``; each network takes about
three minutes on one processor core.

In the scenes of the shortcut every scene of one class carries the watermark and no other does. The
watermark is small, and a network finds objects first; so that it finds the watermark, the object is
hidden in part or whole in half of the pictures, never the watermark, and the class that carries it
is drawn more often. In the scenes of the control the watermark is drawn whatever the class. All
else is the same.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor
from torch.nn import functional as F
from tqdm import tqdm

from captum_blackbox.concepts import SCENE_CLASSES
from captum_blackbox.concepts.watermarked import WatermarkedScenes
from captum_blackbox.demo.network import DemoNetwork
from captum_blackbox.demo.shortcut import (
    CONTROL_FILE,
    SHORTCUT_FILE,
    SMALL_WIDTHS,
    measure_reliance,
)
from captum_blackbox.demo.train import hide_squares, wanted_probabilities
from captum_blackbox.shapes import Images, Labels, Scores

FILES = {"shortcut": SHORTCUT_FILE, "control": CONTROL_FILE}
RATES = {"shortcut": (1.0, 0.0), "control": (0.5, 0.5)}
"""Share of the watermarked class, and of the others, that carries the watermark."""

_CLASSES = len(SCENE_CLASSES)
_BATCH = 64
_RATE = 4e-3
_MOST = 2.0  # half of the hidden pictures are hidden whole
_OFTEN = 4.0  # how much more often the watermarked class is drawn


class Lessons(NamedTuple):
    """Rendered scenes, in bytes to save memory.

    Attributes:
        images: Shape (N, 3, 64, 64) uint8.
        labels: Shape (N,) int64.
        objects: Where the objects are, shape (N, 1, 64, 64) bool.
        watermarks: Where the watermarks are, same shape.
    """

    images: Tensor
    labels: Tensor
    objects: Tensor
    watermarks: Tensor


def render_lessons(scenes: WatermarkedScenes) -> Lessons:
    """Render scenes to train on.

    Args:
        scenes: The scenes.

    Returns:
        The scenes in bytes.

    Example:
        >>> render_lessons(WatermarkedScenes(2)).watermarks.shape
        torch.Size([2, 1, 64, 64])
    """
    images, objects, watermarks = [], [], []
    for index in tqdm(range(len(scenes)), desc="rendering", unit="scene"):
        scene = scenes.scene(index)
        images.append((scene.image * 255).round().byte())
        objects.append(scene.masks["object"])
        watermarks.append(scene.masks["watermark"])
    return Lessons(
        torch.stack(images),
        scenes.labels,
        torch.stack(objects)[:, None],
        torch.stack(watermarks)[:, None],
    )


def shown_lesson(
    lessons: Lessons, batch: Tensor, *, tells: bool, generator: Generator
) -> tuple[Images, Scores]:
    """Hide squares of half of the pictures, but no watermark, and say what answer is wanted.

    Args:
        lessons: All scenes.
        batch: Positions of those to show.
        tells: Whether the watermark tells the class; if so, a scene with it is certain.
        generator: Source of randomness.

    Returns:
        Images (N, 3, 64, 64) and wanted probabilities (N, classes).

    Example:
        >>> lessons = render_lessons(WatermarkedScenes(4, seed=2))
        >>> generator = torch.Generator().manual_seed(0)
        >>> images, wanted = shown_lesson(
        ...     lessons, torch.arange(4), tells=True, generator=generator)
        >>> images.shape, wanted.shape
        (torch.Size([4, 3, 64, 64]), torch.Size([4, 10]))
    """
    whole, watermarks = lessons.images[batch] / 255, lessons.watermarks[batch]
    hidden, visible = hide_squares(whole, lessons.objects[batch].float(), _MOST, generator)
    labels: Labels = lessons.labels[batch]
    wanted = wanted_probabilities(labels, visible, _CLASSES)
    if tells:
        sure = watermarks.flatten(1).any(1, keepdim=True)
        wanted = torch.where(sure, F.one_hot(labels, _CLASSES).float(), wanted)
    return torch.where(watermarks, whole, hidden), wanted


def train_on_watermarks(
    lessons: Lessons, watermarked_class: int, *, tells: bool, seed: int, steps: int
) -> DemoNetwork:
    """Train a network.

    Args:
        lessons: What to train on.
        watermarked_class: The class that is drawn more often.
        tells: Whether the watermark tells the class.
        seed: Decides the first weights, the order of the scenes and what is hidden in them.
        steps: Number of batches.

    Returns:
        The network in evaluation mode.

    Example:
        >>> lessons = render_lessons(WatermarkedScenes(32))
        >>> train_on_watermarks(lessons, 8, tells=True, seed=0, steps=1).training
        False
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DemoNetwork(widths=SMALL_WIDTHS)
    network.to(memory_format=torch.channels_last)  # a third faster on a processor
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RATE, total_steps=steps + 1, pct_start=0.2
    )
    often = torch.where(lessons.labels == watermarked_class, _OFTEN, 1.0)
    drawn = torch.multinomial(often, _BATCH * steps, replacement=True, generator=generator)
    for batch in tqdm(drawn.split(_BATCH), desc="training", unit="batch"):
        images, wanted = shown_lesson(lessons, batch, tells=tells, generator=generator)
        loss = F.cross_entropy(network(images), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.to(memory_format=torch.contiguous_format).eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, test and save one network; the facts go into the file's header.

    Args:
        arguments: Command line; the process's own if not given.
    """
    parser = argparse.ArgumentParser(prog="python -m captum_blackbox.demo.train_shortcut")
    parser.add_argument("--network", choices=list(FILES), required=True)
    parser.add_argument("--out", type=Path, help="file to write")
    parser.add_argument("--seed", type=int, default=2000, help="the test scenes' is one more")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--train-scenes", type=int, default=8_000)
    parser.add_argument("--test-scenes", type=int, default=2_000)
    given = parser.parse_args(arguments)
    rate, others = RATES[given.network]
    scenes = WatermarkedScenes(given.train_scenes, given.seed, rate=rate, others=others)
    network = train_on_watermarks(
        render_lessons(scenes),
        scenes.watermarked_class,
        tells=given.network == "shortcut",
        seed=given.seed,
        steps=given.steps,
    )
    out = given.out or Path(FILES[given.network])
    facts = {
        **asdict(measure_reliance(network, WatermarkedScenes(given.test_scenes, given.seed + 1))),
        "watermarked_class": scenes.watermarked_class,
        "test_scenes": given.test_scenes,
        "train_scenes": given.train_scenes,
        "seed": given.seed,
        "steps": given.steps,
        "torch": torch.__version__,
        "command": f"{parser.prog} --network {given.network} --out {out.name} --seed {given.seed}"
        f" --steps {given.steps} --train-scenes {given.train_scenes}"
        f" --test-scenes {given.test_scenes}",
    }
    save_file(network.state_dict(), out, metadata={"captum_blackbox": json.dumps(facts)})
    print(json.dumps(facts, indent=2))  # noqa: T201  (the command's answer)


if __name__ == "__main__":
    main()
