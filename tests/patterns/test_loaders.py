"""Data that patterns are fitted to, however they come."""

import re
from pathlib import Path

import fitting_job
import numpy as np
import pytest
import torch
from pattern_networks import (
    Residual,
    centred,
    naive_pattern,
    with_statistics,
)
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from captum_blackbox.errors import InputError
from captum_blackbox.patterns import Patterns, fit_patterns

# Small networks of random weights have such units; test_estimators.py is about them.
pytestmark = pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around")

ALL = ("positive", "negative", "two_component", "linear", "filter")
JOB = Path(fitting_job.__file__)


def fit(model, loader, regime="positive", **settings):
    return Patterns.fit(model, loader, regime=regime, show_progress=False, **settings)


def residual():
    model = with_statistics(Residual()).double()
    return centred(model, torch.randn(50, 2, 6, 6, dtype=torch.float64))


def images(n=30, channels=2):
    return torch.randn(n, channels, 6, 6, dtype=torch.float64)


def assert_same(found, expected, **tolerance):
    """Compare everything that patterns hold but the report."""
    assert list(found) == list(expected)
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    assert_close(dict(found), dict(expected), **tolerance)
    assert_close(found.negative, expected.negative, **tolerance)
    assert_close(found.shares, expected.shares, **tolerance)
    assert found.structure == expected.structure
    assert found.report.degenerate_units == expected.report.degenerate_units
    assert found.report.unstable_units == expected.report.unstable_units


NEAR = {"rtol": 1e-8, "atol": 1e-9}


# Batches.


@pytest.mark.parametrize("regime", ["positive", "two_component", "linear"])
def test_patterns_do_not_depend_on_how_data_are_divided_into_batches(regime):
    model, data = residual(), images(13)
    whole = fit(model, [data], regime)
    for sizes in ([6, 6, 1], [1, 12], [1] * 13):
        assert_same(fit(model, data.split(sizes), regime), whole, **NEAR)
    assert_same(fit(model, data.flip(0).split(4), regime), whole, **NEAR)


def test_every_input_counts_those_of_a_short_last_batch_too():
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU()).double()
    data = torch.randn(33, 2, dtype=torch.float64)
    data[32] = torch.tensor([30.0, -50.0])
    patterns = fit(model, data.split(16), "linear")
    y = model[0](data).detach()[:, 0]
    assert_close(
        patterns["0"][0].numpy(), naive_pattern("linear", model[0].weight[0].detach(), data, y)
    )
    assert patterns.report.images == 33 and patterns.report.batches == 3
    assert patterns.report.input_shape == (2,)


def test_patterns_are_exact_in_float32_where_inputs_have_a_large_mean():
    layer = nn.Linear(4, 3)
    data = torch.randn(600, 4) + 1000
    with torch.no_grad():
        layer.bias -= layer(data).mean(0)
    found = {r: fit(nn.Sequential(layer, nn.ReLU()), data, r) for r in ("linear", "positive")}
    # What the layer computes in float32, exactly.
    x, w = data.double(), layer.weight.detach().double()
    y = x @ w.T + layer.bias.detach().double()
    for regime, patterns in found.items():
        for unit in range(3):
            expected = naive_pattern(regime, w[unit], x, y[:, unit])
            error = np.abs(patterns["0"][unit].numpy() - expected).max() / np.abs(expected).max()
            assert error < 2e-3, (regime, unit, error)


# Loaders.


class Stream(IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


DATA = torch.randn(23, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PAIRS = TensorDataset(DATA, torch.arange(23))


@pytest.mark.parametrize(
    "build",
    [
        lambda: DATA,
        lambda: list(DATA.split(5)),
        lambda: DATA.split(5),
        lambda: (each for each in DATA.split(5)),
        lambda: [(each, "label", {}) for each in DATA.split(5)],
        lambda: [[each, 3] for each in DATA.split(5)],
        lambda: DataLoader(PAIRS, batch_size=5),
        lambda: DataLoader(PAIRS, batch_size=5, shuffle=True),
        lambda: DataLoader(DATA, batch_size=5),
        lambda: DataLoader(PAIRS, batch_sampler=[[*range(9)], [*range(9, 23)]]),
        lambda: DataLoader(Stream(DATA), batch_size=5),
        lambda: DataLoader(DATA.split(5), batch_size=None),
        lambda: map(torch.Tensor.clone, DATA.split(5)),
    ],
    ids=[
        "tensor",
        "list",
        "tuple",
        "generator",
        "tuples",
        "lists",
        "loader",
        "shuffled",
        "plain",
        "sampler",
        "stream",
        "unbatched",
        "map",
    ],
)
def test_every_kind_of_loader_gives_the_same(build):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    found = fit(model, build())
    assert_same(found, fit(model, [DATA]), **NEAR)
    assert found.report.images == 23


def test_a_sampler_that_draws_some_of_the_data_is_heeded():
    loader = DataLoader(PAIRS, batch_size=4, sampler=RandomSampler(PAIRS, num_samples=8))
    model = nn.Sequential(nn.Linear(3, 2)).double()
    assert fit(model, loader).report.images == 8


@pytest.mark.parametrize(
    "loader",
    [[], iter([]), DataLoader(DATA[:0], batch_size=4), DataLoader(DATA, 50, drop_last=True)],
    ids=["list", "iterator", "loader", "dropped"],
)
def test_an_empty_loader_is_refused(loader):
    with pytest.raises(InputError, match="^the loader gave no batch; give at least one$"):
        fit(nn.Linear(3, 2), loader)


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ("images", "str"),
        ({"x": DATA}, "dict"),
        (torch.ones(2, 3, dtype=torch.int64), "torch.int64"),
        ((), "tuple"),
    ],
    ids=["text", "dict", "integers", "empty"],
)
def test_a_batch_of_another_kind_is_refused(batch, got):
    message = (
        "batch {}: expected a floating-point tensor, or a tuple that starts with one, got " + got
    )
    with pytest.raises(InputError, match=f"^{re.escape(message.format(0))}$"):
        fit(nn.Linear(3, 2), [batch])
    with pytest.raises(InputError, match=f"^{re.escape(message.format(1))}$"):
        fit(nn.Linear(3, 2).double(), [DATA, batch])


def test_an_empty_batch_among_others_changes_nothing_or_is_refused():
    model = residual()
    data = images(8)
    for batches in ([data[:4], data[:0], data[4:]], [data[:0], data]):
        try:
            found = fit(model, batches)
        except InputError:
            continue
        assert_same(found, fit(model, data), **NEAR)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_with_batch_and_input(bad):
    data = DATA.clone()
    data[12, 1] = bad
    model = nn.Sequential(nn.Linear(3, 2)).double()
    message = "batch 2: input 2 has values that are NaN or infinite; remove it from the data"
    with pytest.raises(InputError, match=f"^{message}$"):
        fit(model, data.split(5))


def test_what_a_layer_makes_infinite_is_refused_with_batch_and_layer():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.fill_(1e30)
        model[1].weight.fill_(1e30)
    with pytest.raises(InputError, match="^batch 1: layer '1': "):
        fit(model, [1e-35 * torch.rand(4, 3), torch.rand(4, 3)])


# Settings.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regimes": []}, "regimes is empty; name at least one, such as 'positive'"),
        (
            {"regimes": ["best"]},
            "regime is one of 'positive', 'negative', 'two_component', 'linear', 'filter', got "
            "'best'",
        ),
        ({"final": "negative"}, "final is one of 'positive', 'linear', got 'negative'"),
    ],
    ids=["no regime", "regime", "final"],
)
def test_settings_that_do_not_exist_are_refused(as_users_call, settings, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        fit_patterns(nn.Linear(3, 2).double(), DATA, show_progress=False, **settings)


def test_a_checkpoint_every_no_batches_is_refused(tmp_path):
    with pytest.raises(InputError):
        fit(nn.Linear(3, 2).double(), DATA, checkpoint=tmp_path / "c", checkpoint_every=0)
