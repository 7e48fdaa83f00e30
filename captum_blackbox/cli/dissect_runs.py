"""The dissections of a run: of the network, of what chance gives, and of turned bases."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from captum_blackbox.cli.dissect_kept import Dissector, KeptDissections
from captum_blackbox.cli.dissect_layers import with_random_weights
from captum_blackbox.cli.dissect_options import DissectOptions
from captum_blackbox.cli.messages import say
from captum_blackbox.concepts import Concepts, ShuffledConcepts
from captum_blackbox.dissection import Dissection, NetworkDissection
from captum_blackbox.errors import InputError

TRAINED, SHUFFLED, RANDOM = "this network", "labels of other images", "random weights"
_ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)  # beside 0, the network's own basis

OfNetwork: TypeAlias = Callable[[nn.Module, str | Sequence[str]], NetworkDissection]
"""Network and layers → what dissects them."""


@dataclass(frozen=True)
class Dissected:
    """All that was found.

    Attributes:
        results: Layer → its dissection.
        controls: Layer → what it is compared with → dissection; itself comes first.
        rotations: Layer → how far its basis is turned → dissection; empty without ``--rotate``.
        concepts: What was asked.
        dissections: Layer → the object that knows its masks.
        notes: Doubts.
    """

    results: Mapping[str, Dissection]
    controls: Mapping[str, Mapping[str, Dissection]]
    rotations: Mapping[str, Mapping[float, Dissection]]
    concepts: Concepts
    dissections: Mapping[str, NetworkDissection]
    notes: Sequence[str] = ()


def dissected(
    dissect: DissectOptions,
    network: nn.Module,
    layers: Sequence[str],
    concepts: Concepts,
    of_network: OfNetwork,
    kept: KeptDissections,
) -> Dissected:
    own: Dissector = functools.partial(of_network, network)
    results = kept.results(own, layers, concepts)
    dissections = {layer: own(layer).use(result) for layer, result in results.items()}
    runs, notes = {TRAINED: results}, []
    if dissect.controls:
        say("dissecting with the labels of other images")
        shuffled = ShuffledConcepts(concepts, dissect.seed)
        runs[SHUFFLED] = kept.results(own, layers, shuffled, "shuffled")
        say("dissecting the same network with random weights")
        random = functools.partial(of_network, with_random_weights(network, dissect.seed))
        try:
            runs[RANDOM] = kept.results(random, layers, concepts, "random-weights")
        except InputError as error:  # activations that are not finite
            notes.append(f"There is no comparison with a network of random weights: {error}")
    turns = {0.0: results}
    for alpha in _ALPHAS if dissect.rotate else ():
        say(f"dissecting in a basis turned by {alpha:g}")
        turns[alpha] = kept.results(
            lambda layer, alpha=alpha: own(layer).rotate(alpha, dissect.seed),
            layers,
            concepts,
            f"rotation-{alpha:g}",
        )
    return Dissected(
        results,
        {layer: {name: run[layer] for name, run in runs.items()} for layer in layers},
        {layer: {alpha: run[layer] for alpha, run in turns.items()} for layer in layers}
        if dissect.rotate
        else {},
        concepts,
        dissections,
        notes,
    )
