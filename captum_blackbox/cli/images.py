"""Image files into what a model takes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import typer
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms
from tqdm.auto import tqdm

from captum_blackbox.cli.messages import say
from captum_blackbox.cli.options import PresetName
from captum_blackbox.concepts.image_files import of_8_bits
from captum_blackbox.concepts.image_loading import UNREADABLE
from captum_blackbox.errors import InputError


@dataclass(frozen=True)
class Preparation:
    """How an image becomes a model's input.

    Attributes:
        size: Height and width of the input, cropped at the centre.
        resize: Length of the shorter side before the crop.
        mean: Per channel; one entry makes the image grey.
        std: Per channel.
        interpolation: Of the resizing.
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def __str__(self) -> str:
        """Describe it in one line, for a person."""
        mean, std = (", ".join(f"{each:g}" for each in values) for values in (self.mean, self.std))
        return (
            f"shorter side {self.resize} pixels ({self.interpolation.value}), centre "
            f"{self.size} × {self.size}, minus {mean}, divided by {std}"
        )

    def picture(self, path: Path) -> Tensor:
        """Read one file as ``(C, size, size)`` in [0, 1]."""
        with Image.open(path) as file:
            upright = of_8_bits(ImageOps.exif_transpose(file))
            image = upright.convert("L" if len(self.mean) == 1 else "RGB")
        resized = transforms.resize(image, [self.resize], self.interpolation)
        cropped = transforms.center_crop(resized, [self.size])
        picture: Tensor = transforms.pil_to_tensor(cropped).float() / 255
        return picture

    def normalised(self, pictures: Tensor) -> Tensor:
        """Turn pictures ``(N, C, H, W)`` into the model's input."""
        mean, std = self._statistics()
        return (pictures - mean) / std

    def from_colour(self, images: Tensor) -> Tensor:
        """Turn images ``(N, 3, H, W)`` in [0, 1], on any device, into the model's input."""
        if len(self.mean) == 1:
            images = transforms.rgb_to_grayscale(images)
        return self.normalised(images.cpu()).to(images.device)

    def pictures(self, inputs: Tensor) -> Tensor:
        """Turn the model's input back into pictures in [0, 1]."""
        mean, std = self._statistics()
        return (inputs * std + mean).clamp(0, 1)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (self.mean, self.std))
        return mean, std


_HALF = (0.5, 0.5, 0.5)
_PRESETS = {
    # Torchvision's evaluation.
    PresetName.IMAGENET: Preparation(224, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    PresetName.HALF: Preparation(224, 224, _HALF, _HALF),
}


@dataclass(frozen=True)
class LoadedImages:
    """Images that could be read.

    Attributes:
        inputs: As the model takes them, ``(N, C, size, size)``.
        names: Of the files, below their folder.
        skipped: Path of a file → why it was left out.
        left: How many further images there are beyond the limit.
    """

    inputs: Tensor
    names: tuple[str, ...]
    skipped: dict[str, str]
    left: int = 0

    def report_skipped(self) -> None:
        """Tell which files were left out, and why."""
        for path, reason in self.skipped.items():
            say(f"skipped {path}: {reason}")

    def first(self, limit: int) -> "LoadedImages":
        """Return the first images only."""
        return replace(
            self,
            inputs=self.inputs[:limit].clone(),
            names=self.names[:limit],
            left=self.left + max(0, len(self.names) - limit),
        )


def choose_preparation(
    size: int | None,
    mean: str | None,
    std: str | None,
    preset: PresetName | None,
    from_weights: Any = None,  # noqa: ANN401 - torchvision's ImageClassification
) -> Preparation:
    """Take each of size, mean and std from its option, the preset or torchvision's weights.

    The margin that is cropped away belongs to the preset or the weights; otherwise there is none.

    Raises:
        BadParameter: Something is missing or cannot be understood.
    """
    known = _PRESETS[preset] if preset is not None else _of_weights(from_weights)
    crop, means, stds = (None, None, None) if known is None else (known.size, known.mean, known.std)
    crop = crop if size is None else size
    means = means if mean is None else _numbers(mean, "--mean")
    stds = stds if std is None else _numbers(std, "--std")
    if crop is None or means is None or stds is None:
        raise typer.BadParameter(
            "how the model wants its images is not known: give --preset imagenet or --preset half, "
            "or --size, --mean and --std"
        )
    if len(means) != len(stds) or len(means) not in {1, 3}:
        raise typer.BadParameter(
            f"--mean and --std need one number each, or three, got {len(means)} and {len(stds)}"
        )
    if known is None:
        return Preparation(crop, crop, means, stds)
    resize = round(crop * known.resize / known.size)
    return Preparation(crop, resize, means, stds, known.interpolation)


def load_images(
    places: Sequence[Path], preparation: Preparation, *, limit: int | None = None
) -> LoadedImages:
    """Read files and folders in order of name; what is no image is skipped and listed.

    Args:
        places: Files and folders; folders are searched to any depth, hidden files are left out.
        preparation: How to read an image.
        limit: Most images to read; of further ones only the type is checked.

    Raises:
        InputError: No image could be read.
    """
    pictures: list[Tensor] = []
    names: list[str] = []
    skipped: dict[str, str] = {}
    left = 0
    for path, name in tqdm(list(files_in(places)), desc="reading", unit="file"):
        try:
            if limit is None or len(pictures) < limit:
                pictures.append(preparation.picture(path))
                names.append(name)
            else:
                Image.open(path).close()
                left += 1
        except UNREADABLE as error:
            skipped[readable(path)] = why_unreadable(error)
    if not pictures:
        raise no_image(places, skipped)
    stacked = torch.stack(pictures)
    return LoadedImages(preparation.normalised(stacked), tuple(names), skipped, left)


def no_image(places: Sequence[Path], skipped: Mapping[str, str]) -> InputError:
    """Return the error that there is no image, and why not."""
    where = ", ".join(repr(str(place)) for place in places)
    first = next(iter(skipped.items()), None)
    why = "it is empty" if first is None else f"{first[0]}: {first[1]}"
    files = "1 file" if len(skipped) == 1 else f"{len(skipped)} files"
    return InputError(f"there is no image in {where} ({files} skipped; {why})")


def read_class_names(path: Path) -> list[str]:
    """Read names from a text file, one a line, or from a JSON list.

    Raises:
        InputError: The file holds something else.
    """
    try:
        text = path.read_text("utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read as class names: {error}") from error
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise InputError(
            f"{str(path)!r} must hold class names: one a line, or a JSON list of strings"
        )
    return names


def _of_weights(transforms: Any) -> Preparation | None:  # noqa: ANN401
    if transforms is None:
        return None
    return Preparation(
        transforms.crop_size[0],
        transforms.resize_size[0],
        tuple(transforms.mean),
        tuple(transforms.std),
        transforms.interpolation,
    )


def files_in(places: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield path and name of each file, in order of name; hidden ones are left out."""
    for place in places:
        if place.is_dir():
            for path in sorted(place.rglob("*")):
                below = path.relative_to(place)
                if path.is_file() and not any(part.startswith(".") for part in below.parts):
                    yield path, readable(below)
        else:
            yield place, readable(place.name)


def readable(path: Path | str) -> str:
    r"""Return a name of a file as text that can be written; what is not UTF-8 becomes escapes.

    Example:
        >>> readable("caf\udce9.png")
        'caf\\udce9.png'
    """
    return str(path).encode("utf-8", "backslashreplace").decode()


def why_unreadable(error: Exception) -> str:
    """Return why a file is no image, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return f"broken image: {error}"


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{option} is numbers with commas, got {text!r}") from None
    if option == "--std" and not all(number > 0 for number in numbers):
        raise typer.BadParameter(f"--std must be above 0, got {text!r}")
    return numbers
