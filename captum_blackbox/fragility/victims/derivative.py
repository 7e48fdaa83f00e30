"""Check the derivative of an explanation against its differences."""

import torch
from torch import Tensor

from captum_blackbox.errors import ShapeError
from captum_blackbox.fragility.victims.victim import Victim
from captum_blackbox.shapes import Labels, PerImage

_STEP = 1e-5
_ROUNDING = 64 * torch.finfo(torch.float64).eps


def derivative_error(
    victim: Victim, images: Tensor, target: Labels, *, seed: int = 0, step: float = _STEP
) -> PerImage:
    r"""Return how far an explanation's derivative is from what it does when the image moves.

    With a random weight :math:`c` on the map :math:`E` and a random direction :math:`v`

    .. math:: \frac{|\langle \nabla_x \langle c, E(x) \rangle, v \rangle - d|}
        {\max(|\langle \nabla_x \langle c, E(x) \rangle, v \rangle|, |d|)}, \qquad
        d = \frac{\langle c, E(x + hv) - E(x - hv) \rangle}{2h}

    It is for explanations of one's own: a map that lost part of its graph attacks in a wrong
    direction without an error.

    Args:
        victim: From :func:`victim_of`. Its network must be in double precision, and smooth where
            it is: for a network with ReLUs, whose maps are constant in pieces, call this inside
            :func:`~captum_blackbox.fragility.softened` with a number as beta. A relative one is
            held fixed in the derivative, and moves with the image in the difference: inside
            ``softened(model, RelativeBeta())`` a right saliency is a few percent off.
        images: ``(N, C, H, W)``, double precision.
        target: The class explained, ``(N,)``.
        seed: Of weight and direction.
        step: h, in units of the images.

    Returns:
        ``(N,)``, about ``1e-6`` or less if the derivative is right; 0 where the map moves no more
        than rounding does; around 1 if it is wrong.

    Raises:
        ShapeError: The images are not in double precision.
        VictimError: The map lost its graph.

    Example:
        >>> from captum.attr import Saliency
        >>> from captum_blackbox.fragility.victims import victim_of
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2), torch.nn.Tanh())
        >>> victim = victim_of(Saliency(model.double()))
        >>> images = torch.rand(3, 3, 2, 2, dtype=torch.float64)
        >>> bool((derivative_error(victim, images, torch.tensor([0, 1, 0])) < 1e-6).all())
        True
    """
    if images.dtype != torch.float64:
        raise ShapeError(f"expected images in double precision, got {images.dtype}")
    with victim.ready():
        clean = victim.explain(images, target).maps
        weight = _normal_like(clean, seed)
        along = _normal_like(images, seed + 1)

        def measured(maps: Tensor) -> Tensor:
            return (maps * weight).flatten(1).sum(1)

        gradient = victim.direction(images, target, measured)
        slope = (gradient * along).flatten(1).sum(1)
        ahead, behind = (
            measured(victim.explain(images + sign * step * along, target).maps) for sign in (1, -1)
        )
    difference = (ahead - behind) / (2 * step)
    rounding = _ROUNDING * measured(clean.abs() * weight.sign()) / step
    off = ((slope - difference).abs() - rounding).clamp(min=0)
    return off / torch.maximum(slope.abs(), difference.abs()).clamp(min=1e-300)


def _normal_like(tensor: Tensor, seed: int) -> Tensor:
    """Return the same random numbers for every image."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape[1:], generator=generator, dtype=tensor.dtype).to(tensor.device)
