"""Network Dissection: what each unit stands for, and which concepts made a prediction."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_blackbox._compat import (
    format_additional_forward_args,
    format_like_inputs,
    one_tensor,
)
from captum_blackbox.dissection.explaining import explain_scores
from captum_blackbox.dissection.layer_dissector import Dissector, LayerDissector
from captum_blackbox.dissection.local_explanation import NO_CONCEPT, LocalExplanation
from captum_blackbox.dissection.options import Settings, ThresholdMethod, Upsample
from captum_blackbox.dissection.replacing import checked_units, replaced, silenced
from captum_blackbox.dissection.tally import Presence
from captum_blackbox.dissection.unit_maps import Preprocess, ReshapeTransform
from captum_blackbox.dissection.upsampling import upsampled
from captum_blackbox.errors import InputError
from captum_blackbox.hooks import Layers
from captum_blackbox.shapes import Target, check_images, check_maps


class NetworkDissection(LayerDissector, Attribution):
    r"""Find the concept that each unit of a layer detects, and explain predictions by them.

    A unit :math:`k` is active where its feature map, laid over the image, exceeds the threshold
    :math:`T_k` that a ``quantile`` of all its activations exceed. Its concept is the label
    :math:`c` whose pixels its active pixels match best, by intersection over union:

    .. math:: IoU_{k,c} = \frac{\sum |M_k(x) \cap L_c(x)|}{\sum |M_k(x) \cup L_c(x)|}

    summed over the images in which the category of :math:`c` is labelled at all. A unit whose best
    IoU is above ``iou_threshold`` is a detector. The number of different concepts detected,
    :meth:`Dissection.unique_detectors`, says how interpretable the layer is.

    When not to use it: with a few hundred images IoU above the threshold comes about by chance, so
    compare with :class:`~captum_blackbox.concepts.ShuffledConcepts` and with a network of random
    weights; for units that saturate (ReLU6), whose largest value ties on more than the quantile,
    nothing is above the threshold; for directions that are no single unit.

    Args:
        model: The network; it is left as it was.
        layer: Module or name, or a list of them, whose outputs are maps ``(N, units, h, w)``.
        quantile: Share of the activations of a unit that are above its threshold.
        iou_threshold: IoU above which a unit detects its concept.
        upsample: How maps are laid over the image. ``"receptive_field"``: each cell at the centre
            of its receptive field, linear between, constant outside (the published way).
            ``"resize"``: stretched over the image, as NetDissect-Lite does. ``"grid_zeros"``:
            fading to 0 outside the outermost centres.
        presence: Which images count against a unit: ``"image"``, those that show the category
            anywhere (the published way); ``"mask"``, those that show it under the unit's mask, as
            NetDissect-Lite counts.
        threshold_method: ``"exact"``, or ``"sketch"`` in bounded memory, to a rank within a 50th of
            the quantile.
        level: Quantile level instead of ``1 - quantile``; the published runs used 994 / 999.
        top_images: How many images with the highest activations to remember for each unit.
        preprocess: Images in [0, 1] → what the model takes; by default they are taken as they are.
        reshape_transform: The layer's output → maps ``(N, units, h, w)``, for tokens.

    Raises:
        LayerError: A layer is not part of the model.
        InputError: A setting is out of range.

    References:
        Bau, Zhou, Khosla, Oliva, Torralba, "Network Dissection: Quantifying Interpretability of
        Deep Visual Representations", CVPR 2017, sec. 2; Zhou, Bau, Oliva, Torralba, "Interpreting
        Deep Visual Representations via Network Dissection", TPAMI 2018. We count exactly where the
        published code keeps the 2048 commonest pairs of an image, and a label once where two layers
        of parts give it to a pixel twice.

    Example:
        >>> from captum_blackbox.concepts import SceneConcepts
        >>> from captum_blackbox.demo import load_demo_network
        >>> dissection = NetworkDissection(load_demo_network(), "features.6.2")
        >>> result = dissection.dissect(SceneConcepts(40), show_progress=False)
        >>> result.iou.shape
        torch.Size([96, 56])
        >>> explanation = dissection.explain(SceneConcepts(1, seed=1).image(0)[None])
        >>> explanation.is_exact.tolist(), abs(float(explanation.residual)) < 1e-4
        ([True], True)
    """

    def __init__(
        self,
        model: nn.Module,
        layer: Layers,
        *,
        quantile: float = 0.005,
        iou_threshold: float = 0.04,
        upsample: Upsample = "receptive_field",
        presence: Presence = "image",
        threshold_method: ThresholdMethod = "exact",
        level: float | None = None,
        top_images: int = 10,
        preprocess: Preprocess | None = None,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"expected an nn.Module, got a {type(model).__name__}")
        Attribution.__init__(self, model)
        settings = Settings(
            quantile, level, iou_threshold, upsample, presence, threshold_method, top_images
        )
        LayerDissector.__init__(self, model, layer, settings, preprocess, reshape_transform)

    def changed(
        self: Dissector,
        model: nn.Module | None = None,
        **settings: Any,
    ) -> Dissector:
        """Return a dissection of the same layers with another network or other settings."""
        changed = LayerDissector.changed(self, model, **settings)
        vars(changed)["forward_func"] = changed.model  # Captum's name for it
        return changed

    @log_usage(part_of_slo=True)
    def explain(
        self,
        inputs: Tensor,
        target: Target = None,
        additional_forward_args: object = None,
    ) -> LocalExplanation:
        """Return what each unit, and so each concept, contributed to a prediction.

        Args:
            inputs: Of the model, ``(N, C, H, W)``.
            target: The class, in any of Captum's forms; by default the prediction of each image.
            additional_forward_args: Passed to the model after the inputs.

        Returns:
            See :class:`LocalExplanation`. Contributions and bias sum to the score where the rest of
            the network is linear.

        Raises:
            InputError: The layer is not dissected yet.
            TargetError: The target does not fit the output.
        """
        check_images(inputs)
        return explain_scores(
            self.model,
            (self.layer, self.module),
            inputs,
            target,
            format_additional_forward_args(additional_forward_args) or (),
            self._as_units,
            tuple(
                unit.label if unit.iou > self.settings.iou_threshold else NO_CONCEPT
                for unit in self.result.units()
            ),
        )

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Any,  # noqa: ANN401 - a tensor or a tuple of one
        target: Target = None,
        additional_forward_args: object = None,
        *,
        concept: str | Sequence[str] | None = None,
        expand_to_input: bool = False,
    ) -> Any:  # noqa: ANN401 - like the inputs
        """Return where the units that detect something made the prediction.

        The class activation map, reduced to units with a concept. Above 0 a place supports the
        target, below it opposes it.

        Args:
            inputs: Of the model, ``(N, C, H, W)``, or a tuple of that one tensor.
            target: As for :meth:`explain`.
            additional_forward_args: As for :meth:`explain`.
            concept: Only units with this concept, or with one of several; by default all
                detectors.
            expand_to_input: Spread each map evenly over the channels, for metrics that want the
                shape of the input.

        Returns:
            Contributions to the score by cell of the layer, laid over the image as ``upsample``
            says: ``(N, 1, H, W)``, or ``(N, C, H, W)`` with ``expand_to_input``. A tuple for a
            tuple.

        Raises:
            InputError: The layer is not dissected yet, or no unit has the concept.
            TargetError: The target does not fit the output.
        """
        tensor, is_tuple = one_tensor(inputs, self.get_name())
        explanation = self.explain(tensor, target, additional_forward_args)
        cells = explanation.maps(concept)
        axes = self._axes(tensor, cells, (tensor.shape[2], tensor.shape[3]))
        maps = upsampled(cells, *axes).to(tensor.dtype)
        check_maps(maps, "no unit that detects something contributed to the target")
        if expand_to_input:
            maps = (maps / tensor.shape[1]).expand_as(tensor)
        return format_like_inputs(maps, is_tuple)

    @contextmanager
    def ablate(self, units: Sequence[int] | int) -> Iterator[nn.Module]:
        """Silence units while the block runs: their activations are 0.

        Yields:
            The model, for any use of it.

        Raises:
            InputError: The layer has no such unit.

        Example:
            >>> import torch
            >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
            >>> with NetworkDissection(model, "0").ablate([1, 3]) as ablated:
            ...     (ablated(torch.rand(1, 3, 3, 3)) != 0).tolist()
            [[True, False, True, False]]
        """
        with self.silenced([checked_units(units)]):
            yield self.model

    def silenced(self, groups: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Return a block in which groups of units are silenced; see :func:`unit_effects`."""
        if self._reshape_transform is not None:
            raise InputError("units of a layer whose output is reshaped cannot be silenced")
        return replaced(self.module, silenced(groups, self._rotation, self.layer))

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: a contribution is an activation times its slope."""
        return True

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return cls.__name__

    def attribute_future(self) -> None:
        """Refuse: there is no asynchronous version."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")
