"""The explanations that are compared. To try another weighting, add a line to WEIGHTINGS."""

import functools
from collections.abc import Callable, Mapping

import torch
from claims_data import Study
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from captum_blackbox import RISE, DistilledLayerSumGradCAM, metrics
from captum_blackbox.student.rise import draw_masks, render_masks

STEPS = 28
MASKS = 200


class Subject:
    """One student of a study, and what methods need to know about its layers.

    Args:
        study: The black box and the images.
        student: The network whose layers explain it.
        masks: Masks of RISE.
        seed: Of RISE.
    """

    def __init__(self, study: Study, student: nn.Module, *, masks: int, seed: int) -> None:
        self.study, self.student, self.masks, self.seed = study, student, masks, seed
        # Game → layer → area on the calibration images; kept by the record, being expensive.
        self.learned: dict[str, dict[str, float]] = {}
        self.explainer = functools.cache(self._explainer)

    def _explainer(self, normalize: str = "none") -> DistilledLayerSumGradCAM:
        return DistilledLayerSumGradCAM(self.study.box, self.student, normalize=normalize)

    @property
    def step(self) -> int:
        """Pixels per step of a game."""
        return -(-self.study.images[0, 0].numel() // STEPS)

    @functools.cached_property
    def cells(self) -> dict[str, int]:
        """Layer → number of its positions."""
        maps = self.explainer().grad_cam.raw_maps(self.study.calibration[:1], 0)
        return {name: each[0, 0].numel() for name, each in maps.items()}

    @property
    def layer_auc(self) -> dict[str, float]:
        """Layer → deletion AUC of its map alone, on the calibration images."""
        return self._of_layers(metrics.deletion)

    @property
    def layer_gap(self) -> dict[str, float]:
        """Layer → insertion less deletion AUC of its map alone, on the calibration images."""
        inserted, deleted = self._of_layers(metrics.insertion), self._of_layers(metrics.deletion)
        return {name: inserted[name] - deleted[name] for name in inserted}

    @property
    def layer_answers(self) -> dict[str, float]:
        """Layer → weight with which the maps, summed, foretell the box's answers to masked images.

        Non-negative least squares on the calibration images: how much of each layer's map (scaled
        to a total of 1) a mask keeps, against the probability that is left.
        """
        if "answers" not in self.learned:
            kept, answers = [], []
            images = self.study.calibration
            targets = self.study.box(images).argmax(1)
            masks = render_masks(draw_masks(MASKS, 7, 0.5, seed=0), tuple(images.shape[2:]))
            layers = self.explainer("l1").attribute_per_layer(images, targets)
            for i, image in enumerate(tqdm(images, desc="calibration", unit="image")):
                maps = torch.stack([each[i].flatten() for each in layers.values()])
                left = self.study.box(masks[:, None] * image)[:, targets[i]]
                share = masks.flatten(1) @ maps.T
                kept.append(share - share.mean(0))
                answers.append(left - left.mean())
            weights, _ = nnls(torch.cat(kept).double().numpy(), torch.cat(answers).double().numpy())
            self.learned["answers"] = dict(zip(layers, weights.round(5).tolist(), strict=True))
        return self.learned["answers"]

    def _of_layers(self, game: Callable[..., metrics.Game]) -> dict[str, float]:
        if game.__name__ not in self.learned:
            images = self.study.calibration
            targets = self.study.box(images).argmax(1)
            maps = self.explainer().attribute_per_layer(images, targets)
            areas = {
                name: game(self.study.box, images, each, targets, step=self.step).auc
                for name, each in tqdm(maps.items(), desc="calibration", unit="layer")
            }
            self.learned[game.__name__] = {
                name: round(float(each.mean()), 5) for name, each in areas.items()
            }
        return self.learned[game.__name__]


Method = Callable[[Subject, Tensor, Tensor], Tensor]
"""From a subject, images and classes to maps ``(N, 1, H, W)``."""

WEIGHTINGS: Mapping[str, Callable[[Subject], Mapping[str, float]]] = {
    # More for coarse layers, or for fine ones.
    "by cell": lambda s: {name: max(s.cells.values()) / n for name, n in s.cells.items()},
    "by area": lambda s: {name: n / max(s.cells.values()) for name, n in s.cells.items()},
    "coarsest": lambda s: {
        n: 1.0 for n, cells in s.cells.items() if cells == min(s.cells.values())
    },
    # Learned on the calibration images.
    "auc": lambda s: _shares({name: 1 - auc for name, auc in s.layer_auc.items()}),
    "gap": lambda s: _shares({name: max(0.0, gap) for name, gap in s.layer_gap.items()}),
    "answers": lambda s: s.layer_answers,
    "best layer": lambda s: {min(s.layer_auc, key=s.layer_auc.__getitem__): 1.0},
}


def layer_sum(normalize: str = "none", weighting: str | None = None) -> Method:
    """Return the sum over all layers, perhaps normalised and weighted."""

    def method(subject: Subject, images: Tensor, targets: Tensor) -> Tensor:
        weights = None if weighting is None else WEIGHTINGS[weighting](subject)
        return subject.explainer(normalize).attribute(images, targets, layer_weights=weights)

    return method


def last_layer(subject: Subject, images: Tensor, targets: Tensor) -> Tensor:
    """Return Grad-CAM of the last convolution, what everybody uses."""
    last = list(subject.cells)[-1]
    return subject.explainer().attribute(images, targets, layer_weights={last: 1.0})


def last_and_sum(subject: Subject, images: Tensor, targets: Tensor) -> Tensor:
    """Return the last layer's map and the sum, each scaled to a total of 1."""
    both = (last_layer(subject, images, targets), layer_sum()(subject, images, targets))
    return sum(each / each.sum((1, 2, 3), keepdim=True).clamp(min=1e-30) for each in both)


def rise(subject: Subject, images: Tensor, targets: Tensor) -> Tensor:
    """Return RISE of the black box."""
    masking = RISE(subject.study.box, masks=subject.masks, seed=subject.seed)
    return masking.attribute(images, targets)


def random_pixels(subject: Subject, images: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    """Return noise: each pixel by itself."""
    return torch.stack([_noise(image, image.shape[1:]) for image in images])


def random_blobs(subject: Subject, images: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    """Return noise as coarse as the map of a last layer, 7×7, enlarged."""
    coarse = torch.stack([_noise(image, (7, 7)) for image in images])
    return F.interpolate(coarse, size=images.shape[2:], mode="bilinear", align_corners=False)


REFERENCE = "last layer"

# The most telling first: a run that is stopped has those.
STUDENT_METHODS: Mapping[str, Method] = {
    REFERENCE: last_layer,
    "sum": layer_sum(),
    "last + sum": last_and_sum,
    "sum, by cell": layer_sum(weighting="by cell"),
    "sum, max": layer_sum("max"),
    "sum, l1": layer_sum("l1"),
    "sum, l1, answers": layer_sum("l1", "answers"),
    "sum, auc": layer_sum(weighting="auc"),
    "sum, gap": layer_sum(weighting="gap"),
    "sum, minmax": layer_sum("minmax"),
    "sum, l2": layer_sum("l2"),
    "sum, by area": layer_sum(weighting="by area"),
    "sum, coarsest": layer_sum(weighting="coarsest"),
    "sum, best layer": layer_sum(weighting="best layer"),
    "sum, l1, by cell": layer_sum("l1", "by cell"),
    "sum, l1, gap": layer_sum("l1", "gap"),
}

BOX_METHODS: Mapping[str, Method] = {
    "RISE": rise,
    "random": random_pixels,
    "random blobs": random_blobs,
}


def _noise(image: Tensor, size: tuple[int, ...]) -> Tensor:
    # Seeded by the image itself, so that it does not matter in which batch it comes.
    seed = int(image.double().sum().mul(1e6).abs()) % 2**31
    noise = torch.rand(1, *size, generator=torch.Generator().manual_seed(seed))
    return noise.to(image.device)


def _shares(values: Mapping[str, float]) -> dict[str, float]:
    total = sum(values.values())
    return {name: value / total for name, value in values.items()} if total else dict(values)
