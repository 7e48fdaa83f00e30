"""Image files, read by Pillow; what is missing or broken is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from captum_blackbox.errors import DataError

# What Pillow raises for files that are no images, broken or dangerously large.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def load_image(path: Path) -> Image.Image:
    """Read an image file whole and close it; a photograph is turned upright, as viewers show it.

    Raises:
        DataError: There is no such file, or it is no image or a broken one.
    """
    with _opened(path) as file:
        file.load()
        ImageOps.exif_transpose(file, in_place=True)
        return file


def size_of_file(path: Path) -> tuple[int, int]:
    """Return the height and width of an image file, upright; only its beginning is read.

    Raises:
        DataError: There is no such file, or it is no image.
    """
    with _opened(path) as file:
        size = file.height, file.width
        return size[::-1] if _lies(file) else size


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
