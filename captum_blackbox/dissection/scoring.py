"""From counted pixels to scores: how well does a unit's mask match each label?"""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


def intersection_over_union(
    intersection: Int64[Tensor, "units labels"],
    activation: Int64[Tensor, "units categories"],
    truth: Int64[Tensor, " labels"],
    label_category: Int64[Tensor, " labels"],
) -> Float64[Tensor, "units labels"]:
    """Return the overlap of each unit's mask with each label, in [0, 1]; higher is better.

    ``IoU = I / (A + G - I)``, with 0 where neither the unit nor the label has a pixel: a unit that
    is never active scores 0. The published code adds 1e-20 to the union instead, which no sum of
    pixels feels.

    Args:
        intersection: ``I``, pixels that have the label and where the unit is active.
        activation: ``A``, pixels where the unit is active, on images that carry the category.
        truth: ``G``, pixels that have the label.
        label_category: Position of each label's category.

    References:
        Bau et al., "Network Dissection", CVPR 2017, sec. 2.3, eq. 1.

    Example:
        >>> pixels = torch.tensor([[2171174]]), torch.tensor([[3044167]]), torch.tensor([13092677])
        >>> intersection_over_union(*pixels, label_category=torch.tensor([0])).item()
        0.15546507972764645
    """
    union = activation[:, label_category] + truth - intersection
    # Doubles hold every count below 2^53, so that the division rounds once.
    return intersection.double() / union.clamp(min=1).double()


def best_labels(
    iou: Float64[Tensor, "units labels"],
    label_category: Int64[Tensor, " labels"],
    categories: int,
) -> tuple[Int64[Tensor, "units categories"], Float64[Tensor, "units categories"]]:
    """Return each unit's best label in each category and its IoU; of equals the smaller label.

    Args:
        iou: Of each unit with each label.
        label_category: Position of each label's category.
        categories: How many there are. One without a label gives label -1 and score 0.

    Example:
        >>> iou = torch.tensor([[0.1, 0.3, 0.3, 0.2]], dtype=torch.float64)
        >>> best_labels(iou, torch.tensor([0, 1, 1, 0]), 2)
        (tensor([[3, 1]]), tensor([[0.2000, 0.3000]], dtype=torch.float64))
    """
    labels = torch.full((len(iou), categories), -1, device=iou.device)
    scores = iou.new_zeros(len(iou), categories)
    for category in label_category.unique().tolist():
        members = (label_category == category).nonzero().flatten()
        # argmax gives the first of equals.
        first = iou[:, members].argmax(1)
        labels[:, category] = members[first]
        scores[:, category] = iou.gather(1, members[first, None])[:, 0]
    return labels, scores


def best_categories(scores: Float64[Tensor, "units categories"]) -> Int64[Tensor, " units"]:
    """Return the position of each unit's best category; of equals the later, as published.

    Example:
        >>> best_categories(torch.tensor([[0.2, 0.1, 0.2]], dtype=torch.float64))
        tensor([2])
    """
    return scores.shape[1] - 1 - scores.flip(1).argmax(1)
