"""Comparisons on disk, finished or not."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.artifacts import check_header, load_artifact, save_artifact
from captum_blackbox.compare.cost import Cost
from captum_blackbox.compare.result import Comparison, Failure
from captum_blackbox.errors import ArtifactError

_KIND: Mapping[str, Any] = {"kind": "comparison", "format": 2}


def write_comparison(path: str | Path, comparison: Comparison, done: Tensor | None = None) -> None:
    """Write a comparison, and which of its images are done, ``(methods, images)``, if not all."""
    tensors = {"values": comparison.values, "targets": comparison.targets}
    if done is not None:
        tensors["done"] = done
    header = {
        **_KIND,
        "methods": list(comparison.methods),
        "metrics": dict(comparison.metrics),
        "costs": [asdict(cost) for cost in comparison.costs],
        "failures": [asdict(failure) for failure in comparison.failures],
        "notes": list(comparison.notes),
        "settings": dict(comparison.settings),
        "names": list(comparison.names),
    }
    save_artifact(path, tensors, header)


def read_comparison(path: str | Path) -> Comparison:
    """Read a comparison that is complete.

    Raises:
        ArtifactError: There is no such file, it is something else, or it is unfinished.
    """
    comparison, done = read_unfinished(path)
    if not bool(done.all()):
        raise ArtifactError(
            f"{str(path)!r} is unfinished: {int(done.sum())} of {done.numel()} are done, counting "
            "each image for each method; go on with compare(…, resume=this file)"
        )
    return comparison


def read_unfinished(path: str | Path) -> tuple[Comparison, Tensor]:
    """Read a comparison and which of its images are done, ``(methods, images)``.

    Raises:
        ArtifactError: There is no such file, or it is something else.
    """
    tensors, header = load_artifact(path)
    check_header(path, header, _KIND)
    comparison = Comparison(
        tuple(header["methods"]),
        header["metrics"],
        tensors["values"],
        tensors["targets"],
        tuple(Cost(**cost) for cost in header["costs"]),
        tuple(Failure(**failure) for failure in header["failures"]),
        tuple(header["notes"]),
        header["settings"],
        tuple(header["names"]),
    )
    everything = torch.ones(len(comparison.methods), comparison.images, dtype=torch.bool)
    return comparison, tensors.get("done", everything)
