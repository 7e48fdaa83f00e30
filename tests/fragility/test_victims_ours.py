"""Our methods, Zennit's and a user's function as victims."""

import captum.attr as captum
import pytest
import torch
from networks import State
from torch import nn
from torch.testing import assert_close
from victim_networks import BETA, SIZE, captums_own, images, residual, targets
from zennit.attribution import Gradient, IntegratedGradients, Occlusion, SmoothGrad
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import BetaSmooth, EpsilonGammaBox, EpsilonPlus, GuidedBackprop

from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import InputError, VictimError
from captum_blackbox.fragility.surrogate import softened
from captum_blackbox.fragility.victims import derivative_error, victim_of
from captum_blackbox.patterns import PatternAttribution, PatternNet, Patterns
from captum_blackbox.student import DistilledLayerSumGradCAM, LayerSumGradCAM

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* units of layer .* have no pattern"),
    pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around"),
    pytest.mark.filterwarnings("ignore:the map of image . is 0 everywhere"),
]


def loss(maps):
    return maps.square().flatten(1).sum(1)


def patterned(method):
    def make(model):
        return method(model, Patterns.fit(model, images(64, seed=3), show_progress=False))

    return make


def distilled(model):
    return DistilledLayerSumGradCAM(BlackBox(residual(seed=5), output="logits"), model)


OURS = {
    "LayerSumGradCAM": (LayerSumGradCAM, {}),
    "LayerSumGradCAM max": (
        lambda m: LayerSumGradCAM(m, normalize="l2"),
        {"expand_to_input": True},
    ),
    "DistilledLayerSumGradCAM": (distilled, {"layer_weights": "last_and_sum"}),
    "PatternNet": (patterned(PatternNet), {}),
    "PatternNet one": (patterned(PatternNet), {"output_seed": "one"}),
    "PatternAttribution": (patterned(PatternAttribution), {}),
    "PatternAttribution probability": (
        patterned(PatternAttribution),
        {"output_seed": "probability"},
    ),
}
each_of_ours = pytest.mark.parametrize("name", OURS)


@each_of_ours
@pytest.mark.parametrize("beta", [None, BETA])
def test_our_methods_keep_their_value_and_have_its_derivative(name, beta):
    model = residual(inplace=True)
    make, settings = OURS[name]
    attribution, x, target = make(model), images(), targets()
    victim = victim_of(attribution, attribute_kwargs=settings)
    assert victim.network is model
    before = State(model)
    with softened(model, beta) as seen:
        assert_close(victim.explain(x, target).maps, attribution.attribute(x, target, **settings))
        assert (derivative_error(victim, x, target, step=1e-6) < 1e-5).all()
        direction = victim.direction(x, target, loss)
        assert_close(victim.direction(x[1:2], target[1:2], loss), direction[1:2])
    assert not before.differences(State(model))
    assert bool(seen.activations) == (beta is not None)
    is_constant_in_pieces = beta is None and name == "PatternNet one"
    assert bool(direction.any()) != is_constant_in_pieces


def test_pattern_gates_are_the_derivative_of_the_softened_activation():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    made, x = patterned(PatternNet)(model), images(1)
    with softened(model, BETA):
        found = victim_of(made, attribute_kwargs={"output_seed": "one"}).explain(x, targets(1)).maps
    gate = torch.sigmoid(BETA * model[1](x.flatten(1)))[0]
    sent = made.patterns["3"][0] * gate
    assert_close(found.flatten(), (made.patterns["1"].T @ sent).detach())


def test_a_distilled_victim_is_differentiated_on_the_student_and_judged_on_the_box():
    model = residual()
    explainer = distilled(model)
    victim = victim_of(explainer)
    x, asked = images(), explainer.box.queries
    assert victim.network is model
    victim.direction(x, targets(), loss)
    assert explainer.box.queries == asked
    scores = victim.scores(x)
    assert explainer.box.queries == asked + len(x)
    assert_close(scores, explainer.box(x))


def sequential():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3),
    )
    model = nn.Sequential(*model, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    model(torch.randn(9, 2, SIZE, SIZE, dtype=torch.float64))
    return model.eval()


def built(attributor, model, composite):
    passes = {} if attributor is Gradient else {"n_iter": 4}
    return attributor(model, COMPOSITES[composite](), create_graph=True, **passes)


COMPOSITES = {
    "none": lambda: None,
    "BetaSmooth": BetaSmooth,
    "EpsilonPlus": EpsilonPlus,
    "EpsilonPlus merged": lambda: EpsilonPlus(canonizers=[SequentialMergeBatchNorm()]),
    "EpsilonGammaBox": lambda: EpsilonGammaBox(-3.0, 3.0),
    "GuidedBackprop": GuidedBackprop,
}


@pytest.mark.parametrize(
    ("attributor", "composite"),
    [
        *[(Gradient, composite) for composite in COMPOSITES],
        (SmoothGrad, "none"),
        (SmoothGrad, "EpsilonPlus merged"),
        (IntegratedGradients, "EpsilonPlus"),
    ],
)
def test_zennits_attributors_have_the_derivative_of_their_map(attributor, composite):
    model, x, target = sequential(), images(), targets()
    made = built(attributor, model, composite)
    victim = victim_of(made)
    before = State(model)
    with softened(model, BETA):
        assert (derivative_error(victim, x, target, step=1e-6) < 1e-5).all()
        direction = victim.direction(x, target, loss)
        assert_close(victim.direction(x[1:2], target[1:2], loss), direction[1:2])
        found = victim.explain(x, target)
        if "merged" in composite:
            assert found.scores is None
        else:
            assert_close(found.scores, victim.scores(x))
    assert direction.any()
    assert not before.differences(State(model))


@pytest.mark.parametrize(
    ("attributor", "composite"),
    [
        *[(Gradient, composite) for composite in COMPOSITES],
        (SmoothGrad, "none"),
        (SmoothGrad, "EpsilonPlus merged"),
        (IntegratedGradients, "EpsilonPlus"),
    ],
)
def test_the_value_is_zennits_own(attributor, composite, monkeypatch):
    model, x, target = sequential(), images(), targets()
    made = built(attributor, model, composite)
    one_hot = torch.eye(3, dtype=torch.float64)[target]
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(
        torch, "randn_like", lambda like: torch.randn(like.shape[1:], generator=generator).to(like)
    )
    own = made(x.clone(), one_hot)[1].detach()
    assert_close(victim_of(made).explain(x, target).maps, own)


def test_what_a_zennit_attributor_was_told_to_send_is_sent():
    model, x = sequential(), images()
    made = Gradient(model, EpsilonPlus(), attr_output=lambda scores: scores, create_graph=True)
    victim = victim_of(made, name="all classes")
    assert victim.name == "all classes"
    assert_close(victim.explain(x, targets()).maps, made(x.clone())[1].detach())
    assert (derivative_error(victim, x, targets(), step=1e-6) < 1e-5).all()


def test_zennit_attributors_that_cannot_be_attacked_are_refused():
    model, x, target = sequential(), images(), targets()
    for made in (Gradient(model, EpsilonPlus()), Occlusion(model)):
        with pytest.raises(VictimError, match="build it with create_graph=True"):
            victim_of(made)
    made = Gradient(model, EpsilonPlus(), create_graph=True)
    with pytest.raises(InputError, match="takes its settings when it is built"):
        victim_of(made, attribute_kwargs={"noise_level": 1})
    with pytest.raises(InputError, match="one input to the network"):
        victim_of(made).explain(x, target, (1.0,))
    with made, pytest.raises(InputError, match="is registered already"):
        victim_of(made).direction(x, target, loss)


def own_saliency(model, inputs, target, power=1):
    scores = model(inputs).gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, inputs, create_graph=True)
    return gradient.abs().sum(1) ** power


def test_a_function_is_a_victim_with_its_settings():
    model, x, target = residual(), images(), targets()
    victim = victim_of(own_saliency, model=model, attribute_kwargs={"power": 2})
    assert victim.name == "own_saliency"
    own = captums_own(captum.Saliency(model), x, target).sum(1, keepdim=True) ** 2
    assert_close(victim.explain(x, target).maps, own)
    with softened(model, BETA):
        assert (derivative_error(victim, x, target) < 1e-6).all()


def test_a_function_whose_map_lost_its_graph_is_told_from_a_constant_one():
    model, x, target = residual(), images(), targets()

    def lost(model, inputs, target):
        return own_saliency(model, inputs, target).detach() * inputs.detach().sum(1)

    with pytest.raises(VictimError, match="the maps of lost change with the images"):
        victim_of(lost, model=model).direction(x, target, loss)
    constant = victim_of(lambda model, inputs, target: torch.ones(4, 8, 8), model=model)
    assert not constant.direction(x, target, loss).any()


def test_a_function_whose_map_lost_a_part_of_its_graph_has_a_derivative_error():
    def half_lost(model, inputs, target):
        return own_saliency(model, inputs, target).detach() * inputs.sum(1)

    model = residual()
    with softened(model, BETA):
        error = derivative_error(victim_of(half_lost, model=model), images(), targets())
    assert (error > 1e-3).all()


def test_a_map_that_cannot_be_laid_over_an_image_is_refused():
    victim = victim_of(lambda model, inputs, target: model(inputs), model=residual())
    with pytest.raises(VictimError, match="returns no map per image"):
        victim.explain(images(), targets())
    layer = victim_of(captum.LayerGradCam(model := residual(), model.linear1))
    with pytest.raises(VictimError, match="height and width"):
        layer.explain(images(), targets())


def test_of_a_linear_model_nothing_can_be_moved():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 3)).double()
    victim = victim_of(captum.Saliency(model))
    assert not victim.direction(images(), targets(), loss).any()
    assert not derivative_error(victim, images(), targets()).any()


def test_the_gradient_map_of_a_quadratic_form_moves_by_its_matrix():
    torch.manual_seed(0)
    root = torch.randn(128, 128, dtype=torch.float64)
    matrix = root + root.T

    class Quadratic(nn.Module):
        def forward(self, x):
            flat = x.flatten(1)
            return 0.5 * ((flat @ matrix) * flat).sum(1, keepdim=True)

    victim = victim_of(captum.Saliency(Quadratic()))
    x, target = images(2), torch.zeros(2, dtype=torch.long)
    gradient = x.flatten(1) @ matrix
    assert_close(victim.explain(x, target).maps.flatten(1), gradient.abs())
    chosen = (torch.arange(128) % 3 == 0).double()  # the pixels of the objective
    found = victim.direction(x, target, lambda m: -(m.flatten(1) * chosen).sum(1))
    assert_close(found.flatten(1), -(gradient.sign() * chosen) @ matrix)
    along = images(2, seed=4)
    moved = victim_of(captum.Saliency(Quadratic()), attribute_kwargs={"abs": False})
    change = moved.explain(x + along, target).maps - moved.explain(x, target).maps
    assert_close(change.flatten(1), along.flatten(1) @ matrix)


def test_a_derivative_error_needs_double_precision():
    victim = victim_of(captum.Saliency(residual()))
    with pytest.raises(InputError, match="double precision"):
        derivative_error(victim, images().float(), targets())
