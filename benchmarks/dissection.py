"""Network Dissection against one forward pass over the images."""

import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torchvision
from harness import Contestant, arguments, race, result, save
from patterns import peak
from PIL import Image
from torch import Tensor, nn

from captum_blackbox import (
    BrodenConcepts,
    Concepts,
    MaskConcepts,
    NetworkDissection,
    SceneConcepts,
    SubsetConcepts,
)
from captum_blackbox.concepts import write_broden
from captum_blackbox.demo import load_demo_network
from captum_blackbox.dissection.active_cells import ActiveCells
from captum_blackbox.dissection.lit_pixels import lit_pixels
from captum_blackbox.dissection.reading import label_batches
from captum_blackbox.dissection.tally import BatchLabels, Tally
from captum_blackbox.dissection.upsampling import resized_axis
from captum_blackbox.hooks import captured, evaluating
from captum_blackbox.statistics import TopFraction

LAYER_IMAGES = 32  # for one layer, whose maps lie ready; whole runs take all images
THRESHOLD_GOAL, TALLY_GOAL, RUN_GOAL = 0.02, 0.06, 1.3
LEVEL = 0.995
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def real_networks() -> ModuleType | None:
    """Return the module that loads the real networks, if CAPTUM_BLACKBOX_DATA names one."""
    path = Path(os.environ.get("CAPTUM_BLACKBOX_DATA", "")) / "networks.py"
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("real_networks", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_networks"] = module
    spec.loader.exec_module(module)
    return module


def photographs(count: int) -> Concepts:
    """Return real photographs with masks of things, or scenes of the same size."""
    data = real_networks()
    if data is None:
        return SceneConcepts(count, size=224)
    images, masks, names = data.masks()
    images = torch.nn.functional.interpolate(
        images[:count].float() / 255, 224, mode="bilinear"
    ).clamp(0, 1)
    masks = torch.nn.functional.interpolate(masks[:count, None].float(), 112, mode="nearest")
    found = {value: names[value] for value in masks.unique().int().tolist() if value}
    return MaskConcepts(images, masks[:, 0].long(), found)


def subjects(device: str) -> list[tuple[str, nn.Module, list[str], Concepts, int]]:
    """Return name, network, layers, images and batch size of what is dissected."""
    data, photos = real_networks(), photographs(96)
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(weights=None).eval()
    found = [
        ("resnet18, random weights", resnet, ["layer2", "layer4"], photos, 8),
        ("built-in network", load_demo_network(), ["features.6.2"], _scenes(256), 64),
    ]
    if data is not None:
        squeezenet = data.squeezenet_imagenet()
        for module in squeezenet.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        found.insert(0, ("squeezenet1_0, ImageNet", squeezenet, ["features.12"], photos, 8))
    return [(name, model.to(device), *rest) for name, model, *rest in found]


def _scenes(count: int) -> Concepts:
    scenes = SceneConcepts(count)
    for number in range(count):
        scenes.image(number)  # rendered once and kept
    return scenes


def normalised(images: Tensor) -> Tensor:
    return (images - MEAN.to(images)) / STD.to(images)


def layer_races(
    name: str, model: nn.Module, layer: str, concepts: Concepts, batch: int, settings: dict
) -> list[dict]:
    """Race thresholds and tally of one layer; its maps lie ready."""
    if concepts.image_size[0] > 64:
        concepts = SubsetConcepts(concepts, range(LAYER_IMAGES))
    images = torch.stack([concepts.image(n) for n in range(len(concepts))])
    inputs = [normalised(each).to(settings["device"]) for each in images.split(batch)]
    maps = [_maps(model, layer, each) for each in inputs]
    with tempfile.TemporaryDirectory() as folder:
        write_broden(Path(folder) / "broden", concepts)
        on_disk = BrodenConcepts(Path(folder) / "broden", size=concepts.image_size)
        top = _top(maps)
        limits = top.quantile(LEVEL).to(maps[0])
        floor = Contestant("one forward pass over the images", _forwards(model, inputs))
        setting = {
            "network": name,
            "layer": layer,
            "units": maps[0].shape[1],
            "map": maps[0].shape[2],
            "images": len(concepts),
            "batch": batch,
        }
        thresholds = [
            Contestant(
                "captum_blackbox, exact",
                lambda: _top(maps).quantile(LEVEL),
                goal=THRESHOLD_GOAL,
                ours=True,
            ),
        ]
        lite, why = _lite()
        if lite is not None:
            thresholds.append(
                Contestant("NetDissect-Lite's own QuantileVector", lambda: _by_lite(lite, maps))
            )
        tally = [
            Contestant(
                "captum_blackbox, masks decoded",
                lambda: _tallied(on_disk, maps, limits, batch),
                goal=TALLY_GOAL,
                ours=True,
            ),
            Contestant(
                "NetDissect-Lite's loop, transcribed, masks decoded",
                lambda: _by_loop(on_disk, maps, limits),
                rounds=3,
            ),
        ]
        missing = {} if lite is not None else {"NetDissect-Lite's own QuantileVector": why}
        rounds = {"rounds": settings["rounds"], "device": settings["device"], "setting": setting}
        return [
            race("thresholds of a layer", floor, thresholds, unavailable=missing, **rounds),
            race("tally of a layer", floor, tally, **rounds),
        ]


def run_race(
    name: str, model: nn.Module, layers: list[str], concepts: Concepts, batch: int, settings: dict
) -> tuple[dict, dict]:
    """Race a whole dissection of some layers together; images and masks are in memory."""
    images = torch.stack([concepts.image(n) for n in range(len(concepts))])
    inputs = [normalised(each).to(settings["device"]) for each in images.split(batch)]
    dissection = NetworkDissection(model, layers, preprocess=normalised)

    def run() -> object:
        return dissection.dissect(concepts, batch_size=batch, show_progress=False)

    row = race(
        "whole dissection",
        Contestant("one forward pass over the images", _forwards(model, inputs)),
        [Contestant("captum_blackbox dissect", run, goal=RUN_GOAL, ours=True)],
        rounds=settings["rounds"],
        device=settings["device"],
        setting={
            "network": name,
            "layers": len(layers),
            "images": len(concepts),
            "batch": batch,
        },
    )
    memory = {
        "work": "peak memory of a whole dissection",
        "setting": row["setting"],
        "forward": round(peak(_forwards(model, inputs))),
        "dissect": round(peak(run)),
    }
    print(memory, flush=True)
    return row, memory


@torch.no_grad()
def _maps(model: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    with captured({layer: model.get_submodule(layer)}, copy=True) as seen, evaluating(model):
        model(inputs)
    return seen[layer]


def _forwards(model: nn.Module, inputs: list[Tensor]) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return [model(each).sum() for each in inputs]

    return call


def _top(maps: list[Tensor]) -> TopFraction:
    count = sum(len(each) for each in maps) * maps[0][0, 0].numel()
    top = TopFraction(TopFraction.capacity_for(count, LEVEL))
    for each in maps:
        top.update(each.flatten(2))
    return top


def _tallied(concepts: Concepts, maps: list[Tensor], limits: Tensor, batch: int) -> Tally:
    tally = Tally(len(limits), concepts.label_categories(), len(concepts.categories))
    axes = [
        resized_axis(*sizes) for sizes in zip(maps[0].shape[2:], concepts.mask_size, strict=True)
    ]
    batches = torch.arange(len(concepts)).split(batch)
    labels = label_batches(concepts, [each.tolist() for each in batches], "raise", 0)
    for found, each in zip(labels, maps, strict=True):
        cells = ActiveCells.above(limits, each)
        tally.update(BatchLabels.of(found.pixels, found.whole), lit_pixels(cells, limits, *axes))
    return tally


def _by_loop(concepts: Concepts, maps: list[Tensor], limits: Tensor) -> np.ndarray:
    """Tally as NetDissect-Lite does: image by image, unit by unit."""
    features, thresholds = torch.cat(maps).cpu().numpy(), limits.cpu().numpy()
    height, width = concepts.mask_size
    both = np.zeros((len(thresholds), len(concepts.labels) + 1))
    for number, feature in enumerate(features):
        annotations = concepts.annotations(number).values()
        pixels = torch.cat([each.pixels for each in annotations]).numpy()
        for unit, map_ in enumerate(feature):
            if map_.max() > thresholds[unit]:
                mask = np.asarray(Image.fromarray(map_).resize((width, height), Image.BILINEAR))
                places = np.argwhere(mask > thresholds[unit])
                counts = np.bincount(pixels[:, places[:, 0], places[:, 1]].ravel())
                both[unit, : len(counts)] += counts
    return both


def _lite() -> tuple[ModuleType | None, str]:
    path = Path(os.environ.get("NETDISSECT_LITE", "")) / "util" / "vecquantile.py"
    if not path.is_file():
        return None, "NETDISSECT_LITE names no checkout of CSAILVision/NetDissect-Lite"
    spec = importlib.util.spec_from_file_location("vecquantile", path)
    module = importlib.util.module_from_spec(spec)
    vars(np).setdefault("NaN", np.nan)  # a name that NumPy 2 has dropped
    spec.loader.exec_module(module)
    try:
        _by_lite(module, [torch.rand(1, 2, 40, 40)])
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    return module, ""


def _by_lite(module: ModuleType, maps: list[Tensor]) -> np.ndarray:
    sketch = module.QuantileVector(depth=maps[0].shape[1], seed=1)
    for each in maps:
        sketch.add(each.permute(0, 2, 3, 1).reshape(-1, each.shape[1]).cpu().numpy())
    return sketch.readout(1000)[:, 994]


def main() -> None:
    parser = arguments(__doc__)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    settings = {"rounds": given.rounds, "device": given.device}
    rows, memory = [], []
    for name, model, layers, concepts, batch in subjects(given.device):
        model.requires_grad_(False)
        for layer in layers:
            rows += layer_races(name, model, layer, concepts, batch, settings)
        row, held = run_race(name, model, layers, concepts, batch, settings)
        rows.append(row)
        memory.append(held)
    content = result("dissection", given.device, rows, given.rounds)
    if given.device == "cpu":
        content["memory"] = memory
    print(save("dissection", given.device, content))


if __name__ == "__main__":
    main()
