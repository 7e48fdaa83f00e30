"""Does an image that moves the explanation of one network move that of another?"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_blackbox.fragility.ball import Amount
from captum_blackbox.fragility.clean import explain_clean, judged, most_important
from captum_blackbox.fragility.prediction import confidence_of, labels_of
from captum_blackbox.fragility.visibility import from_pixels, to_pixels
from captum_blackbox.fragility.walk import quiet
from captum_blackbox.metrics import (
    center_shift,
    cosine_similarity,
    rank_correlation,
    topk_intersection,
)
from captum_blackbox.shapes import Images, Labels

if TYPE_CHECKING:
    from captum_blackbox.fragility.attack import InterpretationAttack

TRANSFERRED = (
    "intersection",
    "rank_correlation",
    "center_shift",
    "cosine",
    "confidence",
    "clean_confidence",
    "label_kept",
)
"""What is measured of another network's explanation; see `transferred`."""


def transferred(
    judge: "InterpretationAttack",
    clean: Images,
    attacked: Images,
    *,
    target: Labels | None = None,
    label: Labels | None = None,
    k: int | None = None,
) -> Tensor:
    """Return how far attacked images move the explanation of a network they were not made on.

    Args:
        judge: An attack on the other network's explanation; nothing is attacked here, it says how
            to explain and which images the network takes.
        clean: Images ``(N, C, H, W)`` as ``judge`` takes them; see `between_networks`.
        attacked: The same images after the attack on another network.
        target: The class explained, ``(N,)``; by default the judge's prediction on ``clean``.
        label: The label that is kept, ``(N,)``; by default the same. An image that the judge
            predicts otherwise has no numbers (NaN).
        k: How many pixels are most important; by default a 50th of them.

    Returns:
        ``(7, N)``, in the order of :data:`TRANSFERRED`: the measures of
        :class:`~captum_blackbox.fragility.Measures`, and whether the judge's prediction stayed.
    """
    victim, softening = judge.victim, judge.defence_beta
    with torch.inference_mode(False), victim.ready(), quiet():
        before = explain_clean(victim, clean.detach().clone(), target, label, (), softening)
        maps, scores = judged(victim, attacked.detach().clone(), before.target, (), softening)
        k = most_important(before.maps, k)
        rows = [
            topk_intersection(before.maps, maps, k),
            rank_correlation(before.maps, maps),
            center_shift(before.maps, maps),
            cosine_similarity(before.maps, maps),
            confidence_of(scores, before.label),
            confidence_of(before.scores, before.label),
            labels_of(scores) == before.label,
        ]
    found = torch.stack([row.double().cpu() for row in rows])
    found[:, ~before.has_label.cpu()] = torch.nan
    return found


def between_networks(
    images: Images, of: "InterpretationAttack", to: "InterpretationAttack"
) -> Images:
    """Return the images of one attack as the network of another takes them.

    The bounds of both say what is black and what is white, so that images normalised for one
    network become images normalised for the other. The size stays.

    Raises:
        InputError: Bounds are not finite.

    Example:
        >>> from captum.attr import Saliency
        >>> from captum_blackbox import InterpretationAttack
        >>> model = torch.nn.Flatten()
        >>> one = InterpretationAttack(Saliency(model))
        >>> other = InterpretationAttack(Saliency(model), lower_bound=-1.0)
        >>> between_networks(torch.tensor([[[[0.0, 0.5, 1.0]]]]), one, other)
        tensor([[[[-1.,  0.,  1.]]]])
    """
    if _alike(of.lower_bound, to.lower_bound) and _alike(of.upper_bound, to.upper_bound):
        return images
    pixels = to_pixels(images, of.lower_bound, of.upper_bound)
    return from_pixels(pixels, to.lower_bound, to.upper_bound).to(images.dtype)


def _alike(first: Amount, second: Amount) -> bool:
    a, b = (torch.as_tensor(each, dtype=torch.float64).cpu() for each in (first, second))
    return a.shape == b.shape and bool(torch.equal(a, b))
