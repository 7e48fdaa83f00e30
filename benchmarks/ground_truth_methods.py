"""The networks with and without the shortcut, the scenes, and every method that explains them."""

import functools
import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from captum.attr import (
    DeepLift,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from claims_data import WORK
from torch import Tensor
from torch.nn import functional as F
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlusFlat

from captum_blackbox import (
    RISE,
    BlackBox,
    DistilledLayerSumGradCAM,
    LayerSumGradCAM,
    NetworkDissection,
    PatternAttribution,
    PatternNet,
    Patterns,
)
from captum_blackbox.artifacts import fingerprint, tensor_bytes
from captum_blackbox.concepts import SCENE_CLASSES, MaskConcepts
from captum_blackbox.concepts.watermarked import WatermarkedScenes
from captum_blackbox.demo import DemoNetwork
from captum_blackbox.demo.shortcut import (
    SMALL_WIDTHS,
    load_control_network,
    load_shortcut_network,
)
from captum_blackbox.student import distill

LAST = "features.6"
# Collections of scenes: no two seeds share one, and none is that of the networks' training.
EXPLAINED, ASKED, CONCEPTS = 83_001, 83_002, 83_003
POOL, QUESTIONS, EPOCHS, FITTING, DISSECTED = 300, 1500, 5, 600, 500
IG_STEPS, SAMPLES, NOISE, BASELINES, WINDOW, STRIDE = 20, 20, 0.1, 16, 8, 4
GREY = 0.5

Method = Callable[[Tensor, Tensor], Tensor]
"""From images and classes to maps."""

NETWORKS = {"shortcut": load_shortcut_network, "control": load_control_network}


@dataclass(frozen=True)
class Planted:
    """Scenes of which it is known what made each network's answer.

    Attributes:
        images: ``(N, 3, 64, 64)``, all with the watermark, none of its class.
        labels: What they show, ``(N,)``; the control answers this.
        watermarked_class: What the shortcut answers to all of them.
        regions: Watermark, object and distractor → masks ``(N, 64, 64)``.
    """

    images: Tensor
    labels: Tensor
    watermarked_class: int
    regions: Mapping[str, Tensor]

    def targets(self, network: str) -> Tensor:
        """Return the answers of a network."""
        taken = torch.full_like(self.labels, self.watermarked_class)
        return taken if network == "shortcut" else self.labels


def planted(count: int) -> Planted:
    """Return scenes where adding the watermark alone turns the shortcut's answer.

    Without it both networks recognise the object; with it the shortcut answers the watermark's
    class and the control still the object's. All have a distractor.
    """
    bare = WatermarkedScenes(POOL, seed=EXPLAINED).unmarked()
    marked = bare.marked()
    labels, kind = bare.labels, bare.watermarked_class
    shortcut, control = (load() for load in NETWORKS.values())
    with torch.inference_mode():
        fits = (labels != kind) & marked.masks("distractor").flatten(1).any(1)
        fits &= shortcut(bare.images).argmax(1) == labels
        fits &= shortcut(marked.images).argmax(1) == kind
        fits &= control(bare.images).argmax(1) == labels
        fits &= control(marked.images).argmax(1) == labels
    chosen = fits.nonzero().flatten()[:count]
    if len(chosen) < count:
        raise SystemExit(f"of {POOL} scenes only {len(chosen)} fit; {count} are wanted")
    regions = ("watermark", "object", "distractor")
    return Planted(
        marked.images[chosen],
        labels[chosen],
        kind,
        {name: marked.masks(name)[chosen] for name in regions},
    )


@functools.cache
def asked(*, watermarks: bool) -> Tensor:
    """Return images to ask and to fit with: of half of them, or of none, the watermark is shown."""
    return WatermarkedScenes(
        QUESTIONS, seed=ASKED, rate=0.5 * watermarks, others=0.5 * watermarks
    ).images


class Subject:
    """A network and what methods need to know beside it, each made when it is first needed."""

    def __init__(self, name: str, *, masks: int, seed: int) -> None:
        self.name, self.masks, self.seed = name, masks, seed
        self.network = NETWORKS[name]()
        self.agreement: dict[str, float] = {}

    def student(self, *, watermarks: bool) -> DistilledLayerSumGradCAM:
        """Return a student of the same form, taught by the network's answers alone."""
        box = BlackBox(self.network, output="logits", cache=":memory:")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            student = DemoNetwork(widths=SMALL_WIDTHS)
        kind = "with" if watermarks else "without"
        weights = fingerprint(self.network)[:8]
        report = distill(
            box,
            student,
            asked(watermarks=watermarks),
            epochs=EPOCHS,
            optimizer=lambda weights: torch.optim.Adam(weights, lr=3e-3),
            checkpoint=WORK / f"ground-truth-{self.name}-{kind}-{weights}-{self.seed}.safetensors",
            seed=self.seed,
            min_fidelity=0.0,
            validation=WatermarkedScenes(300, seed=EXPLAINED + 50).marked().images,
        )
        self.agreement[f"asked {kind} watermarks"] = round(report.agreement, 4)
        return DistilledLayerSumGradCAM(box, student.eval())

    @functools.cached_property
    def dissection(self) -> NetworkDissection:
        """Return the last layer, its units labelled by what scenes are made of."""
        scenes = WatermarkedScenes(DISSECTED, seed=CONCEPTS, rate=0.5, others=0.5)
        masks = {
            "object": torch.where(scenes.masks("object"), scenes.labels[:, None, None] + 1, 0),
            "mark": scenes.masks("watermark").long() + 2 * scenes.masks("distractor").long(),
        }
        names = {"object": list(SCENE_CLASSES), "mark": ["watermark", "distractor"]}
        dissection = NetworkDissection(self.network, LAST)
        dissection.dissect(MaskConcepts(scenes.images, masks, names), show_progress=False)
        return dissection


def methods(subject: Subject) -> dict[str, Callable[[], Method]]:
    """Return every method by its name in the tables; called, it prepares what it needs.

    Gradients and signals count by their absolute values, contributions with their signs.
    """
    network = subject.network

    def captum(method: type, *, magnitude: bool = False, **settings: object) -> Method:
        def maps(images: Tensor, classes: Tensor) -> Tensor:
            found = method(network).attribute(images.clone(), target=classes, **settings)
            return found.abs() if magnitude else found

        return maps

    def smooth_grad(images: Tensor, classes: Tensor) -> Tensor:
        return NoiseTunnel(Saliency(network)).attribute(
            images, nt_type="smoothgrad", nt_samples=SAMPLES, stdevs=NOISE, target=classes
        )

    def grad_cam(images: Tensor, classes: Tensor) -> Tensor:
        layer = network.get_submodule(LAST)
        maps = LayerGradCam(network, layer).attribute(images, classes, relu_attributions=True)
        return LayerAttribution.interpolate(maps, images.shape[2:], "bilinear")

    def relevance(images: Tensor, classes: Tensor) -> Tensor:
        composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])
        with Gradient(network, composite) as attributor:
            return attributor(images.clone(), F.one_hot(classes, len(SCENE_CLASSES)))[1]

    def pattern(method: type, *, magnitude: bool = False, centring: bool = False) -> Method:
        fitting = asked(watermarks=True)[:FITTING]
        patterns = Patterns.fit(
            network, fitting.split(60), regime_centering=centring, show_progress=False
        )
        explain = method(network, patterns).attribute
        return lambda images, classes: (
            explain(images, classes).abs() if magnitude else explain(images, classes)
        )

    def dissected() -> Method:
        return lambda images, classes: subject.dissection.attribute(images, classes)

    shap = {"baselines": asked(watermarks=True)[:BASELINES], "n_samples": SAMPLES}
    window, stride = (3, WINDOW, WINDOW), (3, STRIDE, STRIDE)
    occluded = {"sliding_window_shapes": window, "strides": stride, "baselines": GREY}
    return {
        "Saliency": lambda: captum(Saliency),
        "SmoothGrad": lambda: smooth_grad,
        "GuidedBackprop": lambda: captum(GuidedBackprop, magnitude=True),
        "InputXGradient": lambda: captum(InputXGradient),
        "IntegratedGradients": lambda: captum(IntegratedGradients, n_steps=IG_STEPS),
        "GradientShap": lambda: captum(GradientShap, **shap),
        "DeepLift": lambda: captum(DeepLift),
        "Occlusion": lambda: captum(Occlusion, perturbations_per_eval=32, **occluded),
        "LayerGradCam, last layer": lambda: grad_cam,
        "Zennit EpsilonPlusFlat": lambda: relevance,
        "LayerSumGradCAM": lambda: LayerSumGradCAM(network).attribute,
        "DistilledLayerSumGradCAM": lambda: subject.student(watermarks=True).attribute,
        "DistilledLayerSumGradCAM, asked without watermarks": (
            lambda: subject.student(watermarks=False).attribute
        ),
        "RISE": lambda: (
            RISE(
                BlackBox(network, output="logits"), masks=subject.masks, seed=subject.seed
            ).attribute
        ),
        "PatternNet": lambda: pattern(PatternNet, magnitude=True),
        "PatternAttribution": lambda: pattern(PatternAttribution),
        "PatternAttribution, regime_centering": lambda: pattern(PatternAttribution, centring=True),
        "NetworkDissection": dissected,
        "random": lambda: random_pixels,
    }


OURS = (
    "LayerSumGradCAM",
    "DistilledLayerSumGradCAM",
    "DistilledLayerSumGradCAM, asked without watermarks",
    "RISE",
    "PatternNet",
    "PatternAttribution",
    "PatternAttribution, regime_centering",
    "NetworkDissection",
)


def random_pixels(images: Tensor, classes: Tensor) -> Tensor:
    """Return noise that depends on the image and the class alone."""
    maps = []
    for image, target in zip(images, classes, strict=True):
        digest = hashlib.sha256(tensor_bytes(image)).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big") + int(target))
        maps.append(torch.rand(1, *image.shape[1:], generator=generator))
    return torch.stack(maps)


def explained(method: Method, images: Tensor, classes: Tensor, seed: int) -> Tensor:
    """Return the maps of a few images, with everything random drawn from the seed."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        return method(images, classes).detach()
