"""A method that explains another network than the one that is compared: the result says so."""

from typing import Any

from torch import nn

from captum_blackbox.artifacts import fingerprint
from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import warn_user

_EXPLAINED = ("forward_func", "model")
"""Attributes of Captum's attributions and Zennit's attributors that are what they explain."""


def warn_of_another_network(attribution: Any, compared: nn.Module | None) -> None:  # noqa: ANN401
    """Warn if an attribution is bound to a module that is not the compared one.

    The same network is one of the same parameters, such as a wrapper or what ``torch.compile``
    makes of it, or a copy of equal weights. Of what can only be called nothing is known.

    Args:
        attribution: Of Captum, Zennit or this library, or anything else.
        compared: The network whose answers judge the maps; ``None`` if it can only be called.

    Warns:
        ExplanationWarning: It explains another one.
    """
    if compared is None:
        return
    for each in (getattr(attribution, name, None) for name in _EXPLAINED):
        part = each.fn if isinstance(each, BlackBox) else each
        network = getattr(part, "__self__", part)  # of a bound forward
        if isinstance(network, nn.Module) and not _is_same(network, compared):
            warn_user(
                f"explains another {type(network).__name__} than the one that is compared, which "
                "judges its maps; if that is not meant, give a class or a function of the model, "
                "or an object that was made for it"
            )
            return


def _is_same(network: nn.Module, compared: nn.Module) -> bool:
    own, other = ({id(each) for each in module.parameters()} for module in (network, compared))
    shared = network is compared or (len(own) > 0 and own == other)
    return shared or fingerprint(network) == fingerprint(compared)
