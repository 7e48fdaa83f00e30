"""Metrics of faithfulness: does the score follow the pixels that a map names?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from captum.metrics import infidelity
from torch import Tensor

from captum_blackbox.compare.context import Context
from captum_blackbox.compare.method import Method
from captum_blackbox.compare.spread import value_range
from captum_blackbox.errors import InputError
from captum_blackbox.metrics.class_scores import Score
from captum_blackbox.metrics.deletion_insertion import Game, deletion, insertion
from captum_blackbox.metrics.maps import Channels
from captum_blackbox.metrics.patch_degradation import patch_degradation
from captum_blackbox.metrics.substrates import Substrate

_PATCH = 9  # pixels, as published for images of 224 x 224
_FEWEST_PATCHES = 8  # along a side


@dataclass(frozen=True)
class _Game:
    """A game of the library, with its settings."""

    step: int | None = None
    substrate: Substrate = "zeros"
    score: Score = "probability"
    channels: Channels = "sum"
    name: str = ""
    higher_is_better: bool = False
    needs_masks: bool = False
    _play: ClassVar[Callable[..., Game]]

    def __call__(self, context: Context, _method: Method, maps: Tensor, /) -> Tensor:
        """Return the area under each curve, ``(N,)``."""
        return self._play(
            context.box,
            context.images,
            maps,
            context.targets,
            score=self.score,
            step=self.step,
            substrate=self.substrate,
            channels=self.channels,
        ).auc


@dataclass(frozen=True)
class Deletion(_Game):
    """The area of :func:`~captum_blackbox.metrics.deletion`, which see; lower is better."""

    name: str = "deletion"
    _play = staticmethod(deletion)


@dataclass(frozen=True)
class Insertion(_Game):
    """The area of :func:`~captum_blackbox.metrics.insertion`, which see; higher is better."""

    substrate: Substrate = "blur"
    name: str = "insertion"
    higher_is_better: bool = True
    _play = staticmethod(insertion)


@dataclass(frozen=True)
class DegradationArea:
    """The AOPC of :func:`~captum_blackbox.metrics.patch_degradation`; higher is better.

    Args:
        patch: Side of a patch in pixels; by default 9, as published, or an eighth of the shorter
            side where images are smaller than 72 pixels.
        steps: Most patches replaced.
    """

    patch: int | None = None
    steps: int = 100
    channels: Channels = "sum"
    name: str = "degradation"
    higher_is_better: bool = True
    needs_masks: bool = False

    def __call__(self, context: Context, _method: Method, maps: Tensor, /) -> Tensor:
        """Return the area over each curve, ``(N,)``."""
        shorter = min(context.images.shape[2:])
        return patch_degradation(
            context.box,
            context.images,
            maps,
            context.targets,
            patch=self.patch or max(1, min(_PATCH, shorter // _FEWEST_PATCHES)),
            steps=self.steps,
            channels=self.channels,
        ).aopc


@dataclass(frozen=True)
class Infidelity:
    r"""Captum's infidelity under Gaussian noise; lower is better.

    The mean of :math:`(\beta\, I^T \Phi - (f(x) - f(x - I)))^2` over random changes :math:`I`. What
    methods give has no common unit, so each map gets the factor :math:`\beta` that suits it best
    (``normalize=True`` of Captum): without it a map is punished for its unit. :math:`f` is the
    explained output of a module, and the probability where the model can only be called.

    A map of one channel is spread evenly over the channels of the image.

    Args:
        samples: Random changes of each image.
        noise: Standard deviation, as a share of the range of values in the image.

    References:
        Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, def. 2.1
        and sec. 3. They take noise of 0.2 for images in [0, 1].
    """

    samples: int = 32
    noise: float = 0.2
    name: str = "infidelity"
    higher_is_better: bool = False
    needs_masks: bool = False
    draws: bool = True

    def __call__(self, context: Context, _method: Method, maps: Tensor, /) -> Tensor:
        """Return the infidelity of each map, ``(N,)``."""
        images = context.images
        if maps.shape[1] != images.shape[1]:
            if maps.shape[1] != 1:
                raise InputError(
                    f"infidelity needs a map of one channel or of {images.shape[1]}, as the image "
                    f"has, got {maps.shape[1]}"
                )
            maps = (maps / images.shape[1]).expand_as(images)

        def change(inputs: Tensor) -> tuple[Tensor, Tensor]:
            drawn = self.noise * value_range(inputs) * torch.randn_like(inputs)
            return drawn, inputs - drawn

        found: Tensor = infidelity(
            context.box if context.model is None else context.model,
            change,
            images,
            maps.to(images.dtype),
            target=context.targets,
            n_perturb_samples=self.samples,
            normalize=True,
        )
        return found
