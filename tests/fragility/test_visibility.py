"""How visible a change is, against the formula of the paper."""

import pytest
import torch
from attacked_networks import some_images

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.visibility import from_pixels, structural_similarities, to_pixels


def slow_ssim(a, b, window=7):
    """Wang et al., eq. 13, in every window that lies in the image, averaged."""
    found = []
    for channel in range(a.shape[0]):
        for row in range(a.shape[1] - window + 1):
            for column in range(a.shape[2] - window + 1):
                one, two = (
                    each[channel, row : row + window, column : column + window].flatten()
                    for each in (a, b)
                )
                mean_a, mean_b = one.mean(), two.mean()
                covariance = ((one - mean_a) * (two - mean_b)).sum() / (window**2 - 1)
                found.append(
                    (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
                    / ((mean_a**2 + mean_b**2 + 0.01**2) * (one.var() + two.var() + 0.03**2))
                )  # fmt: skip
    return sum(found) / len(found)


@pytest.mark.parametrize("size", [8, 9, 5, 4])
def test_it_is_the_formula_of_the_paper(size):
    clean = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).double()
    changed = (clean + 0.2 * torch.rand(clean.shape).double()).clamp(0, 1)
    window = {8: 7, 9: 7, 5: 5, 4: 3}[size]
    expected = [float(slow_ssim(a, b, window)) for a, b in zip(clean, changed, strict=True)]
    assert structural_similarities(clean, changed).tolist() == pytest.approx(expected, abs=1e-9)


def test_the_same_image_has_1_and_a_larger_change_has_less():
    images = some_images(3)
    assert structural_similarities(images, images).tolist() == [1, 1, 1]
    noise = torch.rand(images.shape).double() - 0.5
    near, far = (
        structural_similarities(images, (images + size * noise).clamp(0, 1)) for size in (0.1, 0.6)
    )
    assert (near < 1).all() and (near > far).all()


def test_a_tiny_image_has_no_windows():
    assert structural_similarities(torch.zeros(1, 1, 2, 9), torch.ones(1, 1, 2, 9)).isnan().all()


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (torch.tensor([-2.0, -1, 0]), 3.0)])
def test_pixels_go_from_black_to_white_and_back(bounds):
    pixels = some_images(2)
    images = from_pixels(pixels, *bounds)
    torch.testing.assert_close(to_pixels(images, *bounds), pixels)
    lower = torch.as_tensor(bounds[0]).double().view(-1, 1, 1)
    black = from_pixels(torch.zeros_like(pixels), *bounds)
    torch.testing.assert_close(black, lower.expand_as(pixels[0])[None].expand_as(pixels))


def test_bounds_that_say_no_black_are_refused():
    for bounds in ((0.0, torch.inf), (1.0, 1.0)):
        with pytest.raises(InputError, match="what is black and what is white"):
            to_pixels(some_images(1), *bounds)
