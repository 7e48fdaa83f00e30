"""Where an attacked image may be: near the clean one, within bounds, changed only where allowed."""

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError, check_choice
from captum_blackbox.shapes import Images, PerImage

Norm: TypeAlias = Literal["Linf", "L2"]
"""How the size of a change is measured: by its largest number, or by its Euclidean length."""

Amount: TypeAlias = float | Tensor
"""One number, one for each channel ``(C,)``, or a tensor that is broadcast to the images."""

_SLACK = 1e-4  # of the range of the bounds, by which rounding may put an image outside
_SHRINKING = (1.0, 1 - 1e-6, 1 - 1e-3, 0.99, 0.9, 0.5, 0.0)


class Ball:
    """The changes that an attack may make to some images, and how it steps among them.

    Sizes are in units of pixels: a change ``d`` of the input counts as ``scale * d``. A network
    that takes normalised images has ``scale = std``.

    Args:
        images: The clean images ``(N, C, H, W)``.
        radius: Largest change, 0 or more; for ``"L2"`` one number, or one for each image
            ``(N, 1, 1, 1)``.
        norm: ``"Linf"`` or ``"L2"``.
        lower: Least value of an input, in units of the input.
        upper: Largest value.
        scale: Units of pixels in one unit of the input.
        mask: Where the image may change: 0 is not, ``(N, C, H, W)`` or broadcast to it.

    Raises:
        InputError: A negative or infinite radius, or an image outside the bounds.
        ShapeError: Something cannot be broadcast to the images.

    Example:
        >>> ball = Ball(torch.zeros(1, 1, 1, 2), 0.25)
        >>> ball.project(torch.tensor([[[[0.5, -1.0]]]]))
        tensor([[[[0.2500, 0.0000]]]])
    """

    def __init__(
        self,
        images: Images,
        radius: Amount,
        norm: Norm = "Linf",
        *,
        lower: Amount = 0.0,
        upper: Amount = 1.0,
        scale: Amount = 1.0,
        mask: Tensor | None = None,
    ) -> None:
        check_choice("norm", norm, get_args(Norm))
        self.images, self.norm = images, norm
        self.scale = spread(scale, images, "scale")
        self.radius = spread(radius, images, "radius")
        if not bool((self.radius >= 0).all()) or not bool(self.radius.isfinite().all()):
            raise InputError(
                f"radius is a finite number of 0 or more, got {_least(self.radius):g}; it is in "
                "the units of the images, such as 8 / 255"
            )
        if norm == "L2" and self.radius.numel() not in {1, len(images)}:
            raise ShapeError(
                "norm='L2' takes one radius, or one for each image of shape (N, 1, 1, 1), got "
                f"shape {tuple(self.radius.shape)}"
            )
        self._mask = None if mask is None else spread(mask, images, "mask") != 0
        low, high = self._bounds(spread(lower, images, "bound"), spread(upper, images, "bound"))
        if norm == "Linf":
            reach = self.radius / self.scale
            low = torch.maximum(low, _within(images, images.double() - reach, reach))
            high = torch.minimum(high, _within(images, images.double() + reach, reach))
        self._low, self._high = low, high

    def project(self, inputs: Images) -> Images:
        """Return images that are allowed, near the given ones.

        For ``"Linf"`` they are the nearest; for ``"L2"`` the change is shortened first and then cut
        at the bounds.
        """
        inputs = inputs.to(self.images.dtype)
        if self._mask is not None:
            inputs = torch.where(self._mask, inputs, self.images)
        if self.norm == "L2":
            inputs = self._shortened(inputs)
        return inputs.clamp(self._low, self._high)

    def stepped(self, inputs: Images, direction: Images, size: Tensor) -> Images:
        """Return images one step further along a direction, projected.

        Args:
            inputs: Where the step starts.
            direction: For ``"Linf"`` only its signs count, for ``"L2"`` it is brought to length 1;
                a direction of 0 does not move.
            size: Of the step, in units of pixels; broadcast to the images.
        """
        if self.norm == "Linf":
            step = direction.sign().double() * (size / self.scale)
        else:
            by_pixel = self._masked(direction.double() / self.scale)
            length = _lengths(by_pixel)
            step = by_pixel / torch.where(length > 0, length, 1.0) * (size / self.scale)
        return self.project((inputs.double() + step).to(inputs.dtype))

    def step_size(self, step_size: Amount | None) -> Tensor:
        """Return the size of a step, never beyond the radius; a 16th of it by default.

        Raises:
            InputError: It is not positive.
        """
        if step_size is None:
            return self.radius / 16
        size = spread(step_size, self.images, "step_size")
        if not bool((size > 0).all()) or not bool(size.isfinite().all()):
            raise InputError(f"step_size is a positive number, got {_least(size):g}")
        return torch.minimum(size, self.radius)

    def distances(self, inputs: Images) -> tuple[PerImage, PerImage]:
        """Return the largest change and the Euclidean length of the change, in pixel units."""
        change = ((inputs.double() - self.images.double()) * self.scale).flatten(1)
        return change.abs().amax(1), change.norm(dim=1)

    @property
    def can_move(self) -> Tensor:
        """Whether an image may change at all, ``(N,)``."""
        free = (self._high > self._low) & (self.radius > 0)
        if self._mask is not None:
            free = free & self._mask
        return free.expand_as(self.images).flatten(1).any(1)

    def rows(self, chosen: Tensor) -> "Ball":
        """Return the ball around some of the images."""
        part = object.__new__(Ball)
        part.images, part.norm = self.images[chosen], self.norm
        part.scale, part.radius = _rows(self.scale, chosen), _rows(self.radius, chosen)
        part._mask = None if self._mask is None else _rows(self._mask, chosen)
        part._low, part._high = _rows(self._low, chosen), _rows(self._high, chosen)
        return part

    def _masked(self, values: Tensor) -> Tensor:
        return values if self._mask is None else values * self._mask

    def _bounds(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        if bool((lower > upper).any()):
            raise InputError(
                f"the lower bound {_least(lower):g} is above the upper bound {_least(upper):g}"
            )
        slack = self._slack(lower, upper)
        outside = (self.images < lower - slack) | (self.images > upper + slack)
        if bool(outside.any()):
            raise InputError(
                f"{int(outside.sum())} of {outside.numel()} numbers in the images are outside "
                f"the bounds {_least(lower):g} … {_most(upper):g}: the images go from "
                f"{_least(self.images):g} to {_most(self.images):g}. For images that are "
                "normalised by mean and std make the attack by "
                "InterpretationAttack.normalized(attribution, mean=…, std=…); for others give "
                "lower_bound and upper_bound"
            )
        # Rounding is no violation: such a pixel may stay where it is.
        own = self.images
        return torch.minimum(lower.to(own.dtype), own), torch.maximum(upper.to(own.dtype), own)

    def _slack(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return by how much rounding may put a number outside."""
        spacing = torch.finfo(self.images.dtype).eps * torch.maximum(lower.abs(), upper.abs())
        slack = torch.maximum(_SLACK * (upper - lower), 4 * spacing)
        return torch.where(slack.isfinite(), slack, 0.0)

    def _shortened(self, inputs: Images) -> Images:
        change = inputs.double() - self.images.double()
        length = _lengths(change * self.scale)
        factor = (self.radius / torch.where(length > 0, length, 1.0)).clamp(max=1.0)
        result = self.images
        open_rows = torch.ones_like(length, dtype=torch.bool)
        for shrinking in _SHRINKING:
            # The sum is rounded to the dtype of the images, and must still be inside.
            tried = (self.images.double() + change * factor * shrinking).to(inputs.dtype)
            size = _lengths((tried.double() - self.images.double()) * self.scale)
            fits = open_rows & (size <= self.radius)
            result = torch.where(fits, tried, result)
            open_rows = open_rows & ~fits
            if not bool(open_rows.any()):
                break
        return result


def spread(amount: Amount, images: Images, name: str) -> Tensor:
    """Return a number, one for each channel, or a tensor as one that is broadcast to the images.

    Raises:
        ShapeError: It cannot be.

    Example:
        >>> spread(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(1, 3, 8, 8), "radius").shape
        torch.Size([1, 3, 1, 1])
    """
    tensor = torch.as_tensor(amount, dtype=torch.float64).detach().to(images.device)
    if tensor.dim() == 1 and len(tensor) in {1, images.shape[1]}:
        tensor = tensor.view(1, -1, 1, 1)
    try:
        fits = torch.broadcast_shapes(tensor.shape, images.shape) == images.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ShapeError(
            f"{name} is one number, one for each of {images.shape[1]} channels, or broadcast to "
            f"the images {tuple(images.shape)}; got shape {tuple(tensor.shape)}"
        )
    return tensor.view(*[1] * (4 - tensor.dim()), *tensor.shape)


def _within(images: Images, edge: Tensor, reach: Tensor) -> Images:
    """Return the edge in the dtype of the images, rounded so that it is not beyond the reach."""
    rounded = edge.to(images.dtype)
    for _ in range(2):
        beyond = (rounded.double() - images.double()).abs() > reach
        inner = rounded + (images - rounded).sign() * rounded.abs() * torch.finfo(images.dtype).eps
        rounded = torch.where(beyond, inner, rounded)
    beyond = (rounded.double() - images.double()).abs() > reach
    return torch.where(beyond, images, rounded)


def _lengths(values: Tensor) -> Tensor:
    length: Tensor = values.flatten(1).norm(dim=1)
    return length.view(-1, 1, 1, 1)


def _rows(values: Tensor, chosen: Tensor) -> Tensor:
    return values if len(values) == 1 else values[chosen]


def _least(values: Tensor) -> float:
    return float(values.double().amin()) if values.numel() else math.nan


def _most(values: Tensor) -> float:
    return float(values.double().amax()) if values.numel() else math.nan
