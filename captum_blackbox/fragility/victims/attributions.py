"""Attributions that keep the graph if they are asked to: those with ``grad_kwargs``."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from captum.attr import Attribution
from torch import Tensor, nn

from captum_blackbox.errors import VictimError
from captum_blackbox.fragility.victims.victim import Explained, Victim
from captum_blackbox.shapes import Labels


class GradKwargsVictim(Victim):
    """An attribution whose ``attribute`` takes ``grad_kwargs``, with its map at the image's size.

    Args:
        name: Of the explanation.
        network: The module explained.
        attribution: The instance.
        settings: Passed to its ``attribute``.
        scored_by: Images → scores that decide the label.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        attribution: Attribution,
        settings: Mapping[str, Any],
        scored_by: Any,  # noqa: ANN401 - a module, a black box or a function
    ) -> None:
        super().__init__(name, network, scored_by)
        self.attribution, self.settings = attribution, dict(settings)

    def made(
        self, images: Tensor, target: Labels, extra: tuple[Any, ...], *, create_graph: bool
    ) -> Explained:
        """Return the maps, bilinearly enlarged where they are smaller than the images."""
        maps = self.attribution.attribute(
            images,
            target=target,
            additional_forward_args=extra or None,
            grad_kwargs={"create_graph": create_graph},
            **self.settings,
        )
        return Explained(at_image_size(maps, images, self.name))


def at_image_size(maps: object, images: Tensor, name: str) -> Tensor:
    """Return maps ``(N, channels, H, W)`` at the size of the images.

    Raises:
        VictimError: They are not one tensor with positions.
    """
    if isinstance(maps, tuple | list) and len(maps) == 1:
        maps = maps[0]
    is_map = isinstance(maps, Tensor) and maps.dim() in {3, 4} and len(maps) == len(images)
    if not is_map or not isinstance(maps, Tensor):
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise VictimError(
            f"{name} returns no map per image that could be laid over images of shape "
            f"{tuple(images.shape)}: got {got}; choose a layer whose output has height and width"
        )
    maps = maps[:, None] if maps.dim() == 3 else maps
    if maps.shape[2:] == images.shape[2:]:
        return maps
    size = (images.shape[2], images.shape[3])
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
