"""A black box whose answers are known exactly, and images for it."""

import torch


class Recorder:
    """A black box that remembers what it was asked; its arithmetic is exact for each row."""

    def __init__(self):
        self.batches = []

    def __call__(self, x):
        self.batches.append(x.clone())
        return self.naive(x)

    @staticmethod
    def naive(x):
        first, last = x[:, 0, 0, 0], x[:, -1, -1, -1]
        return torch.stack([first + 1, last - 2, first * 4], 1)

    @property
    def asked(self):
        return sum(map(len, self.batches))


def numbered(*numbers, dtype=torch.float32):
    return torch.tensor(numbers, dtype=dtype).view(-1, 1, 1, 1).repeat(1, 2, 2, 2)
