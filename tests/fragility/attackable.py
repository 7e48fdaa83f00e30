"""The table of docs/attackable.md; run this file to write it anew."""

import inspect
from pathlib import Path

import captum.attr as captum
import torch
from torch import nn

from captum_blackbox.errors import VictimError
from captum_blackbox.fragility.surrogate import softened
from captum_blackbox.fragility.victims import derivative_error, victim_of

PAGE = Path(__file__).parents[2] / "docs" / "attackable.md"
_HEAD = """# Which methods of Captum can be attacked

`InterpretationAttack` needs the derivative of an explanation. This page has every attribution class of
`captum.attr`; `tests/fragility/attackable.py` writes it from what `victim_of` does, after the
derivative was compared with differences of the map. *Moves a ReLU network* says whether that
derivative is other than 0 on the network itself; where it is 0 the softplus surrogate, which is the
default, shows the way.

Beyond Captum: `LayerSumGradCAM`, `DistilledLayerSumGradCAM`, `PatternNet`, `PatternAttribution`,
any class whose `attribute` takes `grad_kwargs`, Zennit's attributors made with
`create_graph=True`, and any function `(model, inputs, target)` that returns maps on the graph.

## Attacked

| class | as | moves a ReLU network |
|---|---|---|
"""
_REFUSED = """
## Refused

| class | because |
|---|---|
"""


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4), nn.ReLU())
    return nn.Sequential(*model, nn.Linear(4, 2)).double().eval()


def methods():
    """Every attribution class of Captum, by name."""
    found = {name: getattr(captum, name) for name in captum.__all__}
    return {
        name: kind
        for name, kind in sorted(found.items())
        if inspect.isclass(kind) and issubclass(kind, captum.Attribution)
    }


def instance(kind, model):
    """An attribution; one that is refused need not have been built."""
    layer = model[0]
    makers = {
        captum.NoiseTunnel: lambda: kind(captum.Saliency(model)),
        captum.GuidedGradCam: lambda: kind(model, layer),
        captum.LayerGradCam: lambda: kind(model, layer),
        captum.LayerGradientXActivation: lambda: kind(model, layer),
        captum.InternalInfluence: lambda: kind(model, layer),
        captum.Saliency: lambda: kind(model),
        captum.InputXGradient: lambda: kind(model),
        captum.IntegratedGradients: lambda: kind(model),
        captum.DeepLift: lambda: kind(model),
        captum.GuidedBackprop: lambda: kind(model),
        captum.Deconvolution: lambda: kind(model),
    }
    return makers.get(kind, lambda: kind.__new__(kind))()


def row(kind):
    """Whether a class is attacked, and its row of the table."""
    model = network()
    try:
        victim = victim_of(instance(kind, model))
    except VictimError as error:
        reason = str(error).split(": ", 1)[1].split("; attack another method")[0]
        return False, f"| `{kind.__name__}` | {reason} |"
    x = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([0, 1])
    with softened(model, 5.0):
        assert (derivative_error(victim, x, target) < 1e-5).all(), kind
    moves = victim.direction(x, target, lambda maps: maps.square().flatten(1).sum(1)).any()
    how = inspect.getdoc(type(victim)).split("\n\n")[0].replace("\n", " ").rstrip(".")
    return True, f"| `{kind.__name__}` | {how} | {'yes' if moves else 'no'} |"


def page():
    rows = [row(kind) for kind in methods().values()]
    attacked, refused = (
        [text for is_one, text in rows if is_one is which] for which in (True, False)
    )
    return _HEAD + "\n".join(attacked) + "\n" + _REFUSED + "\n".join(refused) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
