"""Every map of ``patterns attribute``: signals in colour, attributions with signs."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from captum.attr import InputXGradient, Saliency
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_blackbox.cli.messages import say
from captum_blackbox.cli.patterns_options import OutputSeedName, ResidualName
from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import evaluating, on_output
from captum_blackbox.patterns import PatternAttribution, PatternNet, Patterns
from captum_blackbox.patterns.peers import deconvnet, guided_backprop, lrp

SIGNALS = {
    "gradient": "Gradient",
    "deconvnet": "DeConvNet",
    "guided-backprop": "Guided Backprop",
    "pattern-net": "PatternNet",
}
ATTRIBUTIONS = {
    "gradient-x-input": "Gradient × input",
    "lrp": "LRP",
    "pattern-attribution": "PatternAttribution",
}
RANDOM = "Random"
_PEERS = ("deconvnet", "guided-backprop", "lrp")
_REFUSALS = (LayerError, RuntimeError, AssertionError)  # of ours, torch and Captum
_AT_ONCE = 8  # images whose maps are held on the device

Maker: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Images and classes → maps of the images' shape."""


@dataclass
class Maps:
    """What was found, one row per image, on the CPU.

    Attributes:
        predicted: The class explained, ``(N,)``.
        probabilities: Of that class, ``(N,)``.
        logits: Its score, ``(N,)``.
        deltas: What PatternAttribution sent back less what arrived, ``(N,)``.
        signals: Name → ``(N, C, H, W)``.
        attributions: Name → ``(N, C, H, W)``.
        left_out: Name of a method → why it has no map.
    """

    predicted: Tensor
    probabilities: Tensor
    logits: Tensor
    deltas: Tensor = field(default_factory=lambda: torch.zeros(0))
    signals: dict[str, Tensor] = field(default_factory=dict)
    attributions: dict[str, Tensor] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def make_maps(
    network: nn.Module,
    patterns: Patterns,
    inputs: Tensor,
    scores: Tensor,
    *,
    residual: ResidualName,
    output_seed: OutputSeedName,
) -> Maps:
    """Explain the prediction on each image by every method that fits the network.

    Args:
        network: On any device.
        patterns: Of the network.
        inputs: ``(N, C, H, W)``.
        scores: The network's probabilities, ``(N, classes)``.
        residual: For the pattern methods.
        output_seed: For the pattern methods.
    """
    predicted = scores.argmax(1).cpu()
    found = Maps(predicted, scores.max(1).values.cpu(), torch.zeros(0))
    device = next(network.parameters()).device
    makers = _makers(network, patterns, residual, output_seed)
    names = SIGNALS | ATTRIBUTIONS
    rows: dict[str, list[Tensor]] = {name: [] for name in ("logits", "deltas", *names.values())}
    with tqdm(total=len(inputs) * len(makers), desc="explaining", unit="map") as bar:
        for start in range(0, len(inputs), _AT_ONCE):
            images = inputs[start : start + _AT_ONCE].to(device)
            classes = predicted[start : start + _AT_ONCE].to(device)
            for kind, make in makers.items():
                if names[kind] not in found.left_out:
                    try:
                        rows[names[kind]].append(make(images, classes).detach().cpu())
                    except _REFUSALS as error:
                        if kind not in _PEERS or isinstance(error, torch.OutOfMemoryError):
                            raise
                        found.left_out[names[kind]] = str(error)
                        say(f"{names[kind]} is left out: {error}")
                bar.update(len(images))
            logits, sent = _sent(network, patterns, images, classes, output_seed)
            rows["logits"].append(logits)
            arrived = rows[ATTRIBUTIONS["pattern-attribution"]][-1].flatten(1).sum(1)
            rows["deltas"].append(sent - arrived)
    found.logits, found.deltas = torch.cat(rows["logits"]), torch.cat(rows["deltas"])
    for group, known in ((found.signals, SIGNALS), (found.attributions, ATTRIBUTIONS)):
        kept = [name for name in known.values() if name not in found.left_out]
        group.update({name: torch.cat(rows[name]) for name in kept})
    return found


def _makers(
    network: nn.Module, patterns: Patterns, residual: ResidualName, output_seed: OutputSeedName
) -> Mapping[str, Maker]:
    net = PatternNet(network, patterns, residual=residual.value)
    attribution = PatternAttribution(network, patterns, residual=residual.value)

    def of_patterns(method: PatternNet | PatternAttribution) -> Maker:
        def make(images: Tensor, classes: Tensor) -> Tensor:
            maps: Tensor = method.attribute(images, target=classes, output_seed=output_seed.value)
            return maps

        return make

    def of_scores(make: Maker) -> Maker:
        # The others explain the score before a softmax at the end, too.
        def made(images: Tensor, classes: Tensor) -> Tensor:
            with ExitStack() as undo:
                _open_head(network, patterns, undo)
                undo.enter_context(evaluating(network))
                return make(images, classes)

        return made

    def gradient(images: Tensor, classes: Tensor) -> Tensor:
        maps: Tensor = Saliency(network).attribute(
            images.clone().requires_grad_(), target=classes, abs=False
        )
        return maps

    def gradient_x_input(images: Tensor, classes: Tensor) -> Tensor:
        maps: Tensor = InputXGradient(network).attribute(
            images.clone().requires_grad_(), target=classes
        )
        return maps

    return {
        "gradient": of_scores(gradient),
        "deconvnet": of_scores(lambda images, classes: deconvnet(network, images, classes)),
        "guided-backprop": of_scores(
            lambda images, classes: guided_backprop(network, images, classes)
        ),
        "pattern-net": of_patterns(net),
        "gradient-x-input": of_scores(gradient_x_input),
        "lrp": of_scores(lambda images, classes: lrp(network, images, classes)),
        "pattern-attribution": of_patterns(attribution),
    }


@torch.no_grad()
def _sent(
    network: nn.Module,
    patterns: Patterns,
    images: Tensor,
    classes: Tensor,
    output_seed: OutputSeedName,
) -> tuple[Tensor, Tensor]:
    """Return the explained score, and what the pattern methods send back from it."""
    with ExitStack() as undo:
        _open_head(network, patterns, undo)
        undo.enter_context(evaluating(network))
        scores = network(images)
    places = classes[:, None]
    logits = scores.gather(1, places)[:, 0]
    sent = {
        OutputSeedName.LOGIT: logits,
        OutputSeedName.ONE: torch.ones_like(logits),
        OutputSeedName.PROBABILITY: scores.softmax(1).gather(1, places)[:, 0],
    }
    return logits.cpu(), sent[output_seed].cpu()


def _open_head(network: nn.Module, patterns: Patterns, undo: ExitStack) -> None:
    """Take a softmax at the end off, as the pattern methods do."""
    head = patterns.structure.head
    if head is not None:
        module = network.get_submodule(head)
        undo.enter_context(on_output(module, lambda _, given, __: given[0]))
