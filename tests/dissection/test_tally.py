"""What is counted: closed forms of planted units, and the laws that every dissection obeys."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive_dissection import ListedConcepts, naive_tally, random_concepts
from planted_units import assert_same_result, carrying, dissected, masked, shown
from torch.testing import assert_close

from captum_blackbox.concepts import Annotation, Label
from captum_blackbox.dissection import tally as module
from captum_blackbox.dissection.lit_pixels import LitPixels
from captum_blackbox.dissection.reading import label_batches
from captum_blackbox.dissection.result import Dissection
from captum_blackbox.dissection.tally import BatchLabels, Tally
from captum_blackbox.errors import ArtifactError

COUNTS = ("truth", "activation", "intersection")


# Planted units: what IoU has to be.


def a_concept(share, images=10, side=10, seed=0):
    """Return masks ``(images, side, side)`` of which this share of all pixels is set."""
    count = images * side * side
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first = torch.arange(images) * side * side  # each image carries the category
    order = torch.cat([first, order[~torch.isin(order, first)]])
    masks = torch.zeros(count)
    masks[order[: round(share * count)]] = 1
    return masks.view(images, side, side)


def iou_of(maps, masks, **settings):
    return dissected(maps, shown(maps, masked(masks)), **settings).iou[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.03, 0.04, 0.049])
def test_a_unit_that_is_the_mask_of_a_rare_concept_matches_it_wholly(share, dtype):
    masks = a_concept(share)
    maps = masks[:, None].to(dtype)
    assert iou_of(maps, masks, quantile=0.05).tolist() == [1.0]


@pytest.mark.parametrize("share", [0.052, 0.1, 0.6])
def test_a_unit_that_saturates_on_more_than_the_quantile_matches_nothing(share):
    masks = a_concept(share)
    assert iou_of(masks[:, None], masks, quantile=0.05).tolist() == [0.0]


def test_the_closed_form_at_the_quantile_itself():
    """1000 pixels at 5 %: the threshold is at place 949.05, between the 950th and 951st value."""
    masks = [a_concept(share) for share in (0.05, 0.051)]
    assert [float(iou_of(each[:, None], each, quantile=0.05)) for each in masks] == [1.0, 0.0]


@pytest.mark.parametrize("share", [0.01, 0.025, 0.05, 0.1, 0.25])
def test_with_noise_the_match_is_the_ratio_of_shares(share):
    """The top 5 % are filled with noise, or with a part of the concept: min(f/τ, τ/f)."""
    masks = a_concept(share, images=20)
    noise = torch.rand(20, 1, 10, 10, dtype=torch.float64) / 100
    found = float(iou_of(masks[:, None] + noise, masks, quantile=0.05))
    # 2000 values: 100 are above the threshold.
    expected = min(share / 0.05, 0.05 / share)
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_constant_unit_matches_nothing_and_is_no_number_short():
    maps = torch.full((10, 2, 10, 10), 0.3)
    maps[:, 1] = 0
    result = dissected(maps, shown(maps, masked(a_concept(0.2))), quantile=0.05)
    assert result.iou.tolist() == [[0.0], [0.0]]
    assert result.activation.tolist() == [[0], [0]]
    assert_close(result.thresholds, torch.tensor([0.3, 0.0]).double())
    assert result.detectors() == []


def test_a_relu_unit_that_is_mostly_silent_is_active_where_it_is_above_0():
    masks = a_concept(0.03)
    strength = torch.rand(10, 10, 10) + 0.1
    maps = (masks * strength)[:, None]
    result = dissected(maps, shown(maps, masked(masks)), quantile=0.05)
    assert result.thresholds.tolist() == [0.0]
    assert result.iou.tolist() == [[1.0]]


# Two images by hand.


@pytest.mark.parametrize(("presence", "expected"), [("image", 2 / 9), ("mask", 1 / 3)])
def test_the_example_of_two_images(presence, expected):
    """The unit is active on 3 pixels of either image; the concept is under them in the first."""
    active = torch.zeros(2, 1, 4, 4)
    active[:, :, 0, :3] = 1
    masks = torch.zeros(2, 4, 4)
    masks[0, 0, :2] = 1  # under it
    masks[1, 3, :3] = 1  # apart
    result = dissected(active, shown(active, masked(masks)), quantile=0.6, presence=presence)
    assert result.thresholds.tolist() == [0.0]
    activation = {"image": 6, "mask": 3}[presence]
    assert (result.truth.tolist(), result.intersection.tolist()) == ([5], [[2]])
    assert result.activation.tolist() == [[activation]]
    assert result.iou.tolist() == [[expected]] == [[2 / (activation + 5 - 2)]]


def test_activity_counts_on_images_that_carry_the_category_alone():
    active = torch.zeros(3, 1, 4, 4)
    active[:, :, 0, 0] = 1
    labels = [("car", "object"), ("wheel", "part")]
    pixels = torch.zeros(1, 4, 4, dtype=torch.int32)
    car, wheel = pixels.clone(), pixels.clone()
    car[0, 0, 0], wheel[0, 2, 2] = 1, 2
    annotations = [{"object": Annotation(car)}, {"part": Annotation(wheel)}, {}]
    result = dissected(active, shown(active, annotations, labels), quantile=0.5)
    assert result.activation.tolist() == [[1, 1]]
    assert result.iou.tolist() == [[1.0, 0.0]]


# Laws, through the whole dissection.


def a_case(seed=0, count=9, units=4, mask_size=(6, 5)):
    concepts = random_concepts(count, mask_size=mask_size, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, units, *mask_size, generator=generator, dtype=torch.float64)
    annotations = [concepts.annotations(number) for number in range(count)]
    return maps, annotations, concepts.labels, concepts.categories


def listed(maps, annotations, labels, categories):
    return ListedConcepts(carrying(maps), annotations, labels, categories)


@given(st.integers(0, 10**6), st.sampled_from(["image", "mask"]))
def test_counts_bound_each_other(seed, presence):
    maps, *rest = a_case(seed)
    result = dissected(maps, listed(maps, *rest), quantile=0.2, presence=presence)
    own = result.activation[:, listed(maps, *rest).label_categories()]
    assert bool((result.intersection <= result.truth).all())
    assert bool((result.intersection <= own).all())
    assert bool(((result.iou >= 0) & (result.iou <= 1)).all())
    assert result.iou.isfinite().all()


def test_counting_under_the_mask_never_lowers_a_match():
    maps, *rest = a_case(1)
    image, mask = (
        dissected(maps, listed(maps, *rest), quantile=0.02, presence=each)
        for each in ("image", "mask")
    )
    assert torch.equal(image.intersection, mask.intersection)
    assert bool((mask.iou >= image.iou).all())
    assert bool((mask.iou > image.iou).any())


@pytest.mark.parametrize("presence", ["image", "mask"])
def test_the_order_of_images_and_batches_does_not_matter(presence):
    maps, annotations, *rest = a_case(2)
    order = torch.randperm(len(maps)).tolist()
    shuffled = [annotations[number] for number in order]
    expected = dissected(maps, listed(maps, annotations, *rest), quantile=0.1, presence=presence)
    for batch_size in (1, 2, 4, 9):
        found = dissected(
            maps[order],
            listed(maps[order], shuffled, *rest),
            quantile=0.1,
            presence=presence,
            batch_size=batch_size,
        )
        for name in (*COUNTS, "thresholds", "top_activations"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        named = torch.tensor(order)[found.top_images]
        assert torch.equal(named, expected.top_images)


def test_shards_add_up_where_thresholds_are_the_same():
    """Units that are silent on most cells have the threshold 0 in every shard."""
    maps, annotations, *rest = a_case(3, count=8)
    active = (maps > 0.5).double()  # thresholds are 0 as long as less than half is active
    assert float(active.mean((0, 2, 3)).max()) < 0.4
    whole = dissected(active, listed(active, annotations, *rest), quantile=0.5)
    some = [slice(0, 3), slice(3, 8)]
    one, two = (
        dissected(active[each], listed(active[each], annotations[each], *rest), quantile=0.5)
        for each in some
    )
    merged = one.merge(two)
    for name in COUNTS:
        assert torch.equal(getattr(merged, name), getattr(whole, name))
    assert torch.equal(merged.iou, whole.iou)


def test_units_are_told_apart_by_the_order_of_their_values_alone():
    """Scaled by a power of two and shifted by a whole number: exact in float64."""
    maps, *rest = a_case(4)
    maps = (maps * 2**20).round() / 2**20
    scale = torch.tensor([4.0, 0.25, 1.0, 64.0]).double()[:, None, None]
    shift = torch.tensor([-3.0, 5.0, 8.0, 0.0]).double()[:, None, None]
    expected = dissected(maps, listed(maps, *rest), quantile=0.07)
    moved = maps * scale + shift
    found = dissected(moved, listed(moved, *rest), quantile=0.07)
    for name in (*COUNTS, "top_images"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    scaled = expected.thresholds * scale.flatten() + shift.flatten()
    assert_close(found.thresholds, scaled, rtol=0, atol=1e-12)


def test_permuted_units_permute_the_rows():
    maps, *rest = a_case(5)
    order = [2, 0, 3, 1]
    moved = maps[:, order]
    expected = dissected(maps, listed(maps, *rest), quantile=0.1)
    found = dissected(moved, listed(moved, *rest), quantile=0.1)
    for name in ("activation", "intersection", "thresholds", "top_images"):
        assert torch.equal(getattr(found, name), getattr(expected, name)[order]), name


def test_permuted_labels_permute_the_columns():
    maps, annotations, labels, categories = a_case(6)
    order = [3, 0, 6, 1, 5, 2, 4]  # the new label n is the old label order[n]
    new = torch.zeros(len(labels) + 1, dtype=torch.int64)
    for place, old in enumerate(order):
        new[old + 1] = place + 1

    def renamed(annotation):
        pixels = new[annotation.pixels.long()].int()
        return Annotation(pixels, tuple(int(new[number]) for number in annotation.whole))

    moved = [{k: renamed(each) for k, each in one.items()} for one in annotations]
    expected = dissected(maps, listed(maps, annotations, labels, categories), quantile=0.1)
    concepts = listed(maps, moved, [labels[old] for old in order], categories)
    found = dissected(maps, concepts, quantile=0.1)
    assert torch.equal(found.intersection, expected.intersection[:, order])
    assert torch.equal(found.truth, expected.truth[order])
    assert torch.equal(found.iou, expected.iou[:, order])


# Several ways to say the same.


def in_annotations(change):
    """Dissect the same units with annotations in two ways."""
    maps, annotations, *rest = a_case(7, count=6)
    changed = [change(each) for each in annotations]
    for presence in ("image", "mask"):
        expected = dissected(
            maps, listed(maps, annotations, *rest), quantile=0.2, presence=presence
        )
        found = dissected(maps, listed(maps, changed, *rest), quantile=0.2, presence=presence)
        assert_same_result(found, expected)
        assert int(expected.intersection.sum()) > 0


def test_a_label_of_the_whole_image_is_one_of_all_its_pixels():
    def filled(annotations):
        full = {}
        for category, each in annotations.items():
            layers = [torch.full((1, 6, 5), n, dtype=torch.int32) for n in each.whole]
            full[category] = Annotation(torch.cat([each.pixels, *layers]))
        return full

    in_annotations(filled)


def test_a_label_in_two_layers_counts_once():
    in_annotations(
        lambda found: {
            category: Annotation(torch.cat([each.pixels, each.pixels.flip(0)]), each.whole * 2)
            for category, each in found.items()
        }
    )


def test_a_label_in_two_columns_counts_once():
    in_annotations(
        lambda found: {
            **found,
            **{f"{category} again": each for category, each in found.items()},
        }
    )


def test_a_label_of_the_whole_image_and_of_some_pixels_counts_once():
    def beside(found):
        each = found.get("scene", Annotation(torch.zeros(0, 6, 5, dtype=torch.int32)))
        if not each.whole:
            return found
        some = torch.zeros(1, 6, 5, dtype=torch.int32)
        some[0, 2:4, 1:] = each.whole[0]
        return {**found, "scene": Annotation(torch.cat([each.pixels, some]), each.whole)}

    in_annotations(beside)


def test_label_0_is_no_label():
    in_annotations(
        lambda found: {
            "part": found.get("part", Annotation(torch.zeros(1, 6, 5, dtype=torch.int32))),
            "color": Annotation(torch.zeros(3, 6, 5, dtype=torch.int32), (0,)),
            **found,
        }
    )


def test_a_label_counts_for_its_own_category_in_whatever_column_it_is():
    maps = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    labels = [("car", "object"), ("wheel", "part")]
    pixels = torch.randint(0, 2, (4, 1, 3, 3)) * 2  # wheels, in the column of objects
    annotations = [{"object": Annotation(each.int())} for each in pixels]
    result = dissected(maps, shown(maps, annotations, labels), quantile=0.2)
    assert result.activation[:, 0].tolist() == [0, 0]
    assert bool((result.activation[:, 1] > 0).all())


# The tally itself.

LABEL_CATEGORIES = torch.tensor([0, 0, 1])


def random_lit(seed, images=4, units=3, size=6, share=0.4):
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((images, units, size)) < share)
    return mask, LitPixels(*mask.nonzero(as_tuple=True))


def random_labels(seed, images=4, layers=2, size=6, labels=3):
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, labels + 1, (images, layers, size)))
    whole = torch.from_numpy(rng.random((images, labels)) < 0.2)
    return pixels, whole


def counted(presence, batches):
    tally = Tally(3, LABEL_CATEGORIES, 2, presence)
    for labels, lit in batches:
        tally.update(labels, lit)
    return tally


@given(st.integers(0, 10**6), st.sampled_from(["image", "mask"]), st.integers(1, 40))
def test_lit_pixels_may_come_in_parts_and_any_order(seed, presence, parts):
    labels = BatchLabels.of(*random_labels(seed))
    _, lit = random_lit(seed + 1)
    order = np.random.default_rng(seed).permutation(len(lit.pixels))
    some = [LitPixels(*(each[part] for each in lit)) for part in np.array_split(order, parts)]
    expected = counted(presence, [(labels, [lit])])
    found = counted(presence, [(labels, some)])
    assert_close(found.state(), expected.state())


@pytest.mark.parametrize("most", [1, 5])
@pytest.mark.parametrize("presence", ["image", "mask"])
def test_how_many_are_counted_at_a_time_changes_nothing(monkeypatch, most, presence):
    labels = BatchLabels.of(*random_labels(3))
    _, lit = random_lit(4)
    some = [LitPixels(*(each[part : part + 2] for each in lit)) for part in range(0, 80, 2)]
    expected = counted(presence, [(labels, [lit])])
    monkeypatch.setattr(module, "_ENOUGH", most)
    assert_close(counted(presence, [(labels, some)]).state(), expected.state())


@pytest.mark.parametrize("presence", ["image", "mask"])
def test_images_count_apart_together_and_in_merged_parts(presence):
    pixels, whole = random_labels(5, images=6)
    mask, _ = random_lit(6, images=6)

    def part(some):
        lit = LitPixels(*mask[some].nonzero(as_tuple=True))
        return BatchLabels.of(pixels[some], whole[some]), [lit]

    expected = counted(presence, [part(slice(0, 6))])
    one = counted(presence, [part(slice(0, 1)), part(slice(1, 4))])
    two = one.empty()
    two.load_state(counted(presence, [part(slice(4, 6))]).state())
    one.merge(two)
    assert_close(one.state(), expected.state())


def test_images_without_a_category_change_none_of_its_matches():
    pixels, whole = random_labels(7, images=4)
    mask, lit = random_lit(8)
    other = (torch.full((5, 1, 6), 3), torch.zeros(5, 3, dtype=torch.bool))  # parts alone
    _, more = random_lit(9, images=5, share=0.9)
    before = counted("image", [(BatchLabels.of(pixels, whole), [lit])])
    after = counted(
        "image", [(BatchLabels.of(pixels, whole), [lit]), (BatchLabels.of(*other), [more])]
    )
    assert torch.equal(after.truth[:2], before.truth[:2])
    assert torch.equal(after.intersection[:, :2], before.intersection[:, :2])
    assert torch.equal(after.activation[:, 0], before.activation[:, 0])
    assert bool((after.activation[:, 1] > before.activation[:, 1]).all())
    assert mask.any()


def test_an_image_with_the_category_elsewhere_lowers_the_match():
    labels = BatchLabels.of(torch.tensor([[[1, 1, 0, 0]]]), torch.zeros(1, 3, dtype=torch.bool))
    apart = BatchLabels.of(torch.tensor([[[0, 0, 0, 2]]]), torch.zeros(1, 3, dtype=torch.bool))
    lit = LitPixels(*(torch.tensor(each) for each in ([0, 0], [0, 0], [0, 1])))
    one = counted("image", [(labels, [lit])])
    two = counted("image", [(labels, [lit]), (apart, [lit])])
    assert (int(one.activation[0, 0]), int(two.activation[0, 0])) == (2, 4)
    assert (int(one.intersection[0, 0]), int(two.intersection[0, 0])) == (2, 2)


def test_counts_do_not_overflow_and_do_not_round():
    """2⁵³ is where float64 ends to tell whole numbers apart; single batches stay far below."""
    tally = Tally(3, LABEL_CATEGORIES, 2)
    tally.load_state({name: torch.full_like(t, 2**60) for name, t in tally.state().items()})
    other = counted("image", [(BatchLabels.of(*random_labels(1)), [random_lit(2)[1]])])
    tally.merge(other)
    for name, tensor in tally.state().items():
        assert torch.equal(tensor - 2**60, other.state()[name])


def test_a_state_of_other_units_is_refused():
    state = Tally(3, LABEL_CATEGORIES, 2).state()
    message = r"^this state has intersection of shape \(3, 3\), expected \(4, 3\)$"
    with pytest.raises(ArtifactError, match=message):
        Tally(4, LABEL_CATEGORIES, 2).load_state(state)


@pytest.mark.parametrize("presence", ["image", "mask"])
@given(st.integers(0, 10**6))
def test_it_is_the_naive_count(presence, seed):
    concepts = random_concepts(count=4, mask_size=(3, 2), seed=seed)
    lit = torch.from_numpy(np.random.default_rng(seed).random((4, 2, 3, 2)) < 0.4)
    (batch,) = label_batches(concepts, [range(4)], "raise", 0)
    tally = Tally(2, concepts.label_categories(), 4, presence)
    tally.update(
        BatchLabels.of(batch.pixels, batch.whole),
        [LitPixels(*lit.flatten(2).nonzero(as_tuple=True))],
    )
    expected = naive_tally(lit.numpy(), concepts, presence)
    for name, naive in zip(COUNTS, expected, strict=True):
        np.testing.assert_array_equal(getattr(tally, name), naive)


def test_labels_beyond_255_are_labels():
    labels = [Label(f"label {n}", "object") for n in range(300)]
    masks = torch.zeros(2, 3, 3, dtype=torch.int32)
    masks[0, 0, 0], masks[1, 1, 1] = 300, 257
    maps = (masks > 0)[:, None].float()
    concepts = ListedConcepts(carrying(maps), masked(masks), labels, ("object",))
    result = dissected(maps, concepts, quantile=0.2)
    assert isinstance(result, Dissection)
    assert result.truth.nonzero().flatten().tolist() == [256, 299]
    assert result.iou[0, [256, 299]].tolist() == [0.5, 0.5]
    assert math.isclose(float(result.iou.sum()), 1.0)


def test_a_threshold_between_two_neighbouring_floats_tells_them_apart():
    """It lies nearer to the upper one, which is above it all the same."""
    low, high = torch.tensor(1.0), torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    maps = torch.full((1, 1, 10, 10), float(low))
    maps[0, 0, 0, :6] = high
    masks = (maps[:, 0] > low).float()
    # 100 values, 6 of them high: place 99 * 0.9443 = 93.4857 … 99 * 0.9448 = 93.535.
    for level in (0.9443, 0.9448, 0.949):
        result = dissected(maps, shown(maps, masked(masks)), level=level)
        assert float(low) < float(result.thresholds) < float(high)
        assert result.iou.tolist() == [[1.0]]
