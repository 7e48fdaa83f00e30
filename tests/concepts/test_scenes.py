import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from scipy.stats import chi2_contingency

from captum_blackbox.concepts import (
    SCENE_CLASSES,
    SCENE_COLORS,
    SCENE_CONCEPTS,
    Scenes,
    render_scene,
)
from captum_blackbox.concepts.scene_objects import OBJECT_NAMES, stencil
from captum_blackbox.concepts.watermarked import WatermarkedScenes
from captum_blackbox.errors import InputError

COUNT = 400


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(COUNT, seed=5)


@pytest.fixture(scope="module")
def small_scenes() -> Scenes:
    return Scenes(1000, seed=11, size=24)


def test_a_scene_depends_on_seed_and_index_only():
    few, many = Scenes(2, seed=3), Scenes(9, seed=3)
    list(many)
    for index in (1, 0):
        alone = render_scene(3, index)
        for scene in (few.scene(index), many.scene(index)):
            assert torch.equal(scene.image, alone.image)
            assert scene.label == alone.label
            assert all(torch.equal(scene.masks[name], alone.masks[name]) for name in alone.masks)
    assert not torch.equal(render_scene(4, 0).image, render_scene(3, 0).image)


def test_rendering_leaves_the_global_generators_alone():
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    render_scene(0, 0)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_images_labels_and_masks_have_the_documented_types(scenes):
    images, labels = scenes.images, scenes.labels
    assert images.dtype == torch.float32
    assert images.shape == (COUNT, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1
    assert labels.dtype == torch.int64
    for category, names in SCENE_CONCEPTS.items():
        masks = scenes.masks(category)
        assert masks.dtype == torch.int64
        assert masks.shape == (COUNT, 64, 64)
        # every name occurs, and nothing without a name does
        assert set(masks.unique().tolist()) == set(range(len(names) + 1))


@pytest.mark.parametrize("size", [16, 33, 96])
def test_the_same_scene_at_another_size(size):
    small, usual = render_scene(0, 5, size), render_scene(0, 5)
    assert small.image.shape == (3, size, size)
    assert small.label == usual.label
    grown = torch.nn.functional.interpolate(
        small.masks["object"][None, None].float(), size=(64, 64), mode="nearest-exact"
    )
    assert ((grown[0, 0] > 0) == (usual.masks["object"] > 0)).float().mean() > 0.93


def test_the_object_mask_shows_the_label_and_nothing_else(scenes):
    masks, labels = scenes.masks("object"), scenes.labels
    assert SCENE_CONCEPTS["object"] == SCENE_CLASSES
    assert ((masks == labels[:, None, None] + 1) | (masks == 0)).all()
    share = (masks > 0).float().mean((1, 2))
    assert share.min() > 0.04
    assert share.max() < 0.6


def test_parts_lie_within_their_object_and_fill_it(scenes):
    objects, parts = scenes.masks("object") > 0, scenes.masks("part") > 0
    assert not (parts & ~objects).any()
    assert (parts & objects).sum() > 0.95 * objects.sum()


def test_an_object_shows_all_its_parts_and_no_others(scenes):
    for label, name in enumerate(OBJECT_NAMES):
        masks = scenes.masks("part")[scenes.labels == label]
        seen = {SCENE_CONCEPTS["part"][value - 1] for value in masks.unique().tolist() if value}
        assert seen == set(stencil(name).parts) - {""}


def test_texture_and_object_share_no_pixel(scenes):
    assert not ((scenes.masks("texture") > 0) & (scenes.masks("object") > 0)).any()


def test_clutter_is_named_by_colour_and_is_neither_object_nor_texture(scenes):
    clutter = (scenes.masks("color") > 0) & (scenes.masks("object") == 0)
    assert (clutter.sum((1, 2)) > 0).float().mean() > 0.9
    assert not (scenes.masks("texture")[clutter] > 0).any()
    # a blob next to the object would have changed the object's outline
    for near, blob in zip(scenes.masks("object") > 0, clutter, strict=True):
        grown = torch.nn.functional.max_pool2d(near[None].float(), 3, stride=1, padding=1)[0] > 0
        assert (grown & blob).float().sum() == 0


def test_pixels_have_the_colour_that_the_mask_names(scenes):
    prototypes = torch.tensor(list(SCENE_COLORS.values()))
    right = total = 0
    for index in range(COUNT):
        scene = scenes.scene(index)
        for value in scene.masks["color"].unique().tolist():
            inside = binary_erosion((scene.masks["color"] == value).numpy(), iterations=1)
            if value and inside.sum() >= 8:
                shown = scene.image[:, torch.from_numpy(inside)].mean(1)
                right += (prototypes - shown).norm(dim=1).argmin().item() == value - 1
                total += 1
    assert total > COUNT
    assert right / total > 0.97


@pytest.mark.parametrize("category", ["color", "texture"])
def test_looks_do_not_predict_the_class(category, small_scenes):
    masks, labels = small_scenes.masks(category), small_scenes.labels
    if category == "color":  # the object's own, not the clutter's
        masks = masks * (small_scenes.masks("object") > 0)
    names = len(SCENE_CONCEPTS[category])
    table = np.zeros((len(SCENE_CLASSES), names), dtype=int)
    for mask, label in zip(masks, labels, strict=True):
        areas = mask.flatten().bincount(minlength=names + 1)[1:]
        table[label, int(areas.argmax())] += 1
    assert (table.sum(0) > 0).all()
    assert (table.sum(1) > 0).all()
    assert chi2_contingency(table).pvalue > 0.01


def test_the_border_of_every_stencil_is_empty():
    # placing repeats the border beyond the stencil, so an object touching it would be smeared
    for name in OBJECT_NAMES:
        cells = stencil(name).cells
        assert not any(cells[edge].any() for edge in (0, -1, (slice(None), 0), (slice(None), -1)))


def test_a_collection_is_a_sequence():
    scenes = Scenes(3)
    assert len(scenes) == 3
    assert len(list(scenes)) == 3
    assert torch.equal(scenes[-1][0], scenes[2][0])
    with pytest.raises(IndexError, match=r"^there are 3 scenes, got index 3$"):
        scenes[3]
    with pytest.raises(IndexError, match=r"^there are 3 scenes, got index -4$"):
        scenes.scene(-4)


def test_a_collection_feeds_a_data_loader():
    images, labels = next(iter(torch.utils.data.DataLoader(Scenes(4), batch_size=4)))
    assert images.shape == (4, 3, 64, 64)
    assert torch.equal(labels, Scenes(4).labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Scenes(0), "count must be at least 1, got 0"),
        (lambda: Scenes(1, seed=-1), "seed must be at least 0, got -1"),
        (lambda: Scenes(1, size=15), "size must be at least 16 pixels, got 15"),
        (lambda: render_scene(0, 0, size=3), "size must be at least 16 pixels, got 3"),
        (lambda: render_scene(0, -2), "index must be at least 0, got -2"),
        (
            lambda: Scenes(1).masks("shape"),
            "category must be one of object, part, color, texture; got 'shape'",
        ),
    ],
)
def test_errors_say_what_is_allowed(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize("make", [Scenes, lambda count: WatermarkedScenes(count).unmarked()])
def test_what_is_handed_out_may_be_written_to(make):
    scenes = make(2)
    before = scenes.scene(1)
    image, masks = before.image.clone(), {name: each.clone() for name, each in before.masks.items()}
    before.image.zero_()
    for each in before.masks.values():
        each.fill_(1)
    scenes[1][0].zero_()
    after = scenes.scene(1)
    assert image.any() and torch.equal(after.image, image)
    assert all(torch.equal(after.masks[name], each) for name, each in masks.items())
