"""Verdicts follow from the numbers: each rule by hand, and never better for worse numbers."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as some

from captum_blackbox.audit.axioms import AXIOMS, SANITY
from captum_blackbox.audit.verdicts import (
    ORDER,
    Attacks,
    Evidence,
    Gain,
    Grade,
    in_order,
    verdict,
)

BETTER = Gain("deletion", 0.2, 0.1, 0.3)
WORSE = Gain("insertion", -0.2, -0.3, -0.1)
UNCLEAR = Gain("infidelity", 0.1, -0.1, 0.3)
HELD = Attacks(None, "8/255", 0.8, 0.9, 1, 12)
BROKE = Attacks("2/255", "2/255", 0.1, 0.9, 11, 12)
SHAKEN = dataclasses.replace(HELD, is_aimed=False, chance=None)  # by random signs, and held
SHAKEN_OFF = dataclasses.replace(BROKE, is_aimed=False, chance=None)
ALL_MET = dict.fromkeys(AXIOMS, True)


def grade(tests, images=12, **more):
    return verdict(Evidence("Mine", images, tests, **{"attacks": HELD, **more})).grade


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ([BETTER] * 4, Grade.SUPPORTED),
        ([BETTER] * 3 + [UNCLEAR], Grade.SUPPORTED),
        ([BETTER] * 2 + [UNCLEAR] * 2, Grade.CARE),  # not more than half
        ([BETTER] * 3 + [WORSE], Grade.CARE),
        ([BETTER] * 2 + [WORSE] * 2, Grade.UNSUPPORTED),
        ([BETTER] + [WORSE] * 3, Grade.UNSUPPORTED),
        ([UNCLEAR] * 4, Grade.UNSUPPORTED),
        ([], Grade.UNSUPPORTED),
    ],
)
def test_faithfulness_by_hand(tests, expected):
    assert grade(tests) is expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"attacks": HELD}, Grade.SUPPORTED),
        ({"attacks": BROKE}, Grade.CARE),
        ({"attacks": None}, Grade.CARE),
        ({"attacks": SHAKEN}, Grade.CARE),
        ({"attacks": SHAKEN_OFF}, Grade.CARE),
        ({"axioms": ALL_MET}, Grade.SUPPORTED),
        ({"axioms": ALL_MET | {"completeness": False}}, Grade.SUPPORTED),
        ({"axioms": ALL_MET | {SANITY[0]: False}}, Grade.CARE),
        ({"axioms": ALL_MET | {SANITY[1]: False}}, Grade.CARE),
        ({"images": 9}, Grade.CARE),
        ({"images": 10}, Grade.SUPPORTED),
        ({"agreement": 0.69}, Grade.CARE),
        ({"agreement": 0.7}, Grade.SUPPORTED),
        ({"failure": "it raised"}, Grade.FAILED),
        ({"is_control": True}, Grade.CONTROL),
    ],
)
def test_what_else_counts_by_hand(more, expected):
    assert grade([BETTER] * 4, **more) is expected


def test_the_ends_of_intervals_decide():
    assert not Gain("x", 0.1, 0.0, 0.2).is_better
    assert Gain("x", 0.1, 0.001, 0.2).is_better
    assert not Gain("x", -0.1, -0.2, 0.0).is_worse
    assert Gain("x", -0.1, -0.2, -0.001).is_worse


def test_the_words_say_the_numbers():
    found = verdict(
        Evidence(
            "Mine",
            12,
            [BETTER, dataclasses.replace(BETTER, name="insertion"), UNCLEAR, WORSE],
            attacks=BROKE,
            axioms=ALL_MET | {SANITY[0]: False},
            located=0.456,
            area=0.25,
        )
    )
    assert found.because.replace("\u00a0", " ") == (
        "Better than random maps by 2 of 4 tests (deletion and insertion), worse by insertion, no "
        "different by the other, on 12 images. 46 % of its most important pixels lie on the true "
        "cause, which fills 25 % of the image. An invisible change of at most 2/255 leaves 10 % of "
        "its most important pixels, and fewer than half on 11 of 12 images; random signs of that "
        "size leave 90 %. Meets 8 of 9 axioms, but not class sensitivity."
    )
    assert found.believe == (
        "The places it marks may matter to the model, but only some of the tests say so, somebody "
        "who changes an image invisibly can move what it marks, and it may show the image more than "
        "the model."
    )


def test_the_words_for_one_image_and_no_attack():
    found = verdict(Evidence("Mine", 1, [BETTER], not_attacked="it has no derivative"))
    assert "by all 1 tests" not in found.because
    assert "on 1 image." in found.because
    assert "Not attacked: it has no derivative." in found.because
    assert found.believe.endswith("1 image cannot show much.")


def test_what_nobody_could_attack_is_believed_with_care():
    found = verdict(Evidence("Mine", 12, [BETTER]))
    assert found.believe == (
        "The places it marks matter to the model, but how easily it can be fooled on purpose was "
        "not tested."
    )
    assert "was not tested" not in verdict(Evidence("Mine", 12, [BETTER], attacks=HELD)).believe
    assert "was not tested" not in verdict(Evidence("Mine", 12, [BETTER], attacks=BROKE)).believe


def test_random_signs_count_where_no_attack_can_follow():
    held = verdict(Evidence("Mine", 12, [BETTER], attacks=SHAKEN, not_attacked="no derivative"))
    assert held.grade is Grade.CARE and "on purpose was not tested" in held.believe
    assert held.because.replace("\u00a0", " ").endswith(
        "Random signs of 8/255 leave 80 % of its most important pixels, and fewer than half on 1 of "
        "12 images. Not attacked: no derivative. Its axioms were not checked."
    )
    found = verdict(Evidence("Mine", 12, [BETTER], attacks=SHAKEN_OFF))
    assert found.grade is Grade.CARE and "even random changes" in found.believe
    assert "was not tested" not in found.believe


def test_axioms_that_nobody_checked_are_no_doubt_and_are_said():
    assert grade([BETTER]) is grade([BETTER], axioms=ALL_MET) is Grade.SUPPORTED
    unknown = verdict(Evidence("Mine", 12, [BETTER], attacks=HELD))
    assert unknown.because.endswith(" Its axioms were not checked.")
    known = verdict(Evidence("Mine", 12, [BETTER], attacks=HELD, axioms=ALL_MET))
    assert known.because.endswith(" Meets 9 of 9 axioms.")


def test_without_maps_the_reason_is_said():
    found = verdict(Evidence("Mine", failure="no Conv2d"))
    assert found.because == "No map was made: no Conv2d."


gains = some.lists(some.sampled_from([BETTER, WORSE, UNCLEAR]), max_size=5)
attacks = some.sampled_from([None, HELD, BROKE, SHAKEN, SHAKEN_OFF])
axioms = some.sampled_from([{}, ALL_MET, ALL_MET | {SANITY[1]: False}])


@given(gains, attacks, axioms, some.integers(1, 20))
def test_worse_numbers_never_help(tests, attack, axiom, images):
    before = verdict(Evidence("Mine", images, tests, attacks=attack, axioms=axiom))
    worse = [
        Evidence("Mine", images, [*tests[:-1], WORSE], attacks=attack, axioms=axiom),
        Evidence("Mine", images, tests, attacks=BROKE, axioms=axiom),
        Evidence("Mine", images, tests, attacks=None, axioms=axiom),
        Evidence("Mine", images, tests, attacks=SHAKEN, axioms=axiom),
        Evidence("Mine", images, tests, attacks=attack, axioms=ALL_MET | {SANITY[0]: False}),
        Evidence("Mine", 1, tests, attacks=attack, axioms=axiom),
    ]
    for evidence in worse if tests else worse[1:]:
        assert ORDER.index(verdict(evidence).grade) >= ORDER.index(before.grade)


def test_order_is_by_grade_then_tests_then_what_an_attack_leaves():
    evidence = {
        "random": Evidence("Random", 12, is_control=True),
        "failed": Evidence("Failed", failure="x"),
        "none": Evidence("None", 12, [UNCLEAR]),
        "weak": Evidence("Weak", 12, [BETTER] * 3, attacks=BROKE),
        "weaker": Evidence(
            "Weaker", 12, [BETTER] * 3, attacks=dataclasses.replace(BROKE, left=0.05)
        ),
        "best": Evidence("Best", 12, [BETTER] * 3, attacks=HELD),
    }
    verdicts = {name: verdict(each) for name, each in evidence.items()}
    assert in_order(verdicts, evidence) == ["best", "weak", "weaker", "none", "failed", "random"]


def test_being_unattackable_is_no_merit():
    """An attack leaves less than random signs, so only these compare all methods."""
    some_left = {
        "withstood": dataclasses.replace(HELD, left=0.6),
        "withstood barely": dataclasses.replace(HELD, left=0.51, chance=0.99),
        "broke": dataclasses.replace(BROKE, left=0.1, chance=0.95),
        "shaken": dataclasses.replace(SHAKEN, left=0.9),
        "broke, and no signs do": dataclasses.replace(BROKE, left=0.2, chance=0.8),
        "broke, and signs do more": dataclasses.replace(BROKE, left=0.4, chance=0.6),
        "broke more": dataclasses.replace(BROKE, left=0.3, chance=0.6),
        "random signs broke it": dataclasses.replace(SHAKEN_OFF, left=0.45),
        "nobody tried": None,
    }
    evidence = {  # of one grade: a test speaks against each
        name: Evidence(name, 12, [BETTER] * 3 + [WORSE], attacks=attacks)
        for name, attacks in reversed(some_left.items())
    }
    verdicts = {name: verdict(each) for name, each in evidence.items()}
    assert {each.grade for each in verdicts.values()} == {Grade.CARE}
    assert in_order(verdicts, evidence) == list(some_left)
    # At the radius that broke it, random signs leave much of a map that breaks at a small one.
    early = dataclasses.replace(BROKE, chance=0.99, by_signs=0.2)
    verdicts["early"] = verdicts["broke"]
    evidence["early"] = dataclasses.replace(evidence["broke"], attacks=early)
    assert in_order(verdicts, evidence)[-2:] == ["early", "nobody tried"]
    evidence["shaken"] = dataclasses.replace(evidence["shaken"], tests=[BETTER] * 4)
    verdicts["shaken"] = verdict(evidence["shaken"])
    assert in_order(verdicts, evidence)[0] == "shaken"  # tests come first
