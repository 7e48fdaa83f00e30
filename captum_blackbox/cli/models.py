"""Networks by the words of the command line: from torchvision, timm or the user's own file."""

import difflib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from captum_blackbox.cli.options import DeviceName
from captum_blackbox.errors import InputError, MissingExtraError

WEIGHT_FILES = (".safetensors", ".pt", ".pth")
_FORMS = "torchvision:NAME, timm:NAME or file.py:factory"


def make_network(
    spec: str, *, num_classes: int | None = None, option: str = "--model"
) -> Callable[..., Any]:
    """Return the network, or other callable, that ``spec`` names; its weights may be untrained.

    Args:
        spec: One of ``torchvision:NAME``, ``timm:NAME``, ``file.py:factory``.
        num_classes: For a network from torchvision or timm, where it is not their default.
        option: Named in messages.

    Raises:
        BadParameter: The words cannot be understood.
        InputError: There is no such network, or the user's file failed.
        MissingExtraError: timm is not installed.
    """
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise typer.BadParameter(f"{option} is {_FORMS}; got {spec!r}")
    sizes = {} if num_classes is None else {"num_classes": num_classes}
    if source == "torchvision":
        return _from_torchvision(name, sizes)
    if source == "timm":
        return _from_timm(name, sizes)
    if not source.endswith(".py"):
        raise typer.BadParameter(f"{option} is {_FORMS}; got {spec!r}")
    return _from_file(Path(source), name, option)


def load_weights(
    network: Callable[..., Any], weights: str, *, spec: str = "", option: str = "--weights"
) -> None:
    """Load ``weights`` into ``network``: a file, or the name of torchvision's weights of ``spec``.

    Messages name ``option``.

    Raises:
        InputError: There is no such file, it holds something else, or it does not fit.
    """
    if not isinstance(network, nn.Module):
        raise InputError(
            f"weights can be loaded into an nn.Module, not into a {type(network).__name__}; let "
            "the factory load them"
        )
    path = Path(weights)
    if path.suffix not in WEIGHT_FILES:
        path = _downloaded(torchvision_weights(spec, weights))
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; correct {option}")
    state = _read_state(path)
    consume_prefix_in_state_dict_if_present(state, "module.")
    _check_state(path, state, network)
    network.load_state_dict(state)


def torchvision_weights(spec: str, name: str) -> Any:  # noqa: ANN401 - an enum of torchvision
    """Return torchvision's entry for weights ``name`` of the network ``spec``.

    Raises:
        InputError: There is none.
    """
    source, _, network = spec.rpartition(":")
    if source != "torchvision":
        raise InputError(
            f"weights are a .safetensors, .pt or .pth file, or, with torchvision:NAME, the name of "
            f"torchvision weights; got {name!r} for {spec!r}"
        )
    from torchvision.models import get_model_weights

    known = get_model_weights(network)
    try:
        return known[name.rpartition(".")[2]]
    except KeyError:
        names = ", ".join(["DEFAULT", *(each.name for each in known)])
        raise InputError(f"torchvision has the weights {names} for {network}, not {name}") from None


def device_named(name: DeviceName) -> torch.device:
    """Return the device.

    Raises:
        InputError: CUDA was asked for and is not there.
    """
    if name is DeviceName.AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name is DeviceName.CUDA and not torch.cuda.is_available():
        raise InputError("--device cuda was asked for, but torch finds no CUDA; use --device cpu")
    return torch.device(name.value)


def _from_torchvision(name: str, sizes: Mapping[str, int]) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, n=3))
        hint = f"; did you mean {near}?" if near else ""
        raise InputError(f"torchvision has no classification network {name!r}{hint}")
    network: nn.Module = models.get_model(name, weights=None, **sizes)
    return network.eval()


def _from_timm(name: str, sizes: Mapping[str, int]) -> nn.Module:
    if importlib.util.find_spec("timm") is None:
        raise MissingExtraError(
            f"timm:{name} needs the package timm: pip install 'captum-blackbox[timm]'"
        )
    import timm

    if name not in timm.list_models():
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=3))
        raise InputError(f"timm has no network {name!r}" + (f"; did you mean {near}?" * bool(near)))
    network: nn.Module = timm.create_model(name, pretrained=False, **sizes)
    return network.eval()


def _from_file(path: Path, factory: str, option: str) -> Callable[..., Any]:
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; {option} is {_FORMS}")
    name = f"_captum_blackbox_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{str(path)!r} cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as for any import: dataclasses look their module up
    sys.path.insert(0, str(path.parent.resolve()))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
        made = getattr(module, factory, None)
        network = made() if callable(made) else made
    except Exception as error:
        raise InputError(
            f"{path.name}:{factory} raised {type(error).__name__}: {error}; the factory is called "
            "without arguments"
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not callable(network):
        what = "there is no such name" if made is None else f"got a {type(network).__name__}"
        raise InputError(f"{path.name}:{factory} must return a network or a function; {what}")
    return network.eval() if isinstance(network, nn.Module) else network


def _downloaded(entry: Any) -> Path:  # noqa: ANN401
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    if not path.is_file():
        raise InputError(
            f"the weights {entry} are not on this machine ({path} is missing), and nothing is "
            f"downloaded here; fetch {entry.url} yourself and give the file to --weights"
        )
    return path


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise InputError(f"{str(path)!r} cannot be read as weights: {error}") from error
    except Exception as error:  # pickle.UnpicklingError, without naming pickle
        raise InputError(
            f"{str(path)!r} holds more than weights, and code in it is not run; save "
            "network.state_dict() instead"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{str(path)!r} holds no weights by name; save network.state_dict()")
    return dict(state)


def _check_state(path: Path, state: Mapping[str, Tensor], network: nn.Module) -> None:
    here = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in state.items()}
    differing = [name for name in here | there if here.get(name) != there.get(name)]
    if differing:
        name = differing[0]
        raise InputError(
            f"the weights in {str(path)!r} do not fit {type(network).__name__}: {len(differing)} "
            f"entries differ, the first is {name!r} with {there.get(name, 'nothing')} in the file "
            f"and {here.get(name, 'nothing')} in the network"
        )
