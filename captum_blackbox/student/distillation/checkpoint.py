"""The state of a run on disk: nested values and tensors under a header, never a pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_blackbox.artifacts import Header, check_header, load_artifact, save_artifact
from captum_blackbox.errors import ArtifactError

_STATE = "state"


def save_checkpoint(path: str | Path, state: Any, header: Header) -> None:  # noqa: ANN401
    """Write ``state`` and ``header`` to ``path`` in one step, replacing what was there.

    Args:
        path: The file; its folder is made where it is missing.
        state: Dictionaries, lists and tuples of tensors, numbers, strings, booleans and ``None``;
            among others, the state of a module, of an optimizer, of a gradient scaler. Everything
            comes back as it was: keys that are numbers, tuples, and every bit of a float.
        header: What the state belongs to; must be JSON.

    Raises:
        ArtifactError: The file cannot be written, or the state holds something else.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "run.safetensors"
        >>> save_checkpoint(path, {0: (torch.ones(1), 0.1)}, {"seed": 0})
        >>> load_checkpoint(path, {"seed": 0})
        {0: (tensor([1.]), 0.1)}
    """
    tensors: dict[str, Tensor] = {}
    described = _describe(state, _STATE, tensors)
    save_artifact(path, tensors, {**header, _STATE: described})


def load_checkpoint(path: str | Path, header: Header) -> Any:  # noqa: ANN401
    """Return the state at ``path``, tensors on the CPU; ``None`` if there is no such file.

    Raises:
        ArtifactError: The file has another header, with all that differs, or is not ours.
    """
    if not Path(path).is_file():
        return None
    tensors, found = load_artifact(path)
    check_header(path, found, header)
    return _restore(found[_STATE], tensors)


def _describe(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        entries = [[key, _describe(each, f"{name}.{key}", tensors)] for key, each in value.items()]
        return {"dict": entries}
    if isinstance(value, tuple | list):
        parts = [_describe(each, f"{name}.{i}", tensors) for i, each in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ArtifactError(
        f"{name} is a {type(value).__name__}, which cannot be kept in a checkpoint; tensors, "
        "numbers, strings, and lists, tuples and dictionaries of them can"
    )


def _restore(described: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    if isinstance(described, list):
        return [_restore(each, tensors) for each in described]
    if not isinstance(described, dict):
        return described
    ((kind, content),) = described.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_restore(each, tensors) for each in content)
    return {key: _restore(each, tensors) for key, each in content}
