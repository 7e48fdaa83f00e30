"""Whether a function of the user's keeps the graph of the gradients that its maps are made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_blackbox.errors import VictimError


def check_graph(explain: Callable[[Tensor, Tensor], Any], images: Tensor, name: str) -> None:
    """Refuse a function that takes a gradient and does not keep its graph.

    Of ``images * gradient`` an attack would then follow the first factor alone: it goes astray, and
    the map looks sturdier than it is.

    Args:
        explain: From images and classes to maps.
        images: Some, ``(N, C, H, W)``.
        name: Of the method, for the message.

    Raises:
        VictimError: It does.

    Example:
        >>> def squared(images, classes):
        ...     (gradient,) = torch.autograd.grad(images.square().sum(), images)
        ...     return images * gradient
        >>> check_graph(squared, torch.rand(1, 3, 2, 2), "squared")
        Traceback (most recent call last):
        ...
        captum_blackbox.errors.VictimError: squared takes a gradient without create_graph=True, so
        that its maps have lost a part of their derivative, and an attack would go astray
    """
    with torch.inference_mode(False), torch.enable_grad(), _Gradients() as gradients:
        classes = torch.zeros(len(images), dtype=torch.long, device=images.device)
        explain(images.detach().clone().requires_grad_(), classes)
    if gradients.has_lost_one:
        raise VictimError(
            f"{name} takes a gradient without create_graph=True, so that its maps have lost a part "
            "of their derivative, and an attack would go astray"
        )


class _Gradients(TorchFunctionMode):
    """Watches what sends gradients back."""

    def __init__(self) -> None:
        super().__init__()
        self.has_lost_one = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call the function as it is."""
        given = kwargs or {}
        if func in _SENDING_BACK and not given.get("create_graph"):
            self.has_lost_one = True
        return func(*args, **given)


_SENDING_BACK = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
