"""All axioms at once: what fails is an entry, and the entries can be read by people and programs."""

import json
from functools import partial

import pytest
import torch
from captum.attr import GradientShap, LayerGradCam, Saliency
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox.errors import InputError, TargetError
from captum_blackbox.metrics.axioms import (
    AXIOMS,
    AxiomResult,
    AxiomTable,
    check_axioms,
    side_by_side,
)
from captum_blackbox.testing import small_network


def gradient(model):
    return lambda inputs, target: Saliency(model).attribute(inputs, target, abs=False)


@pytest.fixture(scope="module")
def table():
    return check_axioms(gradient)


def test_every_axiom_has_a_result(table):
    assert [result.name for result in table] == list(AXIOMS) and len(table) == 9
    assert table.method == "gradient"
    assert [result.name for result in table.failed] == ["completeness", "sensitivity"]
    assert table["dummy"].holds and table["dummy"].mark == "✓"
    assert table["completeness"].counter_example["image"].shape == (3, 7, 7)
    with pytest.raises(InputError, match="'nothing' was not checked; there are completeness, "):
        table["nothing"]


def test_one_line_of_a_test_suite():
    assert not check_axioms(Saliency, axioms=["dummy", "implementation_invariance"]).failed


def test_it_prints(table):
    lines = str(table).splitlines()
    assert lines[0] == "gradient" and len(lines) == 10
    assert lines[1].startswith("  ✗ completeness: the map of image ")
    assert lines[3].endswith("(error 0, tolerance 1e-06, share of the largest importance)")


def test_it_is_markdown(table):
    lines = table.to_markdown().splitlines()
    assert len(lines) == 11
    assert all(line.count(" | ") == 5 and line.startswith("| ") for line in lines[2:])
    assert lines[2].startswith("| completeness | ✗ | ")


def test_it_is_json(table):
    content = json.loads(table.to_json())
    assert content["method"] == "gradient"
    first = content["axioms"][0]
    assert first["holds"] is False and first["error"] == table["completeness"].error
    assert torch.tensor(first["counter_example"]["image"]).shape == (3, 7, 7)
    assert first["counter_example"]["model"].startswith("SmallNetwork(")
    assert list(content["axioms"][-1]["details"]) == ["head.0", "features.2", "features.0"]


def test_equal_calls_give_equal_results_and_seeds_count():
    random = partial(gradient_shap, noise=0.5)
    first, second = (check_axioms(random, axioms=["completeness"]) for _ in range(2))
    assert first["completeness"].error == second["completeness"].error
    assert check_axioms(random, axioms=["completeness"], seed=1)["completeness"].error != (
        first["completeness"].error
    )


def test_a_tolerance_of_0_is_met_by_an_error_of_0():
    exact = {"dummy": {"tolerance": 0.0}}
    assert check_axioms(gradient, axioms=["dummy"], options=exact)["dummy"].holds


def gradient_shap(model, noise):
    def attribute(inputs, target):
        black = torch.zeros_like(inputs)
        return GradientShap(model).attribute(inputs, black, stdevs=noise, target=target)

    return attribute


def test_an_error_is_an_entry_and_the_rest_goes_on():
    def broken(model):
        if len(list(model.parameters())) == 6:
            raise RuntimeError("not | this\nnetwork")
        return gradient(model)

    table = check_axioms(broken, axioms=["completeness", "symmetry", "dummy"])
    assert [result.mark for result in table] == ["!", "!", "!"]
    table = check_axioms(
        broken, axioms=["completeness", "symmetry"], model=small_network(kind="dense")
    )
    assert [result.mark for result in table] == ["✗", "!"]
    result = table["symmetry"]
    assert result.holds is False and result.error is None and result in table.failed
    assert result.raised == "RuntimeError: not | this\nnetwork"
    assert "raised RuntimeError: not \\| this network |" in table.to_markdown()
    assert json.loads(table.to_json())["axioms"][1]["raised"]


def test_not_applicable_is_no_failure():
    table = check_axioms(
        lambda model: LayerGradCam(model, model.features[0]), axioms=["dummy", "completeness"]
    )
    assert [result.mark for result in table] == ["–", "✗"] and len(table.failed) == 1
    assert table.method == "explanation"


def test_data_reach_a_factory_that_is_fitted():
    seen = {}

    def fitted(model, data):
        seen.setdefault(axiom, []).append(data)
        return gradient(model)

    for axiom in AXIOMS:
        assert check_axioms(fitted, axioms=[axiom])[axiom].raised == ""
    assert all(data.shape == (128, 3, 7, 7) for every in seen.values() for data in every)
    before, after = seen["input_shift"]
    assert torch.equal(before + 1, after)


def test_options_reach_one_check_and_models_those_that_take_them():
    table = check_axioms(
        gradient,
        axioms=["completeness", "parameter_randomisation", "dummy"],
        model=small_network(relu=False, units=3),
        options={"completeness": {"tolerance": 1e9, "total": "score"}},
        name="mine",
    )
    assert table["completeness"].holds and table["completeness"].tolerance == 1e9
    assert list(table["parameter_randomisation"].details) == ["head.0", "features.1", "features.0"]
    assert table["dummy"].raised == "" and table.method == "mine"


def test_bad_usage():
    with pytest.raises(InputError, match="a model of your own needs images of your own"):
        check_axioms(gradient, model=torch.nn.Flatten())
    with pytest.raises(TargetError, match="target 9 is out of range for 4 classes"):
        check_axioms(gradient, target=9)
    with pytest.raises(InputError, match="an axiom is one of 'completeness', .* got 'completness'"):
        check_axioms(gradient, axioms=["completness"])
    with pytest.raises(InputError, match="an axiom is one of .* got 'beauty'"):
        check_axioms(gradient, options={"beauty": {}})
    with pytest.raises(InputError, match="the check of dummy takes model, .*; got 'size'"):
        check_axioms(gradient, axioms=["dummy"], options={"dummy": {"size": 3}})


@pytest.mark.parametrize(
    ("axiom", "options", "message"),
    [
        (
            "linearity",
            {"classes": (0, 9)},
            r"fails for any explainer .*classes=\(0, 9\).*IndexError",
        ),
        ("linearity", {"factors": (1.0,)}, "fails for any explainer"),
        ("completeness", {"total": "beauty"}, "beauty"),
        ("completeness", {"tolerance": "much"}, "the tolerance of completeness must be a number"),
        ("completeness", {"tolerance": -1}, "from 0 on, got -1"),
        ("dummy", {"model": small_network()}, "come together"),
        ("input_shift", {"shift": "far"}, "fails for any explainer"),
        ("parameter_randomisation", {"layers": ["nowhere"]}, "LayerError: .*nowhere"),
    ],
)
def test_options_that_cannot_be_used_are_no_result(axiom, options, message):
    with pytest.raises(InputError, match=message):
        check_axioms(gradient, axioms=[axiom], options={axiom: options})


marks = st.dictionaries(st.sampled_from(sorted(AXIOMS)), st.sampled_from([True, False, None]))


@given(rows=st.lists(marks, max_size=4))
def test_methods_side_by_side(rows):
    tables = [
        AxiomTable(
            f"method {i}",
            tuple(AxiomResult(name, holds, None, "", 0.0, "") for name, holds in row.items()),
        )
        for i, row in enumerate(rows)
    ]
    lines = side_by_side(tables).splitlines()
    assert len(lines) == len(rows) + 2
    assert len({line.count("|") for line in lines}) == 1
    columns = [name.strip().replace(" ", "_") for name in lines[0].split("|")[2:-1]]
    for line, row in zip(lines[2:], rows, strict=True):
        found = dict(zip(columns, (cell.strip() for cell in line.split("|")[2:-1]), strict=True))
        said = {name: {True: "✓", False: "✗", None: "–"}[holds] for name, holds in row.items()}
        assert {name: mark for name, mark in found.items() if mark} == said
