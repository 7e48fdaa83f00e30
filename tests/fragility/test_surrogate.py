"""The softened network: close to the network, smooth, and gone when the block ends."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from networks import FunctionalInPlace, State, Tokens, TwoConvs
from torch import nn
from torch.testing import assert_close
from victim_networks import images, residual

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.surrogate import (
    GrowingBeta,
    RelativeBeta,
    beta_at,
    paired_sharpness,
    softened,
)

LINE = torch.linspace(-9, 9, 181, dtype=torch.float64).repeat(3).reshape(1, 3, 181)


def softplus(z, beta):
    """By its definition, without torch's threshold."""
    return torch.log1p(torch.exp(-(beta * z).abs())) / beta + z.clamp(min=0)


def leaky(z, beta, slope):
    return slope * z + (1 - slope) * softplus(z, beta)


def clipped(z, beta, low, high):
    return low + softplus(z - low, beta) - softplus(z - high, beta)


SLOPES = torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64)
ACTIVATIONS = {
    "ReLU": (nn.ReLU(), softplus),
    "ReLU in place": (nn.ReLU(inplace=True), softplus),
    "ReLU6": (nn.ReLU6(), lambda z, b: softplus(z, b) - softplus(z - 6, b)),
    "ReLU6 in place": (nn.ReLU6(inplace=True), lambda z, b: clipped(z, b, 0, 6)),
    "LeakyReLU": (nn.LeakyReLU(0.2), lambda z, b: leaky(z, b, 0.2)),
    "LeakyReLU in place": (nn.LeakyReLU(0.2, inplace=True), lambda z, b: leaky(z, b, 0.2)),
    "Hardtanh": (nn.Hardtanh(-2, 0.5), lambda z, b: clipped(z, b, -2, 0.5)),
    "F.relu": (F.relu, softplus),
    "F.relu named": (lambda z: F.relu(input=z), softplus),
    "F.relu in place": (lambda z: F.relu(z, inplace=True), softplus),
    "F.relu in place by position": (lambda z: F.relu(z, True), softplus),
    "F.relu_": (F.relu_, softplus),
    "torch.relu": (torch.relu, softplus),
    "torch.relu_": (torch.relu_, softplus),
    "Tensor.relu": (lambda z: z.relu(), softplus),
    "Tensor.relu_": (lambda z: z.relu_(), softplus),
    "F.relu6": (F.relu6, lambda z, b: clipped(z, b, 0, 6)),
    "F.hardtanh in place": (
        lambda z: F.hardtanh(z, -1.0, 2.0, True),
        lambda z, b: clipped(z, b, -1, 2),
    ),
    "F.hardtanh_": (F.hardtanh_, lambda z, b: clipped(z, b, -1, 1)),
    "F.leaky_relu": (F.leaky_relu, lambda z, b: leaky(z, b, 0.01)),
    "F.leaky_relu in place": (
        lambda z: F.leaky_relu(z, 0.3, True),
        lambda z, b: leaky(z, b, 0.3),
    ),
    "F.leaky_relu_": (
        lambda z: F.leaky_relu_(z, negative_slope=0.3),
        lambda z, b: leaky(z, b, 0.3),
    ),
    "F.prelu": (lambda z: F.prelu(z, SLOPES), lambda z, b: leaky(z, b, SLOPES.view(-1, 1))),
    "F.prelu of one": (lambda z: F.prelu(z, SLOPES[:1]), lambda z, b: leaky(z, b, 0.1)),
}


class Acts(nn.Module):
    """One activation on a copy, so that writing in place is allowed."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        own = x.clone()
        result = self.act(own)
        return result, own


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("beta", [0.7, 30.0])
def test_an_activation_acts_as_its_softened_version(name, beta):
    act, expected = ACTIVATIONS[name]
    network = Acts(act)
    hard, written = network(LINE)
    with softened(network, beta) as seen:
        soft, also_written = network(LINE)
    assert seen.activations == 1
    # torch's softplus is linear beyond 20 / beta.
    assert_close(soft, expected(LINE, beta), atol=3e-9 / beta, rtol=0)
    assert (soft - hard).abs().max() <= math.log(2) / beta + 1e-12
    # Whoever holds the tensor that is written to sees the same as before.
    assert torch.equal(written, hard) == torch.equal(also_written, soft)
    assert torch.equal(network(LINE)[0], hard)


@given(
    beta=st.floats(0.01, 1e4),
    z=st.lists(st.floats(-50, 50), min_size=1, max_size=9),
)
def test_a_softplus_lies_above_the_relu_by_at_most_log_2_over_beta(beta, z):
    z = torch.tensor(z, dtype=torch.float64)
    with softened(network := nn.Sequential(nn.ReLU()), beta):
        over = network(z) - z.relu()
    assert (over >= -1e-14).all()
    assert (over <= math.log(2) / beta * (1 + 1e-9) + 1e-14).all()


@pytest.mark.parametrize("inplace", [False, True])
def test_derivatives_are_those_of_softplus(inplace):
    network = nn.Sequential(nn.Identity(), nn.ReLU(inplace))
    z = torch.linspace(-1, 1, 9, dtype=torch.float64, requires_grad=True)
    with softened(network, 4.0):
        (first,) = torch.autograd.grad(network(z * 1).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    gate = torch.sigmoid(4 * z)
    assert_close(first, gate)
    assert_close(second, 4 * gate * (1 - gate))


def test_smooth_activations_and_pooling_stay():
    network = nn.Sequential(
        nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.ELU(), nn.MaxPool1d(2)
    )
    x = LINE[0]
    expected = network(x)
    with softened(network, 1.0) as seen:
        assert torch.equal(network(x), expected)
    assert seen.activations == 0


def test_modules_and_functions_in_place_or_not_are_the_same_surrogate():
    torch.manual_seed(0)
    one, other = TwoConvs(inplace=False).eval(), FunctionalInPlace().eval()
    other.load_state_dict(one.state_dict())
    x = torch.rand(2, 3, 8, 8)
    with softened(one, 3.0) as first, softened(other, 3.0) as second:
        assert_close(one(x), other(x))
        assert not torch.allclose(one(x), TwoConvs.forward(one, x.flip(0)))
    assert first.activations == 4  # `one` ran twice, `other` once
    assert second.activations == 2


def test_a_shared_module_is_softened_in_each_of_its_uses():
    shared = nn.ReLU()
    network = nn.Sequential(shared, nn.Linear(3, 3), shared)
    with softened(network, 2.0) as seen:
        network(torch.zeros(1, 3))
    assert seen.activations == 2


def test_an_attention_block_shows_its_relu():
    network = Tokens().eval()
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad(), softened(network, 1.0) as seen:
        soft = network(x)
    assert seen.activations == 2
    assert not torch.allclose(soft, network(x))


def test_a_relu_that_torch_does_not_hear_of_is_not_met():
    inner = torch.jit.trace(nn.ReLU(), torch.zeros(2))
    network = nn.Sequential(inner)
    with softened(network, 1.0) as seen:
        assert torch.equal(network(torch.zeros(2)), torch.zeros(2))
    assert seen.activations == 0


def test_nothing_of_the_model_is_changed_and_weights_are_shared():
    model = residual(inplace=True).train()
    before, hard = State(model), model.eval()(images())
    model.train()
    with softened(model, 1.0):
        assert not torch.allclose(model.eval()(images()), hard)
        model.train()
    assert not before.differences(State(model))
    with softened(model.eval(), 1.0), torch.no_grad():
        model.linear2.weight.mul_(2)
        doubled = model(images()) - model.linear2.bias
        model.linear2.weight.div_(2)
        assert_close(doubled, 2 * (model(images()) - model.linear2.bias))


def test_it_ends_with_an_exception_too():
    class Breaks(nn.Module):
        def forward(self, x):
            x.relu()
            raise RuntimeError("broke")

    network = nn.Sequential(nn.ReLU(), Breaks())
    with pytest.raises(RuntimeError, match="broke"), softened(network, 1.0):
        network(torch.zeros(2))
    assert torch.equal(network[0](torch.zeros(2)), torch.zeros(2))
    assert torch.equal(torch.zeros(2).relu(), torch.zeros(2))
    assert not network._forward_hooks
    assert not network._forward_pre_hooks


def test_other_networks_are_not_softened_meanwhile():
    network, other = nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())
    with softened(network, 1.0):
        assert torch.equal(other(torch.zeros(2)), torch.zeros(2))
        assert torch.equal(torch.zeros(2).relu(), torch.zeros(2))


def test_without_beta_nothing_happens():
    network = nn.Sequential(nn.ReLU())
    with softened(network, None) as seen:
        assert not network._forward_pre_hooks
        assert torch.equal(network(-torch.ones(2)), torch.zeros(2))
    assert seen.activations == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("beta", [10.0, RelativeBeta(10.0)], ids=str)
def test_it_works_in_every_precision(dtype, beta, device):
    network = nn.Sequential(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU()).to(device)
    x = torch.linspace(-2, 2, 9, device=device).to(dtype)
    with softened(network, beta):
        soft = network(x)
    assert soft.dtype == dtype
    assert soft.device.type == device
    assert (soft - network(x)).abs().max() <= 0.25


@pytest.mark.parametrize("beta", [0, -1.0, math.inf, math.nan])
def test_a_sharpness_must_be_positive_and_finite(beta):
    with pytest.raises(InputError, match="beta is a positive finite number"):
        softened(nn.ReLU(), beta).__enter__()
    with pytest.raises(InputError, match="beta is a positive finite number"):
        beta_at(beta, 0)
    with pytest.raises(InputError, match="beta is a positive finite number"):
        GrowingBeta(start=beta)


def test_a_sharpness_grows_by_the_same_factor_and_then_stays():
    beta = GrowingBeta(10, 100, 300)
    steps = [beta_at(beta, step) for step in range(400)]
    assert steps[0] == 10
    assert steps[300:] == pytest.approx([100.0] * 100)
    ratios = [b / a for a, b in itertools.pairwise(steps[:301])]
    assert ratios == pytest.approx([10 ** (1 / 300)] * 300)
    assert beta_at(7, 3) == 7.0
    assert beta_at(None, 3) is None
    with pytest.raises(InputError, match="at least 1"):
        GrowingBeta(steps=0)


def test_a_relative_beta_is_the_same_for_units_scaled_up_and_down_again():
    torch.manual_seed(0)
    first, second = nn.Linear(5, 7).double(), nn.Linear(7, 3).double()
    network = nn.Sequential(first, nn.ReLU(), second)
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        scaled[0].weight *= 50
        scaled[0].bias *= 50
        scaled[2].weight /= 50
    x = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(scaled(x), network(x))
    for beta, is_alike in ((RelativeBeta(10.0), True), (3.0, False)):
        found = []
        for each in (network, scaled):
            with softened(each, beta):
                found.append(each(x))
        assert torch.allclose(*found) is is_alike


def test_a_relative_beta_is_that_of_each_image_by_the_definition():
    z = torch.tensor([[3.0, -4.0], [0.3, -0.4], [0.0, 0.0]], dtype=torch.float64)
    network = nn.Sequential(nn.ReLU())
    with softened(network, RelativeBeta(5.0)):
        found = network(z)
    rms = math.sqrt(12.5)  # of 3 and -4
    expected = [math.log1p(math.exp(5 / rms * each)) / (5 / rms) for each in (3.0, -4.0)]
    assert found[0].tolist() == pytest.approx(expected)
    torch.testing.assert_close(found[1], found[0] / 10)
    assert found[2].tolist() == pytest.approx([math.log(2) / 5] * 2)  # β is 5 where all is 0
    alone = torch.cat([_softened_alone(network, row) for row in z])
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 4), (1,)), ((3, 4, 5), (2,)), ((3, 4, 5, 6), (1, 2, 3))]
)
def test_a_relative_beta_is_of_a_map_or_of_a_token(shape, axes):
    z = torch.rand(shape, dtype=torch.float64) - 0.5
    assert_close(RelativeBeta(2.0).of(z), 2 / z.square().mean(axes, keepdim=True).sqrt())


def test_a_relative_beta_is_that_of_what_is_clipped():
    z = LINE[0, 0] + 3
    with softened(network := nn.Sequential(nn.Hardtanh(-2, 0.5)), RelativeBeta(5.0)):
        found = network(z)
    assert_close(found, clipped(z, 5 / float(z.square().mean().sqrt()), -2, 0.5))


def test_a_relative_beta_is_held_fixed_in_a_derivative():
    z = torch.linspace(-1, 2, 9, dtype=torch.float64, requires_grad=True)
    beta = 5 / float(z.detach().square().mean().sqrt())
    with softened(network := nn.Sequential(nn.ReLU()), RelativeBeta(5.0)):
        (slope,) = torch.autograd.grad(network(z).sum(), z)
    assert_close(slope, torch.sigmoid(beta * z.detach()))


def test_a_relative_beta_of_large_numbers_in_half_precision_is_finite():
    beta = RelativeBeta(5.0).of(torch.full((1, 4), 6e4, dtype=torch.float16))
    assert beta.dtype == torch.float32 and beta.item() == pytest.approx(5 / 6e4, rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((4, 3), [0, 1, 0, 1]),
        ((8, 3), [0, 1, 2, 3, 0, 1, 2, 3]),  # pieces of images in the batch
        ((3, 4, 5), None),  # tokens before the batch
    ],
)
def test_the_second_half_of_a_pair_is_as_smooth_as_the_first(shape, first):
    z = torch.rand(shape, dtype=torch.float64) + 0.1
    own = RelativeBeta(5.0).of(z)
    with paired_sharpness(4):
        paired = RelativeBeta(5.0).of(z)
    assert_close(paired, own[:, [0, 1, 0, 1]] if first is None else own[first])
    assert_close(RelativeBeta(5.0).of(z), own)
    with paired_sharpness(7):
        assert_close(RelativeBeta(5.0).of(z), own)


def _softened_alone(network, row):
    with softened(network, RelativeBeta(5.0)):
        return network(row[None])


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
def test_a_relative_beta_is_positive_and_finite(ratio):
    with pytest.raises(InputError, match="beta is a positive finite number"):
        RelativeBeta(ratio)
