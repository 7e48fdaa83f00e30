"""An audit of a small network: what it finds, leaves alone, refuses and survives."""

import dataclasses
import json
import re
import warnings

import pytest
import torch
from audits import TINY, images, network, quietly
from page_reader import EVIL, page_of

from captum_blackbox import RISE, BlackBox, SceneConcepts
from captum_blackbox.audit import AuditBudget, AuditImages, Grade
from captum_blackbox.audit.axioms import AXIOMS, LINES
from captum_blackbox.audit.judging import kept_map
from captum_blackbox.audit.shaking import changed_by_signs
from captum_blackbox.errors import ArtifactError, BlackBoxError, InputError, ShapeError
from captum_blackbox.metrics import deletion

METHODS = ["gradient", "ig", "grad-cam", "layer-sum", "pattern-attribution", "rise"]
KNOWN = {
    "names": ["a", EVIL, "c"],
    "class_names": ["x", EVIL, "z"],
    "truth": torch.tensor([0, 1, 2]),
    "objects": (torch.arange(64).view(1, 8, 8) < 16).float().expand(3, 8, 8),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out, model = tmp_path_factory.mktemp("audit"), network()
    audit = quietly(model, images(**KNOWN), out, methods=METHODS, data=images(40).inputs)
    page = audit.write(out, settings={"--model": EVIL}, skipped={EVIL: EVIL})
    return audit, out, page, model


def test_every_method_has_a_verdict_that_its_evidence_gives(whole):
    audit = whole[0]
    assert set(audit.order) == {*METHODS, "random"}
    assert audit.verdicts["random"].grade is Grade.CONTROL
    assert audit.order[-1] == "random"
    for name in METHODS:
        evidence = audit.evidence[name]
        assert evidence.images == 3 and not evidence.failure
        assert [test.name for test in evidence.tests] == [
            "deletion", "insertion", "patch degradation", "infidelity",
        ]  # fmt: skip
        # The maps of the patterns are 0 everywhere here, and so no attack has a direction.
        assert evidence.attacks.is_aimed == (name not in {"rise", "pattern-attribution"})
        assert evidence.area == pytest.approx(0.25)
        assert 0 <= evidence.located <= 1
        assert audit.verdicts[name].grade in {Grade.CARE, Grade.UNSUPPORTED}  # three images only


def test_gains_are_above_zero_where_a_map_is_better(whole):
    audit = whole[0]
    for metric, sign, place in (("deletion", -1, 0), ("insertion", 1, 1), ("infidelity", -1, 3)):
        difference = audit.comparison.scores("ig", metric) - audit.comparison.scores(
            "random", metric
        )
        gain = audit.evidence["ig"].tests[place]
        assert gain.gain == pytest.approx(sign * float(difference.mean()))
        assert gain.low <= gain.gain <= gain.high


def test_kept_maps_are_those_that_were_judged(whole):
    audit, _, _, model = whole
    for name in METHODS:
        maps = torch.stack([kept_map(audit.place, audit.methods[name], row) for row in range(3)])
        areas = deletion(
            model, images().inputs, maps, audit.answers.predicted.tolist(), step=16
        ).auc
        torch.testing.assert_close(
            areas.double(), audit.comparison.scores(name, "deletion"), rtol=1e-4, atol=1e-5
        )


def test_attacks_are_counted_by_hand(whole):
    audit = whole[0]
    for name in ("gradient", "grad-cam"):
        left = audit.fragility.curves[name].scores(
            name, "intersection", mode="topk", radius=8 / 255
        )
        attacks = audit.evidence[name].attacks
        assert attacks.left == pytest.approx(float(left.mean()))
        assert attacks.broken == int((left < 0.5).sum())
        assert (attacks.breaks_at is not None) == (2 * attacks.broken >= 3)


def test_what_random_signs_leave_by_hand(whole):
    audit, _, _, model = whole
    place, given = audit.place, images()
    changed = changed_by_signs(place, 8 / 255)
    assert float((changed - given.inputs).abs().max()) <= 8 / 255 + 1e-6
    assert float(changed.min()) >= 0 and float(changed.max()) <= 1
    inside = (given.inputs > 8 / 255) & (given.inputs < 1 - 8 / 255)
    torch.testing.assert_close(
        (changed - given.inputs).abs()[inside], torch.full((int(inside.sum()),), 8 / 255)
    )
    rise = RISE(place.box, masks=TINY.masks, seed=0)
    for row in range(3):
        target = int(audit.answers.predicted[row])
        maps = [rise.attribute(x[row : row + 1], target=target) for x in (given.inputs, changed)]
        best = [each.flatten().argmax() for each in maps]  # one pixel is a fiftieth of 64
        kept = model(changed[row : row + 1]).argmax() == target
        expected = float(best[0] == best[1]) if kept else 1.0
        assert float(audit.fragility.weakest("rise", 8 / 255)[row]) == expected


def test_a_budget_may_attack_the_first_images_only(tmp_path):
    few = dataclasses.replace(TINY, attacked=1)
    audit = quietly(network(), images(3), tmp_path, methods=["gradient", "rise"], budget=few)
    assert {audit.evidence[name].attacks.images for name in ("gradient", "rise")} == {1}
    assert audit.evidence["gradient"].images == 3
    assert "left at 8/255 –" in page_of(audit.write(tmp_path)).text


def test_random_signs_of_the_largest_radius_compare_all_methods(tmp_path):
    two = dataclasses.replace(TINY, radii={"1/255": 1 / 255, "64/255": 64 / 255}, attack_steps=20)
    audit = quietly(network(), images(3), tmp_path, methods=["gradient", "rise"], budget=two)
    assert audit.evidence["gradient"].attacks.breaks_at is not None
    left = audit.fragility.left("gradient", "random", 64 / 255)
    assert audit.evidence["gradient"].attacks.by_signs == pytest.approx(float(left.nanmean()))
    left = audit.fragility.shaken["rise"][64 / 255]
    assert audit.evidence["rise"].attacks.by_signs == pytest.approx(float(left.mean()))


def test_random_signs_alone_are_no_attack(tmp_path):
    signs = dataclasses.replace(TINY, modes=("random",))
    audit = quietly(network(), images(2), tmp_path, methods=["gradient"], budget=signs)
    assert not audit.evidence["gradient"].attacks.is_aimed
    because = audit.verdicts["gradient"].because
    assert "Random signs of 8/255 leave" in because
    assert "Not attacked: the budget asks for random signs only." in because
    assert "random signs only; by random signs" in page_of(audit.write(tmp_path)).text


def test_the_page_escapes_names_and_links_to_what_is_there(whole):
    _, out, path, _ = whole
    found = page_of(path)
    assert len(found.all("script")) == 1
    assert not found.handlers
    assert "".join(found.words).count(EVIL) >= 5
    addresses = [each["href"] for each in found.all("a") if not each["href"].startswith("#")]
    assert len(addresses) > 20
    assert all((out / address).is_file() for address in addresses)
    assert "Only 3 images were judged" in found.text


def test_the_numbers_are_written(whole):
    audit, out, _, _ = whole
    found = json.loads((out / "audit.json").read_text())
    assert [each["key"] for each in found["methods"]] == list(audit.order)
    assert found["images"][1]["name"] == EVIL
    assert len((out / "comparison.csv").read_text().splitlines()) == 1 + 7 * 6 * 3
    assert (out / "fragility.csv").is_file()
    assert str(audit).count("\n\n") == 6


def test_a_second_run_does_nothing_and_writes_the_same(whole, tmp_path):
    _, out, path, model = whole
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    audit = quietly(model, images(**KNOWN), out, methods=METHODS, data=images(40).inputs)
    handle.remove()
    # It asks what the classes are, and makes the methods, which may ask for an example.
    assert len(calls) < 12
    again = audit.write(tmp_path, settings={"--model": EVIL}, skipped={EVIL: EVIL})
    assert again.read_text() == path.read_text()


def test_what_is_kept_of_another_explanation_is_named_and_not_left_out(tmp_path):
    quietly(network(), images(2), tmp_path, methods=["gradient", "grad-cam"])
    (path,) = (tmp_path / "kept").glob("fragility-gradient-*")
    (other,) = (tmp_path / "kept").glob("fragility-grad-cam-*")
    path.write_bytes(other.read_bytes())
    with pytest.raises(ArtifactError, match=f"{path.name}' does not belong here: attacks is"):
        quietly(network(), images(2), tmp_path, methods=["gradient", "grad-cam"])
    path.unlink()
    assert (
        "gradient" in quietly(network(), images(2), tmp_path, methods=["gradient"]).fragility.curves
    )


def test_the_model_is_left_as_it_was(tmp_path):
    model = network().train()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    quietly(model, images(2), tmp_path, methods=["gradient"])
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
    assert all(each.requires_grad and each.grad is None for each in model.parameters())
    assert not model._forward_hooks and not model[0]._forward_hooks


def test_an_image_that_the_model_fails_on_is_reported_and_the_rest_goes_on(tmp_path):
    inner, bad = network(), images(3).inputs[1, 0, 0, 0]

    class Fails(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            if bool((x[:, 0, 0, 0] == bad).any()):
                raise ValueError("not this <one>")
            return self.inner(x)

    audit = quietly(Fails(), images(3, names=["a", "b", "c"]), tmp_path, methods=["gradient"])
    assert list(audit.answers.lost) == [1]
    assert audit.images.names == ("a", "c")
    text = page_of(audit.write(tmp_path)).text
    assert "The model failed on 1 image, which is left out" in text
    assert re.search(r"the model\s?b\s?.*not this <one>", text)


def test_a_black_box_gets_what_only_calls_it_and_a_student(tmp_path):
    model = network()
    box = BlackBox(lambda x: model(x).detach(), output="logits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audit = quietly(box, images(3), tmp_path, data=images(20).inputs, student="small_cnn")
    assert set(audit.methods) == {"distilled", "rise", "random"}
    assert audit.evidence["distilled"].attacks is not None
    assert 0 <= audit.agreement <= 1
    assert audit.comparison.cost("rise").forward == 3 * TINY.masks
    assert "The student that stands in" in page_of(audit.write(tmp_path)).text


def test_a_method_that_needs_more_than_calls_says_so(tmp_path):
    model = network()
    box = BlackBox(lambda x: model(x).detach(), output="logits")
    audit = quietly(box, images(2), tmp_path, methods=["gradient", "rise"])
    assert audit.verdicts["gradient"].grade is Grade.FAILED
    assert "this model can only be called" in audit.verdicts["gradient"].because
    assert "this model can only be called" in page_of(audit.write(tmp_path)).text


def test_a_method_that_does_not_suit_the_network_does_not_end_the_audit(tmp_path):
    torch.manual_seed(0)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    audit = quietly(linear, images(2), tmp_path, methods=["grad-cam", "gradient"])
    assert audit.verdicts["grad-cam"].grade is Grade.FAILED
    assert audit.evidence["gradient"].tests
    audit.write(tmp_path)


def test_what_cannot_be_audited_is_refused_before_any_work(tmp_path):
    model = network()
    with pytest.raises(InputError, match=r"there is no method 'gradcam'; the nearest names are"):
        quietly(model, images(), tmp_path, methods=["gradcam"])
    with pytest.raises(InputError, match="stands twice"):
        quietly(model, images(), tmp_path, methods=["ig", "ig"])
    with pytest.raises(InputError, match="judges methods against random maps"):
        quietly(model, images(), tmp_path, methods=["random"])
    with pytest.raises(InputError, match="the budget is one of 'quick', 'standard', 'paper'"):
        quietly(model, images(), tmp_path, budget="fast")
    with pytest.raises(InputError, match="the model tells one class only"):
        quietly(network(1), images(), tmp_path, methods=["ig"])
    with pytest.raises(InputError, match="need both"):
        quietly(model, images(), tmp_path, concepts=SceneConcepts(2))
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        quietly(model, images(), tmp_path, batch_size=0)


def test_a_model_that_answers_nothing_is_refused(tmp_path):
    def down(x):
        raise TimeoutError("the service is down")

    with pytest.raises(BlackBoxError, match="the model answers for no image: .*service is down"):
        quietly(BlackBox(down, output="logits", num_classes=3), images(), tmp_path)


@pytest.mark.usefixtures("as_users_call")
def test_images_that_are_none_are_refused():
    with pytest.raises(ShapeError):
        AuditImages(torch.zeros(0, 3, 8, 8))
    with pytest.raises(ShapeError, match="got 4 channels"):
        AuditImages(torch.zeros(1, 4, 8, 8))
    with pytest.raises(InputError, match="mean has one number for each of 3 channels, got 1"):
        AuditImages(torch.zeros(1, 3, 8, 8), mean=(0.5,))
    with pytest.raises(InputError, match="std is positive"):
        AuditImages(torch.zeros(1, 3, 8, 8), std=(1.0, 0.0, 1.0))
    with pytest.raises(ShapeError, match="there are 1 images and 2 names"):
        AuditImages(torch.zeros(1, 3, 8, 8), names=["a", "b"])


def test_a_budget_that_gives_no_number_is_refused():
    with pytest.raises(InputError, match="masks of an audit is at least 1, got 0"):
        AuditBudget(**{**vars(TINY), "masks": 0})
    with pytest.raises(InputError, match="needs a radius and a mode"):
        AuditBudget(**{**vars(TINY), "radii": {}})


def test_axioms_are_those_of_the_document():
    from pathlib import Path

    lines = (Path(__file__).parents[2] / "docs" / "axioms.md").read_text().splitlines()
    head = next(line for line in lines if line.startswith("| method | completeness"))
    assert head.strip("| ").split(" | ")[1:] == list(AXIOMS)
    for name, (method, marks) in LINES.items():
        cells = next(line for line in lines if line.startswith(f"| {method} |"))
        assert "".join(cells.strip("| ").split(" | ")[1:]) == marks, name


def test_patterns_are_centred_unless_asked_otherwise_and_have_axioms_of_their_own(tmp_path):
    methods = ["pattern-attribution", {"mine": "pattern-attribution"}, "gradient"]
    plain, centred = (
        quietly(network(), images(2), tmp_path / str(len(asked)), methods=methods, **asked)
        for asked in ({"regime_centering": False}, {})
    )
    assert plain.methods["pattern-attribution"].name == "PatternAttribution"
    assert centred.methods["pattern-attribution"].name == "PatternAttribution, centred"
    assert centred.methods["mine"].name == "mine"
    for name in ("pattern-attribution", "mine"):
        assert sum(plain.evidence[name].axioms.values()) == 3
        assert sum(centred.evidence[name].axioms.values()) == 2
        assert "not class sensitivity or parameter" in centred.verdicts[name].because
    assert plain.evidence["gradient"].axioms == centred.evidence["gradient"].axioms
