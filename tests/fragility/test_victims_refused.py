"""What cannot be attacked is refused with a reason; the committed table says what can."""

import captum.attr as captum
import pytest
import torch
from attackable import PAGE, instance, methods, network, page
from torch import nn
from victim_networks import residual

from captum_blackbox.errors import InputError, ShapeError, VictimError
from captum_blackbox.fragility.victims import Victim, victim_of
from captum_blackbox.fragility.victims.recognising import BUILDERS
from captum_blackbox.fragility.victims.refusals import why_refused


@pytest.mark.parametrize("name", methods())
def test_every_method_of_captum_is_attacked_or_refused_for_its_own_reason(name):
    kind = methods()[name]
    assert (kind in BUILDERS) != (why_refused(kind) is not None)
    made = instance(kind, network())
    if kind in BUILDERS:
        assert isinstance(victim_of(made), Victim)
        return
    with pytest.raises(VictimError, match="cannot be attacked by its gradient: ") as caught:
        victim_of(made)
    assert kind.__name__ in str(caught.value)
    assert "pass a function (model, inputs, target)" in str(caught.value)


def test_the_table_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/fragility/attackable.py"


def test_an_lrp_is_pointed_to_zennit():
    with pytest.raises(VictimError, match=r"EpsilonPlus and create_graph=True"):
        victim_of(captum.LRP(residual()))


def test_a_noise_tunnel_around_what_cannot_be_attacked_is_refused():
    with pytest.raises(VictimError, match="Occlusion cannot be attacked"):
        victim_of(captum.NoiseTunnel(captum.Occlusion(residual())))


def test_a_subclass_with_an_attribute_of_its_own_is_refused():
    class Doubled(captum.Saliency):
        def attribute(self, inputs, target=None):
            return 2 * super().attribute(inputs, target)

    with pytest.raises(VictimError, match="Doubled cannot .* is not Captum's"):
        victim_of(Doubled(residual()))


def test_a_replaced_gradient_is_refused():
    attribution = captum.Saliency(residual())
    attribution.gradient_func = lambda *arguments: None
    with pytest.raises(VictimError, match="gradient_func of this Saliency was replaced"):
        victim_of(attribution)


@pytest.mark.parametrize("thing", [3, "a name", captum.Saliency, nn.ReLU(), None])
def test_what_explains_nothing_is_refused(thing):
    with pytest.raises(VictimError, match="expected an attribution of Captum, Zennit"):
        victim_of(thing)


def test_a_model_that_cannot_be_seen_is_asked_for():
    model = residual()
    with pytest.raises(InputError, match="pass the module that it calls as model="):
        victim_of(captum.Saliency(lambda x: model(x)))
    with pytest.raises(InputError, match="pass the module it explains as model="):
        victim_of(lambda model, inputs, target: inputs)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            captum.Saliency,
            {"asb": True},
            "Saliency.attribute takes no argument 'asb'; did you mean 'abs'",
        ),
        (captum.IntegratedGradients, {"nsteps": 3}, "did you mean 'n_steps'"),
        (captum.GuidedBackprop, {"baselines": 0}, "it takes none"),
        (captum.Saliency, {"target": 0}, "the attack sets it itself"),
        (captum.DeepLift, {"return_convergence_delta": True}, "the attack sets it itself"),
        (captum.DeepLift, {"custom_attribution_func": print}, "may do anything"),
    ],
)
def test_settings_are_checked(kind, settings, message):
    with pytest.raises(InputError, match=message):
        victim_of(kind(residual()), attribute_kwargs=settings)


@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        (torch.zeros(1, 2, 4, 4), "shape of the images"),
        ("blur", "got str"),
        (torch.zeros(3, 2, 8, 8), "3 rows for 4 images"),
    ],
)
@pytest.mark.parametrize("kind", [captum.IntegratedGradients, captum.DeepLift])
def test_a_baseline_must_fit(kind, baselines, message):
    victim = victim_of(kind(residual()), attribute_kwargs={"baselines": baselines})
    with pytest.raises(ShapeError, match=message):
        victim.explain(torch.zeros(4, 2, 8, 8).double(), torch.zeros(4, dtype=torch.long))
