"""Algorithm 1 of Ghorbani et al., line by line: one image, no batches, no library code.

The network is a function of one image; its surrogate is given as a second network. Explanations are
gradients of the class score, their absolute values summed over the channels and divided by their
sum.
"""

import torch


def gradient_map(network, image, target, graph=False):
    if not image.requires_grad:
        image = image.clone().requires_grad_()
    score = network(image[None])[0, target]
    (gradient,) = torch.autograd.grad(score, image, create_graph=graph)
    total = torch.zeros_like(gradient[0])
    for channel in gradient:
        total = total + channel.abs()
    return total / total.sum()


def top(saliency, k):
    """The indices of the k largest; of equal ones the first."""
    values = saliency.flatten().tolist()
    return set(sorted(range(len(values)), key=lambda i: (-values[i], i))[:k])


def center(saliency):
    row = column = 0.0
    for i in range(saliency.shape[0]):
        for j in range(saliency.shape[1]):
            row = row + i * saliency[i, j]
            column = column + j * saliency[i, j]
    return row, column


def dissimilarity(mode, saliency, clean_top, clean_center, region):
    if mode == "topk":
        return -sum(saliency.flatten()[i] for i in clean_top)
    if mode == "targeted":
        return (saliency * region).sum()
    row, column = center(saliency)
    return ((row - clean_center[0]) ** 2 + (column - clean_center[1]) ** 2).sqrt()


def criterion(mode, saliency, clean, k, region):
    """Larger is a better attack."""
    if mode == "topk":
        return -len(top(clean, k) & top(saliency, k)) / k
    if mode == "targeted":
        return float((saliency * region).sum() / saliency.sum())
    here, there = center(clean), center(saliency)
    return float(((here[0] - there[0]) ** 2 + (here[1] - there[1]) ** 2) ** 0.5)


def attack(
    network,
    surrogate,
    image,
    *,
    mode,
    radius,
    step,
    steps,
    k,
    region=None,
    away=None,
    revert=False,
    growing=False,
):
    """Return the best iterate and the criterion of every iterate.

    With ``growing`` the surrogate is a function of the number of the step, from 0.
    """
    label = int(network(image[None]).argmax())
    clean = gradient_map(network, image, label)
    best, best_value = image, criterion(mode, clean, clean, k, region)
    values, current, last = [best_value], image, image
    for number in range(1, steps + 1):
        smooth = surrogate(number - 1) if growing else surrogate
        soft_center = center(gradient_map(smooth, image, label))
        leaf = current.clone().requires_grad_()
        saliency = gradient_map(smooth, leaf, label, graph=True)
        if mode == "mass_center" and number == 1:
            row, column = center(saliency)
            value = away[0] * row + away[1] * column  # the distance has no gradient at 0
        else:
            value = dissimilarity(mode, saliency, top(clean, k), soft_center, region)
        (gradient,) = torch.autograd.grad(value, leaf)
        current = current + step * gradient.sign()
        current = torch.minimum(torch.maximum(current, image - radius), image + radius)
        current = current.clamp(0, 1)
        found = criterion(mode, gradient_map(network, current, label), clean, k, region)
        values.append(found)
        if int(network(current[None]).argmax()) != label:
            if revert:
                current, step = last, step / 2
            continue
        last = current
        if found > best_value:
            best, best_value = current, found
    return best, values
