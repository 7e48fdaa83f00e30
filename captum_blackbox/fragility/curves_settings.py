"""What tells one run of fragility curves from another."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from captum_blackbox.artifacts import check_header, fingerprint
from captum_blackbox.errors import ArtifactError
from captum_blackbox.fragility.attack import InterpretationAttack
from captum_blackbox.fragility.description import describe

_FUNCTION = re.compile(r"(?P<name>\S+) (?P<code>[0-9a-f]{16})")  # as it is described


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


def check_settings(path: str | Path, kept: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse a file of other settings, and say in what they differ.

    Args:
        path: The file, for the message.
        kept: Its settings, flattened.
        here: Those of this run.

    Raises:
        ArtifactError: They differ, or a function of the same code has another name.
    """
    now_known = json.loads(json.dumps(dict(here)))  # a tuple is saved as a list
    differing = [key for key, value in now_known.items() if kept.get(key) != value]
    renamed = {}
    for key in differing:
        before, now = (_FUNCTION.fullmatch(str(each.get(key))) for each in (kept, now_known))
        if before and now and before["code"] == now["code"]:
            renamed[key] = f"{before['name']!r} in the file, {now['name']!r} here"
    others = [key for key in differing if key not in renamed and not key.endswith(": name")]
    if renamed and not others:  # an explanation is called by the name of its function
        raise ArtifactError(
            f"{str(path)!r} knows a function by another name: "
            f"{', '.join(f'{key} is {names}' for key, names in renamed.items())}; its code is the "
            "same, so it was moved, or a tool has wrapped or renamed it. Give it its old name back "
            "to go on, or delete the file to do these attacks again"
        )
    check_header(path, kept, here)
