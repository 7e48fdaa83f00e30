"""SmoothGrad and its kin around another victim, with noise that stays."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.fragility.victims.chunked import ChunkedVictim, Part, Sums
from captum_blackbox.fragility.victims.settings import interleaved
from captum_blackbox.fragility.victims.victim import Victim
from captum_blackbox.shapes import Labels

KINDS = ("smoothgrad", "smoothgrad_sq", "vargrad")
_SEED = 0


class NoiseTunnelVictim(ChunkedVictim):
    """The mean, mean square or variance of the maps of noisy copies of an image.

    The noise is drawn once: the same for every image and every step, so that the value is a
    function of the image and has a derivative. With the same noise it equals Captum's value.

    Args:
        inner: Explains the copies.
        settings: ``nt_type``, ``nt_samples``, ``nt_samples_batch_size`` and ``stdevs`` of Captum.

    Raises:
        InputError: A setting is out of range, or ``draw_baseline_from_distrib`` is asked for.
    """

    def __init__(self, inner: Victim, settings: Mapping[str, Any]) -> None:
        check_choice("nt_type", settings["nt_type"], KINDS)
        super().__init__(f"{settings['nt_type']} of {inner.name}", inner.network, inner.forward)
        stdevs = settings["stdevs"]
        self.stdev = stdevs[0] if isinstance(stdevs, tuple) and len(stdevs) == 1 else stdevs
        self.inner, self.kind = inner, settings["nt_type"]
        self.samples: int = settings["nt_samples"]
        at_once: int | None = settings["nt_samples_batch_size"]
        self.at_once = self.samples if at_once is None else at_once
        if not isinstance(self.stdev, float) or self.stdev < 0:
            raise InputError(f"stdevs is a float of at least 0, got {stdevs!r}")
        if self.samples < 1 or self.at_once < 1:
            raise InputError(
                f"nt_samples and nt_samples_batch_size are at least 1, got {self.samples} and "
                f"{self.at_once}"
            )
        if settings["draw_baseline_from_distrib"]:
            raise InputError(
                "draw_baseline_from_distrib=True draws another baseline for each sample, which "
                "leaves no fixed map to attack; give one baseline"
            )

    def scores(self, images: Tensor, extra: tuple[Any, ...] = ()) -> Tensor:
        """Return the scores of the images themselves."""
        return self.inner.scores(images, extra)

    def noise(self, images: Tensor) -> Tensor:
        """Return the noise that is added to each image, ``(nt_samples, C, H, W)``."""
        generator = torch.Generator().manual_seed(_SEED)
        shape = (self.samples, *images.shape[1:])
        normal = torch.randn(shape, generator=generator, dtype=torch.float32)
        noise: Tensor = self.stdev * normal
        return noise.to(images)

    def parts(self, images: Tensor, target: Labels, extra: tuple[Any, ...]) -> Sequence[Part]:
        """Return groups of at most ``nt_samples_batch_size`` samples."""
        return [
            partial(self._part, noise, target, extra)
            for noise in self.noise(images).split(self.at_once)
        ]

    def _part(
        self,
        noise: Tensor,
        target: Labels,
        extra: tuple[Any, ...],
        images: Tensor,
        create_graph: bool,
    ) -> Sums:
        samples = len(noise)
        noisy = (images[:, None] + noise).flatten(0, 1)
        maps = self.inner.explain(
            noisy,
            target.repeat_interleave(samples),
            interleaved(extra, samples, len(images)),
            create_graph=create_graph,
        ).maps
        maps = maps.unflatten(0, (len(images), samples))
        if self.kind == "smoothgrad":
            return (maps.sum(1),)
        squares = maps.square().sum(1)
        return (squares,) if self.kind == "smoothgrad_sq" else (squares, maps.sum(1))

    def finished(self, _images: Tensor, sums: Sums) -> Tensor:
        """Return the statistic over all samples."""
        mean = sums[0] / self.samples
        return mean if len(sums) == 1 else mean - (sums[1] / self.samples).square()
