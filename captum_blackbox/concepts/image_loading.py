"""Image files, read by Pillow; what is missing or broken is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from captum_blackbox.errors import DataError

# What Pillow raises for files that are no images, broken or dangerously large.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def load_image(path: Path, *, upright: bool = False) -> Image.Image:
    """Read an image file whole and close it.

    Args:
        path: The file.
        upright: Turn a photograph as its EXIF orientation says, which is how viewers show it.
            Published data sets are read as they are stored, which is how their masks were made.

    Raises:
        DataError: There is no such file, or it is no image or a broken one.
    """
    with _opened(path) as file:
        file.load()
        if upright:
            ImageOps.exif_transpose(file, in_place=True)
        return file


def size_of_file(path: Path, *, upright: bool = False) -> tuple[int, int]:
    """Return the height and width of an image file, of which only the beginning is read.

    Args:
        path: The file.
        upright: As for :func:`load_image`.

    Raises:
        DataError: There is no such file, or it is no image.
    """
    with _opened(path) as file:
        size = file.height, file.width
        return size[::-1] if upright and _lies(file) else size


def _lies(file: Image.Image) -> bool:
    """Return whether turning an image upright exchanges height and width."""
    if file.format == "PNG" and "exif" not in file.info:  # Pillow would read all of it
        return False
    return file.getexif().get(ExifTags.Base.Orientation) in {5, 6, 7, 8}


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"there is no file {str(path)!r}") from error
    except UNREADABLE as error:
        raise DataError(f"{str(path)!r} cannot be read as an image: {error}") from error
