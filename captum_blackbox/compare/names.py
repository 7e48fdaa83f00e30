"""Names that users write: known, or the nearest ones are offered."""

import difflib
from collections.abc import Iterable

from captum_blackbox.errors import InputError


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not known, and offer the nearest.

    Raises:
        InputError: The name is not among ``known``.

    Example:
        >>> check_known("method", "salency", ["saliency", "rise"])
        Traceback (most recent call last):
        ...
        captum_blackbox.errors.InputError: there is no method 'salency'; the nearest names are
        'saliency', and all are 'rise', 'saliency'
    """
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"the nearest names are {', '.join(map(repr, near))}, and all" if near else "they"
    raise InputError(f"there is no {kind} {name!r}; {hint} are {', '.join(map(repr, names))}")


def check_texts(kind: str, names: Iterable[object]) -> None:
    """Refuse a name that is no text.

    Raises:
        InputError: One is something else.

    Example:
        >>> check_texts("method", ["mine", 3])
        Traceback (most recent call last):
        ...
        captum_blackbox.errors.InputError: the name of a method is a text, got 3; write '3'
    """
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"the name of a {kind} is a text, got {name!r}; write '{name}'")
