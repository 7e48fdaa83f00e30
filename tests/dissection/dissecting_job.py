"""A dissection as a process of its own: to be killed in the middle, or to be one of several."""

import os
import signal
import sys
import warnings

import torch
from naive_dissection import ListedConcepts, random_concepts
from torch import nn

from captum_blackbox import NetworkDissection
from captum_blackbox.errors import DataError, ExplanationWarning

LAYERS = ["0", "2"]
EVERY = 2  # batches between two writings of a checkpoint


class Counted(ListedConcepts):
    """Remember what was read, and die at a reading; some images can be broken."""

    def __init__(self, count=22, broken=(), dies=None):
        made = random_concepts(count)
        images = torch.stack([made.image(number) for number in range(count)])
        each = [made.annotations(number) for number in range(count)]
        super().__init__(images, each, made.labels, made.categories)
        self.broken, self.dies = broken, dies
        self.read = {"image": [], "annotations": []}

    def _note(self, what, number):
        self.read[what].append(number)
        if self.dies == (what, number) and self.read[what].count(number) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def image(self, index):
        self._note("image", index)
        if ("image", index) in self.broken:
            raise DataError(f"'{index}.jpg' is cut off")
        return super().image(index)

    def annotations(self, index):
        self._note("annotations", index)
        if ("annotations", index) in self.broken:
            raise DataError(f"'{index}.png' is cut off")
        return super().annotations(index)


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 4, 1)).double()


def dissect(concepts, checkpoint=None, model=None, batch_size=2, memory_limit=2 << 30, **settings):
    settings = {"quantile": 0.02, "upsample": "resize", **settings}
    dissection = NetworkDissection(model or network(), LAYERS, **settings)
    return dissection.dissect(
        concepts,
        batch_size=batch_size,
        checkpoint=checkpoint,
        checkpoint_every=EVERY,
        memory_limit=memory_limit,
        on_error="skip",
        show_progress=False,
    )


# Name → concepts and options, for several processes.
TOGETHER = {
    "plain": ({}, {}),
    "large batches": ({}, {"batch_size": 16}),  # 22 images: 16 and 6
    "one batch": ({}, {"batch_size": 100}),  # the second process has none
    "little memory": ({}, {"memory_limit": 20000}),
    "broken": ({"broken": (("image", 0), ("image", 6), ("annotations", 9))}, {}),
    "broken shard": (
        {"count": 4, "broken": (("image", 0), ("image", 1))},
        {"quantile": 0.2},
    ),
    "sketch": ({}, {"threshold_method": "sketch"}),
}


def main(folder, what, number):
    """Die where ``what`` (image or annotations) is read of an image, or run all together."""
    warnings.simplefilter("ignore", ExplanationWarning)
    if what != "together":
        dissect(Counted(dies=(what, int(number))), f"{folder}/checkpoint")
        return
    rank = os.environ["RANK"]
    for name, (data, options) in TOGETHER.items():
        results = dissect(Counted(**data), f"{folder}/unfinished {name}", **options)
        for layer, result in results.items():
            result.save(f"{folder}/{name}-{layer}-{rank}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
