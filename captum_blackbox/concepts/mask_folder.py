"""Which files of a folder are images, which are their masks, and what their values are called."""

import json
from pathlib import Path

from captum_blackbox.errors import DataError

_PHOTOGRAPHS = {".jpg", ".jpeg"}


def images_and_masks(folder: Path, masks: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder in the order of their names, and the mask of each.

    Args:
        folder: Of the images: JPEG files, and PNG files where the masks lie elsewhere.
        masks: Of the masks: ``000.png`` belongs to ``000.jpg``.

    Raises:
        DataError: There is no such folder, no image in it, or no mask for one.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}")
    kinds = _PHOTOGRAPHS if folder.resolve() == masks.resolve() else _PHOTOGRAPHS | {".png"}
    # What begins with a dot is no image, such as what macOS leaves beside one.
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    images = sorted(path for path in shown if path.suffix.lower() in kinds)
    if not images:
        raise DataError(f"{str(folder)!r} holds no image that ends in {', '.join(sorted(kinds))}")
    drawn = [masks / f"{image.stem}.png" for image in images]
    missing = [path for path in drawn if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} images have no mask; the first that is missing is "
            f"{str(missing[0])!r}"
        )
    return images, drawn


def names_of(path: Path) -> dict[int, str]:
    """Read value → name from a JSON file such as ``{"1": "person"}``.

    Raises:
        DataError: The file is missing or holds something else.
    """
    try:
        names = json.loads(path.read_text(encoding="utf-8-sig"))
        return {int(value): str(name) for value, name in names.items()}
    except FileNotFoundError as error:
        raise DataError(
            f"there is no file {str(path)!r} with the names; write it or give names="
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f'{str(path)!r} holds no names such as {{"1": "person"}}: {error}'
        ) from error
