"""Plain words on attacks: they follow from the numbers."""

import dataclasses

import pytest
import torch
import typer

from captum_blackbox.cli.attack_cells import Attacked, Cell, CellNumbers, KeptCells
from captum_blackbox.cli.attack_options import RANDOM, AttackOptions, NormName, parse_radii
from captum_blackbox.cli.attack_presentation import Findings, _row
from captum_blackbox.cli.attack_verdicts import broken, strongest, verdict
from captum_blackbox.cli.options import BudgetName
from captum_blackbox.cli.run import Subject
from captum_blackbox.fragility.curves_result import MEASURES, FragilityCurves

OPTIONS = AttackOptions(
    methods=("gradient",),
    modes=("topk", "mass-center", "random"),
    radii=parse_radii("1/255,8/255"),
    norm=NormName.LINF,
    k=None,
    steps=20,
    passes=10,
    beta=30.0,
    region=None,
    seed=0,
)
SMALL, LARGE = OPTIONS.radii


def curves(shares, modes=("topk", "mass_center", "random"), **others):
    """Shares of top pixels left by mode, radius and image; every other number as given."""
    left = torch.tensor(shares, dtype=torch.float64)
    values = torch.zeros(1, *left.shape[:2], len(MEASURES), left.shape[2], dtype=torch.float64)
    values[0, :, :, MEASURES.index("intersection")] = left
    for name, value in others.items():
        values[:, :, :, MEASURES.index(name)] = value
    radii = tuple(radius.value for radius in OPTIONS.radii)
    return FragilityCurves(("Gradient",), modes, radii[: left.shape[1]], values)


def said(found, options=OPTIONS, **settings):
    sentence = verdict(found, "Gradient", options, 82, **settings).sentence
    return sentence.replace("\xa0", " ")


# Images 0, 1 and 2; topk leaves little of the last two at the large radius.
FALLING = curves(
    [
        [[0.9, 0.8, 0.7], [0.6, 0.2, 0.1]],
        [[0.9, 0.9, 0.9], [0.4, 0.9, 0.8]],
        [[1.0, 0.9, 0.8], [0.9, 0.6, 0.3]],
    ],
    ssim=0.9375,
    rank_correlation=0.25,
    center_shift=3.5,
)


def test_the_smallest_radius_at_which_most_images_break():
    found = verdict(FALLING, "Gradient", OPTIONS, 82)
    assert (found.breaks_at, found.radius, found.broken) == ("8/255", "8/255", (3, 3))
    assert found.aimed == pytest.approx(0.3)
    assert found.chance == pytest.approx(0.6)
    assert (found.rank_correlation, found.center_shift, found.ssim) == (0.25, 3.5, 0.9375)
    assert said(FALLING) == (
        "breaks at a radius of 8/255: the strongest aim leaves 30 % of the 82 most important "
        "pixels on average, and fewer than half on 3 of 3 images by one aim or another, with the "
        "prediction unchanged (SSIM of the images: 0.94). Random signs of the same size leave 60 %, and fewer than "
        "half on 1 of 3 images."
    )


def test_any_aim_may_break_an_image_and_chance_does_not_count():
    assert broken(FALLING, "Gradient", ["topk"], LARGE).tolist() == [False, True, True]
    assert broken(FALLING, "Gradient", ["topk", "mass-center"], LARGE).all()
    assert not broken(FALLING, "Gradient", ["topk", "mass-center"], SMALL).any()
    assert strongest(FALLING, "Gradient", ["topk", "mass-center"], LARGE, 0) == "mass-center"
    assert strongest(FALLING, "Gradient", ["topk", "mass-center"], LARGE, 1) == "topk"


def test_exactly_half_of_the_pixels_or_of_the_images_is_no_break():
    half = [[[0.5, 0.5]] * 2, [[0.9, 0.9], [0.9, 0.4]], [[1.0, 1.0]] * 2]
    found = verdict(curves(half), "Gradient", OPTIONS, 82)
    assert (found.breaks_at, found.broken) == (None, (1, 2))


def test_what_did_not_break_is_not_praised():
    held = curves([[[0.9], [0.7]], [[0.9], [0.8]], [[1.0], [0.9]]], ssim=torch.nan)
    assert said(held) == (
        "held up to a radius of 8/255, the largest one tried: the strongest aim leaves 70 % of the "
        "82 most important pixels on average, and fewer than half on 0 of 1 image by one "
        "aim or another, with the prediction unchanged. Random signs of the same size leave 90 %, and fewer than half on 0 "
        "of 1 image. This does not show that it can be trusted: a stronger attack may succeed."
    )


def test_where_noise_is_enough_it_is_said():
    noisy = curves([[[0.1], [0.1]], [[0.9], [0.8]], [[0.3], [0.2]]])
    assert said(noisy).startswith("breaks at a radius of 1/255, the smallest one tried: ")
    assert "It takes no attacker: random signs of the same size leave 30 %, and fewer" in said(
        noisy
    )


def test_random_signs_alone_are_no_aim():
    options = dataclasses.replace(OPTIONS, modes=("random",), radii=OPTIONS.radii[:1])
    alone = said(curves([[[0.75]]], modes=("random",)), options)
    assert alone.startswith(
        "held up to a radius of 1/255, the only one tried: random signs leave 75 % of the 82"
    )
    assert "Random signs of the same size" not in alone


def test_a_region_is_reported():
    options = dataclasses.replace(OPTIONS, modes=("targeted", "random"))
    found = curves([[[0.4], [0.3]], [[0.9], [0.9]]], ("targeted", "random"), region_mass=0.375)
    assert "The region held 6 % of the importance, and 38 % when that was the aim." in said(
        found, options, region_before=0.0625
    )


def test_an_image_without_a_number_does_not_count():
    missing = curves([[[torch.nan, 0.1]] * 2, [[torch.nan, 0.9]] * 2, [[torch.nan, 0.9]] * 2])
    found = verdict(missing, "Gradient", OPTIONS, 82)
    assert (found.breaks_at, found.broken) == ("1/255", (1, 1))


def test_images_count_that_any_aim_has_a_number_for():
    nan = torch.nan
    one_of_three = curves(
        [
            [[0.9, 0.9, 0.9], [0.1, nan, nan]],
            [[0.9, 0.9, 0.9], [nan, 0.1, 0.9]],
            [[0.9, 0.9, 0.9], [nan, 0.3, nan]],
        ]
    )
    found = verdict(one_of_three, "Gradient", OPTIONS, 82)
    assert (found.breaks_at, found.broken) == ("8/255", (2, 3))
    assert "fewer than half on 2 of 3 images by one aim or another" in found.sentence
    assert found.sentence.endswith("fewer than half on 1 of 1 image.")


def test_one_aim_is_not_one_or_another():
    options = dataclasses.replace(OPTIONS, modes=("topk",), radii=OPTIONS.radii[:1])
    assert "by one aim" not in said(curves([[[0.1]]], modes=("topk",)), options)


def test_without_an_image_that_both_judge_there_is_no_difference_to_chance():
    values = {RANDOM: [torch.nan, 0.5], "topk": [0.5, torch.nan]}
    numbers = {}
    for mode, left in values.items():
        table = torch.zeros(len(MEASURES), 2, dtype=torch.float64)
        table[MEASURES.index("intersection")] = torch.tensor(left)
        nothing = torch.zeros(2, dtype=torch.long)
        cell = Cell("gradient", mode, SMALL)
        numbers[cell] = CellNumbers(table, nothing, nothing, torch.zeros(2), ("", ""), 82)
    modes = ("topk", RANDOM)
    found = curves([[values["topk"]], [values[RANDOM]]], modes)
    options = dataclasses.replace(OPTIONS, modes=modes, radii=OPTIONS.radii[:1])
    pixels = torch.zeros(2, 3, 4, 4)
    attacked = Attacked(numbers, object.__new__(KeptCells), {})  # no images are asked for
    findings = Findings(Subject(pixels, pixels, ("a", "b"), ()), attacked, options, found)
    row = _row(findings, Cell("gradient", "topk", SMALL))
    assert row.difference is None and row.intersection.mean == 0.5


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        ("8", "did you mean 8/255"),
        ("0.01,8", "did you mean 8/255"),
        ("1000", r"got '1000'"),
        ("1e400", "positive numbers"),
        ("9" * 400 + "/1", "positive numbers"),
        ("inf", "positive numbers"),
        ("nan", "positive numbers"),
    ],
)
def test_radii_that_no_image_has_room_for(radii, message):
    with pytest.raises(typer.BadParameter, match=message):
        said_of(radii, NormName.LINF)
    if radii == "8":
        assert said_of(radii, NormName.L2).radii[0].value == 8


def test_a_change_of_the_whole_range_is_allowed():
    assert said_of("1", NormName.LINF).radii[0].value == 1


def said_of(radii, norm):
    return AttackOptions.of(
        "gradient", "topk", radii, norm=norm, k=None, steps=None, beta=None, region=None,
        budget=BudgetName.QUICK, seed=0,
    )  # fmt: skip
