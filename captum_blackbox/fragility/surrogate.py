"""The same network with its kinks smoothed, so that its gradients have a derivative."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_blackbox.errors import InputError
from captum_blackbox.hooks import CallHandler, intercepted, unwrapped

Smooth: TypeAlias = Callable[..., Tensor]
"""Pre-activation, β, and the other arguments of the activation → its smooth version."""


def _checked(beta: float | int) -> float:
    is_number = isinstance(beta, int | float) and not isinstance(beta, bool)
    if not (is_number and math.isfinite(beta) and beta > 0):
        raise InputError(
            f"beta is a positive finite number, got {beta!r}; larger is closer to ReLU, and None "
            "stands for the network itself"
        )
    return float(beta)


@dataclass(frozen=True)
class GrowingBeta:
    r"""A sharpness β that grows geometrically, from a smooth network to the network itself.

    .. math:: \beta_t = \beta_0 \, (\beta_1 / \beta_0)^{\min(t, T) / T}

    It follows the number of the step, not its share of all steps, so that more steps go on where
    fewer steps end.

    Args:
        start: β of the first step.
        end: β from step ``steps`` on.
        steps: Steps until then.

    Raises:
        InputError: A β is not positive and finite, or ``steps`` is less than 1.

    References:
        Dombrowski et al., "Explanations can be manipulated and geometry is to blame", NeurIPS 2019
        (whose published code grows β from 10 to 100).

    Example:
        >>> beta = GrowingBeta(start=10, end=1000, steps=200)
        >>> beta(0), round(beta(100), 6), round(beta(200), 6), round(beta(999), 6)
        (10.0, 100.0, 1000.0, 1000.0)
    """

    start: float | int = 10.0
    end: float | int = 100.0
    steps: int = 300

    def __post_init__(self) -> None:
        """Refuse what is no growth."""
        _checked(self.start)
        _checked(self.end)
        if self.steps < 1:
            raise InputError(f"steps of a growing beta is at least 1, got {self.steps}")

    def __call__(self, step: int) -> float:
        """Return β at a step, counted from 0."""
        share = min(step, self.steps) / self.steps
        return float(self.start * (self.end / self.start) ** share)


@dataclass(frozen=True)
class RelativeBeta:
    r"""A sharpness in units of the pre-activations themselves.

    .. math:: \beta = r / \mathrm{rms}(z)

    where the mean is over an image's map (activations of four axes or more, the batch first) or
    over the last axis (vectors and tokens, wherever their batch is). Networks differ in the size of
    their pre-activations, and layers of a network, too: a fixed β that bends one hardly bends
    another. With a relative one, a network whose hidden units are scaled up and down again is
    attacked alike. In a derivative β is held fixed.

    Args:
        ratio: β times the root mean square of an image's pre-activations.

    Raises:
        InputError: It is not positive and finite.

    Example:
        >>> RelativeBeta(6.0).of(torch.tensor([[-2.0, 2.0]]))  # their root mean square is 2
        tensor([[3.]])
    """

    ratio: float | int = 10.0

    def __post_init__(self) -> None:
        """Refuse what is no sharpness."""
        _checked(self.ratio)

    def of(self, z: Tensor) -> Tensor:
        """Return β for pre-activations, broadcast to them, detached, in float32 or wider."""
        wide = z.detach().to(torch.promote_types(z.dtype, torch.float32))
        if z.dim() == 0:
            size = wide.abs()
        else:
            axes = tuple(range(1, z.dim())) if z.dim() > 3 else (-1,)
            size = _shared(wide.square().mean(axes, keepdim=True).sqrt())
        return self.ratio / torch.where(size > 0, size, 1.0)


_ROWS_OF_PAIRS: ContextVar[int | None] = ContextVar("_ROWS_OF_PAIRS", default=None)


@contextmanager
def paired_sharpness(rows: int) -> Iterator[None]:
    """Let the second half of a batch be as smooth as the first: of images and their baselines.

    A difference of outputs between the two means nothing if they went through different functions.

    Args:
        rows: Of the batch, images and baselines together.
    """
    token = _ROWS_OF_PAIRS.set(rows)
    try:
        yield
    finally:
        _ROWS_OF_PAIRS.reset(token)


def _shared(size: Tensor) -> Tensor:
    rows = _ROWS_OF_PAIRS.get()
    if rows is None:
        return size
    if len(size) % rows == 0:
        return torch.cat([size.chunk(2)[0]] * 2)
    if size.dim() == 3 and size.shape[1] == rows:  # tokens before the batch
        return torch.cat([size.chunk(2, 1)[0]] * 2, 1)
    return size


DEFAULT_BETA = RelativeBeta(10.0)
"""Of the surrogate; on SqueezeNet every fixed β tried was weaker, see benchmarks/results."""

Sharpness: TypeAlias = float | int | RelativeBeta
"""β of one forward pass."""

Beta: TypeAlias = float | int | RelativeBeta | GrowingBeta | None
"""Sharpness of the surrogate: fixed, relative, growing with the steps, or ``None`` for the network
itself."""


def beta_at(beta: Beta, step: int) -> Sharpness | None:
    """Return β at a step, counted from 0.

    Raises:
        InputError: β is not positive and finite.

    Example:
        >>> beta_at(30, 7), beta_at(GrowingBeta(10, 100, 1), 7), beta_at(None, 7)
        (30.0, 100.0, None)
    """
    if beta is None:
        return None
    if isinstance(beta, GrowingBeta):
        return beta(step)
    return beta if isinstance(beta, RelativeBeta) else _checked(beta)


@dataclass
class Softened:
    """What a softened network met.

    Attributes:
        activations: Kinks that were smoothed since the block began, in all forward passes. 0 after
            a forward pass means that the network has none, or hides them from torch's functions
            (TorchScript, operators of its own).
    """

    activations: int = 0


@contextmanager
def softened(network: nn.Module, beta: Sharpness | None) -> Iterator[Softened]:
    r"""Let every ReLU of ``network`` act as a softplus while the block runs.

    .. math:: \mathrm{softplus}_\beta(z) = \log(1 + e^{\beta z}) / \beta, \qquad
        0 \le \mathrm{softplus}_\beta(z) - \mathrm{relu}(z) \le \ln 2 / \beta

    The gradient of a ReLU network is constant in pieces, so its maps have a derivative of 0 almost
    everywhere; those of the softened network change with the images. Weights are shared: nothing
    is copied. ReLU6 and Hardtanh become a difference of two softplus, LeakyReLU and PReLU
    ``slope * z + (1 - slope) * softplus(z)``; as modules, functions or methods, in place or not.
    Smooth activations (GELU, SiLU, sigmoid …), maxima and max pooling stay as they are.

    Args:
        network: Whose forward passes are changed; one inside ``torch.compile`` or ``DataParallel``
            must be called by itself.
        beta: Sharpness β, in units of one over a pre-activation; or relative to their size, see
            :class:`RelativeBeta`. ``None`` changes nothing.

    Yields:
        How many activations have been met.

    Raises:
        InputError: β is not positive and finite.

    Example:
        >>> network = nn.Sequential(nn.ReLU())
        >>> with softened(network, beta=10.0) as seen:
        ...     print(network(torch.zeros(1)), seen.activations)
        tensor([0.0693]) 1
        >>> network(torch.zeros(1))
        tensor([0.])
    """
    seen = Softened()
    if beta is None:
        yield seen
        return
    sharpness = beta if isinstance(beta, RelativeBeta) else _checked(beta)

    def handle(
        _path: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:  # noqa: ANN401
        smooth = _SMOOTH.get(function)
        if smooth is None:
            return function(*args, **kwargs)
        seen.activations += 1
        return smooth(sharpness, *args, **kwargs)

    def new_handler() -> CallHandler:
        return handle

    with intercepted(unwrapped(network), new_handler):
        yield seen


def _softplus(z: Tensor, beta: Sharpness, shift: float | int = 0) -> Tensor:
    """Return the softplus of ``z - shift``, as sharp as ``z`` asks for."""
    shifted = z - shift if shift else z
    if not isinstance(beta, RelativeBeta):
        return F.softplus(shifted, beta)
    sharpness = beta.of(z)
    # In half precision β overflows where pre-activations are small.
    smooth = F.softplus(shifted.to(sharpness.dtype) * sharpness) / sharpness
    return smooth.to(z.dtype)


def _relu(beta: Sharpness, z: Tensor) -> Tensor:
    return _softplus(z, beta)


def _hardtanh(
    beta: Sharpness, z: Tensor, min_val: float | int = -1.0, max_val: float | int = 1.0
) -> Tensor:
    return min_val + _softplus(z, beta, min_val) - _softplus(z, beta, max_val)


def _relu6(beta: Sharpness, z: Tensor) -> Tensor:
    return _softplus(z, beta) - _softplus(z, beta, 6)


def _leaky_relu(beta: Sharpness, z: Tensor, negative_slope: float | int = 0.01) -> Tensor:
    return negative_slope * z + (1 - negative_slope) * _softplus(z, beta)


def _prelu(beta: Sharpness, z: Tensor, weight: Tensor) -> Tensor:
    slope = weight.view(-1, *[1] * (z.dim() - 2)) if weight.numel() > 1 else weight
    return slope * z + (1 - slope) * _softplus(z, beta)


def _may_write(smooth: Smooth) -> Smooth:
    """Return the version for functions with a switch ``inplace``."""

    def smoothed(
        beta: Sharpness,
        input: Tensor,  # noqa: A002 - torch's name for it
        *args: Any,
        inplace: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        return (_in_place(smooth) if inplace else smooth)(beta, input, *args, **kwargs)

    return smoothed


def _in_place(smooth: Smooth) -> Smooth:
    """Return the version that overwrites its input, as whoever else holds that tensor expects."""

    def smoothed(beta: Sharpness, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: A002
        return input.copy_(smooth(beta, input.clone(), *args, **kwargs))

    return smoothed


def _plain(smooth: Smooth) -> Smooth:
    """Return the version for functions that call their tensor ``input``."""

    def smoothed(beta: Sharpness, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: A002
        return smooth(beta, input, *args, **kwargs)

    return smoothed


_SMOOTH: dict[Callable[..., Any], Smooth] = {
    **dict.fromkeys([torch.relu, Tensor.relu], _plain(_relu)),
    **dict.fromkeys([torch.relu_, Tensor.relu_], _in_place(_relu)),
    F.relu: _may_write(_relu),
    F.relu6: _may_write(_relu6),
    F.hardtanh: _may_write(_hardtanh),
    F.hardtanh_: _in_place(_hardtanh),
    F.leaky_relu: _may_write(_leaky_relu),
    F.leaky_relu_: _in_place(_leaky_relu),
    **dict.fromkeys([torch.prelu, Tensor.prelu], _plain(_prelu)),
}
