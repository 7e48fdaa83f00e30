"""Patches of linear layers, beside a definition that sets one tap of the weight at a time."""

import itertools
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pattern_networks import naive_matrix, naive_taps
from torch import nn
from torch.testing import assert_close

from captum_blackbox.errors import LayerError
from captum_blackbox.patterns.batch_norm import affine, folded
from captum_blackbox.patterns.linear_layers import LinearLayer

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@st.composite
def layers(draw):
    """Return a convolution of any geometry and the shape of an input."""
    axes = draw(st.integers(1, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    groups = draw(st.integers(1, 2))
    channels, units = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, stride, dilation, padding = each(1, 3), each(1, 3), each(1, 2), each(0, 2)
    settings = {"groups": groups, "dilation": dilation, "bias": draw(st.booleans())}
    shape = (draw(st.integers(1, 2)), channels, *(each(5, 6) if axes < 3 else each(5, 5)))
    if draw(st.booleans()):
        more = tuple(
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
        )
        layer = TRANSPOSED[axes - 1](
            channels, units, kernel, stride, padding, output_padding=more, **settings
        )
        return layer.double(), shape
    padding = draw(st.sampled_from([padding, padding, "same", "valid"]))
    if padding == "same":
        stride = 1
    mode = draw(st.sampled_from(["zeros", "reflect", "circular", "replicate"]))
    layer = CONVOLUTIONS[axes - 1](
        channels, units, kernel, stride, padding, padding_mode=mode, **settings
    )
    return layer.double(), shape


def random_case(layer, shape):
    inputs = torch.randn(shape, dtype=torch.float64)
    outputs = layer(inputs).detach()
    return inputs, outputs, torch.randn_like(outputs)


@given(layers())
def test_patch_sums_are_the_gradient_of_the_weight(case):
    layer, shape = case
    inputs, outputs, coefficients = random_case(layer, shape)
    geometry = LinearLayer.of(layer)
    given_inputs, _ = geometry.samples(inputs, outputs)
    found = geometry.patch_sums(given_inputs, coefficients)
    (expected,) = torch.autograd.grad(layer(inputs), layer.weight, coefficients)
    assert_close(geometry.weight_of(found), expected, rtol=0, atol=1e-9)
    naive = torch.stack(
        [(coefficients * seen).sum() for seen in naive_taps(layer, inputs, geometry.units)]
    )
    assert_close(geometry.weight_of(found), naive.reshape(layer.weight.shape), rtol=0, atol=1e-9)


@given(layers())
def test_put_back_is_the_gradient_of_the_input_and_the_transposed_matrix(case):
    layer, shape = case
    inputs, _, coefficients = random_case(layer, shape)
    geometry = LinearLayer.of(layer)
    leaf = inputs.clone().requires_grad_()
    bordered = geometry.bordered(leaf)
    back = geometry.put_back(coefficients, tuple(bordered.shape), layer.weight.detach())
    (found,) = torch.autograd.grad(bordered, leaf, back)
    (expected,) = torch.autograd.grad(layer(leaf), leaf, coefficients)
    assert_close(found, expected, rtol=0, atol=1e-9)
    matrix = naive_matrix(layer, layer.weight.detach(), shape[1:])
    naive = (coefficients.flatten(1) @ matrix).reshape(shape)
    assert_close(found, naive, rtol=0, atol=1e-9)


@given(layers())
def test_patches_times_rows_are_the_outputs(case):
    layer, shape = case
    inputs, outputs, _ = random_case(layer, shape)
    geometry = LinearLayer.of(layer)
    patches = geometry.patches(geometry.samples(inputs, outputs)[0])
    channels, axes = shape[1], len(shape) - 2
    assert patches.shape == (
        shape[0],
        *outputs.shape[2:],
        channels,
        *layer.weight.shape[2:],
    )
    by_group = patches.flatten(1 + axes).unflatten(-1, (geometry.groups, -1))
    rows = geometry.rows(layer.weight.detach()).unflatten(0, (geometry.groups, -1))
    found = torch.einsum("...gt,gut->...gu", by_group, rows).flatten(-2).movedim(-1, 1)
    if layer.bias is not None:
        found = found + layer.bias.detach().reshape(-1, *[1] * axes)
    assert_close(found, outputs, rtol=0, atol=1e-9)


@given(layers())
def test_weight_of_is_the_inverse_of_rows_and_a_row_is_one_units_own(case):
    layer, shape = case
    geometry = LinearLayer.of(layer)
    weight = layer.weight.detach()
    rows = geometry.rows(weight)
    assert geometry.units == layer.out_channels == len(rows)
    assert torch.equal(geometry.weight_of(rows), weight)
    # A row that is changed changes the output of its unit and of no other.
    unit = geometry.units - 1
    only = torch.zeros_like(rows)
    only[unit] = 1
    outputs = naive_matrix(layer, geometry.weight_of(only), shape[1:]).sum(1)
    by_unit = outputs.reshape(geometry.units, -1).abs().sum(1)
    assert by_unit[:unit].sum() == 0 and by_unit[unit] > 0


@given(layers())
def test_spread_is_the_patch_where_all_positions_agree(case):
    layer, shape = case
    geometry = LinearLayer.of(layer)
    channels = torch.randn(shape[1], dtype=torch.float64)
    found = geometry.spread(channels)
    assert found.shape == geometry.rows(layer.weight).shape
    per_group = shape[1] // geometry.groups
    units_per_group = geometry.units // geometry.groups
    taps = found.shape[1] // per_group
    for unit, tap in itertools.product(range(geometry.units), range(found.shape[1])):
        channel = (unit // units_per_group) * per_group + tap // taps
        assert found[unit, tap] == channels[channel]


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3), (2, 2, 2, 3)])
def test_every_token_is_a_sample_of_a_linear_layer(shape):
    layer = nn.Linear(3, 5).double()
    inputs, outputs, coefficients = random_case(layer, shape)
    geometry = LinearLayer.of(layer)
    rows, values = geometry.samples(inputs, outputs)
    assert rows.shape == (inputs[..., 0].numel(), 3) and values.shape == (len(rows), 5)
    naive = torch.zeros(5, 3, dtype=torch.float64)
    for index in itertools.product(*map(range, shape[:-1])):
        naive += torch.outer(coefficients[index], inputs[index])
    assert_close(geometry.patch_sums(rows, coefficients.reshape(-1, 5)), naive)
    weight = layer.weight.detach()
    back = geometry.put_back(coefficients, shape, weight)
    assert back.shape == shape
    assert_close(back, torch.einsum("...u,ui->...i", coefficients, weight))
    assert_close(geometry.spread(torch.arange(3.0)), torch.arange(3.0).expand(5, 3))
    assert geometry.is_dense and torch.equal(geometry.weight_of(geometry.rows(weight)), weight)


def test_a_pixel_by_pixel_patch_of_a_padded_strided_convolution():
    # A 2 × 2 kernel with stride 2 and padding 1 on the pixels 1 … 9, by hand.
    layer = nn.Conv2d(1, 1, 2, stride=2, padding=1, bias=False)
    image = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    geometry = LinearLayer.of(layer)
    patches = geometry.patches(geometry.samples(image, layer(image))[0])
    assert patches.reshape(-1, 4).tolist() == [
        [0, 0, 0, 1],
        [0, 0, 2, 3],
        [0, 4, 0, 7],
        [5, 6, 8, 9],
    ]


# BatchNorm as a linear map.


@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"eps": 0.5}])
@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Linear(3, 4), nn.BatchNorm1d, (6, 3)),
        (nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d, (2, 2, 5, 5)),
        (nn.ConvTranspose2d(4, 4, 3, groups=2), nn.BatchNorm2d, (2, 4, 3, 3)),
    ],
    ids=["linear", "without bias", "transposed"],
)
def test_a_folded_layer_puts_out_what_the_batch_norm_behind_it_does(layer, norm, shape, settings):
    layer = layer.double()
    norm = norm(4, **settings).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    weight, bias = folded(layer, norm)
    assert not weight.requires_grad and weight.dtype == bias.dtype == torch.float64
    x = torch.randn(shape, dtype=torch.float64)
    expected = norm(layer(x)).detach()
    layer.weight.data, layer.bias = weight, nn.Parameter(bias)
    assert_close(layer(x).detach(), expected, rtol=0, atol=1e-9)
    scale, shift = affine(norm)
    z = torch.randn(4, dtype=torch.float64)
    at = z.reshape(1, 4, *[1] * (len(shape) - 2))
    assert_close(scale * z + shift, norm(at).detach().flatten())


def test_a_batch_norm_without_running_statistics_is_refused_by_name():
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    message = (
        f"{norm} has no running statistics, so that its output for an image depends on the other "
        "images; use track_running_stats=True"
    )
    with pytest.raises(LayerError, match=f"^{re.escape(message)}$"):
        affine(norm)
