"""A file of curves is refused by any other experiment, and says what differs."""

import functools
import subprocess
import sys
import types
from pathlib import Path

import captum.attr as captum
import pytest
import torch
from attacked_networks import small_cnn, some_images
from beartype import beartype
from jaxtyping import jaxtyped
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlus

from captum_blackbox import InterpretationAttack
from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import ArtifactError
from captum_blackbox.fragility.curves import fragility_curves
from captum_blackbox.fragility.description import describe
from captum_blackbox.fragility.objectives import Objective, TopK
from captum_blackbox.fragility.surrogate import RelativeBeta
from captum_blackbox.patterns import PatternAttribution, Patterns
from captum_blackbox.student import DistilledLayerSumGradCAM, LayerSumGradCAM

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* units of layer .* have no pattern"),
    pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around"),
    pytest.mark.filterwarnings("ignore:the map of image . is 0 everywhere"),
]


def gradient_of(model, images, target):
    scores = model(images)[torch.arange(len(images)), target].sum()
    return torch.autograd.grad(scores, images, create_graph=True)[0]


def scaled(factor):
    return lambda model, images, target: gradient_of(model, images, target) * factor


def powered(model, images, target, power=1):
    return gradient_of(model, images, target) ** power


class Own:
    """Explains with a setting of its own."""

    power = 1

    def __call__(self, model, images, target):
        return powered(model, images, target, self.power)


class Cubed(Own):
    power = 3


def patterned(seed, **settings):
    def make(model):
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(60, 3, 8, 8, generator=generator, dtype=torch.float64)
        patterns = Patterns.fit(model, images, show_progress=False)
        return PatternAttribution(model, patterns, **settings)

    return make


def distilled(**box):
    def make(model):
        return DistilledLayerSumGradCAM(BlackBox(small_cnn(width=5), output="logits", **box), model)

    return make


def zennit(epsilon):
    return lambda model: Gradient(model, EpsilonPlus(epsilon=epsilon), create_graph=True)


PAIRS = {
    "layer": (
        lambda m: captum.LayerGradCam(m, m[0]),
        lambda m: captum.LayerGradCam(m, m[2]),
        "explanation: attribution: layer is 'layer 0' in the file, 'layer 2' here",
    ),
    "layers": (
        lambda m: LayerSumGradCAM(m, layers=["0", "2"]),
        lambda m: LayerSumGradCAM(m, layers=["2"]),
        "explanation: attribution: layers is",
    ),
    "lambdas": (
        lambda _: lambda m, x, t: gradient_of(m, x, t).abs(),
        lambda _: lambda m, x, t: gradient_of(m, x, t).exp(),
        "explanation: function is",
    ),
    "constants": (
        lambda _: lambda m, x, t: gradient_of(m, x, t) * 2,
        lambda _: lambda m, x, t: gradient_of(m, x, t) * 3,
        "explanation: function is",
    ),
    "enclosed": (lambda _: scaled(2), lambda _: scaled(3), "explanation: function: encloses is"),
    "partial": (
        lambda _: functools.partial(powered, power=1),
        lambda _: functools.partial(powered, power=3),
        "explanation: function: keywords: power is 1 in the file, 3 here",
    ),
    "objects": (lambda _: Own(), lambda _: Cubed(), "explanation: function: type is"),
    "patterns": (patterned(0), patterned(1), "attribution: patterns: _tensors is"),
    "residual": (
        patterned(0),
        patterned(0, residual="gradient"),
        "attribution: _composite: residual is 'pattern' in the file, 'gradient' here",
    ),
    "saliency": (
        lambda m: (captum.Saliency(m), {"abs": True}),
        lambda m: (captum.Saliency(m), {"abs": False}),
        "explanation: map_of.* is",
    ),
    "box": (
        distilled(),
        distilled(preprocess=lambda x: x * 2),
        "attribution: box: preprocess is None in the file",
    ),
    "composite": (zennit(1e-6), zennit(0.1), "explanation: attributor: composite: layer_map is"),
}


def attacks_of(make):
    model = small_cnn()
    made = make(model)
    attribution, given = made if isinstance(made, tuple) else (made, None)
    return {"a": InterpretationAttack(attribution, model=model, attribute_kwargs=given)}


def run(attacks, path, **settings):
    plan = {"modes": ["topk"], "radii": [0.05], "k": 6, "step_num": 1, **settings}
    return fragility_curves(attacks, some_images(2), resume=path, **plan)


@pytest.mark.parametrize("name", PAIRS)
def test_another_explanation_is_refused_and_what_differs_is_named(name, tmp_path):
    first, second, message = PAIRS[name]
    path = tmp_path / "curves.safetensors"
    attacks = attacks_of(first)
    found = run(attacks, path)
    for same in (attacks, attacks_of(first)):  # after a run, and made anew
        assert torch.equal(run(same, path).values.nan_to_num(-9), found.values.nan_to_num(-9))
    with pytest.raises(ArtifactError, match=f"attacks: a: .*{message}"):
        run(attacks_of(second), path)


def test_a_function_that_was_only_renamed_is_named_by_both_names(tmp_path):
    path, attacks = tmp_path / "curves.safetensors", attacks_of(lambda model: powered)
    run(attacks, path)
    moved = types.FunctionType(powered.__code__, vars(sys.modules[__name__]), "moved", (1,))
    moved.__module__, moved.__qualname__ = "elsewhere", "moved"
    with pytest.raises(ArtifactError) as caught:
        run(attacks_of(lambda model: moved), path)
    old = f"{powered.__module__}.powered"
    assert str(caught.value) == (
        f"{str(path)!r} knows a function by another name: attacks: a: explanation: function: "
        f"function is {old!r} in the file, 'elsewhere.moved' here; its code is the same, so it was "
        "moved, or a tool has wrapped or renamed it. Give it its old name back to go on, or delete "
        "the file to do these attacks again"
    )
    with pytest.raises(ArtifactError, match="does not belong here: .* seed is 0 in the"):
        run(attacks_of(lambda model: moved), path, seed=1)


@pytest.mark.parametrize("checker", [beartype, jaxtyped(typechecker=beartype), None])
def test_what_checks_types_changes_no_description(checker):
    def function(model, images, target):
        return gradient_of(model, images, target)

    class Checked(Own):
        def __call__(self, model, images, target):
            return powered(model, images, target, 5)

    model = small_cnn()
    before = describe([function, Checked()], model)
    check = checker or jaxtyped(typechecker=None)
    Checked.__call__ = check(Checked.__call__)
    assert describe([check(function), Checked()], model) == before
    assert describe(functools.wraps(function)(lambda *given: None), model) != before[0]


def with_attribute(number):
    class Kind:
        strength = number

    return Kind


def with_several(number):
    class Kind:
        layers = (number,)

    return Kind


def with_default(number):
    class Kind:
        def attribute(self, inputs, target=None, strength=number):
            return strength * inputs

    return Kind


def with_enclosed(number):
    class Kind:
        def __init__(self):
            super().__init__()

        def attribute(self, inputs, target=None):
            return number * inputs

    return Kind


def with_module(number):
    class Kind(nn.Module):
        def attribute(self, inputs, target=None):
            return number * inputs

    return Kind


@pytest.mark.parametrize(
    "make", [with_attribute, with_several, with_default, with_enclosed, with_module]
)
def test_a_class_is_what_its_methods_and_attributes_are(make):
    model = small_cnn()
    for given in (lambda number: make(number), lambda number: make(number)()):
        first, again, other = (describe(given(number), model) for number in (1, 1, 2))
        assert first == again != other
    assert describe(captum.Saliency, model) == "captum.attr._core.saliency.Saliency"


def by_attribute(attribution, images):
    attribution.attribute(images, target=0)


USED = {
    "gradient": (captum.Saliency, by_attribute),
    "deeplift": (captum.DeepLift, by_attribute),
    "guided": (captum.GuidedBackprop, by_attribute),
    "deconvolution": (captum.Deconvolution, by_attribute),
    "guided grad-cam": (lambda model: captum.GuidedGradCam(model, model[0]), by_attribute),
    "occlusion": (
        captum.Occlusion,
        lambda occlusion, images: occlusion.attribute(images, (3, 4, 4), target=0),
    ),
    "ablation": (captum.FeatureAblation, by_attribute),
    "zennit": (
        lambda model: Gradient(model, EpsilonPlus()),
        lambda attributor, images: attributor(images, lambda scores: scores),
    ),
}


@pytest.mark.parametrize("name", USED)
@pytest.mark.filterwarnings("ignore:Setting", "ignore:Input Tensor")
def test_what_was_used_is_what_it_was(name):
    model, (make, use) = small_cnn(), USED[name]
    given = make(model)
    before = describe(given, model)
    use(given, some_images(2))
    assert describe(given, model) == before


def test_a_relative_defence_is_kept_and_compared(tmp_path):
    def defended(ratio):
        attribution = captum.Saliency(small_cnn())
        return {"a": InterpretationAttack(attribution, defence_beta=RelativeBeta(ratio))}

    path = tmp_path / "curves.safetensors"
    run(defended(3.0), path)
    run(defended(3.0), path)
    message = r"defence_beta is 'RelativeBeta\(ratio=3.0\)' in the file, 'RelativeBeta\(ratio=4"
    with pytest.raises(ArtifactError, match=message):
        run(defended(4.0), path)


def topk_with(strength, body=0, shared=1.0):
    if body:

        class Mine(TopK):
            name, share = "mine", shared

            def loss(self, maps, task):
                return super().loss(maps, task) * self.share + maps.amax((1, 2))

    else:

        class Mine(TopK):
            name, share = "mine", shared

            def loss(self, maps, task):
                return super().loss(maps, task) * self.share

    mine = Mine()
    mine.strength = strength
    return mine


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"strength": 2}, "objectives: mine: strength is 1 in the file, 2 here"),
        ({"strength": 1, "body": 1}, r"objectives: mine: type is '.*Mine \w+' in the file"),
        ({"strength": 1, "shared": 0.5}, "objectives: mine: share is 1.0 in the file, 0.5 here"),
    ],
)
def test_another_objective_of_the_same_name_is_refused(other, message, tmp_path):
    path, attacks = tmp_path / "curves.safetensors", attacks_of(captum.Saliency)
    run(attacks, path, modes=[topk_with(1)])
    run(attacks, path, modes=[topk_with(1)])
    with pytest.raises(ArtifactError, match=message):
        run(attacks, path, modes=[topk_with(**other)])


def test_a_description_is_the_same_in_another_process():
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "import test_curves_settings as t\n"
        "made = [t.PAIRS[n][0](t.small_cnn()) for n in ('lambdas', 'enclosed', 'composite')]\n"
        "print(json.dumps([t.describe([each, {'b', 'a', 'c'}, t.topk_with(1)], t.small_cnn())"
        " for each in made]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent)],
            check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1 and "0x" not in outputs.pop()


def test_what_is_not_known_is_its_type_and_what_holds_itself_ends():
    class Ring:
        def __init__(self):
            self.me, self.inner = self, iter(())

    model = nn.Sequential(nn.ReLU())
    found = describe(Ring(), model)
    assert found["me"].endswith("Ring") and found["inner"] == "builtins.tuple_iterator"
    assert describe(float("nan"), model) == "nan"
    assert describe(nn.DataParallel(model), model) == "the network"
    other = describe([nn.ReLU(), nn.Linear(1, 1)], model)
    assert other[0]["type"].endswith("ReLU") and other[1]["fingerprint"] != other[0]["fingerprint"]
    assert issubclass(type(topk_with(1)), Objective)
