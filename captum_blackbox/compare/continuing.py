"""Go on with what a file knows: whether it belongs here, and what has to be tried again."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from captum_blackbox.artifacts import check_header
from captum_blackbox.compare.result import Comparison

_MAY_DIFFER = {"answers", "batch_size"}  # of the settings


def continued(
    path: str | Path, found: Comparison, here: Comparison, lost: Collection[int]
) -> Comparison:
    """Return what a file knows, if it belongs to what is compared here.

    Args:
        path: The file, for messages.
        found: What it knows.
        here: The same without numbers, as it would begin now.
        lost: Images for which the model has no answer now. Where it had one, its class stays.

    Raises:
        ArtifactError: It belongs to something else; what differs is named.
    """
    fixed = {name: value for name, value in here.settings.items() if name not in _MAY_DIFFER}
    check_header(path, found.settings, fixed)
    answers, earlier = (each.settings.get("answers", {}) for each in (here, found))
    check_header(path, earlier, {name: answers[name] for name in answers if name in earlier})
    free = found.values.isnan().flatten(0, 1).all(0)  # no number depends on the class
    free[list(lost)] = True
    for image in ((found.targets != here.targets) & ~free).nonzero().flatten().tolist():
        of_image = f"the class of image {image}"
        theirs, ours = ({of_image: int(each.targets[image])} for each in (found, here))
        check_header(path, theirs, ours)
    targets = here.targets.clone()
    targets[list(lost)] = found.targets[list(lost)]
    settings = {**here.settings}
    if "answers" in settings:
        settings["answers"] = {**earlier, **answers}
    return replace(found, targets=targets, settings=settings, names=here.names or found.names)


def to_try_again(known: Comparison) -> Tensor:
    """Return which images failed for a reason that may have passed, ``(methods, images)``, bool.

    That is any reason but that something makes no sense for the model or the image.
    """
    again = torch.zeros(len(known.methods), known.images, dtype=torch.bool)
    for each in known.failures:
        if not each.is_applicable:
            continue
        row = known.methods.index(each.method)
        if each.image is None:  # the method could not be made
            again[row] |= known.values[row].isnan().any(0)
        else:
            again[row, each.image] = True
    return again
