"""Methods of the user's own in an audit: judged like the others, attacked where that can be."""

import dataclasses
import json
import warnings

import pytest
import torch
from audits import TINY, images, network, quietly
from captum.attr import GradientShap, IntegratedGradients, Occlusion, Saliency
from page_reader import EVIL, page_of
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlus

from captum_blackbox import RISE, BlackBox, DistilledLayerSumGradCAM, LayerSumGradCAM
from captum_blackbox.audit import AuditImages, Grade
from captum_blackbox.audit.attacking import attack_on
from captum_blackbox.audit.choosing import chosen_methods
from captum_blackbox.audit.judging import kept_map
from captum_blackbox.compare import Configured
from captum_blackbox.errors import InputError
from captum_blackbox.student import student_network

pytestmark = pytest.mark.filterwarnings("ignore::captum_blackbox.errors.ExplanationWarning")


def on_graph(model):
    def gradient(x, classes):
        leaf = x if x.requires_grad else x.requires_grad_()
        score = model(leaf).gather(1, classes[:, None]).sum()
        return torch.autograd.grad(score, leaf, create_graph=True)[0].abs()

    return gradient


def without_graph(model):
    return lambda x, classes: on_graph(model)(x, classes).detach()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out, model = tmp_path_factory.mktemp("own"), network()
    own = {
        "as it is": Saliency(model),
        "made": lambda model: Saliency(model),
        "with settings": Configured(IntegratedGradients(model), {"n_steps": 2}),
        "on the graph": on_graph(model),
        "off the graph": without_graph(model),
        "attributor": Gradient(model, EpsilonPlus(), create_graph=True),
        "attributor without": Gradient(model, EpsilonPlus()),
        "composite": EpsilonPlus(),
        "windows": Configured(Occlusion(model), {"sliding_window_shapes": (3, 4, 4)}),
        "masks": RISE(model, masks=8),
        EVIL: lambda x, classes: x,
        "Renamed": "ig",
    }
    audit = quietly(model, images(3), out, methods=["ig", own, "gradient"])
    return audit, out, audit.write(out), model


ATTACKED = {
    "gradient", "ig", "as it is", "made", "with settings", "on the graph", "attributor",
    EVIL, "Renamed",
}  # fmt: skip


def test_ready_ones_stand_first_and_every_one_has_maps_and_numbers(whole):
    audit = whole[0]
    assert list(audit.methods)[:2] == ["gradient", "ig"] and list(audit.methods)[-1] == "random"
    assert len(audit.methods) == 2 + 12 + 1
    for name, evidence in audit.evidence.items():
        assert evidence.images == 3 and not evidence.failure, name
    assert audit.comparison.failures == ()


def test_what_can_be_attacked_is_attacked_and_the_rest_says_why(whole):
    audit = whole[0]
    aimed = {
        name for name, each in audit.evidence.items() if each.attacks and each.attacks.is_aimed
    }
    assert aimed == ATTACKED
    shaken = {"off the graph", "attributor without", "composite", "windows", "masks"}
    assert set(audit.fragility.shaken) == shaken == set(audit.fragility.reasons) - {"random"}
    for name, words in {
        "off the graph": "the maps of off the graph change with the images but hang on no graph",
        "attributor without": "build it with create_graph=True",
        "composite": "give Zennit's Gradient(model, composite, create_graph=True)",
        "windows": "it asks the network about changed inputs and takes no gradient",
        "masks": "RISE cannot be attacked by its gradient",
    }.items():
        assert words in audit.evidence[name].not_attacked
        assert audit.evidence[name].attacks.images == 3
        assert words in page_of(whole[2]).text


def test_the_numbers_are_those_of_the_ready_methods(whole):
    audit = whole[0]
    for name, ready in {
        "as it is": "gradient", "made": "gradient", "on the graph": "gradient",
        "off the graph": "gradient", "with settings": "ig", "Renamed": "ig",
    }.items():  # fmt: skip
        for metric in audit.comparison.metrics:
            torch.testing.assert_close(
                audit.comparison.scores(name, metric), audit.comparison.scores(ready, metric)
            )
        assert audit.comparison.cost(name).backward >= 3
        if name != "off the graph":
            found, expected = audit.evidence[name].attacks, audit.evidence[ready].attacks
            assert found.left == pytest.approx(expected.left), name


def test_an_attack_explains_with_the_same_settings(whole):
    curves = whole[0].fragility.curves
    weights = {
        name: curves[name].settings["attacks"][name]["explanation"]["weights"]
        for name in ("with settings", "ig")
    }
    assert weights["with settings"] == weights["ig"] and len(weights["ig"]) == 2


def test_axioms_are_known_of_ready_methods_alone(whole):
    audit, _, page, _ = whole
    known = {name for name, each in audit.evidence.items() if each.axioms}
    assert known == {"gradient", "ig", "Renamed"}
    assert "as it is not checked" in page_of(page).text
    assert "Its axioms were not checked." in audit.verdicts["as it is"].because
    assert "axioms were not checked" not in audit.verdicts["ig"].because


def test_names_are_harmless(whole):
    _, out, page, _ = whole
    found = page_of(page)
    assert len(found.all("script")) == 1
    assert "".join(found.words).count(EVIL) >= 4
    addresses = [each["href"] for each in found.all("a") if not each["href"].startswith("#")]
    assert all((out / address).is_file() for address in addresses)
    names = {each["key"] for each in json.loads((out / "audit.json").read_text())["methods"]}
    assert EVIL in names


def test_a_changed_method_is_judged_anew_and_the_same_one_is_not(tmp_path):
    model, passes = network(), []
    model.register_forward_hook(lambda *_: passes.append(1))

    def work(given):
        passes.clear()
        audit = quietly(model, images(2), tmp_path, methods={"mine": given})
        return len(passes), audit.comparison.scores("mine", "infidelity").tolist()

    def integrated(steps):
        return Configured(IntegratedGradients(model), {"n_steps": steps})

    def scaled(factor):
        return lambda x, classes: factor * x

    _, number = work(integrated(3))
    other, changed = work(integrated(4))
    assert other > 20 and changed != number
    again, same = work(integrated(3))
    assert again < 8 and same == number
    assert work(scaled(1.0))[0] > 20
    assert work(scaled(1.0))[0] < 8
    assert work(scaled(2.0))[0] > 20
    assert work(lambda x, classes: x - 1)[0] > 20


def test_a_class_is_known_by_its_code():
    def made(sign):
        class Mine:
            def __init__(self, model):
                self.model = model

            if sign > 0:

                def attribute(self, inputs, target):
                    return inputs
            else:

                def attribute(self, inputs, target):
                    return -inputs

        return Mine  # fmt: skip

    stems = [chosen_methods({"Mine": made(sign)})["Mine"].stem for sign in (1, -1, 1)]
    assert stems[0] == stems[2] != stems[1]
    assert stems[0].startswith("mine-")


MADE = []


def drawn(_model):
    MADE.append(student_network("small_cnn", num_classes=3).eval())
    return LayerSumGradCAM(MADE[-1])


def test_a_method_that_draws_to_be_made_is_the_same_wherever_it_is_made(tmp_path):
    def values(seed):
        given = network(), images(2), tmp_path
        audit = quietly(*given, methods={"drawn": drawn}, seed=seed)
        return audit.fragility.curves["drawn"].values

    MADE.clear()
    first = values(0)
    assert len(MADE) == 1  # what is judged is attacked
    torch.testing.assert_close(values(0), first, rtol=0, atol=0, equal_nan=True)
    values(1)
    weights = [each.classifier.weight for each in MADE]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_student_is_attacked_in_place_of_a_model_that_is_open(tmp_path):
    model = network()
    audit = quietly(model, images(2), tmp_path, methods=["distilled"])
    victim = attack_on(audit.place, audit.methods["distilled"]).victim
    student = audit.methods["distilled"].make(audit.place).student
    assert victim.network is not model
    assert type(victim.network) is type(student)
    own = {"mine": DistilledLayerSumGradCAM(BlackBox(model, output="logits"), student)}
    mine = chosen_methods(own, model)["mine"]
    assert attack_on(audit.place, mine).victim.network is student


def test_a_function_that_lost_a_part_of_its_graph_is_not_attacked(tmp_path):
    model = network()

    def times_input(keeps):
        def explain(x, classes):
            leaf = x if x.requires_grad else x.requires_grad_()
            score = model(leaf).gather(1, classes[:, None]).sum()
            return leaf * torch.autograd.grad(score, leaf, create_graph=keeps)[0]

        return explain

    own = {"whole": times_input(True), "part": times_input(False)}
    budget = dataclasses.replace(TINY, attack_steps=20)
    audit = quietly(model, images(3), tmp_path, methods=own, budget=budget)
    assert audit.evidence["whole"].attacks.breaks_at == "8/255"
    assert not audit.evidence["part"].attacks.is_aimed
    assert "takes a gradient without create_graph=True" in audit.evidence["part"].not_attacked
    assert audit.evidence["part"].attacks.images == 3


def test_an_attack_without_a_direction_is_none(tmp_path):
    own = {"steps": lambda x, classes: torch.sign(x - 0.5)}
    audit = quietly(network(), images(3), tmp_path, methods=own)
    again = quietly(network(), images(3), tmp_path, methods=own)
    for each in (audit, again):
        assert not each.evidence["steps"].attacks.is_aimed
        assert "so that no attack has a direction" in each.evidence["steps"].not_attacked
        assert "steps" not in each.fragility.pictures
    assert "No change broke it" not in audit.verdicts["steps"].because


def test_what_has_no_graph_says_so_whatever_is_tried_first(tmp_path):
    model, budget = network(), dataclasses.replace(TINY, modes=("random", "topk"))
    own = {"off": without_graph(model)}
    audit = quietly(model, images(2), tmp_path, methods=own, budget=budget)
    assert "hang on no graph" in audit.evidence["off"].not_attacked
    assert audit.evidence["off"].attacks.images == 2


def test_an_image_that_is_there_twice_has_its_map_twice(tmp_path):
    twice = AuditImages(torch.cat([images(2).inputs, images(1).inputs]))
    audit = quietly(network(), twice, tmp_path, methods=["gradient", "rise"])
    for name in ("gradient", "rise"):
        first, _, last = (kept_map(audit.place, audit.methods[name], row) for row in range(3))
        assert torch.equal(first, last)
    assert audit.evidence["rise"].attacks.images == 3


def test_a_black_box_explained_by_the_user(tmp_path):
    model = network()
    box = BlackBox(lambda x: model(x).detach(), output="logits")
    student = DistilledLayerSumGradCAM(box, student_network("small_cnn", num_classes=3))
    report = student.distill(images(20).inputs, epochs=1, min_fidelity=0.0, show_progress=False)
    own = {
        "student": student,
        "made": lambda box: student,
        "plain": lambda x, classes: x,
        "closed": Saliency,
    }
    audit = quietly(box, images(3), tmp_path, methods=own)
    assert audit.evidence["student"].attacks.is_aimed
    assert audit.evidence["student"].agreement == audit.agreement == report.agreement
    assert audit.evidence["made"].agreement == report.agreement
    assert not audit.evidence["plain"].attacks.is_aimed
    assert "no derivative" in audit.evidence["plain"].not_attacked
    assert audit.verdicts["closed"].grade is Grade.FAILED
    assert "this model can only be called" in audit.verdicts["closed"].because


def test_a_method_of_another_network_is_said_on_top(tmp_path):
    other = network()
    other[0].weight.data.mul_(2)

    def warns(x, classes):
        warnings.warn("be careful.", stacklevel=1)
        return x

    own = {"a: b": Saliency(other), "warns": warns}
    text = page_of(quietly(network(), images(2), tmp_path, methods=own).write(tmp_path)).text
    assert "Note. warns: be careful. " in text and "careful.." not in text
    assert "Note. a: b: explains another Sequential than the one that is compared" in text


def test_what_raises_ends_no_audit(tmp_path):
    def broken(model):
        raise OSError("no <such> file")

    model = network()
    own = {
        "broken": broken,
        "drawn anew": Configured(GradientShap(model), {"baselines": torch.zeros(1, 3, 8, 8)}),
    }
    audit = quietly(model, images(2), tmp_path, methods=own)
    assert audit.verdicts["broken"].because == "No map was made: OSError: no <such> file."
    assert "it draws baselines anew" in audit.evidence["drawn anew"].not_attacked


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("ig", r"write \['ig'\]"),
        ([Saliency], r"write \{'mine': …\} instead of a list with a type"),
        ({"mine": 3}, "method 'mine' is a int; give a name, an attribution"),
        ({"mine": lambda: 3}, "method 'mine' wants no arguments"),
        ({"mine": "gradcam"}, "there is no method 'gradcam'"),
        ({"random": Saliency}, "'random' names the random maps"),
        ({"noise": "random"}, "'random' names the random maps"),
        (["ig", {"ig": Saliency}], "method 'ig' stands twice"),
        (["gradient", {"Gradient": Saliency}], "would both be shown as 'Gradient'"),
        ([{}], "judges methods against random maps"),
        ({3: Saliency}, "the name of a method is a text, got 3; write '3'"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("as_users_call")
def test_what_is_no_method_is_refused(methods, said):
    with pytest.raises(InputError, match=said):
        chosen_methods(methods)


@pytest.mark.parametrize("methods", [[], {}, ()])
def test_no_method_is_not_the_default(methods, tmp_path):
    with pytest.raises(InputError, match="judges methods against random maps"):
        quietly(network(), images(2), tmp_path, methods=methods)
