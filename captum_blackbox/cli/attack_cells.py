"""The cells of ``attack``: a method, an aim and a radius; each has a file once it is done."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_blackbox.artifacts import (
    check_header,
    fingerprint,
    load_artifact,
    save_artifact,
    tensor_bytes,
    versions,
)
from captum_blackbox.cli.attack_methods import Attackers
from captum_blackbox.cli.attack_options import AttackOptions, Radius, mode_of
from captum_blackbox.errors import ArtifactError
from captum_blackbox.fragility import AttackResult, InterpretationAttack, normalised
from captum_blackbox.fragility.curves_result import MEASURES
from captum_blackbox.fragility.curves_running import measured

FOLDER = "attacked"
_STEP = 1 / 16  # of the radius, as published
_KIND = {"kind": "attacked images", "format": 1}


class Cell(NamedTuple):
    """One attack on all images.

    Attributes:
        method: Key of ``attack_options.METHODS``.
        mode: Key of ``attack_options.MODES``.
        radius: Of the change.
    """

    method: str
    mode: str
    radius: Radius

    @property
    def stem(self) -> str:
        """A harmless file name.

        Example:
            >>> Cell("ig", "topk", Radius("8/255", 8 / 255)).stem
            'ig--topk--8-255'
        """
        return f"{self.method}--{self.mode}--{self.radius.text.replace('/', '-')}"


@dataclass(frozen=True)
class CellNumbers:
    """What was measured in one attack; a column or a row for each image.

    Attributes:
        values: ``(measures, N)`` in the order of ``MEASURES``; NaN where an attack raised.
        label: The prediction that is kept, ``(N,)``; -1 where an attack raised.
        best_step: The step taken, ``(N,)``; 0 where nothing was gained.
        region_before: Share of the importance in the region before, ``(N,)``; NaN without one.
        reasons: Why an image was not moved; empty where it was.
        k: How many pixels count as most important.
    """

    values: Tensor
    label: Tensor
    best_step: Tensor
    region_before: Tensor
    reasons: tuple[str, ...]
    k: int


@dataclass(frozen=True)
class CellImages:
    """What one attack made, on the CPU.

    Attributes:
        inputs: Attacked images as the network takes them, ``(N, C, H, W)``; the clean one where
            nothing was gained.
        clean_maps: Importance in the clean images, ``(N, H, W)``, not negative, with a sum of 1.
        attacked_maps: Importance in the attacked ones.
    """

    inputs: Tensor
    clean_maps: Tensor
    attacked_maps: Tensor


@dataclass(frozen=True)
class KeptCells:
    """Cells in a folder, each known by the network, the images and the settings in its file.

    Attributes:
        folder: Where.
        options: Of the attack.
        inputs: Clean images ``(N, C, H, W)``.
        region: Where importance is to go, or ``None``.
        attackers: What makes the attacks.
        identity: Of the network, the images and the region.
    """

    folder: Path
    options: AttackOptions
    inputs: Tensor
    region: Tensor | None
    attackers: Attackers
    identity: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        folder: Path,
        options: AttackOptions,
        inputs: Tensor,
        region: Tensor | None,
        attackers: Attackers,
        source: Path | None,
    ) -> "KeptCells":
        """Return the cells of a run; ``source`` is the user's file that makes the network."""
        identity = {
            "network": fingerprint(attackers.network),
            "source": None if source is None else hashlib.sha256(source.read_bytes()).hexdigest(),
            "images": _digest(inputs),
            "region": None if region is None else _digest(region),
            "preparation": str(attackers.preparation),
            "versions": versions(),
        }
        return cls(folder, options, inputs, region, attackers, identity)

    def path(self, cell: Cell) -> Path:
        """Return where a cell is kept."""
        return self.folder / FOLDER / f"{cell.stem}.safetensors"

    def found(self, cell: Cell) -> CellNumbers | None:
        """Return what an earlier run kept of a cell with these settings, if it finished it."""
        path = self.path(cell)
        with contextlib.suppress(ArtifactError):
            tensors, header = load_artifact(path)
            check_header(path, header, {**self._header(cell), "failed": 0})
            return _numbers(tensors, header)
        return None

    def images(self, cell: Cell) -> CellImages:
        """Read what a cell that is done has made."""
        tensors, _ = load_artifact(self.path(cell))
        return CellImages(tensors["inputs"], tensors["clean_maps"], tensors["attacked_maps"])

    def made(
        self, cell: Cell, attack: InterpretationAttack, done: Callable[[int], object]
    ) -> CellNumbers:
        """Attack all images, and keep what came of it.

        An image whose attack raises is left as it is, with the reason, and the others go on.

        Args:
            cell: What to do.
            attack: On its method.
            done: Called with the number of images that are done.

        Raises:
            Exception: No image could be attacked; what was raised first.
        """
        errors: list[Exception] = []
        parts: list[_Part] = []
        for rows in torch.arange(len(self.inputs)).split(self.attackers.at_once):
            parts += self._attacked(cell, attack, rows, errors)
            done(len(rows))
        if len(errors) == len(self.inputs):
            raise errors[0]
        tensors = {
            name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors
        }
        # What failed is tried again by the next run.
        header = {
            **self._header(cell),
            "failed": len(errors),
            "most_important": max(part.k for part in parts),
            "reasons": [reason for part in parts for reason in part.reasons],
        }
        save_artifact(self.path(cell), tensors, header)
        return _numbers(tensors, header)

    def _attacked(
        self, cell: Cell, attack: InterpretationAttack, rows: Tensor, errors: list[Exception]
    ) -> list["_Part"]:
        clean, options = self.inputs[rows], self.options
        try:
            result = attack.run(
                clean.to(self.attackers.example.device),
                cell.radius.value,
                # An attack of few steps takes larger ones, so that it can reach the radius.
                cell.radius.value * max(1 / options.steps, _STEP),
                step_num=options.steps,
                mode=mode_of(cell.mode),
                k=options.k,
                region=self.region,
                norm=options.norm.value,
                seed=options.seed,
                show_progress=True,
            )
        except Exception as error:  # whatever an attack raises is reported
            if len(rows) > 1:
                parts = [self._attacked(cell, attack, row, errors) for row in rows.split(1)]
                return [each for part in parts for each in part]
            errors.append(error)
            return [_untouched(clean, str(error))]
        return [_part(attack, clean.to(result.inputs), result)]

    def _header(self, cell: Cell) -> dict[str, Any]:
        options = self.options
        return {
            **_KIND,
            **self.identity,
            "method": cell.method,
            "mode": cell.mode,
            "radius": cell.radius.value,
            "norm": options.norm.value,
            "k": options.k,
            "steps": options.steps,
            "passes": options.passes,
            "beta": options.beta,
            "seed": options.seed,
        }


@dataclass(frozen=True)
class Attacked:
    """What came of all attacks.

    Attributes:
        numbers: Of every cell.
        kept: Where their images are.
        left_out: Name of a method for the reader → why it was not attacked.
    """

    numbers: Mapping[Cell, CellNumbers]
    kept: KeptCells
    left_out: Mapping[str, str]


class _Part(NamedTuple):
    """Some images of a cell: tensors with a row for each, and what is said of them."""

    tensors: dict[str, Tensor]
    reasons: tuple[str, ...]
    k: int


def _part(attack: InterpretationAttack, clean: Tensor, result: AttackResult) -> _Part:
    before_mass = result.clean.region_mass
    none = torch.full((len(clean),), torch.nan, dtype=torch.float64)
    tensors = {
        "inputs": result.inputs.cpu(),
        "clean_maps": normalised(result.clean_maps).float().cpu(),
        "attacked_maps": normalised(result.attacked_maps).float().cpu(),
        "measures": measured(attack, clean, result).T.contiguous(),
        "label": result.label.cpu(),
        "best_step": result.best_step.cpu(),
        "region_before": none if before_mass is None else before_mass.double().cpu(),
    }
    return _Part(tensors, result.reasons, int(result.settings["k"]))


def _untouched(clean: Tensor, reason: str) -> _Part:
    maps = torch.zeros(1, *clean.shape[2:])
    tensors = {
        "inputs": clean,
        "clean_maps": maps,
        "attacked_maps": maps,
        "measures": torch.full((1, len(MEASURES)), torch.nan, dtype=torch.float64),
        "label": torch.tensor([-1]),
        "best_step": torch.tensor([0]),
        "region_before": torch.tensor([torch.nan], dtype=torch.float64),
    }
    return _Part(tensors, (reason,), 0)


def _numbers(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> CellNumbers:
    return CellNumbers(
        tensors["measures"].T,
        tensors["label"],
        tensors["best_step"],
        tensors["region_before"],
        tuple(header["reasons"]),
        header["most_important"],
    )


def _digest(tensor: Tensor) -> str:
    """Return a hash of the shape and the values of a tensor."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
