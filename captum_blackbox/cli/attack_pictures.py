"""The pictures of ``attack``: every attacked image, and before and after side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox.cli import results as files
from captum_blackbox.cli.attack_cells import FOLDER, Attacked, Cell, CellImages
from captum_blackbox.cli.attack_options import METHODS, MODES, AttackOptions
from captum_blackbox.cli.attack_verdicts import aims, broken, strongest
from captum_blackbox.cli.run import Subject
from captum_blackbox.fragility.curves_result import MEASURES, FragilityCurves
from captum_blackbox.report import (
    AttackedImage,
    AttackView,
    Moved,
    attacked_png,
    change_png,
    importance_png,
    picture_png,
)
from captum_blackbox.report.attacked import factor_name

SHOWN = 6  # images on the page, which carries four pictures for each method
_EDGE = 160


@dataclass(frozen=True)
class Pictures:
    """Draws what the attacks did.

    Attributes:
        folder: For the files.
        subject: The images.
        attacked: What came of the attacks.
        options: Of the attacks.
        curves: The numbers of all attacks.
    """

    folder: Path
    subject: Subject
    attacked: Attacked
    options: AttackOptions
    curves: FragilityCurves

    def drawn(self, confidence: Tensor, predicted: Sequence[str]) -> list[AttackedImage]:
        """Write all pictures, and return the images that the page shows.

        Args:
            confidence: In the clean prediction, ``(N,)``.
            predicted: Its name, for each image.
        """
        shown = [self._chosen(image) for image in range(len(self.subject.names))]
        views: list[list[tuple[Cell, Moved]]] = [[] for _ in shown]
        for cell in tqdm(self.attacked.numbers, desc="drawing", unit="attack"):
            made = self.attacked.kept.images(cell)
            pictures = self.attacked.kept.attackers.preparation.pictures(made.inputs)
            for image, chosen in enumerate(shown):
                self._write(cell, image, pictures[image])
                raised = self.attacked.numbers[cell].label[image] < 0
                if cell in chosen and not raised:
                    views[image].append((cell, self._moved(made, pictures, image)))
        for image, moved in enumerate(views):
            rows = {self._title(cell): each for cell, each in moved}
            path = self.folder / files.MAPS_FOLDER / f"{self._stem(image)}.png"
            if rows:
                files.write_bytes(path, attacked_png(rows, edge=_EDGE))
        return [
            self._image(image, views[image], float(confidence[image]), predicted[image])
            for image in range(min(SHOWN, len(shown)))
        ]

    def _chosen(self, image: int) -> set[Cell]:
        """Return, for each method, the attack that breaks it first or moves it most."""
        modes, radii = aims(self.options.modes), self.options.radii
        found = set()
        for method in dict.fromkeys(cell.method for cell in self.attacked.numbers):
            name = METHODS[method]
            radius = next(
                (each for each in radii if bool(broken(self.curves, name, modes, each)[image])),
                radii[-1],
            )
            found.add(Cell(method, strongest(self.curves, name, modes, radius, image), radius))
        return found

    def _write(self, cell: Cell, image: int, picture: Tensor) -> None:
        path = self.folder / FOLDER / cell.stem / f"{self._stem(image)}.png"
        files.write_bytes(path, picture_png(picture, edge=max(picture.shape[1:])))

    def _moved(self, made: CellImages, pictures: Tensor, image: int) -> Moved:
        clean = self.subject.pictures[image]
        return Moved(clean, pictures[image], made.clean_maps[image], made.attacked_maps[image])

    def _image(
        self, image: int, views: Sequence[tuple[Cell, Moved]], confidence: float, predicted: str
    ) -> AttackedImage:
        truth = self.subject.truth
        return AttackedImage(
            name=self.subject.names[image],
            picture=picture_png(self.subject.pictures[image], edge=_EDGE),
            predicted=predicted,
            probability=None if math.isnan(confidence) else confidence,
            truth=None if truth is None else self.subject.class_name(int(truth[image])),
            views=[self._view(cell, image, moved) for cell, moved in views],
        )

    def _view(self, cell: Cell, image: int, moved: Moved) -> AttackView:
        numbers = self.attacked.numbers[cell]
        value = dict(zip(MEASURES, numbers.values[:, image].tolist(), strict=True))
        return AttackView(
            method=METHODS[cell.method],
            mode=MODES[cell.mode],
            radius=cell.radius.text,
            intersection=value["intersection"],
            rank_correlation=value["rank_correlation"],
            center_shift=value["center_shift"],
            ssim=None if math.isnan(value["ssim"]) else value["ssim"],
            confidence=value["confidence"],
            factor=factor_name(moved.amplification),
            attacked=picture_png(moved.attacked, edge=_EDGE),
            change=change_png(moved, edge=_EDGE),
            clean_map=importance_png(moved.clean_map, edge=_EDGE),
            attacked_map=importance_png(moved.attacked_map, edge=_EDGE),
            region_mass=None
            if math.isnan(value["region_mass"])
            else (float(numbers.region_before[image]), value["region_mass"]),
            reason=numbers.reasons[image],
        )

    def _title(self, cell: Cell) -> str:
        return f"{METHODS[cell.method]}, {MODES[cell.mode]}, {cell.radius.text}"

    def _stem(self, image: int) -> str:
        return files.file_stem(image, self.subject.names[image])
