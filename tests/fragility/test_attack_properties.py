"""Ball, bounds, mask and label hold for every mode, norm, shape and dtype."""

import pytest
import torch
from captum.attr import Saliency
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_blackbox import InterpretationAttack


def network(channels, height, width, dtype):
    torch.manual_seed(channels + 7 * height + 11 * width)
    return (
        nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * height * width, 3),
        )
        .to(dtype)
        .eval()
    )


@given(
    mode=st.sampled_from(["topk", "mass_center", "targeted", "random", "random_walk"]),
    norm=st.sampled_from(["Linf", "L2"]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(3, 6), st.integers(3, 6)),
    radius=st.floats(0, 0.5),
    seed=st.integers(0, 9),
    masked=st.booleans(),
    by_channel=st.booleans(),
)
def test_whatever_is_asked_the_attack_keeps_its_promises(
    mode, norm, dtype, shape, radius, seed, masked, by_channel
):
    _, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=generator).to(dtype)
    model = network(channels, height, width, dtype)
    mask = torch.rand(1, 1, height, width, generator=generator) > 0.3 if masked else None
    size = torch.linspace(0, radius, channels) if by_channel and norm == "Linf" else radius
    region = torch.zeros(height, width)
    region[0, 0] = 1
    kept, images_before = model(images).argmax(1), images.clone()
    result = InterpretationAttack(Saliency(model)).run(
        images, size, step_num=3, mode=mode, norm=norm, region=region, mask=mask, seed=seed
    )
    attacked = result.inputs
    assert attacked.shape == images.shape and attacked.dtype == dtype
    assert torch.equal(images, images_before)
    assert ((attacked >= 0) & (attacked <= 1)).all()
    change = attacked.double() - images.double()
    if norm == "Linf":
        allowed = torch.as_tensor(size, dtype=torch.float64).view(-1, 1, 1)
        assert (change.abs() <= allowed * (1 + 1e-6)).all()
    else:
        assert (change.flatten(1).norm(dim=1) <= radius * (1 + 1e-6)).all()
    if masked:
        assert (change[~mask.expand_as(change)] == 0).all()
    assert torch.equal(model(attacked).argmax(1), kept) and result.label_kept.all()


def test_normalised_images_are_attacked_in_units_of_pixels():
    """The same attack on pixels, with the normalisation as the first layer of the network."""
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.5])

    class Normalise(nn.Module):
        def forward(self, x):
            return (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)

    inner = network(3, 6, 6, torch.float64)
    whole = nn.Sequential(Normalise(), inner)
    pixels = torch.rand(3, 3, 6, 6, dtype=torch.float64)
    settings = {"radius": 0.1, "step_size": 0.02, "step_num": 6}
    for norm in ("Linf", "L2"):
        by_pixels = InterpretationAttack(
            lambda model, x, target: gradient(model, x, target), model=whole
        ).run(pixels, **settings, norm=norm)
        # d score / d pixel = d score / d input / std, so that the same map is explained.
        normalised = InterpretationAttack.normalized(
            lambda model, x, target: gradient(model, x, target) / std.view(3, 1, 1),
            model=inner,
            mean=mean,
            std=std,
        ).run((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1), **settings, norm=norm)
        again = normalised.inputs * std.view(3, 1, 1) + mean.view(3, 1, 1)
        # A length is shortened by a millionth where rounding would put it outside.
        close = {"atol": 1e-9 if norm == "Linf" else 1e-6, "rtol": 1e-5}
        torch.testing.assert_close(again, by_pixels.inputs, **close)
        torch.testing.assert_close(normalised.attacked.linf, by_pixels.attacked.linf, **close)
        torch.testing.assert_close(normalised.attacked.l2, by_pixels.attacked.l2, **close)
        assert by_pixels.success.any()


def gradient(model, x, target):
    x = x if x.requires_grad else x.detach().requires_grad_()
    score = model(x).gather(1, target[:, None]).sum()
    return torch.autograd.grad(score, x, create_graph=True)[0]


@pytest.mark.parametrize("std", [[0.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
def test_a_spread_that_is_not_positive_is_refused(std):
    with pytest.raises(ValueError, match="std is positive for every channel"):
        InterpretationAttack.normalized(
            Saliency(network(3, 4, 4, torch.float32)), mean=[0.0] * 3, std=std
        )
