"""What tells one run of fragility curves from another."""

from collections.abc import Mapping
from typing import Any

import torch

from captum_blackbox.artifacts import fingerprint
from captum_blackbox.fragility.attack import InterpretationAttack
from captum_blackbox.fragility.description import describe


def identity(attack: InterpretationAttack) -> dict[str, Any]:
    """Return what tells an attack from another one."""
    amounts = {
        name: torch.as_tensor(getattr(attack, name)).flatten().tolist()
        for name in ("lower_bound", "upper_bound", "scale")
    }
    return {
        "explanation": describe(attack.victim, attack.victim.network),
        "network": fingerprint(attack.victim.network),
        "beta": str(attack.beta),
        "defence_beta": None if attack.defence_beta is None else str(attack.defence_beta),
        **amounts,
    }


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings without nesting, so that a message names just what differs.

    Example:
        >>> flattened({"seed": 0, "attacks": {"gradient": {"beta": "30"}}})
        {'seed': 0, 'attacks': ['gradient'], 'attacks: gradient': ['beta'],
         'attacks: gradient: beta': '30'}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found[name] = list(value)
            found |= flattened(value, f"{name}: ")
        else:
            found[name] = value
    return found
