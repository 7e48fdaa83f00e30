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
from captum_blackbox.dissection.layer_dissector import LayerDissector
from captum_blackbox.dissection.unit_maps import Preprocess
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
        prepare: Images in [0, 1] → what the network takes.
        notes: Doubts.
    """

    results: Mapping[str, Dissection]
    controls: Mapping[str, Mapping[str, Dissection]]
    rotations: Mapping[str, Mapping[float, Dissection]]
    concepts: Concepts
    dissections: Mapping[str, NetworkDissection]
    prepare: Preprocess
    notes: Sequence[str] = ()


def dissected(
    dissect: DissectOptions,
    network: nn.Module,
    layers: Sequence[str],
    concepts: Concepts,
    of_network: OfNetwork,
    prepare: Preprocess,
    kept: KeptDissections,
) -> Dissected:
    """Dissect the layers, and all that they are compared with.

    Args:
        dissect: What was said about it.
        network: The network.
        layers: Their names.
        concepts: What is asked.
        of_network: See :data:`OfNetwork`.
        prepare: Images in [0, 1] → what the network takes.
        kept: Where results are.
    """
    own: Dissector = functools.partial(of_network, network)
    results = kept.results(own, layers, concepts)
    dissections = {layer: of_network(network, layer) for layer in layers}
    for layer, dissection in dissections.items():
        dissection.use(results[layer])
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
        turned = functools.partial(_turned, own, alpha, dissect.seed)
        turns[alpha] = kept.results(turned, layers, concepts, f"rotation-{alpha:g}")
    return Dissected(
        results,
        {layer: {name: run[layer] for name, run in runs.items()} for layer in layers},
        {layer: {alpha: run[layer] for alpha, run in turns.items()} for layer in layers}
        if dissect.rotate
        else {},
        concepts,
        dissections,
        prepare,
        notes,
    )


def _turned(own: Dissector, alpha: float, seed: int, layers: str | Sequence[str]) -> LayerDissector:
    return own(layers).rotate(alpha, seed)
