"""What the methods of an audit are made from, and what is fitted once and kept."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_blackbox.audit.budget import AuditBudget
from captum_blackbox.audit.images import AuditImages
from captum_blackbox.audit.kept import Kept
from captum_blackbox.black_box import BlackBox
from captum_blackbox.compare.attributions import Explained
from captum_blackbox.compare.context import NotApplicableError
from captum_blackbox.compare.fitted_methods import student_for
from captum_blackbox.compare.setup import Setup
from captum_blackbox.errors import ArtifactError
from captum_blackbox.patterns import PatternAttribution, Patterns
from captum_blackbox.student import DistilledLayerSumGradCAM, TransferSet

_HELD_OUT = 5  # every fifth image judges the student
_ENOUGH = 10  # images to hold some out


@dataclass(frozen=True)
class Workplace:
    """A model, its images, and everything that methods may need.

    Attributes:
        box: The model as a black box.
        model: The model itself; ``None`` if it can only be called.
        images: Those that are explained, on the model's device.
        data: Images to fit patterns and students to, as the model takes them.
        num_classes: Of the model.
        student: Name of a ready student, or a network; ``None`` for one that suits the size.
        regime_centering: For the patterns.
        budget: Of the audit.
        batch_size: Images together.
        seed: Of everything random.
        kept: Where fitted parts are kept.
        show_progress: Show bars.
    """

    box: BlackBox
    model: nn.Module | None
    images: AuditImages
    data: Tensor
    num_classes: int
    student: str | nn.Module | None
    regime_centering: bool
    budget: AuditBudget
    batch_size: int
    seed: int
    kept: Kept
    show_progress: bool

    @property
    def network(self) -> nn.Module:
        """The model itself.

        Raises:
            NotApplicableError: It can only be called.
        """
        if self.model is None:
            raise NotApplicableError("needs gradients, and this model can only be called")
        return self.model

    @property
    def example(self) -> Tensor:
        """One image, ``(1, C, H, W)``."""
        return self.images.inputs[:1]

    @property
    def explained(self) -> Explained:
        """The model itself, as methods that take gradients are made for it.

        Raises:
            NotApplicableError: It can only be called.
        """
        std, passes = self.images.std, self.budget.passes
        return Explained(self.network, self.example, std, passes, self.batch_size)

    @property
    def setup(self) -> Setup:
        """What a comparison makes methods from."""
        return Setup(self.box, self.model, self.example, self.num_classes, self.data, self.seed)

    def pattern_attribution(self) -> PatternAttribution:
        """Return the method with its patterns, which are fitted once."""
        network, path = self.network, self.kept.path("patterns")
        try:
            patterns = Patterns.load(path, network)
        except ArtifactError:
            patterns = Patterns.fit(
                network,
                self.data.split(self.batch_size * 4),
                regime_centering=self.regime_centering,
                show_progress=self.show_progress,
            )
            patterns.save(path)
        return PatternAttribution(network, patterns)

    def distilled(self) -> DistilledLayerSumGradCAM:
        """Return a student's explainer; the student is taught once."""
        path, device = self.kept.path("student"), self.example.device
        student = self._student().to(device)
        try:
            return DistilledLayerSumGradCAM.load(path, self.box, student)
        except ArtifactError:
            pass  # not taught yet
        judging = torch.arange(len(self.data)) % _HELD_OUT == _HELD_OUT - 1
        judging &= torch.tensor(len(self.data) >= _ENOUGH)
        learning = self.data[~judging].cpu()
        explainer = DistilledLayerSumGradCAM(self.box, student)
        questions = max(self.budget.queries, len(learning))
        explainer.distill(
            TransferSet(learning, questions, seed=self.seed),
            epochs=self.budget.epochs,
            validation=self.data[judging].cpu() if bool(judging.any()) else None,
            checkpoint=self.kept.path("student-unfinished"),
            seed=self.seed,
            device=device,
            show_progress=self.show_progress,
        )
        explainer.save(path)
        return explainer

    def _student(self) -> nn.Module:
        if isinstance(self.student, nn.Module):
            return self.student
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            return student_for(self.example, self.num_classes, self.student)
