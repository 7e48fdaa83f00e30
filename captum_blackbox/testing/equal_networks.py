"""Networks with other weights or layers that compute the same function."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_blackbox.errors import InputError, LayerError
from captum_blackbox.testing.networks import CHANNELS, CLASSES, SIDE, SmallNetwork, seeded


def reparametrised(
    network: SmallNetwork, layer: int, source: Tensor, scale: Tensor, share: Tensor
) -> SmallNetwork:
    r"""Return a network with other units in one hidden layer that computes the same.

    Unit :math:`k` of the new layer is unit ``source[k]`` of the old one, ``scale[k]`` times as
    large; the next layer takes ``share[k]`` of what it took from the old one. Since ReLU and max
    pooling commute with a positive factor, nothing changes if for each old unit :math:`u`

    .. math:: \sum_{k:\, source_k = u} scale_k\, share_k = 1

    Args:
        network: It is left as it was.
        layer: Which of the convolutions and linear layers, counted from 0; not the last.
        source: ``(new units,)`` old unit of each new one.
        scale: ``(new units,)`` positive; powers of two are exact.
        share: ``(new units,)``, of any sign.

    Raises:
        LayerError: There is no such hidden layer.
        InputError: The function would change.

    Example:
        >>> from captum_blackbox.testing.networks import small_network, some_images
        >>> network, images = small_network(), some_images()
        >>> halves = torch.full((12,), 0.5)
        >>> twins = reparametrised(network, 0, torch.arange(12) % 6, torch.ones(12), halves)
        >>> torch.testing.assert_close(twins(images), network(images))
    """
    result = copy.deepcopy(network)
    parts = result.parts()
    places = [i for i, part in enumerate(parts) if isinstance(part, nn.Conv2d | nn.Linear)]
    if not 0 <= layer < len(places) - 1:
        raise LayerError(f"hidden layers are 0 … {len(places) - 2}, got {layer}")
    old, new = parts[places[layer]], parts[places[layer + 1]]
    if not isinstance(old, nn.Conv2d | nn.Linear) or not isinstance(new, nn.Conv2d | nn.Linear):
        raise LayerError("only convolutions and linear layers have units")  # for the type checker
    _check_exact(source, scale, share, len(old.weight))
    norms = [p for p in parts[places[layer] : places[layer + 1]] if isinstance(p, nn.BatchNorm2d)]
    with torch.no_grad():
        _take_units(norms[0] if norms else old, source, scale)
        if norms:
            _take_units(old, source, torch.ones_like(scale))
        _take_inputs(new, source, share)
    return result


def permuted(network: SmallNetwork, seed: int = 0) -> SmallNetwork:
    """Return the same function with the units of every hidden layer in another order."""
    generator = torch.Generator().manual_seed(seed)
    for layer, units in enumerate(_hidden_units(network)):
        ones = torch.ones(units)
        order = torch.randperm(units, generator=generator)
        network = reparametrised(network, layer, order, ones, ones)
    return network


def rescaled(network: SmallNetwork, seed: int = 0) -> SmallNetwork:
    """Return the same function, bit by bit, with hidden units 1/8 to 8 times as large."""
    generator = torch.Generator().manual_seed(seed)
    for layer, units in enumerate(_hidden_units(network)):
        scale = 2.0 ** torch.randint(-3, 4, (units,), generator=generator)
        network = reparametrised(network, layer, torch.arange(units), scale, 1 / scale)
    return network


def split(network: SmallNetwork) -> SmallNetwork:
    """Return the same function with twins for every hidden unit, one of which works against it.

    The next layer takes 3 times the first and -2 times the second.
    """
    for layer, units in enumerate(_hidden_units(network)):
        source = torch.arange(units).repeat(2)
        share = torch.tensor([3.0, -2.0]).repeat_interleave(units)
        network = reparametrised(network, layer, source, torch.ones(2 * units), share)
    return network


def deepened(network: SmallNetwork) -> SmallNetwork:
    """Return the same function, bit by bit, with a layer more: an identity behind the first."""
    features, head = (list(copy.deepcopy(each) or ()) for each in (network.features, network.head))
    parts = features or head
    first = parts[0]
    if not isinstance(first, nn.Conv2d | nn.Linear):
        raise LayerError(f"expected a convolution or linear layer, got {type(first).__name__}")
    units = len(first.weight)
    with seeded(0), torch.no_grad():
        one: nn.Module = nn.Conv2d(units, units, 1) if features else nn.Linear(units, units)
        one.weight.copy_(torch.eye(units).view_as(one.weight))  # type: ignore[operator, arg-type]
        one.bias.zero_()  # type: ignore[operator]
    parts.insert(1, one.to(first.weight))
    return SmallNetwork(features, head).train(network.training)


def shifted_relus(
    seed: int = 0, *, pairs: int = 3, side: int = SIDE, dtype: torch.dtype = torch.float64
) -> tuple[SmallNetwork, SmallNetwork]:
    r"""Return two networks that compute the same with ReLUs at different places.

    .. math:: \mathrm{ReLU}(\mathrm{ReLU}(a) - 1 - \mathrm{ReLU}(b))
              = \mathrm{ReLU}(\mathrm{ReLU}(a - 1) - \mathrm{ReLU}(b))

    References:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, Figure 7: the
        counter-example for DeepLIFT and LRP.

    Example:
        >>> left, right = shifted_relus()
        >>> images = torch.randn(2, 3, 7, 7, dtype=torch.float64)
        >>> torch.testing.assert_close(left(images), right(images))
    """
    with seeded(seed):
        reading = nn.Conv2d(CHANNELS, 2 * pairs, 1)
        joining = nn.Conv2d(2 * pairs, pairs, 1)
        head = nn.Linear(pairs * side**2, CLASSES)
    early, late = copy.deepcopy(reading), copy.deepcopy(joining)
    with torch.no_grad():
        reading.weight[:pairs] += 1.0  # often above 1
        early.weight.copy_(reading.weight)
        difference = torch.cat([torch.eye(pairs), -torch.eye(pairs)], 1)
        for each in (joining, late):
            each.weight.copy_(difference[:, :, None, None])
        for bias, value in ((reading.bias, 0), (joining.bias, -1), (early.bias, 0), (late.bias, 0)):
            bias.fill_(value)  # type: ignore[union-attr]
        early.bias[:pairs] = -1  # type: ignore[index]
    return (
        SmallNetwork([reading, nn.ReLU(), joining, nn.ReLU()], [head]).to(dtype).eval(),
        SmallNetwork([early, nn.ReLU(), late, nn.ReLU()], [copy.deepcopy(head)]).to(dtype).eval(),
    )


def equal_networks(network: SmallNetwork, seed: int = 0) -> dict[str, SmallNetwork]:
    """Return networks that compute the same as ``network``, by what was done to it.

    Example:
        >>> from captum_blackbox.testing.networks import small_network
        >>> list(equal_networks(small_network()))
        ['permuted', 'rescaled', 'split', 'deepened']
    """
    return {name: change(network, seed) for name, change in CHANGES.items()}


CHANGES: dict[str, Callable[[SmallNetwork, int], SmallNetwork]] = {
    "permuted": permuted,
    "rescaled": rescaled,
    "split": lambda network, _: split(network),
    "deepened": lambda network, _: deepened(network),
}
"""What :func:`equal_networks` does to a network, with a seed."""


def _hidden_units(network: SmallNetwork) -> list[int]:
    layers = [part for part in network.parts() if isinstance(part, nn.Conv2d | nn.Linear)]
    return [len(layer.weight) for layer in layers[:-1]]


def _check_exact(source: Tensor, scale: Tensor, share: Tensor, units: int) -> None:
    if not source.shape == scale.shape == share.shape or source.dim() != 1:
        raise InputError(
            "source, scale and share have one number for each new unit, got shapes "
            f"{tuple(source.shape)}, {tuple(scale.shape)}, {tuple(share.shape)}"
        )
    if bool((scale <= 0).any()):
        raise InputError(f"a ReLU needs positive scales, got {float(scale.min()):g}")
    kept = torch.zeros(units, dtype=torch.float64).index_add_(0, source, (scale * share).double())
    wrong = ((kept - 1).abs() > 1e-6).nonzero().flatten().tolist()
    if wrong:
        raise InputError(
            f"the products of scale and share add up to 1 for each old unit, got "
            f"{float(kept[wrong[0]]):g} for unit {wrong[0]}; the function would change"
        )


def _take_units(layer: nn.Module, source: Tensor, scale: Tensor) -> None:
    """Make the outputs of a layer those of ``source``, ``scale`` times as large."""
    for name in ("weight", "bias"):
        values = getattr(layer, name)
        if values is not None:
            factor = scale.to(values).view(-1, *[1] * (values.dim() - 1))
            setattr(layer, name, nn.Parameter(values[source] * factor))
    if isinstance(layer, nn.BatchNorm2d):
        layer.num_features = len(source)
        for name in ("running_mean", "running_var"):
            setattr(layer, name, getattr(layer, name)[source])
    else:
        setattr(
            layer, "out_channels" if isinstance(layer, nn.Conv2d) else "out_features", len(source)
        )


def _take_inputs(layer: nn.Conv2d | nn.Linear, source: Tensor, share: Tensor) -> None:
    """Make a layer read the units of ``source``, each by its share."""
    weight = layer.weight
    units = int(source.max()) + 1
    if isinstance(layer, nn.Conv2d):
        units = layer.in_channels
    by_unit = weight.flatten(1).view(len(weight), units, -1)  # a unit may be many pixels
    taken = by_unit[:, source] * share.to(weight)[:, None]
    shape = weight.shape[2:] if isinstance(layer, nn.Conv2d) else ()
    if isinstance(layer, nn.Conv2d):
        layer.in_channels = len(source)
        layer.weight = nn.Parameter(taken.view(len(weight), len(source), *shape))
    else:
        layer.weight = nn.Parameter(taken.flatten(1))
        layer.in_features = layer.weight.shape[1]
