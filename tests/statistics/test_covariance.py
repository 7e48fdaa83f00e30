"""Moments of patches and outputs, beside a definition that looks at one patch after the other."""

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from captum_blackbox.artifacts import load_artifact, save_artifact
from captum_blackbox.errors import ArtifactError, InputError, ShapeError
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.statistics import Moments, PatchSource, RegimeCovariance

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

REGIMES = ("all", "positive", "negative")
MOMENTS = ("count", "mean_inputs", "mean_outputs", "covariance", "variance_outputs")
CASES = {
    "linear": (lambda: nn.Linear(3, 4), (7, 3)),
    "tokens": (lambda: nn.Linear(3, 4), (5, 2, 3)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2), (4, 2, 8)),
    "conv2d": (lambda: nn.Conv2d(2, 3, (3, 2), padding=(1, 0), stride=(1, 2)), (4, 2, 5, 4)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (3, 2, 3, 3, 2)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (3, 4, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(3, 3, 3, padding=1, groups=3), (3, 3, 4, 4)),
    "dilated": (lambda: nn.Conv2d(2, 3, 2, dilation=(2, 1)), (3, 2, 5, 4)),
    "same": (lambda: nn.Conv1d(2, 3, 4, padding="same"), (4, 2, 6)),
    "reflect": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (3, 2, 4, 4)),
    "circular": (lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular"), (3, 2, 5)),
    "transposed1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1), (4, 2, 4)),
    "transposed2d": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, output_padding=1, groups=2, dilation=2),
        (3, 4, 3, 2),
    ),
    "transposed3d": (lambda: nn.ConvTranspose3d(1, 2, 2, stride=(2, 1, 2)), (2, 1, 2, 2, 2)),
}


def layer_and_data(name, *, mean=1.0):
    build, shape = CASES[name]
    layer = build().double()
    inputs = torch.randn(shape, dtype=torch.float64) + mean
    with torch.no_grad():
        # Half of the samples of each unit on either side of 0.
        outputs = layer(inputs)
        axes = tuple(range(outputs.dim() - 1)) if isinstance(layer, nn.Linear) else None
        axes = axes or (0, *range(2, outputs.dim()))
        layer.bias -= outputs.mean(axes)
        return layer, inputs, layer(inputs)


def naive_patches(layer, inputs, outputs):
    """Return for each unit its patches ``(samples, taps)`` and outputs ``(samples,)``."""
    if isinstance(layer, nn.Linear):
        rows, values = inputs.reshape(-1, inputs.shape[-1]), outputs.reshape(-1, outputs.shape[-1])
        return [(rows.numpy(), values[:, unit].numpy()) for unit in range(values.shape[1])]
    transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    x, pad = inputs.numpy(), [0] * len(layer.stride)
    if not transposed:
        mode = {"zeros": "constant", "reflect": "reflect", "circular": "wrap"}[layer.padding_mode]
        if layer.padding == "same":
            border = [((k - 1) // 2, k - 1 - (k - 1) // 2) for k in layer.kernel_size]
        else:
            border = [(size, size) for size in layer.padding]
        x = np.pad(x, [(0, 0), (0, 0), *border], mode=mode)
    else:
        pad = layer.padding
    units, channels = outputs.shape[1] // layer.groups, x.shape[1] // layer.groups
    found = []
    for unit in range(outputs.shape[1]):
        first = unit // units * channels
        patches, values = [], []
        for sample in range(len(x)):
            for position in itertools.product(*map(range, outputs.shape[2:])):
                patch = [
                    naive_tap(layer, x[sample, first + c], position, tap, pad, transposed)
                    for c in range(channels)
                    for tap in itertools.product(*map(range, layer.kernel_size))
                ]
                patches.append(patch)
                values.append(outputs[(sample, unit, *position)].item())
        found.append((np.array(patches), np.array(values)))
    return found


def naive_tap(layer, x, position, tap, pad, transposed):
    place = []
    for axis, (p, k) in enumerate(zip(position, tap, strict=True)):
        if transposed:
            steps, rest = divmod(p + pad[axis] - k * layer.dilation[axis], layer.stride[axis])
            if rest or not 0 <= steps < x.shape[axis]:
                return 0.0
            place.append(steps)
        else:
            place.append(p * layer.stride[axis] + k * layer.dilation[axis])
    return x[tuple(place)]


def naive_moments(layer, inputs, outputs):
    """Welford's recurrence, one sample after the other, for each unit and regime."""
    moments = {regime: {name: [] for name in MOMENTS} for regime in REGIMES}
    for patches, values in naive_patches(layer, inputs, outputs):
        regimes = {"all": values == values, "positive": values > 0, "negative": values <= 0}
        for regime, chosen in regimes.items():
            n, mean_x, mean_y = 0, np.zeros(patches.shape[1]), 0.0
            together, squares = np.zeros(patches.shape[1]), 0.0
            for x, y in zip(patches[chosen], values[chosen], strict=True):
                n += 1
                before = y - mean_y
                mean_x = mean_x + (x - mean_x) / n
                mean_y = mean_y + before / n
                together = together + before * (x - mean_x)
                squares = squares + before * (y - mean_y)
            each = (n, mean_x, mean_y, together / max(n, 1), squares / max(n, 1))
            for name, number in zip(MOMENTS, each, strict=True):
                moments[regime][name].append(number)
    return {
        regime: {name: torch.tensor(np.array(rows)).double() for name, rows in columns.items()}
        for regime, columns in moments.items()
    }


def gathered(layer, parts, *arguments, **settings):
    statistic = RegimeCovariance(LinearLayer.of(layer), *arguments, **settings)
    for inputs, outputs in parts:
        statistic.update(inputs, outputs)
    return statistic


def assert_same(moments, expected, *, rtol=1e-10, atol=1e-12):
    assert list(moments) == list(expected)
    for regime, each in moments.items():
        for name in MOMENTS:
            other = expected[regime]
            other = getattr(other, name) if isinstance(other, Moments) else other[name]
            assert getattr(each, name).dtype == torch.float64
            assert_close(getattr(each, name), other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", CASES)
def test_moments_are_those_of_the_definition(name):
    layer, inputs, outputs = layer_and_data(name)
    statistic = gathered(layer, [(inputs, outputs)])
    expected = naive_moments(layer, inputs, outputs)
    assert (expected["positive"]["count"] > 0).all() and (expected["negative"]["count"] > 0).all()
    assert_same(statistic.compute(), expected)
    assert_close(statistic.mean_outputs, expected["all"]["mean_outputs"])


@pytest.mark.parametrize("name", CASES)
def test_batches_and_slices_do_not_matter(name):
    layer, inputs, outputs = layer_and_data(name, mean=3.0)
    expected = gathered(layer, [(inputs, outputs)]).compute()
    for size in (1, 2, 3):  # the last batch is shorter
        parts = list(zip(inputs.split(size), outputs.split(size), strict=True))
        assert_same(gathered(layer, parts).compute(), expected)
    slices = gathered(layer, [(inputs, outputs)], max_temporary_bytes=1)
    assert_same(slices.compute(), expected)


def test_slices_are_as_large_as_memory_allows():
    layer = nn.Conv1d(2, 3, 3, padding=1)
    inputs = torch.randn(7, 2, 4)
    taken = []

    class Recorded(LinearLayer):
        def patch_sums(self, inputs, coefficients):
            taken.append(len(inputs))
            return super().patch_sums(inputs, coefficients)

    sample = (2 * 2 * (4 + 2) + 3 * 3 * 4) * 4
    statistic = RegimeCovariance(
        Recorded.of(layer), ["all"], max_temporary_bytes=3 * sample + sample // 2
    )
    statistic.update(inputs, layer(inputs))
    assert taken == [3, 3, 1]


@pytest.mark.parametrize(
    ("regimes", "kernels"),
    [
        (["all"], 1),
        (["positive"], 2),
        (["negative"], 3),
        (["all", "positive"], 3),
        (["negative", "all", "positive"], 3),
    ],
)
def test_each_choice_of_regimes_gives_the_same_at_its_price(regimes, kernels):
    layer, inputs, outputs = layer_and_data("grouped")
    calls = []

    class Counted(LinearLayer):
        def patch_sums(self, inputs, coefficients):
            calls.append(1)
            return super().patch_sums(inputs, coefficients)

    source = Counted.of(layer)
    assert isinstance(source, PatchSource)
    statistic = RegimeCovariance(source, regimes)
    statistic.update(inputs, outputs)
    expected = gathered(layer, [(inputs, outputs)]).compute()
    assert_same(statistic.compute(), {regime: expected[regime] for regime in regimes})
    assert_close(statistic.mean_outputs, expected["all"].mean_outputs)
    assert len(calls) == kernels


def test_by_hand():
    statistic = RegimeCovariance(LinearLayer.of(nn.Linear(2, 1)))
    inputs = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 1.0], [7.0, 5.0]])
    statistic.update(inputs, torch.tensor([[2.0], [4.0], [0.0], [-6.0]]))
    moments = statistic.compute()
    assert moments["positive"].count.tolist() == [2]
    assert moments["positive"].mean_inputs.tolist() == [[2, 1]]
    assert moments["positive"].mean_outputs.tolist() == [3]
    assert moments["positive"].covariance.tolist() == [[1, 1]]
    assert moments["positive"].variance_outputs.tolist() == [1]
    # 0 is no positive output.
    assert moments["negative"].count.tolist() == [2]
    assert moments["negative"].mean_inputs.tolist() == [[6, 3]]
    assert moments["negative"].covariance.tolist() == [[-3, -6]]
    assert moments["all"].variance_outputs.tolist() == [14]
    assert statistic.mean_outputs.tolist() == [0]
    rms = torch.tensor([10**0.5, 18**0.5, 14**0.5]).double() * torch.finfo(torch.float32).eps
    found = [moments[regime].resolution for regime in ("positive", "negative", "all")]
    assert_close(torch.cat(found), rms)


def test_a_regime_without_samples_has_zero_moments():
    layer = nn.Linear(2, 1)
    statistic = RegimeCovariance(LinearLayer.of(layer))
    statistic.update(torch.rand(5, 2) + 0.1, torch.rand(5, 1) + 0.1)
    moments = statistic.compute()["negative"]
    for name in (*MOMENTS, "resolution"):
        assert not getattr(moments, name).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_output_varies_by_no_more_than_its_resolution(dtype):
    statistic = RegimeCovariance(LinearLayer.of(nn.Linear(3, 1)))
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        noise = torch.randint(-1, 2, (100, 1), generator=generator).to(dtype)
        outputs = 1234.5 * (1 + noise * torch.finfo(dtype).eps)
        statistic.update(torch.rand(100, 3, dtype=dtype, generator=generator), outputs)
    for regime in ("all", "positive"):
        moments = statistic.compute()[regime]
        assert (moments.variance_outputs.sqrt() <= 8 * moments.resolution).all()
        assert (moments.resolution > 0).all()


def test_float32_stays_accurate_where_the_mean_is_a_thousand_times_the_spread():
    conv = nn.Conv2d(4, 5, 3)
    inputs = torch.randn(32, 4, 12, 12) + 1e3
    with torch.no_grad():
        conv.bias -= conv(inputs).mean((0, 2, 3))
        outputs = conv(inputs)
    parts = list(zip(inputs.split(8), outputs.split(8), strict=True))
    found = gathered(conv, parts).compute()
    exact = gathered(conv, [(inputs.double(), outputs.double())]).compute()
    raw = LinearLayer.of(conv)
    bounds = {"all": 1e-6, "positive": 2e-6, "negative": 5e-6}  # measured: 6e-7, 8e-7, 3e-6
    for regime, bound in bounds.items():
        assert relative_error(found[regime].covariance, exact[regime].covariance) < bound
        assert_close(found[regime].mean_inputs, exact[regime].mean_inputs, rtol=1e-9, atol=0)
    # The same kernels without a shift lose all but two digits.
    mask = (outputs > 0).float()
    count = mask.sum((0, 2, 3))
    products = raw.patch_sums(inputs, mask * outputs) / count[:, None]
    mean_outputs = (mask * outputs).sum((0, 2, 3)) / count
    unshifted = products - raw.patch_sums(inputs, mask) / count[:, None] * mean_outputs[:, None]
    assert relative_error(unshifted, exact["positive"].covariance) > 5e-3


def relative_error(found, expected):
    return (found - expected).abs().max() / expected.abs().max()


def test_half_precision_is_widened():
    layer, inputs, outputs = layer_and_data("conv2d")
    for dtype in (torch.float16, torch.bfloat16):
        coarse = (inputs.to(dtype), outputs.to(dtype))
        found = gathered(layer, [coarse]).compute()
        expected = gathered(layer, [tuple(each.float() for each in coarse)]).compute()
        assert_same(found, expected, rtol=0, atol=0)
        ratio = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
        assert_close(found["all"].resolution, ratio * expected["all"].resolution)


def test_autocast_leaves_the_kernels_alone():
    layer, inputs, outputs = layer_and_data("linear")
    parts = [(inputs.float(), outputs.float())]
    expected = gathered(layer, parts).compute()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(gathered(layer, parts).compute(), expected, rtol=0, atol=0)


def test_the_data_are_left_as_they_were_and_no_graph_is_kept():
    for name in CASES:
        layer, inputs, outputs = layer_and_data(name)
        before = inputs.clone(), outputs.clone()
        outputs = outputs.requires_grad_()
        statistic = gathered(layer, [(inputs, outputs)])
        assert_close((inputs, outputs.detach()), before, rtol=0, atol=0)
        assert not any(tensor.requires_grad for tensor in statistic.state().values())


def test_batches_may_come_from_inference_mode():
    layer, inputs, outputs = layer_and_data("conv2d")
    statistic = RegimeCovariance(LinearLayer.of(layer))
    with torch.inference_mode():
        statistic.update(inputs[:1].clone(), layer(inputs[:1]))
    statistic.update(inputs[1:], outputs[1:])
    assert_same(statistic.compute(), gathered(layer, [(inputs, outputs)]).compute())


def test_one_vector_is_one_sample():
    layer, inputs, outputs = layer_and_data("linear")
    expected = gathered(layer, [(inputs, outputs)]).compute()
    assert_same(gathered(layer, zip(inputs, outputs, strict=True)).compute(), expected)


def test_an_empty_batch_changes_nothing():
    layer, inputs, outputs = layer_and_data("conv1d")
    statistic = gathered(layer, [(inputs[:0], outputs[:0])])
    assert statistic.state()["batches"] == 0
    statistic.update(inputs, outputs)
    assert_same(statistic.compute(), gathered(layer, [(inputs, outputs)]).compute())


@given(data=st.data())
def test_any_division_merged_in_any_order_is_the_whole(data):
    name = data.draw(st.sampled_from(["linear", "grouped", "transposed2d"]))
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    layer, inputs, outputs = layer_and_data(name, mean=10.0)
    owners = data.draw(st.lists(st.integers(0, 3), min_size=len(inputs), max_size=len(inputs)))
    regimes = data.draw(st.sampled_from([REGIMES, ("positive",), ("all",)]))
    parts = []
    for owner in range(4):  # some may have seen nothing
        mine = [i for i, each in enumerate(owners) if each == owner]
        parts.append(gathered(layer, [(inputs[[i]], outputs[[i]]) for i in mine], regimes))
    order = data.draw(st.permutations(parts))
    untouched = [{k: v.clone() for k, v in part.state().items()} for part in order]
    whole = RegimeCovariance(LinearLayer.of(layer), regimes)
    for part in order:
        whole.merge(part)
    assert_same(
        whole.compute(), gathered(layer, [(inputs, outputs)], regimes).compute(), rtol=1e-12
    )
    assert whole.state()["batches"] == len(inputs)
    for part, state in zip(order, untouched, strict=True):
        assert_close(part.state(), state, rtol=0, atol=0)


def test_a_merge_of_distant_data_is_the_whole():
    """Also where the two have different shifts: means that are far apart."""
    layer, inputs, _ = layer_and_data("conv2d")
    other = 3 * inputs - 20
    outputs, others = layer(inputs).detach(), layer(other).detach()
    merged = gathered(layer, [(inputs, outputs)])
    merged.merge(gathered(layer, [(other, others)]))
    whole = torch.cat([inputs, other]), torch.cat([outputs, others])
    assert_same(merged.compute(), naive_moments(layer, *whole), rtol=1e-11)


def test_a_kept_and_loaded_statistic_goes_on_as_if_nothing_had_happened(tmp_path):
    layer, inputs, outputs = layer_and_data("grouped")
    for centre in ("exact", "sampled"):
        statistic = gathered(layer, [(inputs[:1], outputs[:1])], centre=centre, sample_every=2)
        save_artifact(tmp_path / "state", statistic.state(), {})
        resumed = statistic.empty()
        resumed.load_state(load_artifact(tmp_path / "state")[0])
        for each in (statistic, resumed):
            each.update(inputs[1:2], outputs[1:2])
            each.update(inputs[2:], outputs[2:])
        assert_close(resumed.state(), statistic.state(), rtol=0, atol=0)


def test_a_loaded_state_is_a_copy():
    layer, inputs, outputs = layer_and_data("linear")
    first = gathered(layer, [(inputs, outputs)])
    second = first.empty()
    second.load_state(first.state())
    before = first.compute()
    second.update(inputs + 1, outputs + 1)
    assert_same(first.compute(), before, rtol=0, atol=0)


def test_an_empty_state_is_a_state(tmp_path):
    layer, inputs, outputs = layer_and_data("conv2d")
    empty = RegimeCovariance(LinearLayer.of(layer))
    full = gathered(layer, [(inputs, outputs)])
    assert {k: v.dtype for k, v in empty.state().items()} == {
        k: v.dtype for k, v in full.state().items()
    }
    save_artifact(tmp_path / "empty", empty.state(), {})
    full.load_state(load_artifact(tmp_path / "empty")[0])
    with pytest.raises(InputError, match="there are no statistics yet: no batch was seen"):
        full.compute()
    with pytest.raises(InputError, match="there are no statistics yet: no batch was seen"):
        _ = full.mean_outputs


def test_the_state_of_other_regimes_is_refused():
    layer = LinearLayer.of(nn.Linear(2, 1))
    state = RegimeCovariance(layer, ["all"]).state()
    message = "this state belongs to a statistic with other settings: it lacks 'positive.count'"
    with pytest.raises(ArtifactError, match=re.escape(message)):
        RegimeCovariance(layer, ["positive"]).load_state(state)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("what", ["inputs", "outputs"])
def test_what_is_not_finite_is_refused_and_nothing_taken_in(what, value):
    layer, inputs, outputs = layer_and_data("conv2d")
    statistic = gathered(layer, [(inputs, outputs)], max_temporary_bytes=1)
    before = {name: tensor.clone() for name, tensor in statistic.state().items()}
    batch = {"inputs": inputs.clone(), "outputs": outputs.clone()}
    batch[what][-1, 1, 2, 1] = value  # in the last slice
    message = f"{what} of the layer are not finite: they contain NaN or infinity"
    with pytest.raises(InputError, match=message):
        statistic.update(**batch)
    assert_close(statistic.state(), before, rtol=0, atol=0)


def test_values_whose_sum_overflows_are_finite():
    statistic = RegimeCovariance(LinearLayer.of(nn.Linear(1, 1)))
    statistic.update(torch.full((9, 1), 6e4).half(), torch.ones(9, 1).half())
    assert_close(statistic.compute()["all"].mean_inputs, torch.full((1, 1), 6e4).half().double())


def test_sampled_centre_errs_by_what_is_documented():
    torch.manual_seed(3)
    layer = nn.Linear(6, 3).double()
    inputs = torch.randn(640, 6, dtype=torch.float64) + 1
    with torch.no_grad():
        outputs = layer(inputs)
    parts = list(zip(inputs.split(20), outputs.split(20), strict=True))
    exact = gathered(layer, parts, ["positive"])
    sampled = gathered(layer, parts, ["positive"], centre="sampled", sample_every=4)
    found, expected = sampled.compute()["positive"], exact.compute()["positive"]
    for name in ("count", "mean_outputs", "variance_outputs", "resolution"):
        assert_close(getattr(found, name), getattr(expected, name))
    mean = exact.mean_outputs
    assert_close(sampled.mean_outputs, mean)
    every_fourth = gathered(layer, parts[::4], ["positive"]).compute()["positive"].mean_inputs
    assert_close(found.mean_inputs, every_fourth)

    def numerator(moments):
        return moments.covariance + moments.mean_inputs * (moments.mean_outputs - mean)[:, None]

    first = outputs[:20].mean(0)
    bound = (found.mean_inputs - expected.mean_inputs) * (mean - first)[:, None]
    error = numerator(found) - numerator(expected)
    assert_close(error, -bound, rtol=1e-5, atol=1e-9)
    assert 1e-2 < relative_error(numerator(found), numerator(expected)) < 6e-2  # measured: 4e-2


def test_sampled_centre_saves_a_kernel():
    layer, inputs, outputs = layer_and_data("linear")
    calls = []

    class Counted(LinearLayer):
        def patch_sums(self, inputs, coefficients):
            calls.append(1)
            return super().patch_sums(inputs, coefficients)

    statistic = RegimeCovariance(Counted.of(layer), ["positive"], centre="sampled", sample_every=3)
    for _ in range(7):
        statistic.update(inputs, outputs)
    assert len(calls) == 7 + 3  # batches 0, 3 and 6
    exact = gathered(layer, [(inputs, outputs)] * 7, ["positive"]).compute()
    assert_same(statistic.compute(), exact)  # all batches are the same


def test_settings_that_cannot_be_used():
    layer = LinearLayer.of(nn.Linear(2, 1))
    for settings, message in [
        ({"regimes": []}, "expected at least one of 'all', 'positive', 'negative' as regimes"),
        ({"sample_every": 0}, "sample_every is a number of batches, 1 or more, got 0"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)):
            RegimeCovariance(layer, **settings)


@pytest.mark.usefixtures("as_users_call")
def test_unknown_regimes_and_centres_are_named():
    layer = LinearLayer.of(nn.Linear(2, 1))
    message = "each of regimes is one of 'all', 'positive', 'negative', got 'pos'"
    with pytest.raises(InputError, match=message):
        RegimeCovariance(layer, ["pos"])
    with pytest.raises(InputError, match="centre is one of 'exact', 'sampled', got 'none'"):
        RegimeCovariance(layer, centre="none")


def test_batches_that_do_not_fit_are_refused():
    statistic = RegimeCovariance(LinearLayer.of(nn.Linear(2, 1)))
    for inputs, outputs, message in [
        (
            torch.rand(3, 2),
            torch.rand(4, 1),
            "expected inputs and outputs of one batch on one device, got (3, 2) on cpu and "
            "(4, 1) on cpu",
        ),
        (torch.rand(3, 2), torch.rand(3, 5), "expected outputs of 1 units, got (3, 5)"),
        (
            torch.ones(3, 2, dtype=torch.int64),
            torch.rand(3, 1),
            "expected floating-point inputs and outputs, got torch.int64 and torch.float32",
        ),
    ]:
        with pytest.raises(ShapeError, match=re.escape(message)):
            statistic.update(inputs, outputs)
    assert statistic.state()["batches"] == 0


def test_accumulators_follow_the_data(device):
    layer, inputs, outputs = layer_and_data("conv2d")
    statistic = gathered(layer, [(inputs[:2], outputs[:2])])
    statistic.update(inputs[2:].to(device), outputs[2:].to(device))
    assert all(tensor.device.type == device for tensor in statistic.state().values())
    expected = gathered(layer, [(inputs, outputs)])
    for each in statistic.compute().values():
        assert each.covariance.device.type == device
    loaded = expected.empty()
    loaded.load_state({name: tensor.cpu() for name, tensor in statistic.state().items()})
    assert_same(loaded.compute(), expected.compute())
