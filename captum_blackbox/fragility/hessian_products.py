"""The second derivative of a class score with respect to the pixels, as products with vectors."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from captum_blackbox._compat import select_targets
from captum_blackbox.errors import InputError
from captum_blackbox.shapes import Images, Labels, PerImage


class InputHessian:
    """The Hessian ``H`` of the score of one class of each image, in that image's pixels.

    Building it costs a forward and a backward pass, whose graph is kept; a product ``H v`` costs
    one more backward pass through both. A network in evaluation mode treats the images of a batch
    independently, so all products are made at once. The graph is built from the activations as
    they stand now: soften ReLUs around both the building and the products.

    Args:
        network: Images → scores ``(N, classes)``, in evaluation mode.
        images: ``(N, C, H, W)``.
        target: The class of each image.
        extra: Passed to ``network`` after the images.

    Attributes:
        scores: Of the class, detached.
        gradients: Of the scores, detached: the gradient map with its signs.

    Raises:
        InputError: A gradient is not finite.

    Example:
        >>> def cubes(x):
        ...     return (x**3).sum((2, 3))
        >>> hessian = InputHessian(cubes, torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([0]))
        >>> hessian.gradients.tolist(), hessian.product(torch.ones(1, 1, 1, 2)).tolist()
        ([[[[3.0, 12.0]]]], [[[[6.0, 12.0]]]])
    """

    def __init__(
        self,
        network: Callable[..., Any],
        images: Images,
        target: Labels,
        extra: tuple[Any, ...] = (),
    ) -> None:
        with torch.inference_mode(mode=False), torch.enable_grad():
            # A copy shields the caller's images, and another one the leaf, from in-place layers.
            self._leaf = images.detach().clone().requires_grad_()
            scores = class_scores(network(self._leaf.clone(), *extra), len(images))
            selected = select_targets(scores, target)
            self._gradients = _gradient(
                selected, self._leaf, torch.ones_like(selected), create_graph=True
            )
        self.scores: PerImage = selected.detach()
        self.gradients: Images = self._gradients.detach()
        broken = (~self.gradients.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        if broken:
            raise InputError(
                f"the gradient of image {broken[0]} is not finite in {images.dtype}; look for NaN "
                "in the image and the weights"
            )

    def product(self, vectors: Images) -> Images:
        """Return ``H v`` for a vector ``v`` of each image: how the gradient map moves along it."""
        with torch.inference_mode(mode=False):
            return _gradient(self._gradients, self._leaf, vectors, create_graph=False)


def class_scores(output: object, batch: int) -> Float[Tensor, "batch classes"]:
    """Return the output of a network as scores of classes; a number per image is a single class.

    Raises:
        InputError: It is something else.

    Example:
        >>> class_scores(torch.ones(3), 3).shape
        torch.Size([3, 1])
    """
    if not isinstance(output, Tensor) or output.dim() not in {1, 2} or len(output) != batch:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"expected the network to give scores ({batch}, classes), got {got}; wrap it in a "
            "module that returns the scores"
        )
    return output.reshape(batch, -1)


def _gradient(values: Tensor, leaf: Tensor, weights: Tensor, *, create_graph: bool) -> Tensor:
    """Return the gradient of a weighted sum; 0 where there is no path."""
    if not values.requires_grad:
        return torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(
        values, leaf, weights, create_graph=create_graph, retain_graph=True, allow_unused=True
    )
    return torch.zeros_like(leaf) if gradient is None else gradient
