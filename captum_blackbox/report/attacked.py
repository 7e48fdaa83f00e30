"""What an attack did to one image: before, after, the change, and both explanations."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from captum_blackbox.errors import ShapeError
from captum_blackbox.report.overlay import fitted_size, heat_png, picture_png
from captum_blackbox.report.signals import montage_png, signal_png

_BRIGHTEST = 0.99  # of the pixels: brighter ones are drawn like it


@dataclass(frozen=True)
class Moved:
    """An image before and after an attack, and its explanations.

    Attributes:
        clean: ``(C, H, W)`` in [0, 1].
        attacked: Likewise.
        clean_map: Importance ``(H, W)``, not negative.
        attacked_map: Likewise.
    """

    clean: Tensor
    attacked: Tensor
    clean_map: Tensor
    attacked_map: Tensor

    @property
    def amplification(self) -> float:
        """The factor at which the largest change fills the range of colours; 0 without a change.

        Example:
            >>> import torch
            >>> black, maps = torch.zeros(3, 4, 4), torch.ones(4, 4)
            >>> Moved(black, black + 0.25, maps, maps).amplification
            2.0
        """
        largest = float((self.attacked - self.clean).abs().max())
        return 0.5 / largest if largest > 0 else 0.0

    def __post_init__(self) -> None:
        """Refuse what does not belong together.

        Raises:
            ShapeError: The shapes differ.
        """
        size = self.clean.shape[1:]
        shapes = [self.attacked.shape[1:], self.clean_map.shape, self.attacked_map.shape]
        if self.clean.dim() != 3 or any(shape != size for shape in shapes):
            raise ShapeError(
                "expected two images (C, H, W) and two maps (H, W) of one size, got "
                f"{tuple(self.clean.shape)}, {tuple(self.attacked.shape)}, "
                f"{tuple(self.clean_map.shape)} and {tuple(self.attacked_map.shape)}"
            )


def change_png(moved: Moved, *, edge: int = 224) -> bytes:
    """Return the change of an image as PNG, amplified; what did not change is mid-grey.

    Args:
        moved: The image.
        edge: As for :func:`~captum_blackbox.report.picture_png`.

    Raises:
        ShapeError: A value is not finite.
    """
    return signal_png(moved.attacked - moved.clean, edge=edge)


def importance_png(importance: Tensor, *, edge: int = 224) -> bytes:
    """Return a map of importance as PNG, on a scale of its own that a few pixels cannot dim.

    Args:
        importance: ``(H, W)``, not negative.
        edge: As for :func:`~captum_blackbox.report.picture_png`.

    Raises:
        ShapeError: The map has another shape or a value that is not finite.

    Example:
        >>> import torch
        >>> importance_png(torch.rand(8, 8), edge=8)[1:4]
        b'PNG'
    """
    brightest = float(importance.detach().float().flatten().quantile(_BRIGHTEST))
    heat = importance.clamp(max=brightest) if brightest > 0 else importance
    return heat_png(heat, edge=edge)


def attacked_png(rows: Mapping[str, Moved], *, edge: int = 224) -> bytes:
    """Return attacks side by side: image, attacked image, amplified change, both explanations.

    Args:
        rows: Name, usually of a method → an attack on its explanation.
        edge: Longer edge of each picture, in pixels.

    Returns:
        A PNG with a row for each attack.

    Raises:
        InputError: There is no row.
        ShapeError: A value is not finite.

    Example:
        >>> import torch
        >>> image, other = torch.rand(2, 3, 8, 8)
        >>> before, after = torch.rand(2, 8, 8)
        >>> attacked_png({"gradient": Moved(image, other, before, after)}, edge=16)[1:4]
        b'PNG'
    """
    columns = ["image", "attacked", "change", "explanation", "explanation\nof attacked"]
    pictures = {
        f"{name}; change × {factor_name(moved.amplification)}": [
            picture_png(moved.clean, edge=edge),
            picture_png(moved.attacked, edge=edge),
            change_png(moved, edge=edge),
            importance_png(moved.clean_map, edge=edge),
            importance_png(moved.attacked_map, edge=edge),
        ]
        for name, moved in rows.items()
    }
    # The size at which they are drawn, so that the grid need not shrink them.
    height, width = next(iter(rows.values())).clean_map.shape if rows else (edge, edge)
    return montage_png(pictures, columns, edge=max(fitted_size(height, width, edge)))


def factor_name(factor: float) -> str:
    """Return a factor as people write it.

    Example:
        >>> factor_name(15.9375), factor_name(2.25), factor_name(127.5)
        ('16', '2.2', '128')
    """
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"
