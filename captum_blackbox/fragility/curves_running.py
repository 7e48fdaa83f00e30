"""Run one attack after another over the images, and keep what it did."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox.fragility.attack import InterpretationAttack
from captum_blackbox.fragility.curves_record import Cell, Record
from captum_blackbox.fragility.curves_result import MEASURES
from captum_blackbox.fragility.objectives import Objective
from captum_blackbox.fragility.result import WRONG_LABEL, AttackResult
from captum_blackbox.fragility.transfer import TRANSFERRED, between_networks, transferred
from captum_blackbox.fragility.visibility import structural_similarities, to_pixels
from captum_blackbox.shapes import Images


@dataclass(frozen=True)
class Run:
    """What is attacked, and how."""

    attacks: list[InterpretationAttack]
    judges: list[InterpretationAttack]
    objectives: list[Objective]
    radii: list[float]
    images: Images
    target: Tensor | None
    label: Tensor | None
    region: Tensor | None
    options: Mapping[str, Any]

    def attack(self, cell: Cell, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Attack some images: numbers ``(measures, rows)`` and ``(judges, measures, rows)``."""
        method, mode, radius = cell
        attack, images = self.attacks[method], self.images[rows.to(self.images.device)]
        target = None if self.target is None else self.target[rows]
        label = None if self.label is None else self.label[rows]
        region = self.region
        if region is not None and region.dim() == 3:
            region = region[rows.to(region.device)]
        result = attack.run(
            images,
            self.radii[radius],
            target=target,
            label=label,
            mode=self.objectives[mode],
            region=region,
            **self.options,
        )
        wrong = torch.tensor([reason == WRONG_LABEL for reason in result.reasons])
        values = measured(attack, images, result)
        values[:, wrong] = torch.nan
        moved = [
            transferred(
                judge,
                between_networks(images, attack, judge),
                between_networks(result.inputs, attack, judge),
                target=target,
                label=label,
                k=self.options["k"],
            )
            for judge in self.judges
        ]
        transfer = torch.stack(moved) if moved else torch.zeros(0, len(TRANSFERRED), len(rows))
        transfer[:, :, wrong] = torch.nan
        return values, transfer


def fill(record: Record, run: Run, batch_size: int, show_progress: bool) -> None:
    """Attack whatever is not done; an error of one attack is kept, unless it is all there is."""
    cells = itertools.product(
        range(len(run.attacks)), range(len(run.objectives)), range(len(run.radii))
    )
    bar = tqdm(total=record.done.numel(), desc="fragility", disable=not show_progress)
    with bar:
        try:
            for cell in cells:
                left = (~record.done[cell]).nonzero().flatten()
                bar.update(record.done.shape[-1] - len(left))
                for rows in left.split(batch_size) if len(left) else ():
                    _attack_once(record, run, cell, rows)
                    bar.update(len(rows))
        finally:
            if bool(record.done.any()):
                record.save()
    if record.first_error is not None and not bool(record.done.any()):
        raise record.first_error


def _attack_once(record: Record, run: Run, cell: Cell, rows: Tensor) -> None:
    """Attack some images; what fails is tried image by image, and what it raises is kept."""
    try:
        values, transfer = run.attack(cell, rows)
    except Exception as error:
        if len(rows) == 1:
            record.fail(cell, rows, error)
            return
        for row in rows.split(1):
            _attack_once(record, run, cell, row)
    else:
        record.keep(cell, rows, values, transfer)


def measured(attack: InterpretationAttack, images: Images, result: AttackResult) -> Tensor:
    """Return the numbers of an attack, ``(measures, N)`` in the order of ``MEASURES``.

    Args:
        attack: The attack.
        images: What it was run on.
        result: What came of it.
    """
    after = result.attacked
    pixels = [
        to_pixels(each, attack.lower_bound, attack.upper_bound) for each in (images, result.inputs)
    ]
    found: dict[str, Tensor | None] = {
        **after._asdict(),
        "clean_confidence": result.clean.confidence,
        "ssim": structural_similarities(*pixels),
        "success": result.success,
        "label_kept": result.label_kept,
    }
    none = torch.full((len(images),), torch.nan, dtype=torch.float64)
    rows = [none if found[name] is None else found[name] for name in MEASURES]
    return torch.stack([torch.as_tensor(row).double().cpu() for row in rows])
