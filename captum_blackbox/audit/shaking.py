"""How far random changes of an image move a map, for methods that no attack can follow."""

from collections.abc import Mapping

import torch
from torch import Tensor

from captum_blackbox.audit.judging import kept_map
from captum_blackbox.audit.methods import AuditMethod
from captum_blackbox.audit.workplace import Workplace
from captum_blackbox.compare import Method
from captum_blackbox.compare.context import content_seeds
from captum_blackbox.fragility.clean import most_important
from captum_blackbox.metrics import topk_intersection


def shaken(place: Workplace, method: AuditMethod) -> Mapping[float, Tensor]:
    """Return radius → share of the most important pixels that random signs leave, ``(attacked,)``.

    Each pixel goes up or down by the radius. Where that changes the prediction, the image counts as
    it was, with 1; NaN where there is no map. What is kept is not done again.

    Args:
        place: The model and the images.
        method: Its clean maps are kept.
    """
    radii = list(place.budget.radii.values())
    stage = f"shaken-{method.stem}"
    kept = place.kept.read(stage)
    if kept is None:
        made = method.made(place)
        left = torch.stack([_left(place, method, made, radius) for radius in radii])
        place.kept.write(stage, {"left": left}, {})
    else:
        left = kept[0]["left"]
    return dict(zip(radii, left, strict=True))


def _left(place: Workplace, method: AuditMethod, made: Method, radius: float) -> Tensor:
    some = slice(place.budget.attacked)
    inputs, changed = place.images.inputs[some], changed_by_signs(place, radius)[some]
    found = torch.full((len(inputs),), torch.nan, dtype=torch.float64)
    before, after = place.box(inputs).argmax(1), place.box(changed).argmax(1)
    k = most_important(inputs, None)
    for row in range(len(inputs)):
        clean = kept_map(place, method, row)
        if clean is None:
            continue
        if before[row] != after[row]:
            found[row] = 1.0
            continue
        image, target = changed[row : row + 1], before[row : row + 1].to(inputs.device)
        moved = made(image, target).cpu()
        found[row] = topk_intersection(clean[None], moved, k)[0]
    return found


def changed_by_signs(place: Workplace, radius: float) -> Tensor:
    """Return the images with each number moved by the radius, up or down, within [0, 1]."""
    images, inputs = place.images, place.images.inputs
    mean, std = (
        torch.tensor(each, device=inputs.device, dtype=inputs.dtype).view(1, -1, 1, 1)
        for each in (images.mean, images.std)
    )
    signs = torch.stack(
        [
            torch.randint(0, 2, inputs.shape[1:], generator=torch.Generator().manual_seed(seed))
            for seed in content_seeds(inputs, place.seed)
        ]
    )
    pixels = inputs * std + mean + radius * (2 * signs.to(inputs) - 1)
    return (pixels.clamp(0, 1) - mean) / std
