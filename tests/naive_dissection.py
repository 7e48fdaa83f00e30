"""Network Dissection by its definition: every map upsampled, every pixel compared in a loop."""

import numpy as np
import torch

from captum_blackbox.concepts import Annotation, Concepts, Label


class ListedConcepts(Concepts):
    """Concepts given as lists."""

    def __init__(self, images, annotations, labels, categories):
        height, width = next(each.pixels.shape[1:] for one in annotations for each in one.values())
        super().__init__(categories, labels, tuple(images.shape[2:]), (height, width))
        self._images, self._annotations = images, annotations

    def __len__(self):
        return len(self._images)

    def image(self, index):
        return self._images[index]

    def annotations(self, index):
        return self._annotations[index]

    def digest(self):
        return str(float(self._images.sum()))


def random_concepts(count=7, size=(12, 10), mask_size=(6, 5), seed=0):
    """Images of noise whose every kind of annotation occurs, labels twice on a pixel too."""
    rng = np.random.default_rng(seed)
    labels = [
        Label("car", "object"),
        Label("tree", "object"),
        Label("wheel", "part"),
        Label("leaf", "part"),
        Label("street", "scene"),
        Label("forest", "scene"),
        Label("red", "color"),
    ]
    annotations = []
    for _ in range(count):
        found = {}
        if rng.random() < 0.8:
            found["object"] = Annotation(masks(rng, [0, 0, 1, 2], 1, mask_size))
        if rng.random() < 0.6:
            layers = int(rng.integers(1, 4))
            found["part"] = Annotation(masks(rng, [0, 0, 3, 4, 1], layers, mask_size))
        if rng.random() < 0.6:
            whole = (int(rng.integers(5, 7)),) + ((3,) if rng.random() < 0.3 else ())
            found["scene"] = Annotation(masks(rng, [0], 0, mask_size), whole)
        annotations.append(found)
    annotations[0].setdefault("object", Annotation(masks(rng, [1], 1, mask_size)))
    images = torch.from_numpy(rng.random((count, 3, *size)))
    return ListedConcepts(images, annotations, labels, ("object", "part", "scene", "color"))


def masks(rng, values, layers, size):
    return torch.from_numpy(rng.choice(values, (layers, *size))).int()


def naive_thresholds(maps, quantile):
    """The quantile of all activations of each unit, at the layer's own resolution."""
    each = maps.transpose(0, 1).flatten(1).numpy()
    return np.quantile(each, 1 - quantile, axis=1)


def naive_tally(lit, concepts, presence="image"):
    """Truth, activation and intersection from masks ``(N, units, h, w)``, pixel by pixel."""
    units, labels = lit.shape[1], len(concepts.labels)
    truth = np.zeros(labels, dtype=int)
    activation = np.zeros((units, len(concepts.categories)), dtype=int)
    intersection = np.zeros((units, labels), dtype=int)
    for number in range(len(concepts)):
        shown = labels_of_pixels(concepts, number)
        for label in [label for pixel in shown.values() for label in pixel]:
            truth[label] += 1
        for unit in range(units):
            mask = [place for place in shown if lit[number, unit][place]]
            for label in [label for place in mask for label in shown[place]]:
                intersection[unit, label] += 1
            for position, category in enumerate(concepts.categories):
                if is_present(concepts, number, category, shown, mask, presence):
                    activation[unit, position] += len(mask)
    return truth, activation, intersection


def is_present(concepts, number, category, shown, mask, presence):
    """Whether a category counts for an image: anywhere in it, or under the mask."""
    own = {n for n, label in enumerate(concepts.labels) if label.category == category}
    whole = {n - 1 for each in concepts.annotations(number).values() for n in each.whole}
    if presence == "image":
        return set().union(*shown.values()) & own
    return (set().union(*(shown[place] for place in mask)) | whole) & own


def labels_of_pixels(concepts, number):
    """Place → the set of labels (from 0) that it carries, in whatever column or layer."""
    height, width = concepts.mask_size
    shown = {(y, x): set() for y in range(height) for x in range(width)}
    for annotation in concepts.annotations(number).values():
        for place, labels in shown.items():
            labels.update(n - 1 for n in annotation.whole)
            for layer in annotation.pixels.tolist():
                if layer[place[0]][place[1]]:
                    labels.add(layer[place[0]][place[1]] - 1)
    return shown


def naive_iou(truth, activation, intersection, concepts):
    """Intersection over union, pair by pair."""
    iou = np.zeros(intersection.shape)
    for unit, label in np.ndindex(*intersection.shape):
        category = concepts.categories.index(concepts.labels[label].category)
        both = intersection[unit, label]
        union = activation[unit, category] + truth[label] - both
        iou[unit, label] = both / union if union else 0
    return iou
