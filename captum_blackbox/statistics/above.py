"""Where values are above a bound that few of them reach."""

from torch import Tensor


def places_above(values: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Return where values ``(N, units, P)`` are above the bound of their unit, in order.

    Rows whose largest value is not above it are passed over, which is most of the work.

    Args:
        values: ``(N, units, P)``.
        bound: ``(units,)``.

    Returns:
        The row, image times units plus unit, and the place in it, both ``(n,)`` int64.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[1.0, 5.0], [2.0, 3.0]]])
        >>> places_above(values, torch.tensor([3.0, 2.5]))
        (tensor([0, 1]), tensor([1, 1]))
    """
    rows = (values.amax(2) > bound).flatten().nonzero()[:, 0]
    limit = bound.index_select(0, rows % values.shape[1])
    some = values.flatten(0, 1).index_select(0, rows)
    local, place = (some > limit[:, None]).nonzero().unbind(1)
    return rows.index_select(0, local), place
