"""Small networks to attack, and images for them."""

import torch
from torch import nn

SIZE = 8


def small_cnn(activation=nn.ReLU, classes=3, width=6):
    """A network whose gradients are not alike everywhere; in float64, so that signs are sure."""
    torch.manual_seed(3)
    return (
        nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            activation(),
            nn.Conv2d(width, width, 3, stride=2),
            activation(),
            nn.Flatten(),
            nn.Linear(width * 9, classes),
        )
        .double()
        .eval()
    )


def some_images(count=3, seed=0, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, SIZE, SIZE, generator=generator, dtype=torch.float64)


class Edge(nn.Module):
    """Two classes whose border lies just beside the images: most steps cross it.

    The first class wins while the mean brightness is below ``border``; the gradient of its score
    comes from a quadratic form, so that an attack has a direction.
    """

    def __init__(self, border):
        super().__init__()
        self.border = border
        generator = torch.Generator().manual_seed(5)
        mix = torch.randn(3 * SIZE**2, 3 * SIZE**2, generator=generator, dtype=torch.float64)
        self.mix = nn.Parameter(mix / 50)

    def forward(self, x):
        flat = x.flatten(1)
        bent = ((flat @ self.mix) ** 2).sum(1)
        over = 1e4 * (x.mean((1, 2, 3)) - self.border)
        return torch.stack([bent, bent + over], 1)
