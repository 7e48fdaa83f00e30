"""Metrics of Quantus, by their name."""

import inspect
import math
import warnings
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_blackbox.compare.context import Context, NotApplicableError
from captum_blackbox.compare.method import Method
from captum_blackbox.compare.names import check_known
from captum_blackbox.errors import MissingExtraError, OutputError
from captum_blackbox.quantus import explain_func

PREFIX = "quantus:"

_STEPS = 28  # about as many as in our own games
_SETTINGS: Mapping[str, Any] = {
    "disable_warnings": True,
    "display_progressbar": False,
    "return_aggregate": False,
    "return_average_correlation": True,
}
# It compares a map with its changes, pixel by pixel.
_OWN_SETTINGS: Mapping[str, Mapping[str, Any]] = {"NonSensitivity": {"features_in_step": 1}}


class QuantusMetric:
    """A metric of Quantus, which needs the extra ``bench``; the direction is that of Quantus.

    Maps are handed over as the sum of their channels. A metric that explains again, on changed
    images or on copies of the model with random weights, gets the method through
    :func:`captum_blackbox.quantus.explain_func`: for a model of its own the method is made, and
    fitted, again.

    Where the metric takes ``features_in_step``, so many pixels go at a time that there are at most
    some 28 steps, unless it is set; other defaults are those of Quantus, some of which want images
    of 224 x 224 pixels. Where it returns a curve for an image, its mean is taken.

    Args:
        name: Of the class, such as ``"PixelFlipping"``.
        **settings: For its constructor.

    Raises:
        MissingExtraError: Quantus is not installed.
        InputError: It has no such metric.
    """

    def __init__(self, name: str, **settings: Any) -> None:
        try:
            quantus = import_module("quantus")
        except ImportError as error:
            raise MissingExtraError(
                "metrics of Quantus need it: pip install 'captum-blackbox[bench]'"
            ) from error
        known = {
            each: kind
            for each, kind in vars(quantus).items()
            if isinstance(kind, type) and issubclass(kind, quantus.Metric)
            if kind is not quantus.Metric
        }
        check_known("metric of Quantus", name, known)
        self.name = f"{PREFIX}{name}"
        self.settings = settings
        self._kind: Any = known[name]

    def __repr__(self) -> str:
        """Name class and settings."""
        return f"QuantusMetric({self.name!r}, {self.settings!r})"

    @property
    def higher_is_better(self) -> bool:
        """The direction."""
        return str(self._kind.score_direction.value) == "higher"

    @property
    def needs_masks(self) -> bool:
        """Whether the truth has to be known."""
        return str(self._kind.evaluation_category.name) == "LOCALISATION"

    def __call__(self, context: Context, method: Method, maps: Tensor, /) -> Tensor:
        """Return the score of each map, ``(N,)``.

        Raises:
            NotApplicableError: The model can only be called; Quantus wants a module.
            OutputError: The metric gives no number per image.
        """
        model = context.model
        if model is None:
            raise NotApplicableError("Quantus judges modules, not what can only be called")

        def fitting(other: nn.Module) -> Method:
            return method if other is model else method.for_model(other)

        device = {} if context.images.device.type == "cpu" else {"device": context.images.device}
        masks = None if context.masks is None else context.masks[:, None].cpu().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Quantus warns of its own parameters
            scores = self._made(context)(
                model=model,
                x_batch=context.images.cpu().numpy(),
                y_batch=context.targets.cpu().numpy(),
                a_batch=maps.sum(1, keepdim=True).cpu().numpy(),
                s_batch=masks,
                channel_first=True,
                explain_func=explain_func(fitting, reduce="sum"),
                explain_func_kwargs={},
                **device,
            )
        return torch.from_numpy(_per_image(scores, len(maps), self.name))

    @cached_property
    def _accepted(self) -> frozenset[str]:
        return frozenset(inspect.signature(self._kind.__init__).parameters)

    def _made(self, context: Context) -> Any:  # noqa: ANN401 - Quantus has no types
        fitting = {
            **_SETTINGS,
            "features_in_step": _fitting_step(math.prod(context.images.shape[2:])),
            "num_classes": context.box.num_classes,
            **_OWN_SETTINGS.get(self._kind.__name__, {}),
        }
        given = {name: value for name, value in fitting.items() if name in self._accepted}
        return self._kind(**{**given, **self.settings})


def _fitting_step(pixels: int) -> int:
    """Return the smallest divisor that leaves at most some 28 steps."""
    least = math.ceil(pixels / _STEPS)
    return next(step for step in range(least, pixels + 1) if pixels % step == 0)


def _per_image(scores: Any, images: int, name: str) -> np.ndarray:  # noqa: ANN401
    """Return one number for each image, the mean where there are several."""
    if isinstance(scores, Mapping):  # one list for each layer
        by_layer = np.stack([_per_image(each, images, name) for each in scores.values()])
        return np.asarray(by_layer.mean(0))
    if len(scores) != images:
        raise OutputError(f"{name} gave {len(scores)} scores for {images} images")
    return np.array([np.mean(np.asarray(score, dtype=np.float64)) for score in scores])
