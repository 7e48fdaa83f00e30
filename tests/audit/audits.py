"""A small network, images for it, and audits of them that take a second."""

import torch
from torch import nn

from captum_blackbox.audit import AuditBudget, AuditImages, run_audit

TINY = AuditBudget(
    masks=8,
    game_steps=4,
    patches=4,
    changes=2,
    passes=2,
    attack_steps=2,
    radii={"8/255": 8 / 255},
    modes=("topk", "random"),
    shown=2,
    queries=8,
    epochs=1,
)


def network(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, classes),
    ).eval()  # fmt: skip


def images(count=3, **known):
    generator = torch.Generator().manual_seed(1)
    return AuditImages(torch.rand(count, 3, 8, 8, generator=generator), **known)


def quietly(model, given, out, **settings):
    settings = {"budget": TINY, "show_progress": False, **settings}
    return run_audit(model, given, out, **settings)
