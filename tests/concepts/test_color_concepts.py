"""Colour names against flat patches, and against the colours that scenes were painted with."""

import numpy as np
import pytest
import torch
from skimage.color import deltaE_cie76, rgb2lab

from captum_blackbox.concepts import (
    BASIC_COLORS,
    ColorConcepts,
    Label,
    MaskConcepts,
    SceneConcepts,
)
from captum_blackbox.concepts.colors import nearest_basic_colors
from captum_blackbox.errors import InputError

NAMES = list(BASIC_COLORS)


def patch(color, side=4):
    """One flat image with a mask of half its size."""
    image = torch.tensor(color, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, side, side)
    masks = torch.ones(1, side // 2, side // 2, dtype=torch.uint8)
    return MaskConcepts(image, masks, ["thing"])


@pytest.mark.parametrize(
    ("name", "color"),
    [
        ("black", (0.05, 0.05, 0.07)),
        ("blue", (0.1, 0.2, 0.8)),
        ("brown", (0.4, 0.25, 0.1)),
        ("green", (0.1, 0.6, 0.2)),
        ("grey", (0.5, 0.5, 0.5)),
        ("orange", (1.0, 0.5, 0.0)),
        ("pink", (1.0, 0.6, 0.75)),
        ("purple", (0.5, 0.1, 0.6)),
        ("red", (0.85, 0.1, 0.1)),
        ("blue", (0.55, 0.75, 0.92)),
        ("green", (0.35, 0.5, 0.3)),
        ("white", (0.96, 0.96, 0.94)),
        ("yellow", (0.95, 0.9, 0.15)),
    ],
)
def test_a_flat_patch_has_the_name_that_people_would_give_it(name, color):
    concepts = ColorConcepts(patch(color))
    annotation = concepts.annotations(0)["color"]
    assert annotation.pixels.shape == (1, 2, 2)
    assert annotation.pixels.dtype == torch.int32
    assert {concepts.labels[n - 1] for n in annotation.pixels.unique()} == {Label(name, "color")}


def test_the_nearest_is_that_of_the_slow_definition():
    pixels = np.random.default_rng(0).random((9, 8, 3)).astype(np.float32)
    for pixel, found in zip(
        pixels.reshape(-1, 3), nearest_basic_colors(pixels).ravel(), strict=True
    ):
        distances = {
            name: min(
                deltaE_cie76(
                    rgb2lab(pixel.astype(float)),
                    rgb2lab([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]),
                )
                for code in codes
            )
            for name, codes in BASIC_COLORS.items()
        }
        assert NAMES[found] == min(distances, key=distances.get)


def test_the_colours_of_scenes_are_found():
    # Light, noise and the resized texture blur what the scenes were painted with.
    plain = SceneConcepts(40, seed=2, categories=["object", "part"])
    true = SceneConcepts(40, seed=2, categories=["color"])
    found = ColorConcepts(plain)
    before = len(plain.labels)
    hits = total = 0
    for index in range(40):
        painted = true.annotations(index)["color"].pixels
        named = found.annotations(index)["color"].pixels - before
        labelled = painted > 0
        names = [label.name for label in true.labels]
        assert names == NAMES  # the same numbers
        hits += int((painted == named)[labelled].sum())
        total += int(labelled.sum())
    share = hits / total
    assert share > 0.95  # 0.979 when this was written


def test_the_other_annotations_and_the_images_are_left_alone():
    plain = SceneConcepts(2, categories=["object", "part"])
    colored = ColorConcepts(plain)
    assert colored.categories == ("object", "part", "color")
    assert colored.labels[: len(plain.labels)] == plain.labels
    image, annotations = colored[1]
    assert torch.equal(image, plain.image(1))
    assert torch.equal(annotations["part"].pixels, plain.annotations(1)["part"].pixels)
    assert torch.equal(annotations["color"].pixels, colored.annotations(1)["color"].pixels)
    assert annotations["color"].pixels.min() > len(plain.labels)  # every pixel has a colour


def test_colours_are_not_added_twice():
    with pytest.raises(InputError, match="have a category 'color' already; leave it out when you"):
        ColorConcepts(SceneConcepts(1))
    with pytest.raises(InputError):
        ColorConcepts(ColorConcepts(patch((0.1, 0.2, 0.3))))


def test_the_digest_is_another_than_without_colours():
    plain = patch((0.1, 0.2, 0.3))
    assert ColorConcepts(plain).digest() == ColorConcepts(plain).digest() != plain.digest()
