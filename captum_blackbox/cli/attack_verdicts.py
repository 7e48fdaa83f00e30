"""What the numbers of ``attack`` say, in plain words that follow from them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from captum_blackbox.cli.attack_options import RANDOM, TARGETED, AttackOptions, Radius, mode_of
from captum_blackbox.fragility.curves_result import FragilityCurves
from captum_blackbox.report import AttackVerdict
from captum_blackbox.report.html import count

HALF = 0.5  # of the most important pixels, below which an explanation of an image is broken


def aims(modes: Sequence[str]) -> list[str]:
    """Return the modes that aim at something; all of them if none does.

    Example:
        >>> aims(["topk", "random"]), aims(["random"])
        (['topk'], ['random'])
    """
    return [mode for mode in modes if mode != RANDOM] or list(modes)


def broken(curves: FragilityCurves, method: str, modes: Sequence[str], radius: Radius) -> Tensor:
    """Return which images have an explanation that one of the modes breaks, ``(N,)``."""
    shares = [_left(curves, method, mode, radius) for mode in modes]
    return (torch.stack(shares).nan_to_num(1.0) < HALF).any(0)


def strongest(
    curves: FragilityCurves, method: str, modes: Sequence[str], radius: Radius, image: int
) -> str:
    """Return the mode that leaves the fewest of the most important pixels of an image."""
    return min(
        modes,
        key=lambda mode: float(_left(curves, method, mode, radius).nan_to_num(1.0)[image]),
    )


def verdict(
    curves: FragilityCurves,
    method: str,
    options: AttackOptions,
    k: int,
    region_before: float | None = None,
) -> AttackVerdict:
    """Return what the attacks say about a method.

    Args:
        curves: The numbers of all attacks.
        method: One of its methods.
        options: Of the attacks.
        k: How many pixels count as most important.
        region_before: Mean share of the importance in the region of clean images, if there is one.
    """
    modes, radii = aims(options.modes), options.radii
    breaking = [
        radius
        for radius in radii
        if 2 * broken(curves, method, modes, radius).sum() > _known(curves, method, modes, radius)
    ]
    radius = breaking[0] if breaking else radii[-1]
    mode = min(modes, key=lambda each: _mean(curves, method, "intersection", each, radius))
    has_chance = RANDOM in options.modes and mode != RANDOM
    ssim = _mean(curves, method, "ssim", mode, radius)
    found = AttackVerdict(
        method,
        radius.text if breaking else None,
        radius.text,
        "",
        (
            int(broken(curves, method, modes, radius).sum()),
            _known(curves, method, modes, radius),
        ),
        _mean(curves, method, "intersection", mode, radius),
        _mean(curves, method, "intersection", RANDOM, radius) if has_chance else None,
        _mean(curves, method, "rank_correlation", mode, radius),
        _mean(curves, method, "center_shift", mode, radius),
        ssim if math.isfinite(ssim) else None,  # not for the smallest images
    )
    words = [_what_happened(found, radii, k, modes)]
    if found.chance is not None:
        broke = int(broken(curves, method, [RANDOM], radius).sum())
        words.append(_by_chance(broke, _known(curves, method, [RANDOM], radius), found.chance))
    if region_before is not None:
        after = _mean(curves, method, "region_mass", TARGETED, radius)
        words.append(
            f"The region held {_share(region_before)} of the importance, and {_share(after)} "
            "when that was the aim."
        )
    if not breaking:
        words.append("This does not show that it can be trusted: a stronger attack may succeed.")
    return replace(found, sentence=" ".join(words))


def _what_happened(
    found: AttackVerdict, radii: Sequence[Radius], k: int, modes: Sequence[str]
) -> str:
    breaks, tried = found.breaks_at is not None, ""
    if len(radii) == 1:
        tried = ", the only one tried"
    elif breaks and found.radius == radii[0].text:
        tried = ", the smallest one tried"
    elif not breaks:
        tried = ", the largest one tried"
    first = "breaks at" if breaks else "held up to"
    means = "random signs leave" if RANDOM in modes else "the strongest aim leaves"
    any_aim = " by one aim or another" if len(modes) > 1 else ""
    alike = "" if found.ssim is None else f" (SSIM of the images: {found.ssim:.2f})"
    return (
        f"{first} a radius of {found.radius}{tried}: {means} {_share(found.aimed)} of the "
        f"{count(k)} most important pixels on average, and fewer than half on "
        f"{_of(*found.broken)}{any_aim}, with the prediction unchanged{alike}."
    )


def _by_chance(broke: int, images: int, left: float) -> str:
    no_attacker = "It takes no attacker: random signs" if 2 * broke > images else "Random signs"
    return (
        f"{no_attacker} of the same size leave {_share(left)}, and fewer than half on "
        f"{_of(broke, images)}."
    )


def _known(curves: FragilityCurves, method: str, modes: Sequence[str], radius: Radius) -> int:
    """Return on how many images one of the modes has a number."""
    shares = [_left(curves, method, mode, radius) for mode in modes]
    return int(torch.stack(shares).isfinite().any(0).sum())


def _of(some: int, images: int) -> str:
    return f"{some} of {images} {'image' if images == 1 else 'images'}"


def _share(value: float) -> str:
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def _left(curves: FragilityCurves, method: str, mode: str, radius: Radius) -> Tensor:
    return curves.scores(method, "intersection", mode=mode_of(mode), radius=radius.value)


def _mean(curves: FragilityCurves, method: str, measure: str, mode: str, radius: Radius) -> float:
    return float(curves.scores(method, measure, mode=mode_of(mode), radius=radius.value).nanmean())
