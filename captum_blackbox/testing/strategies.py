"""Hypothesis strategies: small networks, equal ones, and images for them."""

import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from hypothesis import strategies as st
from torch import Tensor

from captum_blackbox.testing.equal_networks import CHANGES
from captum_blackbox.testing.networks import Kind, SmallNetwork, small_network, some_images

Draw: TypeAlias = Callable[..., Any]
"""Hypothesis' ``DrawFn``, which cannot be checked while programs run."""

_SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def small_networks(
    draw: Draw,
    *,
    kinds: Collection[Kind] = ("conv", "dense"),
    relu: bool | None = None,
    batch_norm: bool | None = None,
    max_pool: bool | None = None,
    bias: bool | None = None,
    padding: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> SmallNetwork:
    """Draw a network on images ``(N, 3, 7, 7)`` with 4 scores, in evaluation mode.

    Args:
        draw: Given by Hypothesis.
        kinds: Which kinds to draw from.
        relu: With or without ReLUs; ``None`` for both, as for the others.
        batch_norm: With or without batch norm; dense networks have none.
        max_pool: With or without pooling; dense networks have none.
        bias: With or without biases.
        padding: Zeros around each convolution's input; ``None`` for 0 or 1.
        dtype: Of the weights.

    Example:
        >>> from hypothesis import given
        >>> @given(network=small_networks(kinds=("conv",), batch_norm=False))
        ... def test_my_method(network):
        ...     assert network(some_images()).shape == (4, 4)
        >>> test_my_method()
    """
    booleans = st.booleans()
    settings: dict[str, Any] = {
        "seed": draw(_SEEDS),
        "kind": draw(st.sampled_from(sorted(kinds))),
        "units": draw(st.integers(2, 6)),
        "relu": draw(booleans) if relu is None else relu,
        "batch_norm": draw(booleans) if batch_norm is None else batch_norm,
        "max_pool": draw(booleans) if max_pool is None else max_pool,
        "bias": draw(booleans) if bias is None else bias,
        "padding": draw(st.integers(0, 1)) if padding is None else padding,
    }
    with _random_kept():
        return small_network(**settings, dtype=dtype)


@st.composite
def equal_pairs(
    draw: Draw, networks: st.SearchStrategy[SmallNetwork] | None = None
) -> tuple[SmallNetwork, SmallNetwork]:
    """Draw two networks that compute the same with different weights or layers.

    Args:
        draw: Given by Hypothesis.
        networks: Where the first comes from; by default :func:`small_networks`.

    Example:
        >>> from hypothesis import given
        >>> @given(pair=equal_pairs())
        ... def test_my_method(pair):
        ...     torch.testing.assert_close(pair[0](some_images()), pair[1](some_images()))
        >>> test_my_method()
    """
    network = draw(small_networks() if networks is None else networks)
    change, seed = CHANGES[draw(st.sampled_from(sorted(CHANGES)))], draw(_SEEDS)
    with _random_kept():
        return network, change(network, seed)


@st.composite
def images(draw: Draw, *, count: int | None = None, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw images ``(N, 3, 7, 7)``, normally distributed, dark or bright.

    Args:
        draw: Given by Hypothesis.
        count: How many; by default 1 to 4.
        dtype: Of the images.

    Example:
        >>> from hypothesis import given
        >>> @given(x=images(count=2))
        ... def test_my_method(x):
        ...     assert x.shape == (2, 3, 7, 7)
        >>> test_my_method()
    """
    number = draw(st.integers(1, 4)) if count is None else count
    brightness = draw(st.sampled_from([0.1, 1.0, 10.0]))
    return some_images(number, draw(_SEEDS), dtype=dtype).mul_(brightness)


@contextmanager
def _random_kept() -> Iterator[None]:
    """Put the state of ``random`` back: type checkers draw from it, Hypothesis forbids it."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
