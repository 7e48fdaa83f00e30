"""What tells one run of fragility curves from another."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.artifacts import fingerprint, tensor_bytes
from captum_blackbox.fragility.attack import InterpretationAttack
from captum_blackbox.fragility.victims import Victim

_UNKNOWN = "not compared"  # functions, networks: the network's fingerprint is compared beside it


def identity(attack: InterpretationAttack) -> dict[str, Any]:
    """Return what tells an attack from another one."""
    amounts = {
        name: torch.as_tensor(getattr(attack, name)).flatten().tolist()
        for name in ("lower_bound", "upper_bound", "scale")
    }
    return {
        "explanation": _victim(attack.victim),
        "network": fingerprint(attack.victim.network),
        "beta": str(attack.beta),
        "defence_beta": attack.defence_beta,
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


def _victim(victim: Victim) -> dict[str, Any]:
    """Return the name of a victim and its settings, as far as they are plain."""
    settings = {name: _plain(value) for name, value in vars(victim).items()}
    return {"victim": type(victim).__name__, **settings}


def _plain(value: Any) -> Any:  # noqa: ANN401 - what a victim keeps
    """Return a setting as JSON knows it."""
    if isinstance(value, str | bool | int | float | None):
        return value
    if isinstance(value, Victim):
        return _victim(value)
    if isinstance(value, Tensor):
        return digest_of(value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return _UNKNOWN


def digest_of(tensor: Tensor) -> str:
    """Return a hash of the values, shape and dtype of a tensor."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:32]
