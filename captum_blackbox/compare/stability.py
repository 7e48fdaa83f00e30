"""A metric of stability: does the map stay while the image hardly changes?"""

from dataclasses import dataclass

import torch
from captum.metrics import sensitivity_max
from torch import Tensor

from captum_blackbox.compare.context import Context
from captum_blackbox.compare.method import Method
from captum_blackbox.compare.spread import value_range


@dataclass(frozen=True)
class SensitivityMax:
    """Captum's ``sensitivity_max``: the largest change of a map nearby; lower is better.

    Relative to the map's own length. It explains ``samples`` more images for each image, and a map
    that never changes, whatever the model does, has the best score of all.

    Args:
        samples: Random neighbours of each image.
        radius: Largest change of a value, as a share of the range of values in the image.

    References:
        Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, def. 3.1.
        Captum's ``perturb_radius`` is absolute: for images in [0, 1] that use the whole range it is
        the same.
    """

    samples: int = 10
    radius: float = 0.02
    name: str = "sensitivity_max"
    higher_is_better: bool = False
    needs_masks: bool = False
    draws: bool = True

    def __call__(self, context: Context, method: Method, _maps: Tensor, /) -> Tensor:
        """Return the sensitivity of each map, ``(N,)``."""

        def explain(inputs: tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, ...]:
            # The noise is float32, and lengths want no less.
            found = method(inputs[0].to(context.images), target)
            return (found.to(torch.promote_types(found.dtype, torch.float32)),)

        def change(inputs: Tensor) -> tuple[Tensor, ...]:
            noise = torch.empty_like(inputs, dtype=torch.float32).uniform_(-1, 1)
            return (inputs + self.radius * value_range(inputs) * noise,)

        found: Tensor = sensitivity_max(
            explain,
            context.images,
            change,
            n_perturb_samples=self.samples,
            target=context.targets,
        )
        return found
