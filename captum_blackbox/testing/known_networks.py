"""Networks built so that an axiom says what their explanation must be."""

import torch
from torch import Tensor, nn

from captum_blackbox.testing.networks import CHANNELS, CLASSES, SIDE, SmallNetwork, seeded


def saturating_network(seed: int = 0, *, dtype: torch.dtype = torch.float64) -> SmallNetwork:
    r"""Return a network that stops to respond where a pixel is bright.

    Its scores are weighted sums of :math:`1 - \mathrm{ReLU}(1 - w^T x_p)` over the pixels
    :math:`p`, with positive weights that sum to at least 1.5. Where every channel is 2 the gradient
    is 0, although the score differs from that of a black image.

    References:
        Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, sec. 2.1.

    Example:
        >>> network = saturating_network()
        >>> bright = torch.full((1, 3, 7, 7), 2.0, dtype=torch.float64, requires_grad=True)
        >>> network(bright)[0, 0].backward()
        >>> float(bright.grad.abs().max())
        0.0
    """
    units = 2
    with seeded(seed), torch.no_grad():
        reading, head = nn.Conv2d(CHANNELS, units, 1), nn.Linear(units * SIDE**2, CLASSES)
        reading.weight.uniform_(-1, -0.5)
        reading.bias.fill_(1)  # type: ignore[union-attr]
        head.weight.uniform_(-1.5, -0.5)
        head.bias.copy_(-head.weight.sum(1))
    return SmallNetwork([reading, nn.ReLU()], [head]).to(dtype).eval()


def ignoring_network(
    seed: int = 0, *, dtype: torch.dtype = torch.float64
) -> tuple[SmallNetwork, Tensor]:
    """Return a network that some pixels do not influence, and where those are.

    The stride leaves the last row and column unread. Four pixels more are read by two equal units
    that the next layer subtracts from each other.

    Returns:
        The network, and ``(7, 7)`` that is true where a pixel cannot change any score.

    Example:
        >>> network, ignored = ignoring_network()
        >>> image = torch.randn(1, 3, 7, 7, dtype=torch.float64)
        >>> torch.equal(network(image), network(image + 5 * ignored))
        True
    """
    units, side = 4, SIDE // 2
    with seeded(seed), torch.no_grad():
        reading = nn.Conv2d(CHANNELS, units + 2, 2, stride=2)
        joining = nn.Conv2d(units + 2, units + 1, 1)
        head = nn.Linear((units + 1) * side**2, CLASSES)
        for each in (*reading.parameters(), *joining.parameters(), *head.parameters()):
            each.normal_(std=0.5)
        _twins(reading, joining)
        by_cell = head.weight.view(CLASSES, units + 1, side, side)
        alone = by_cell[:, -1, 1, 1].abs()  # the twins' difference is read at one cell
        by_cell[:, -1], by_cell[:, :, 1, 1] = 0, 0
        by_cell[:, -1, 1, 1] = alone
    ignored = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    ignored[-1], ignored[:, -1], ignored[2:4, 2:4] = True, True, True
    network = SmallNetwork([reading, nn.ReLU(), joining, nn.ReLU()], [head])
    return network.to(dtype).eval(), ignored


def _twins(reading: nn.Conv2d, joining: nn.Conv2d) -> None:
    """Make the last two units equal, and the last one of the next layer 1 plus their difference."""
    reading.weight[-1], joining.weight[-1] = reading.weight[-2], 0
    reading.bias[-2:] = 1  # type: ignore[index]
    joining.weight[:-1, -2:] = 0
    joining.weight[-1, -2], joining.weight[-1, -1] = 1, -1
    joining.bias[-1] = 1  # type: ignore[index]


def symmetric_network(
    seed: int = 0, *, dtype: torch.dtype = torch.float64
) -> tuple[SmallNetwork, Tensor]:
    r"""Return a network that some pixels can be exchanged in, and which.

    For pixels :math:`p, q` with brightness :math:`a, b` it has both
    :math:`\mathrm{ReLU}(2\,\mathrm{ReLU}(a) - 1 - \mathrm{ReLU}(b))` and, with :math:`a` and
    :math:`b` exchanged, the same as :math:`\mathrm{ReLU}(2\,\mathrm{ReLU}(b - 1/2) -
    \mathrm{ReLU}(a))`: the function is symmetric, the layers are not.

    Returns:
        The network, and ``(pairs, 2, 2)``: of each pair row and column of both pixels.

    Example:
        >>> network, pairs = symmetric_network()
        >>> image = torch.rand(1, 3, 7, 7, dtype=torch.float64)
        >>> (a, b), (c, d) = pairs[0].tolist()
        >>> swapped = image.clone()
        >>> swapped[..., a, b], swapped[..., c, d] = image[..., c, d], image[..., a, b]
        >>> torch.testing.assert_close(network(swapped), network(image))
    """
    rows = range(0, SIDE, 2)
    with seeded(seed), torch.no_grad():
        reading, joining = nn.Conv2d(CHANNELS, 2, 1), nn.Conv2d(2, 2 * len(rows), SIDE)
        head = nn.Linear(2 * len(rows), CLASSES)
        reading.weight[0].uniform_(0.6, 1.2)
        reading.weight[1] = reading.weight[0]
        reading.bias.copy_(torch.tensor([0.0, -0.5]))  # type: ignore[union-attr]
        joining.weight.zero_()
        joining.bias.zero_()  # type: ignore[union-attr]
        for unit, row in enumerate(rows):
            left, right = joining.weight[2 * unit], joining.weight[2 * unit + 1]
            left[0, row, 1], left[0, row, -2] = 2, -1
            joining.bias[2 * unit] = -1  # type: ignore[index]
            right[1, row, -2], right[0, row, 1] = 2, -1
        shared = torch.empty(CLASSES, len(rows)).normal_()
        head.weight.copy_(shared.repeat_interleave(2, 1))
        head.bias.normal_()
    pairs = torch.tensor([[[row, 1], [row, SIDE - 2]] for row in rows])
    network = SmallNetwork([reading, nn.ReLU(), joining, nn.ReLU()], [head])
    return network.to(dtype).eval(), pairs
