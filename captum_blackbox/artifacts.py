"""Results on disk: tensors with a JSON header, and tables; whole or not at all, never a pickle."""

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from captum_blackbox.errors import ArtifactError

Header = Mapping[str, Any]
_KEY = "captum_blackbox"
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")  # or what was written in place of one


def save_artifact(path: str | Path, tensors: Mapping[str, Tensor], header: Header) -> None:
    """Write ``tensors`` and ``header`` to ``path`` as safetensors, replacing it in one step.

    Args:
        path: The file; its folder is made where it is missing.
        tensors: Name → tensor, on any device.
        header: What the file belongs to (kind, settings, fingerprint …); must be JSON.

    Raises:
        ArtifactError: The file cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "a.safetensors"
        >>> save_artifact(path, {"mean": torch.ones(2)}, {"kind": "example"})
        >>> load_artifact(path)
        ({'mean': tensor([1., 1.])}, {'kind': 'example'})
    """
    other = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if other:
        raise ArtifactError(f"only tensors can be kept, and {other[0]!r} is none")
    # A copy of its own for each: safetensors refuses tensors that share memory.
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header)
    with replaced_on_success(path) as temporary:
        save_file(apart, temporary, metadata={_KEY: text})


def load_artifact(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_artifact` wrote; returns the tensors on the CPU and the header.

    Raises:
        ArtifactError: There is no such file, or it was not written by this library.
    """
    if not Path(path).is_file():
        raise ArtifactError(f"there is no file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ArtifactError(f"{str(path)!r} is not a safetensors file: {error}") from error
    if _KEY not in metadata:
        raise ArtifactError(f"{str(path)!r} was not written by captum_blackbox: it has no header")
    return tensors, json.loads(metadata[_KEY])


def check_header(path: str | Path, header: Header, expected: Header) -> None:
    """Refuse a file whose header differs from what is expected, and say in what.

    Args:
        path: The file, for the message.
        header: What the file says.
        expected: What it has to say; keys that are absent here are not compared.

    Raises:
        ArtifactError: Some entry differs; all of them are named.

    Example:
        >>> check_header("a", {"kind": "x", "note": 1}, {"kind": "x"})
        >>> check_header("a", {"epochs": 2}, {"epochs": 3})
        Traceback (most recent call last):
        ...
        captum_blackbox.errors.ArtifactError: 'a' does not belong here: epochs is 2 in the file,
        3 here; give another file, or the settings that this one was made with
    """
    # Through JSON once, so that a tuple equals the list that it was saved as.
    here = json.loads(json.dumps(dict(expected)))
    differing = [
        f"{key} is {header.get(key)!r} in the file, {value!r} here"
        for key, value in here.items()
        if header.get(key) != value
    ]
    if differing:
        raise ArtifactError(
            f"{str(path)!r} does not belong here: {', '.join(differing)}; give another file, or "
            "the settings that this one was made with"
        )


def write_table(path: str | Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV, replacing the file in one step.

    A spreadsheet takes text that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and names
    may come from elsewhere: such text gets a ``'`` in front. Numbers stay numbers.

    Args:
        path: The file; its folder is made where it is missing.
        rows: The first names the columns.

    Raises:
        ArtifactError: The file cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "a.csv"
        >>> write_table(path, [["name", "value"], ["=1+1", -0.5], ["-x", 2]])
        >>> path.read_text().splitlines()
        ['name,value', "'=1+1,-0.5", "'-x,2"]
        >>> text_of_cell("'=1+1")
        '=1+1'
    """
    with (
        replaced_on_success(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerows([_cell(value) for value in row] for row in rows)


def text_of_cell(cell: str) -> str:
    """Return the text that :func:`write_table` wrote as this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def fingerprint(model: nn.Module) -> str:
    """Return a hash of what ``model`` prints as and of every weight and buffer.

    What a ``forward`` of one's own does beside its layers is not seen.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> before = fingerprint(model)
        >>> _ = model.bias.data.add_(1)
        >>> fingerprint(model) == before
        False
    """
    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):  # an extra state can be anything
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:32]


def versions() -> dict[str, str]:
    """Return the versions of this library and of torch.

    Example:
        >>> sorted(versions())
        ['captum_blackbox', 'torch']
    """
    try:
        own = metadata.version("captum-blackbox")
    except metadata.PackageNotFoundError:  # run from a folder, without an installation
        own = "unknown"
    return {"captum_blackbox": own, "torch": torch.__version__}


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the values of ``tensor`` as bytes, in row-major order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


@contextlib.contextmanager
def replaced_on_success(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that takes its place if the block succeeds.

    A reader, or a run that was killed, finds the old file or the new one, never half of it.

    Raises:
        ArtifactError: The file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors leaves a file to its owner alone
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"cannot write {str(path)!r}: {reason}; choose a file in a folder that can be written"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
