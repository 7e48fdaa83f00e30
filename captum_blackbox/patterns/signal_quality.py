"""How much of a layer's output an estimator of signal leaves in what it calls noise."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_blackbox.errors import InputError, LayerError, warn_user
from captum_blackbox.hooks import Layers, evaluating, find_layers, unwrapped
from captum_blackbox.patterns.layer_quality import LayerQuality
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.patterns.observation import observed
from captum_blackbox.patterns.patterns import Patterns
from captum_blackbox.patterns.quality_result import SignalQuality
from captum_blackbox.patterns.sampled_patches import sampled_patches
from captum_blackbox.patterns.structure import LayerUse
from captum_blackbox.statistics import OnePass

_RANDOM = "random"


def signal_quality(
    model: nn.Module,
    patterns_or_dict: Patterns | Mapping[str, Patterns],
    *,
    fit_loader: Iterable[Any],
    eval_loader: Iterable[Any],
    random_baseline: bool = True,
    layers: Layers = None,
    max_positions: int = 64,
    max_width: int = 4608,
    max_units: int = 64,
    seed: int = 0,
    show_progress: bool = True,
) -> SignalQuality:
    """Return how little of a unit's output is left in what an estimator takes for distractor.

    An estimator S splits the input x of a unit with output y = wᵀx into signal S(x) and distractor
    x - S(x). The better it is, the less y correlates with anything linear in the distractor:
    rho(S) = 1 - max_v corr(wᵀx, vᵀ(x - S(x))). Patterns should come from data of their own; v is
    found on ``fit_loader``, and the correlation is that on ``eval_loader``, so that rho can be
    slightly above 1.

    v has a closed form, from one covariance of the layer's patches (see
    ``quality_criterion.best_direction``). Only for layers with more than ``max_width`` taps it
    comes from least squares in batches on a sample of patches, for ``max_units`` of the units.
    The fewer samples for each tap, the more v fits ``fit_loader`` alone, and the higher rho: for
    200 independent taps, a rho of 0.55 came out as 0.93 with one sample for each, 0.80 with 2,
    0.67 with 5, and 0.59 with 20. Below 2 a warning says so.

    The trivial estimator S(x) = x leaves no distractor, so that its rho is 1. It has no pattern
    and is not listed.

    Memory: for each layer of D taps in G groups 8 · G · D² bytes, 0.17 GB for 4608 taps, four
    times that for one of them at a time; or 1.5 GB if it is wider; and 8 bytes for each weight and
    estimator.

    Args:
        model: The model that the patterns belong to.
        patterns_or_dict: Patterns, called by their regime in the result; or name → patterns.
        fit_loader: Batches of inputs, or of tuples that start with them, to find v on.
        eval_loader: The same, to judge it on.
        random_baseline: Add the estimator ``"random"``, S(x) = u wᵀx / (wᵀu) with u ~ N(0, 1).
        layers: Modules or names; ``None`` for every layer that has patterns.
        max_positions: How many positions (tokens, for ``Linear``) are drawn from each image.
        max_width: Taps above which v comes from least squares in batches.
        max_units: How many units are judged in such a layer, at least one of each group.
        seed: For positions, the baseline, and what wide layers draw; the same numbers whichever
            layers are asked for.
        show_progress: Show a bar that counts batches.

    Raises:
        InputError: A setting cannot be used, a loader is empty, or a layer sees NaN.
        LayerError: A layer has no patterns.
        ArtifactError: The patterns belong to another model.

    References:
        Kindermans et al., "Learning how to explain neural networks: PatternNet and
        PatternAttribution", ICLR 2018, Eq. 1 and Fig. 3. There v comes from gradient descent.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> first, second, third = torch.randn(3, 200, 4).unbind()
        >>> patterns = Patterns.fit(model, [first], regime="linear", show_progress=False)
        >>> quality = signal_quality(
        ...     model, patterns, fit_loader=[second], eval_loader=[third], show_progress=False
        ... )
        >>> list(quality), quality["linear"]["0"].shape
        (['linear', 'random'], torch.Size([8]))
    """
    for name, value in (("max_positions", max_positions), ("max_units", max_units)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    model = unwrapped(model)
    estimators = _named(patterns_or_dict, model, random_baseline)
    uses = _uses(model, estimators, layers)
    fit_data, eval_data = OnePass(fit_loader), OnePass(eval_loader)
    judged = {
        name: LayerQuality(
            model.get_submodule(name),
            max_width=max_width,
            max_units=max_units,
            generator=_drawn(seed, name),
        )
        for name in uses
    }
    for name, layer in judged.items():
        _add(layer, name, estimators, random_baseline)
    run = partial(_run, model, uses, judged, max_positions, seed, show_progress)
    run("fit_loader", fit_data, LayerQuality.fit)
    few = [name for name, layer in judged.items() if not layer.finish_fit()]
    if few:
        warn_user(
            "fit_loader gives fewer than 2 patches for each number in a patch at "
            f"{', '.join(few)}: v fits them one by one, and rho is too high; give more images, or "
            "a larger max_positions"
        )
    run("eval_loader", eval_data, LayerQuality.evaluate)
    rho: dict[str, dict[str, Tensor]] = {}
    for name, layer in judged.items():
        for estimator, found in layer.quality().items():
            rho.setdefault(estimator, {})[name] = found
    return SignalQuality(rho)


@torch.no_grad()
def _run(
    model: nn.Module,
    uses: Mapping[str, LayerUse],
    judged: Mapping[str, LayerQuality],
    max_positions: int,
    seed: int,
    show_progress: bool,
    title: str,
    data: OnePass,
    receive: Callable[[LayerQuality, Tensor, Tensor], None],
) -> None:
    """Pass sampled patches of every layer to ``receive``, batch by batch."""
    layers = {name: LinearLayer.of(model.get_submodule(name)) for name in uses}
    number = 0

    def sample(name: str, inputs: Tensor, outputs: Tensor) -> None:
        generator = _drawn(seed, f"{name} {number}")
        patches, on = sampled_patches(layers[name], inputs, outputs, max_positions, generator)
        if not patches.isfinite().all():
            raise InputError(
                f"batch {number} of {title}: layer {name!r} sees NaN or infinite numbers; leave "
                "that batch out, or find the image or layer they come from"
            )
        receive(judged[name], patches, on)

    bar = tqdm(total=len(data) or None, desc=title, unit="batch", disable=not show_progress)
    with bar, evaluating(model), observed(model, uses, sample):
        for number, batch in data.batches():  # noqa: B007 - sample reads it
            model(batch.to(next(model.parameters())))
            bar.update()


def _named(
    given: Patterns | Mapping[str, Patterns], model: nn.Module, random_baseline: bool
) -> dict[str, Patterns]:
    """Return name → patterns, all of this model."""
    named: dict[str, Patterns] = {}
    named.update({given.regime: given} if isinstance(given, Patterns) else given)
    if not named:
        raise InputError("there is no estimator to judge; give at least one Patterns")
    if random_baseline and _RANDOM in named:
        raise InputError(
            "'random' is the name of the baseline; rename those patterns or set "
            "random_baseline=False"
        )
    for patterns in named.values():
        patterns.check(model)
    return named


def _add(
    layer: LayerQuality, name: str, estimators: Mapping[str, Patterns], random_baseline: bool
) -> None:
    for estimator, patterns in estimators.items():
        layer.add(estimator, patterns[name], patterns.negative.get(name))
    if random_baseline:
        layer.add_random(_RANDOM)


def _uses(
    model: nn.Module, estimators: Mapping[str, Patterns], layers: Layers
) -> dict[str, LayerUse]:
    """Return the layers to judge and how the model uses them."""
    known = next(iter(estimators.values())).structure.layers
    wanted = list(known) if layers is None else list(find_layers(model, layers))
    for name in wanted:
        for estimator, patterns in estimators.items():
            if name not in patterns:
                raise LayerError(
                    f"layer {name!r} has no pattern in {estimator!r}; choose among "
                    f"{', '.join(map(repr, patterns))}"
                )
    return {name: known[name] for name in wanted}


def _drawn(seed: int, purpose: str) -> torch.Generator:
    """Return a generator for one purpose: its numbers do not depend on what else is drawn."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {purpose}".encode()))
