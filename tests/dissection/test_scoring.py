"""Scores beside loops over single pixels' counts, and their laws."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.dissection.scoring import (
    best_categories,
    best_labels,
    intersection_over_union,
)

# unit, label: truth, activation, intersection and IoU, as its authors published them.
PUBLISHED = {
    "Places365 107 road": (13092677, 3044167, 2171174, 0.15546507972764645),
    "Places365 79 car": (5435238, 2264525, 938314, 0.13877410004867299),
    "ImageNet 198 wheel": (1540612, 1584597, 561458, 0.21899864690447707),
    "Places205 209 grass": (13100838, 4017464, 2760311, 0.19224911061721658),
}


def naive_scores(intersection, activation, truth, label_category):
    """Equation 1 of Bau et al. 2017, pair by pair, with the published code's 1e-20."""
    units, labels = intersection.shape
    iou = torch.zeros(units, labels, dtype=torch.float64)
    for unit in range(units):
        for label in range(labels):
            both = int(intersection[unit, label])
            active = int(activation[unit, label_category[label]])
            iou[unit, label] = both / (active + int(truth[label]) - both + 1e-20)
    return iou


def naive_best(iou, label_category, categories):
    labels = torch.full((len(iou), categories), -1)
    scores = torch.zeros(len(iou), categories, dtype=torch.float64)
    for unit, row in enumerate(iou.tolist()):
        for category in range(categories):
            members = [n for n, each in enumerate(label_category.tolist()) if each == category]
            for label in reversed(members):
                if row[label] >= scores[unit, category]:
                    labels[unit, category], scores[unit, category] = label, row[label]
    return labels, scores


@st.composite
def counted(draw):
    """Counts of random masks of units and labels on images that may lack a category."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    categories, units = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    labels = categories + draw(st.integers(0, 4))
    category = torch.cat(
        [torch.arange(categories), torch.randint(categories, (labels,), generator=random)]
    )[:labels]
    pixels = draw(st.integers(1, 12))
    # Few values, so that units and labels are often empty and scores often equal.
    masks = torch.rand(units, 3, pixels, generator=random) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    shown = torch.rand(labels, 3, pixels, generator=random) < draw(st.sampled_from([0.0, 0.3]))
    intersection = torch.einsum("uxp,lxp->ul", masks.double(), shown.double()).long()
    present = torch.stack(
        [shown[category == each].any(2).any(0) for each in range(categories)], dim=1
    )
    activation = (masks.sum(2).double() @ present.double()).long()
    return intersection, activation, shown.sum((1, 2)), category


@given(counted())
def test_scores_equal_the_loops_and_lie_between_0_and_1(counts):
    iou = intersection_over_union(*counts)
    torch.testing.assert_close(iou, naive_scores(*counts), rtol=0, atol=1e-15)
    assert iou.dtype == torch.float64
    assert bool(((iou >= 0) & (iou <= 1)).all())
    found, expected = best_labels(iou, counts[3], 4), naive_best(iou, counts[3], 4)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@given(counted(), st.integers(0, 1000))
def test_permuted_units_and_labels_permute_rows_and_columns(counts, seed):
    intersection, activation, truth, category = counts
    random = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(intersection), generator=random)
    columns = torch.randperm(len(truth), generator=random)
    iou = intersection_over_union(
        intersection[rows][:, columns], activation[rows], truth[columns], category[columns]
    )
    assert torch.equal(iou, intersection_over_union(*counts)[rows][:, columns])


def test_the_published_rows_come_out():
    truth, activation, intersection, iou = zip(*PUBLISHED.values(), strict=True)
    pixels = torch.tensor([intersection, intersection]).T, torch.tensor(activation)[:, None]
    for number, expected in enumerate(iou):
        found = intersection_over_union(
            pixels[0][:, :1], pixels[1], torch.tensor([truth[number]]), torch.tensor([0])
        )
        assert found[number].item() == expected


def test_a_unit_that_is_never_active_scores_0_also_for_a_label_without_pixels():
    none = torch.zeros(1, 2, dtype=torch.int64)
    iou = intersection_over_union(none, none[:, :1], torch.tensor([5, 0]), torch.tensor([0, 0]))
    assert iou.tolist() == [[0.0, 0.0]]


def test_the_smaller_of_equal_labels_and_the_later_of_equal_categories_wins():
    iou = torch.tensor([[0.0, 0.5, 0.25, 0.5, 0.5], [0.0] * 5], dtype=torch.float64)
    labels, scores = best_labels(iou, torch.tensor([1, 1, 0, 1, 0]), 3)
    # Category 0 has labels 2 and 4, category 1 has 0, 1 and 3, category 2 has none.
    assert labels.tolist() == [[4, 1, -1], [2, 0, -1]]
    assert scores.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    assert best_categories(scores).tolist() == [1, 2]
    assert best_categories(scores[:, :2]).tolist() == [1, 1]


def test_counts_beyond_single_precision_are_exact(device):
    big = 2**40 + 1
    iou = intersection_over_union(
        torch.tensor([[big]], device=device),
        torch.tensor([[big]], device=device),
        torch.tensor([big + 1], device=device),
        torch.tensor([0], device=device),
    )
    assert iou.item() == big / (big + 1) < 1
