"""Fit patterns: one pass over the data, for every layer and regime together."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn
from tqdm.auto import tqdm

from captum_blackbox.artifacts import check_header, fingerprint, load_artifact, save_artifact
from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.hooks import find_layers, first_parameter, unwrapped
from captum_blackbox.patterns.estimators import Final, Regime, components_of
from captum_blackbox.patterns.gathering import Gathering
from captum_blackbox.patterns.patterns import Patterns
from captum_blackbox.patterns.tracing import trace
from captum_blackbox.statistics import (
    Centre,
    OnePass,
    failing_together,
    merge_across_processes,
    this_process,
)


@torch.inference_mode(False)
def fit_patterns(
    model: nn.Module,
    loader: Iterable[Any],
    regimes: Sequence[Regime] = ("positive",),
    *,
    final: Final = "positive",
    layers: Sequence[str] | None = None,
    regime_centering: bool = False,
    centre: Centre = "exact",
    additional_forward_args: object = None,
    allow_non_relu: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    show_progress: bool = True,
) -> dict[Regime, Patterns]:
    """Estimate patterns of several regimes in one pass over data, without labels.

    The cost is a forward pass over the data, and for each convolution up to three times what its
    own forward pass costs (none for ``"filter"``, one for ``"linear"``, two for ``"positive"``,
    three for anything else). Memory beside the forward pass: two float64 numbers per weight for
    ``"positive"``, three for everything, at most 128 MiB of temporary tensors, and at the end, a
    layer at a time, some eight more for each of its weights. Started by ``torchrun`` or
    ``accelerate launch``, each process reads its share of the batches, and all end with the same
    patterns.

    Args:
        model: The network; runs in evaluation mode, without gradients, and is left as it was.
        loader: A ``DataLoader``, any iterable of batches, or one tensor of inputs. A batch is a
            tensor of inputs, or a tuple or list that starts with one. Data of a few hundred images
            are a start; a last layer of 4096 inputs needs thousands.
        regimes: See :meth:`Patterns.fit`.
        final: See :meth:`Patterns.fit`.
        layers: Names of those that get a pattern; by default all. The others pass the gradient.
        regime_centering: Centre within the regime; see
            :func:`~captum_blackbox.patterns.estimators.estimate`.
        centre: ``"sampled"`` saves a third of the time for ``"positive"`` and is not exact; see
            :class:`~captum_blackbox.statistics.RegimeCovariance`.
        additional_forward_args: Passed to the model after each batch, the same for all.
        allow_non_relu: Pass the gradient at activations without a rule (GELU, sigmoid …) instead
            of refusing the network.
        checkpoint: A file to keep what was gathered in; a run that was killed goes on from there.
            It is removed when the patterns are done.
        checkpoint_every: Batches between two writings of it.
        show_progress: Show a bar that counts batches.

    Returns:
        Regime → patterns.

    Raises:
        LayerError: The network has no layer with a pattern, or a part without a rule.
        InputError: There is no batch, or one has values that are not finite; it is named.
        ArtifactError: The checkpoint belongs to another run; what differs is named.

    Warns:
        ExplanationWarning: Many units have no pattern.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> fitted = fit_patterns(
        ...     model, torch.randn(99, 3), ["linear", "positive"], show_progress=False
        ... )
        >>> list(fitted)
        ['linear', 'positive']
    """
    if not regimes:
        raise InputError("regimes is empty; name at least one, such as 'positive'")
    for regime in regimes:
        check_choice("regime", regime, get_args(Regime))
    check_choice("final", final, get_args(Final))
    if checkpoint_every < 1:
        raise InputError(f"checkpoint_every is a number of batches, got {checkpoint_every}")
    model = unwrapped(model)
    process, processes = this_process()
    data = OnePass(loader, process, processes)
    structure = trace(
        model,
        data.first[:1].to(first_parameter(model)),
        additional_forward_args,
        allow_non_relu=allow_non_relu,
    )
    if layers is not None:
        structure = structure.only(find_layers(model, layers))
    components = {
        name: {
            component
            for regime in regimes
            for component in components_of(regime, final, is_gated=use.gate is not None)
        }
        for name, use in structure.layers.items()
    }
    gathering = Gathering(
        model, structure, components, data.first.shape[1:], centre, additional_forward_args
    )
    kept = None
    if checkpoint is not None:
        header = {
            "kind": "patterns in the making",
            "model": fingerprint(model),
            "components": {name: sorted(each) for name, each in components.items()},
            "structure": structure.to_json(),
            "centre": centre,
            "data": data.digest(),
            "batches": len(data),
            "process": [process, processes],
        }
        kept = _Checkpoint(checkpoint, header, checkpoint_every)
        kept.resume(gathering)
    if gathering.needs_data:
        with failing_together():
            _gather(gathering, data, kept, show_progress=show_progress and process == 0)
    _merge(gathering, processes)
    fitted = {
        regime: gathering.patterns(regime, final, regime_centering=regime_centering)
        for regime in regimes
    }
    if kept is not None:
        kept.remove()
    return fitted


def _gather(
    gathering: Gathering, data: OnePass, kept: "_Checkpoint | None", *, show_progress: bool
) -> None:
    done = gathering.count.batches
    with tqdm(
        total=len(data) or None,
        initial=done,
        desc="patterns",
        unit="batch",
        disable=not show_progress,
    ) as bar:
        for number, batch in data.batches(start=done):
            gathering.update(batch, data.number_of(number))
            bar.update()
            if kept is not None:
                kept.save_if_due(gathering)


def _merge(gathering: Gathering, processes: int) -> None:
    if processes > 1:
        merge_across_processes(gathering.statistics())
        gathering.load_state(gathering.state())  # to the model's device, from where they met


class _Checkpoint:
    """What was gathered so far, in a file; each process has its own."""

    def __init__(self, path: str | Path, header: dict[str, Any], every: int) -> None:
        process, processes = header["process"]
        own = f".{process}-of-{processes}" if processes > 1 else ""
        self.path = Path(f"{path}{own}")
        self.header = header
        self.every = every

    def resume(self, gathering: Gathering) -> None:
        if self.path.is_file():
            tensors, found = load_artifact(self.path)
            check_header(self.path, found, self.header)
            gathering.load_state(tensors)

    def save_if_due(self, gathering: Gathering) -> None:
        if gathering.count.batches % self.every == 0:
            save_artifact(self.path, gathering.state(), self.header)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
