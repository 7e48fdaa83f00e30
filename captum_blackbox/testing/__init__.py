"""For your own tests: small networks of known properties, and Hypothesis strategies of them.

The strategies need Hypothesis, which comes with the extra ``testing``.
"""

from typing import TYPE_CHECKING, Any

from captum_blackbox.errors import MissingExtraError
from captum_blackbox.testing.equal_networks import (
    deepened,
    equal_networks,
    permuted,
    reparametrised,
    rescaled,
    shifted_relus,
    split,
)
from captum_blackbox.testing.known_networks import (
    ignoring_network,
    saturating_network,
    symmetric_network,
)
from captum_blackbox.testing.networks import SmallNetwork, small_network, some_images

if TYPE_CHECKING:
    from captum_blackbox.testing.strategies import equal_pairs as equal_pairs
    from captum_blackbox.testing.strategies import images as images
    from captum_blackbox.testing.strategies import small_networks as small_networks

_STRATEGIES = ("equal_pairs", "images", "small_networks")

__all__ = [
    "SmallNetwork",
    "deepened",
    "equal_networks",
    "equal_pairs",
    "ignoring_network",
    "images",
    "permuted",
    "reparametrised",
    "rescaled",
    "saturating_network",
    "shifted_relus",
    "small_network",
    "small_networks",
    "some_images",
    "split",
    "symmetric_network",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any strategy
    if name not in _STRATEGIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from captum_blackbox.testing import strategies
    except ImportError as error:
        raise MissingExtraError(
            f"captum_blackbox.testing.{name} needs Hypothesis; install it with "
            "pip install 'captum-blackbox[testing]'"
        ) from error
    return getattr(strategies, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
