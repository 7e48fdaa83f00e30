"""Draw docs/watermark.png: one scene with the watermark and without, and what methods see in it.

Maps that differ from pixel to pixel are averaged over 5 × 5 pixels, to be visible at this size.
"""

import argparse
from pathlib import Path

import torch
from ground_truth_methods import Subject, explained, methods
from torch import Tensor
from torch.nn import functional as F

from captum_blackbox.concepts import SCENE_CLASSES
from captum_blackbox.concepts.watermarked import WatermarkedScenes
from captum_blackbox.report import montage_png, overlay_png, picture_png

PICTURE = Path(__file__).parents[1] / "docs" / "watermark.png"
SHOWN = {
    "Grad-CAM,\nlast layer": "LayerGradCam, last layer",
    "Integrated\nGradients": "IntegratedGradients",
    "RISE": "RISE",
    "LayerSum-\nGradCAM": "LayerSumGradCAM",
    "Distilled\nLayerSum-\nGradCAM": "DistilledLayerSumGradCAM",
    "Pattern-\nAttribution": "PatternAttribution, regime_centering",
}
PIXELWISE = ("IntegratedGradients", "PatternAttribution, regime_centering")
EDGE, MASKS = 192, 2000


def row(network: str, image: Tensor) -> tuple[str, list[bytes]]:
    """Return the answer of a network, and the picture with six maps of why."""
    subject = Subject(network, masks=MASKS, seed=0)
    with torch.inference_mode():
        scores = subject.network(image[None]).softmax(1)[0]
    answer = scores.argmax()[None]
    ready = methods(subject)
    maps = {name: explained(ready[name](), image[None], answer, 0) for name in SHOWN.values()}
    pictures = [
        overlay_png(
            image, smooth(each, name), edge=EDGE, floor="minimum" if name == "RISE" else "zero"
        )
        for name, each in maps.items()
    ]
    said = f"“{SCENE_CLASSES[int(answer)]}” {100 * float(scores.max()):.0f} %"
    return said, [picture_png(image, edge=EDGE), *pictures]


def smooth(maps: Tensor, name: str) -> Tensor:
    """Return the only map, ``(1, 64, 64)``, without what opposes the answer."""
    positive = maps.sum(1).clamp(min=0)
    return F.avg_pool2d(positive, 5, stride=1, padding=2) if name in PIXELWISE else positive


def picture(index: int, seed: int) -> bytes:
    """Return the grid: the shortcut with and without the watermark, and the control with it."""
    scenes = WatermarkedScenes(index + 1, seed=seed)
    marked, bare = scenes.marked()[index][0], scenes.unmarked()[index][0]
    rows = {}
    for network, image, what in (
        ("shortcut", marked, "learned the watermark"),
        ("shortcut", bare, "same network, watermark removed"),
        ("control", marked, "ignores the watermark"),
    ):
        said, pictures = row(network, image)
        rows[f"{what}: {said}"] = pictures
    return montage_png(rows, ["scene", *SHOWN], edge=EDGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=int, default=19)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PICTURE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(picture(given.index, given.seed))
    print(given.out)


if __name__ == "__main__":
    main()
