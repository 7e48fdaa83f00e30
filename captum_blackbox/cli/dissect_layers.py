"""Which layer is dissected where none is named, and the same network with random weights."""

import copy
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import evaluating, first_parameter, on_output, out_of_place


def last_layer_with_maps(network: nn.Module, inputs: Tensor) -> str:
    """Return the name of the last layer whose output is maps of more than one row and column.

    Of modules that put out the same, it is the innermost one. Modules that run twice have no single
    output and are passed over.

    Args:
        network: The network; it is left as it was.
        inputs: That it takes, ``(1, C, H, W)``.

    Raises:
        LayerError: There is none.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU()), nn.Flatten())
        >>> last_layer_with_maps(network, torch.zeros(1, 3, 8, 8))
        '1.0'
    """
    outputs: list[tuple[str, object]] = []

    def keep(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        outputs.append((name, output))

    with ExitStack() as handles, torch.no_grad(), evaluating(network), out_of_place(network):
        for name, module in network.named_modules():
            if name:
                handles.callback(on_output(module, partial(keep, name)).remove)
        network(inputs.to(first_parameter(network).device))
    names = [name for name, _ in outputs]
    maps = [(name, each) for name, each in outputs if names.count(name) == 1 and _is_maps(each)]
    if not maps:
        raise LayerError(
            f"{type(network).__name__} has no layer that puts out maps (N, units, h, w) of more "
            "than one row and column, so that there is nothing to lay over an image"
        )
    last = maps[-1][1]
    return next(name for name, each in maps if each is last)


def with_random_weights(network: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a network whose weights are drawn anew, as its layers draw them.

    Parameters that belong to a module without ``reset_parameters`` are shuffled.

    Args:
        network: It is left as it was.
        seed: The same one gives the same weights on any device.

    Example:
        >>> network = nn.Linear(2, 2)
        >>> one, other = (with_random_weights(network, seed=1) for _ in range(2))
        >>> torch.equal(one.weight, other.weight), torch.equal(one.weight, network.weight)
        (True, False)
    """
    device = first_parameter(network).device
    copied = copy.deepcopy(network).cpu()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in copied.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                shuffled = torch.randperm(parameter.numel())
                parameter.copy_(parameter.flatten()[shuffled].view_as(parameter))
    return copied.to(device)


def _is_maps(output: object) -> bool:
    return (
        isinstance(output, Tensor)
        and output.dim() == 4
        and output.is_floating_point()
        and min(output.shape[2:]) > 1
    )
