"""What an audit keeps on disk, so that one that was killed goes on where it stopped."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_blackbox.artifacts import load_artifact, save_artifact, tensor_bytes
from captum_blackbox.errors import ArtifactError

FOLDER = "kept"


@dataclass(frozen=True)
class Kept:
    """Files of one audit: their names tell its model, its images and its settings.

    Attributes:
        folder: Where.
        digest: Of the model, the images and the settings.
    """

    folder: Path
    digest: str

    @classmethod
    def of(cls, out: Path, identity: Mapping[str, Any]) -> "Kept":
        """Return the files of an audit with this identity, below ``out``."""
        text = json.dumps(dict(identity), sort_keys=True, default=str)
        return cls(out / FOLDER, hashlib.sha256(text.encode()).hexdigest()[:12])

    def path(self, stage: str) -> Path:
        """Return the file of a stage."""
        return self.folder / f"{stage}-{self.digest}.safetensors"

    def read(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what is kept of a stage, if it was finished."""
        try:
            return load_artifact(self.path(stage))
        except ArtifactError:
            return None

    def write(self, stage: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Keep what a stage found, whole or not at all."""
        save_artifact(self.path(stage), tensors, {"kind": "audit", "stage": stage, **header})


def digest_of(tensor: Tensor) -> str:
    """Return a hash of the shape and the values of a tensor.

    Example:
        >>> import torch
        >>> digest_of(torch.zeros(2)) == digest_of(torch.zeros(2, 1))
        False
    """
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:32]
