"""Which concepts and units carried the predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from captum_blackbox.artifacts import versions
from captum_blackbox.audit.kept import Kept
from captum_blackbox.concepts import Concepts
from captum_blackbox.dissection import Dissection, LocalExplanation, NetworkDissection
from captum_blackbox.errors import ArtifactError, InputError

_STAGE = "dissection"


@dataclass(frozen=True)
class ConceptReasons:
    """The units of a layer, and what they added to the scores.

    Attributes:
        result: Which concept each unit detects.
        explanations: Of each image shown.
    """

    result: Dissection
    explanations: tuple[LocalExplanation, ...]


def check_pair(dissection: NetworkDissection | None, concepts: Concepts | None) -> None:
    """Refuse one without the other.

    Raises:
        InputError: One of them is missing, or the dissection has several layers.
    """
    if (dissection is None) != (concepts is None):
        raise InputError(
            "concepts that carried a prediction need both: dissection=NetworkDissection(model, "
            "layer) and concepts=…"
        )
    if dissection is not None and len(dissection.layers) > 1:
        raise InputError("give a dissection of one layer")


def reasons(
    dissection: NetworkDissection,
    concepts: Concepts,
    inputs: Tensor,
    predicted: Sequence[int],
    kept: Kept,
    *,
    show_progress: bool,
) -> ConceptReasons:
    """Dissect a layer, unless that is kept, and explain each image by its concepts."""
    path = kept.path(_STAGE)
    try:
        dissection.use(Dissection.load(path))
    except ArtifactError:
        dissection.dissect(
            concepts,
            checkpoint=kept.folder / f"unfinished-{kept.digest}",
            show_progress=show_progress,
        ).save(path)
    found = [
        dissection.explain(inputs[row : row + 1], target) for row, target in enumerate(predicted)
    ]
    return ConceptReasons(dissection.result, tuple(found))


def identity(dissection: NetworkDissection | None, concepts: Concepts | None) -> object:
    """Return what tells a dissection from another, for the names of files."""
    if dissection is None or concepts is None:
        return None
    settings = dissection.settings.to_json()
    return [list(dissection.layers), settings, concepts.digest(), versions()]
