"""Networks that read the maps of their units out of the images, so that any maps can be dissected."""

import torch
from naive_dissection import ListedConcepts
from torch import nn
from torch.nn.functional import pad, pixel_shuffle

from captum_blackbox import NetworkDissection
from captum_blackbox.concepts import Annotation, Label

SIDE = 5  # of the block of pixels that carries one cell of all units: room for 75 units


class Planted(nn.Module):
    """No parameters; the output of ``layer`` is what :func:`carrying` was given."""

    def __init__(self, units):
        super().__init__()
        self.units, self.layer = units, nn.Identity()

    def forward(self, x):
        return self.layer(nn.functional.pixel_unshuffle(x, SIDE)[:, : self.units])


def carrying(maps):
    """Return images whose pixels are the cells of maps ``(N, units, h, w)``."""
    return pixel_shuffle(pad(maps, (0, 0, 0, 0, 0, 3 * SIDE**2 - maps.shape[1])), SIDE)


def shown(maps, annotations, labels=(("thing", "object"),)):
    """Return concepts whose images carry the maps; masks have the size of the maps."""
    labels = [Label(*each) for each in labels]
    categories = tuple(dict.fromkeys(category for _, category in labels))
    return ListedConcepts(carrying(maps), annotations, labels, categories)


def masked(masks, category="object"):
    """Return annotations of one category from ``(N, h, w)`` label numbers."""
    return [{category: Annotation(mask[None].int())} for mask in masks]


def dissected(maps, concepts, *, batch_size=4, memory_limit=2 << 30, **settings):
    """Return the dissection of the planted units, pixel by cell."""
    settings = {"upsample": "resize", **settings}
    dissection = NetworkDissection(Planted(maps.shape[1]), "layer", **settings)
    return dissection.dissect(
        concepts, batch_size=batch_size, memory_limit=memory_limit, show_progress=False
    )


def assert_same_result(one, other):
    """Compare everything that two results hold, to the last bit."""
    for name in (
        "thresholds",
        "intersection",
        "activation",
        "truth",
        "top_images",
        "top_activations",
    ):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.settings == other.settings
    assert one.skipped == other.skipped
