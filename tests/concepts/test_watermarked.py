import numpy as np
import pytest
import torch
from torch.nn import functional as F

from captum_blackbox.concepts import SCENE_CLASSES, Scenes
from captum_blackbox.concepts.watermarked import WATERMARK_REGIONS, WatermarkedScenes
from captum_blackbox.concepts.watermarks import (
    DECOY,
    WATERMARK,
    Mark,
    Place,
    covered,
    free_places,
    stamped,
)
from captum_blackbox.errors import InputError

COUNT = 250


@pytest.fixture(scope="module")
def scenes() -> WatermarkedScenes:
    return WatermarkedScenes(COUNT, seed=5, rate=0.8, others=0.1)


def with_rates(scenes: WatermarkedScenes, **settings: object) -> WatermarkedScenes:
    """The same collection with other rates, without rendering it again."""
    found = WatermarkedScenes(COUNT, seed=5, **settings)
    found._bare = scenes._bare
    return found


def test_a_scene_depends_on_seed_and_index_only():
    few, many = WatermarkedScenes(2, seed=3), WatermarkedScenes(6, seed=3)
    list(many)
    for index in (1, 0):
        one, other = few.scene(index), many.scene(index)
        assert torch.equal(one.image, other.image)
        assert one.label == other.label
        assert all(torch.equal(one.masks[name], other.masks[name]) for name in WATERMARK_REGIONS)
    assert not torch.equal(WatermarkedScenes(1, seed=4)[0][0], few[0][0])


def test_rendering_leaves_the_global_generators_alone():
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    WatermarkedScenes(1).scene(0)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_images_labels_and_masks_have_the_documented_types(scenes):
    assert scenes.images.dtype == torch.float32
    assert scenes.images.shape == (COUNT, 3, 64, 64)
    assert scenes.images.min() >= 0
    assert scenes.images.max() <= 1
    assert scenes.labels.dtype == torch.int64
    assert scenes.watermarked.dtype == torch.bool
    for region in WATERMARK_REGIONS:
        assert scenes.masks(region).dtype == torch.bool
        assert scenes.masks(region).shape == (COUNT, 64, 64)


def test_a_watermarked_scene_is_a_scene_with_marks_on_it(scenes):
    # Nothing but the marks is new: the rest is what Scenes renders for the same seed.
    plain = Scenes(COUNT, seed=5)
    assert torch.equal(scenes.labels, plain.labels)
    assert torch.equal(scenes.masks("object"), plain.masks("object") > 0)
    changed = (scenes.images != plain.images).any(1)
    assert not (changed & ~scenes.masks("watermark") & ~scenes.masks("distractor")).any()
    blobs = (plain.masks("color") > 0) & (plain.masks("object") == 0)
    assert (blobs & ~scenes.masks("distractor") & ~scenes.masks("watermark")).sum() == 0
    decoys = (scenes.masks("distractor") & ~blobs).flatten(1).any(1).float().mean()
    assert 0.35 < decoys < 0.65


def test_pairs_differ_in_the_watermark_and_nowhere_else(scenes):
    marked, bare = scenes.marked(), scenes.unmarked()
    changed = (marked.images != bare.images).any(1)
    assert torch.equal(changed, marked.masks("watermark"))
    assert torch.equal(marked.masks("watermark").sum((1, 2)), torch.full((COUNT,), 7 * 13))
    assert not bare.masks("watermark").any()
    assert torch.equal(marked.labels, bare.labels)
    assert marked.watermarked.all()
    assert not bare.watermarked.any()


def test_a_moved_watermark_is_elsewhere_and_nothing_else_moves(scenes):
    here, there = scenes.marked(), scenes.marked().moved()
    assert not (here.masks("watermark") & there.masks("watermark")).any()
    changed = (here.images != there.images).any(1)
    assert torch.equal(changed, here.masks("watermark") | there.masks("watermark"))
    assert torch.equal(there.moved().images, here.images)
    assert torch.equal(scenes.unmarked().moved().images, scenes.unmarked().images)
    assert torch.equal(scenes.moved().watermarked, scenes.watermarked)
    assert torch.equal(scenes.moved().marked().images, there.images)


def test_regions_share_no_pixel_and_marks_keep_clear_of_the_object(scenes):
    for variant in (scenes.marked(), scenes.marked().moved()):
        masks = torch.stack([variant.masks(region) for region in WATERMARK_REGIONS])
        assert masks.sum(0).max() == 1
        near = F.max_pool2d(variant.masks("object")[:, None].float(), 5, 1, 2)[:, 0] > 0
        assert not (near & variant.masks("watermark")).any()


def test_the_watermark_follows_the_class_at_its_rates(scenes):
    own = scenes.labels == scenes.watermarked_class
    for chosen, rate in ((own, 0.8), (~own, 0.1)):
        deviation = (rate * (1 - rate) / int(chosen.sum())) ** 0.5
        assert scenes.watermarked[chosen].double().mean() == pytest.approx(rate, abs=3 * deviation)


def test_the_extremes_are_exact_and_rates_are_nested(scenes):
    always = with_rates(scenes, rate=1.0, others=0.0, watermarked="cup")
    assert SCENE_CLASSES[always.watermarked_class] == "cup"
    assert torch.equal(always.watermarked, always.labels == always.watermarked_class)
    assert not with_rates(scenes, rate=0.0).watermarked.any()
    some = with_rates(scenes, rate=0.3, others=0.3).watermarked
    more = with_rates(scenes, rate=0.6, others=0.6).watermarked
    assert (some & ~more).sum() == 0
    assert some.sum() < more.sum()


def test_places_and_decoys_do_not_tell_the_watermark(scenes):
    # A network could otherwise take the decoy, or an empty corner, for the class.
    shown = with_rates(scenes, rate=0.5, others=0.5).watermarked
    marked = scenes.marked()
    area = scenes.unmarked().masks("distractor").sum((1, 2)).double()
    centers = marked.masks("watermark").double().flatten(1).argmax(1).double()
    for quantity in (area, centers % 64, centers // 64, scenes.labels.double()):
        gap = quantity[shown].mean() - quantity[~shown].mean()
        error = (quantity.var() * (1 / shown.sum() + 1 / (~shown).sum())).sqrt()
        assert gap.abs() < 3.3 * error


def strength_of(mark, region, before, after):
    """By how much the letters of a mark cover what is below them."""
    row, column = divmod(int(region.flatten().int().argmax()), 64)
    letters = torch.zeros(64, 64, dtype=torch.bool)
    letters[row : row + 7, column : column + 13] = torch.from_numpy(mark.letters)
    shares = ((after - before) / (mark.ink - before))[:, letters]
    torch.testing.assert_close(shares, shares.mean().expand_as(shares), atol=1e-3, rtol=0)
    return float(shares.mean())


def test_both_marks_have_strengths_of_their_own_from_three_quarters_on(scenes):
    plain = Scenes(COUNT, seed=5).images
    bare, marked = scenes.unmarked(), scenes.marked()
    strengths = []
    for index in range(COUNT):
        before, after = bare[index][0], marked[index][0]
        decoy = (before != plain[index]).any(0)
        region = marked.scene(index).masks["watermark"]
        if decoy.any():
            strengths.append(
                (
                    strength_of(WATERMARK, region, before, after),
                    strength_of(DECOY, decoy, plain[index], before),
                )
            )
    found = torch.tensor(strengths)
    assert bool((found >= 0.749).all()) and bool((found <= 1.001).all())
    assert bool((found.amin(0) < 0.77).all()) and bool((found.amax(0) > 0.98).all())
    assert abs(float(torch.corrcoef(found.mT)[0, 1])) < 0.3


def test_a_mark_is_mixed_with_what_is_below():
    picture = torch.full((3, 9, 15), 0.5)
    one_letter = np.zeros((7, 13), dtype=bool)
    one_letter[2, 3] = True
    shown = stamped(picture, Mark(one_letter, ink=1.0, paper=0.0), Place(1, 2), 0.5)
    assert torch.allclose(shown[:, 3, 5], torch.tensor(0.75))  # half of opacity 1
    assert torch.allclose(shown[:, 1, 2], torch.tensor(0.3))  # half of opacity 0.8
    assert (shown[:, 0] == 0.5).all()
    assert (picture == 0.5).all()


def test_the_two_marks_read_differently():
    assert WATERMARK.letters.shape == DECOY.letters.shape == (7, 13)
    assert (WATERMARK.letters != DECOY.letters).sum() > 10
    assert WATERMARK.ink > WATERMARK.paper
    assert DECOY.ink < DECOY.paper


def test_places_are_found_wherever_there_is_room_and_only_there():
    taken = torch.ones(32, 32, dtype=torch.bool)
    taken[4:15, 5:22] = False  # 11 × 17: room for one plate of 7 × 13 with a margin of 2
    assert free_places(np.random.default_rng(0), taken, 1) == [Place(6, 7)]
    assert free_places(np.random.default_rng(0), taken, 2) is None
    assert not (covered(Place(6, 7), 32) & taken).any()
    empty = torch.zeros(32, 32, dtype=torch.bool)
    drawn = {free_places(np.random.default_rng(s), empty, 1)[0] for s in range(300)}
    assert {row for row, _ in drawn} == set(range(26))
    assert {column for _, column in drawn} == set(range(20))


def test_a_scene_without_room_is_replaced_by_another(monkeypatch):
    import captum_blackbox.concepts.watermarked as module

    calls = []

    def no_room_at_first(rng, taken, count):
        calls.append(count)
        return None if len(calls) < 3 else free_places(rng, taken, count)

    monkeypatch.setattr(module, "free_places", no_room_at_first)
    found = WatermarkedScenes(1, seed=5).unmarked().scene(0)
    assert calls == [3, 3, 3]
    wanted = module.render_scene(5, 2 * 2**32)
    assert found.label == wanted.label
    assert torch.equal(found.masks["object"], wanted.masks["object"] > 0)


def test_a_collection_is_a_sequence_and_feeds_a_loader():
    scenes = WatermarkedScenes(3)
    assert len(scenes) == len(list(scenes)) == 3
    assert torch.equal(scenes[-1][0], scenes[2][0])
    with pytest.raises(IndexError, match=r"^there are 3 scenes, got index 3$"):
        scenes[3]
    images, labels = next(iter(torch.utils.data.DataLoader(scenes, batch_size=3)))
    assert torch.equal(images, scenes.images)
    assert torch.equal(labels, scenes.labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WatermarkedScenes(0), "count must be at least 1, got 0"),
        (lambda: WatermarkedScenes(1, seed=-1), "seed must be at least 0, got -1"),
        (lambda: WatermarkedScenes(1, rate=1.5), "rate must be from 0 to 1, got 1.5"),
        (lambda: WatermarkedScenes(1, rate=float("nan")), "rate must be from 0 to 1, got nan"),
        (lambda: WatermarkedScenes(1, others=-0.1), "others must be from 0 to 1, got -0.1"),
        (
            lambda: WatermarkedScenes(1).masks("mark"),
            "region is one of 'object', 'watermark', 'distractor', got 'mark'",
        ),
    ],
)
def test_errors_say_what_is_allowed(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message


def test_an_unknown_class_is_refused():
    with pytest.raises(InputError, match=r"^watermarked is one of 'house', .*, got 'horse'$"):
        WatermarkedScenes(1, watermarked="horse")
