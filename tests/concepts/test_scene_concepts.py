"""Scenes as concepts; some of them, and shuffled ones."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.concepts import (
    SCENE_CONCEPTS,
    Label,
    MaskConcepts,
    SceneConcepts,
    Scenes,
    ShuffledConcepts,
    SubsetConcepts,
)
from captum_blackbox.errors import InputError


def numbered(count):
    """Images that are labelled with their own number."""
    masks = torch.arange(1, count + 1).view(count, 1, 1)
    return MaskConcepts(torch.zeros(count, 3, 1, 1), masks, [f"n{i}" for i in range(count)])


def test_the_names_of_scenes_are_those_of_their_masks():
    concepts, scenes = SceneConcepts(3, seed=4), Scenes(3, seed=4)
    assert concepts.categories == tuple(SCENE_CONCEPTS)
    assert len(concepts.labels) == sum(map(len, SCENE_CONCEPTS.values()))
    for index, (image, annotations) in enumerate(concepts):
        scene = scenes.scene(index)
        assert torch.equal(image, scene.image)
        for kind, names in SCENE_CONCEPTS.items():
            pixels = annotations[kind].pixels
            assert pixels.dtype == torch.int32
            assert torch.equal(pixels[0] > 0, scene.masks[kind] > 0)
            for number in filter(None, pixels.unique().tolist()):
                name = concepts.labels[number - 1]
                values = scene.masks[kind][pixels[0] == number].unique().tolist()
                assert [Label(names[value - 1], kind) for value in values] == [name]


def test_some_categories_can_be_chosen():
    concepts = SceneConcepts(1, size=32, categories=["texture", "object"])
    assert concepts.categories == ("object", "texture")
    assert (concepts.image_size, concepts.mask_size) == ((32, 32), (32, 32))
    assert set(concepts.annotations(0)) == {"object", "texture"}
    with pytest.raises(InputError, match="a category is one of 'object', 'part', .* got 'colour'"):
        SceneConcepts(1, categories=["colour"])
    with pytest.raises(InputError, match="at least 1, got 0"):
        SceneConcepts(0)


def test_digests_of_scenes_differ_with_every_argument():
    made = [
        SceneConcepts(2),
        SceneConcepts(3),
        SceneConcepts(2, seed=1),
        SceneConcepts(2, size=32),
        SceneConcepts(2, categories=["object"]),
        ShuffledConcepts(SceneConcepts(2)),
        SubsetConcepts(SceneConcepts(2), [0, 1]),
        SubsetConcepts(SceneConcepts(2), [1, 0]),
    ]
    digests = {concepts.digest() for concepts in made}
    assert len(digests) == len(made)
    assert SceneConcepts(2).digest() == made[0].digest()
    assert pickle.loads(pickle.dumps(made[0])).digest() == made[0].digest()


@given(count=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_shuffled_no_image_keeps_its_annotations_and_none_is_lost(count, seed):
    shuffled = ShuffledConcepts(numbered(count), seed)
    found = [shuffled.annotations(i)["object"].pixels.item() for i in range(count)]
    assert sorted(found) == list(range(1, count + 1))
    assert all(number != index for index, number in enumerate(found, 1))


def test_the_seed_decides_the_cycle_and_one_image_stays_as_it_is():
    def order(seed):
        shuffled = ShuffledConcepts(numbered(20), seed)
        return [shuffled[i][1]["object"].pixels.item() for i in range(20)]

    before = torch.get_rng_state()
    assert order(0) == order(0) != order(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert ShuffledConcepts(numbered(1)).annotations(0)["object"].pixels.item() == 1
    shuffled = [ShuffledConcepts(numbered(20), seed).digest() for seed in (0, 1)]
    assert shuffled[0] != shuffled[1]


def test_a_subset_has_the_chosen_images_with_all_labels():
    subset = SubsetConcepts(numbered(5), torch.tensor([3, 0, 3]))
    assert len(subset) == 3
    assert len(subset.labels) == 5
    assert [annotations["object"].pixels.item() for _, annotations in subset] == [4, 1, 4]
    assert subset.annotations(1)["object"].pixels.item() == 1
    assert torch.equal(subset.image(0), numbered(5).image(3))
    with pytest.raises(IndexError, match="there are 3 images, got index 3"):
        _ = subset[3]


@pytest.mark.parametrize(("indices", "got"), [([], r"\[\]"), ([0, 5, -1], r"\[5, -1\]")])
def test_a_subset_is_within_the_images(indices, got):
    with pytest.raises(InputError, match=rf"at least one index within 0 … 4, got {got}"):
        SubsetConcepts(numbered(5), indices)


@pytest.mark.parametrize("mask", [[True, False, True], torch.tensor([True, False, True])])
def test_a_mask_is_no_list_of_images(mask):
    with pytest.raises(InputError, match=r"indices are the numbers of images, got true and false"):
        SubsetConcepts(SceneConcepts(3), mask)
