"""Explain a black box by the layers of a student that imitates it."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_blackbox._compat import class_targets, format_like_inputs, one_tensor
from captum_blackbox.artifacts import check_header, load_artifact, save_artifact
from captum_blackbox.black_box import BlackBox, as_black_box
from captum_blackbox.errors import ArtifactError, InputError, warn_user
from captum_blackbox.hooks import Layers, evaluating
from captum_blackbox.shapes import Target
from captum_blackbox.student.distillation import DistillationReport, distill, evaluate
from captum_blackbox.student.distillation.batches import Data
from captum_blackbox.student.distillation.losses import Loss
from captum_blackbox.student.distillation.training import OptimizerFactory
from captum_blackbox.student.grad_cam import (
    LayerSumGradCAM,
    LayerWeights,
    enlarged,
    finished,
    image_size,
    summed,
)
from captum_blackbox.student.layer_importance import (
    ImportanceKind,
    layer_importance,
    learned_weights,
)
from captum_blackbox.student.layer_maps import LayerMaps, Normalize, ReshapeTransform


class DistilledLayerSumGradCAM(Attribution):
    """Explain a model that can only be called.

    A student learns to answer as the black box does; the explanation is the sum of the Grad-CAMs
    of all layers of the student (:class:`LayerSumGradCAM`) for the class that the *box* predicts.
    It is an explanation of the box only as far as the student agrees with it: look at
    ``report`` and :meth:`agreement`.

    When not to use it: if you have the weights, :class:`LayerSumGradCAM` or any gradient method
    explains the model itself; if you cannot ask some thousand images, :class:`RISE` needs no
    student.

    Args:
        box: The black box; a module is wrapped as one that answers logits.
        student: Any network on images with ``box.num_classes`` logits; see
            :func:`~captum_blackbox.student.student_network` for ready ones.
        layers: Modules or names of the student; ``None`` for every ``Conv2d`` that runs.
        normalize: As for :class:`LayerSumGradCAM`.
        student_preprocess: Turns the images that the box gets into what the student wants, for
            instance a smaller size. It must keep every pixel where it is, up to scale.
        reshape_transform: As for :class:`LayerSumGradCAM`.

    Raises:
        InputError: ``box`` is neither a black box nor a module, or ``student`` is no module.
        LayerError: A layer does not exist.

    References:
        Jeong et al. 2021, "Visual Explanation of Black-box Models Using Layer-wise Class Activation
        Maps from Approximating Neural Networks". Only its abstract is public: temperature, loss,
        normalisation and the measure of a layer's importance are ours.

    Example:
        >>> box = BlackBox(lambda x: torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], 1),
        ...                output="logits")
        >>> student = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> explainer = DistilledLayerSumGradCAM(box, student)
        >>> report = explainer.distill(torch.rand(64, 3, 8, 8), epochs=20, show_progress=False)
        >>> explainer.attribute(torch.rand(2, 3, 8, 8), target=0).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        box: BlackBox | nn.Module,
        student: nn.Module,
        layers: Layers = None,
        *,
        normalize: Normalize = "none",
        student_preprocess: Callable[[Tensor], Tensor] | None = None,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        if not isinstance(box, BlackBox | nn.Module):
            raise InputError(
                f"expected a BlackBox, got {type(box).__name__}; wrap a function as "
                "BlackBox(fn, output=…)"
            )
        self.box = as_black_box(box, "logits")
        self.student = student
        self.grad_cam = LayerSumGradCAM(
            student, layers, normalize=normalize, reshape_transform=reshape_transform
        )
        self.student_preprocess = student_preprocess
        self.report: DistillationReport | None = None
        self._layer_names = None if layers is None else list(self.grad_cam.layers)
        self._warned_of_disagreement = False
        super().__init__(self.box)

    def distill(
        self,
        data: Data,
        *,
        epochs: int = 20,
        temperature: float = 4.0,
        alpha: float | None = None,
        loss: Loss = "kl",
        optimizer: OptimizerFactory | None = None,
        validation: Data | None = None,
        checkpoint: str | Path | None = None,
        seed: int = 0,
        show_progress: bool = True,
        **settings: Any,
    ) -> DistillationReport:
        """Train the student in place on the answers of the box.

        Args:
            data: Images, or pairs of image and label: a loader, a map-style data set or a tensor.
            epochs: Passes over the data.
            temperature: Of the softened answers.
            alpha: Weight of the box's answers against hard labels.
            loss: ``"kl"`` or ``"mse"`` on centred logits.
            optimizer: From parameters to an optimizer; Adam by default.
            validation: Images to judge the student on.
            checkpoint: File that is written after every epoch and resumed from.
            seed: Of the order of the images and of every random number.
            show_progress: Show a progress bar.
            **settings: The rest of :func:`~captum_blackbox.student.distill`, which refuses what it
                does not know: ``batch_size``, ``patience``, ``min_fidelity``, ``device`` …

        Returns:
            What the student learned and what it cost; kept as ``report``.
        """
        self.report = distill(
            self.box,
            self.student,
            data,
            student_preprocess=self.student_preprocess,
            epochs=epochs,
            temperature=temperature,
            alpha=alpha,
            loss=loss,
            optimizer=optimizer,
            validation=validation,
            checkpoint=checkpoint,
            seed=seed,
            show_progress=show_progress,
            **settings,
        )
        self._warned_of_disagreement = False
        return self.report

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: object = None,
        *,
        layer_weights: LayerWeights | None = None,
        expand_to_input: bool = False,
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - a tensor for a tensor, a tuple for a tuple
        """Return one map per image.

        Args:
            inputs: Images ``(N, C, H, W)`` as the box gets them, or a tuple of one such tensor.
            target: The class to explain. ``None`` asks the box for its prediction, which costs
                ``N`` queries: give the class to wrappers such as ``NoiseTunnel``.
            additional_forward_args: Passed to the student after the images.
            layer_weights: Layer name → λ; by default 1 for each. Or ``"last_and_sum"``, as for
                :class:`LayerSumGradCAM`.
            expand_to_input: Spread each map evenly over the channels.
            grad_kwargs: For ``torch.autograd.grad``.

        Returns:
            Importance per pixel, not negative, larger is more important; ``(N, 1, H, W)``, or
            ``(N, C, H, W)`` with ``expand_to_input``; on the device and in the dtype of ``inputs``.

        Warns:
            ExplanationWarning: Student and box predict different classes (once per object, where
                the box is asked); a layer has no influence.
        """
        images, is_tuple = one_tensor(inputs, self.get_name())
        maps = self._raw_maps(images, target, additional_forward_args, grad_kwargs)
        total = summed(maps, image_size(images), self.grad_cam.normalize, layer_weights)
        return format_like_inputs(finished(total, images, expand_to_input, grad_kwargs), is_tuple)

    def attribute_per_layer(
        self, inputs: Tensor, target: Target = None
    ) -> "OrderedDict[str, Tensor]":
        """Return layer name → its enlarged, normalised map ``(N, 1, H, W)``, in running order.

        Their sum is :meth:`attribute`.
        """
        images, _ = one_tensor(inputs, self.get_name())
        return enlarged(self._raw_maps(images, target), images, self.grad_cam.normalize)

    def layer_importance(
        self,
        inputs: Tensor,
        target: Target = None,
        kind: ImportanceKind = "energy",
        *,
        step: int | None = None,
        show_progress: bool = False,
    ) -> "OrderedDict[str, Tensor]":
        """Return layer name → importance per image ``(N,)``.

        Args:
            inputs: Images ``(N, C, H, W)``.
            target: The class to explain; ``None`` asks the box.
            kind: ``"energy"``: share of the sum before normalisation, higher is more important, no
                queries. ``"deletion"``: deletion AUC of the layer alone on the box, *lower* is more
                important. ``"leave_one_out"``: rise of the deletion AUC of the sum without the
                layer, higher is more important.
            step: Pixels per step of the game; by default 28 steps.
            show_progress: Show a bar that counts layers.
        """
        images, _ = one_tensor(inputs, self.get_name())
        classes = self._classes(images, target)
        normalize: Normalize = "none" if kind == "energy" else self.grad_cam.normalize
        maps = enlarged(self._raw_maps(images, classes), images, normalize)
        return layer_importance(self.box, images, maps, classes, kind, step, show_progress)

    def fit_layer_weights(
        self,
        inputs: Tensor,
        target: Target = None,
        *,
        step: int | None = None,
        show_progress: bool = False,
    ) -> dict[str, float]:
        """Learn weights for :meth:`attribute` from what each layer's map alone achieves.

        λ is the mean of insertion less deletion AUC, not negative, and sums to 1. Give other images
        than those that are explained; our benchmark takes eight, and how many are needed was not
        studied. It did not beat the last layer on every black box (see benchmarks/results).

        Args:
            inputs: Images ``(N, C, H, W)``; the games cost 58 queries for each of them and each
                layer, with the default of 28 steps.
            target: The class explained; ``None`` asks the box.
            step: Pixels per step of the games.
            show_progress: Show a bar that counts layers.

        Raises:
            InputError: No layer does better than nothing.
        """
        images, _ = one_tensor(inputs, self.get_name())
        classes = self._classes(images, target)
        maps = enlarged(self._raw_maps(images, classes), images, self.grad_cam.normalize)
        return learned_weights(self.box, images, maps, classes, step, show_progress)

    def agreement(self, inputs: Tensor) -> float:
        """Return the share of ``inputs`` for which student and box predict the same class.

        It lies in ``[0, 1]``, higher is better, and costs one query per image.
        """
        images, _ = one_tensor(inputs, self.get_name())
        fidelity = evaluate(
            self.box, self.student, images, student_preprocess=self.student_preprocess
        )
        return fidelity.agreement

    def save(self, path: str | Path) -> None:
        """Write the student, its layers, its normalisation and the report to a safetensors file."""
        header = self._header() | {
            "layers": self._layer_names,
            "normalize": self.grad_cam.normalize,
            "report": None if self.report is None else self.report.to_dict(),
        }
        save_artifact(path, self.student.state_dict(), header)

    @classmethod
    def load(
        cls,
        path: str | Path,
        box: BlackBox | nn.Module,
        student: nn.Module,
        *,
        student_preprocess: Callable[[Tensor], Tensor] | None = None,
        reshape_transform: ReshapeTransform | None = None,
    ) -> "DistilledLayerSumGradCAM":
        """Read what :meth:`save` wrote; the weights are loaded into ``student`` in place.

        Raises:
            ArtifactError: The file holds something else, another kind of student, or one that was
                taught by a box with other answers; the message says what differs.
        """
        tensors, header = load_artifact(path)
        check_header(path, header, {"kind": cls.get_name()})
        _check_architecture(path, tensors, student)
        explainer = cls(
            box,
            student,
            header["layers"],
            normalize=header["normalize"],
            student_preprocess=student_preprocess,
            reshape_transform=reshape_transform,
        )
        check_header(path, header, explainer._header())
        student.load_state_dict(tensors)
        if header["report"] is not None:
            explainer.report = DistillationReport.from_dict(header["report"])
        return explainer

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return "DistilledLayerSumGradCAM"

    def attribute_future(self) -> None:
        """Refuse: there is no asynchronous version."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")

    def _raw_maps(
        self,
        images: Tensor,
        target: Target,
        additional_forward_args: object = None,
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> LayerMaps:
        classes = self._classes(images, target) if target is None else target
        return self.grad_cam.raw_maps(
            self._for_student(images), classes, additional_forward_args, grad_kwargs=grad_kwargs
        )

    def _classes(self, images: Tensor, target: Target) -> Tensor:
        scores = None
        if target is None:
            scores = self.box(images)
            target = scores.argmax(1)
            self._warn_of_disagreement(images, target)
        num_classes = self.box.num_classes or self._student_scores(images[:1]).shape[1]
        return class_targets(target, len(images), num_classes, images.device)

    def _warn_of_disagreement(self, images: Tensor, predicted: Tensor) -> None:
        if self._warned_of_disagreement:
            return
        different = int((self._student_scores(images).argmax(1) != predicted).sum())
        if different:
            self._warned_of_disagreement = True
            warn_user(
                f"the student predicts another class than the black box for {different} of "
                f"{len(images)} images; their maps explain what the student does not see. See "
                "`agreement`, and distil longer or on more images"
            )

    def _student_scores(self, images: Tensor) -> Tensor:
        with torch.no_grad(), evaluating(self.student):
            scores: Tensor = self.student(self._for_student(images))
        return scores.to(images.device)

    def _for_student(self, images: Tensor) -> Tensor:
        first = next(self.student.parameters(), None)
        # The student may live elsewhere than the images: distilling puts it back where it was.
        moved = images if first is None else images.to(first.device)
        return moved if self.student_preprocess is None else self.student_preprocess(moved)

    def _header(self) -> dict[str, Any]:
        return {
            "kind": self.get_name(),
            "format": 1,
            "student": type(self.student).__name__,
            "output": self.box.output,
        }


def _check_architecture(
    path: str | Path, tensors: Mapping[str, Tensor], student: nn.Module
) -> None:
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    here = {name: tuple(tensor.shape) for name, tensor in student.state_dict().items()}
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ArtifactError(
                f"{str(path)!r} holds another student than {type(student).__name__}: {name!r} is "
                f"{there.get(name, 'absent')} in the file, {here.get(name, 'absent')} here"
            )
