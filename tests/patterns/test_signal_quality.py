import csv
import json
import math

import numpy as np
import pytest
import torch
from naive_quality import naive_rho
from torch import nn
from torch.testing import assert_close

from captum_blackbox.errors import (
    ArtifactError,
    ExplanationWarning,
    InputError,
    LayerError,
)
from captum_blackbox.patterns.batch_norm import folded
from captum_blackbox.patterns.fitting import fit_patterns
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.patterns.patterns import Patterns
from captum_blackbox.patterns.quality_result import QualityRow, SignalQuality
from captum_blackbox.patterns.sampled_patches import sampled_patches
from captum_blackbox.patterns.signal_quality import signal_quality

REGIMES = ["filter", "linear", "two_component"]


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2),
        nn.ReLU(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).double()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2.0)
    model.eval()
    with torch.no_grad():  # centred, so that every unit is on and off
        for index in (3, 5, 9):
            outputs = model[: index + 1](images(64, 0))
            model[index].bias -= outputs.transpose(0, 1).flatten(1).mean(1)
    return model


def images(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, 8, 8, generator=generator, dtype=torch.float64) + 0.3


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def fitted(model):
    return fit_patterns(model, images(64, 1), REGIMES, regime_centering=True, show_progress=False)


@pytest.fixture(scope="module")
def loaders():
    return {"fit_loader": images(128, 2).split(50), "eval_loader": images(64, 3).split(30)}


@pytest.fixture(scope="module")
def quality(model, fitted, loaders):
    return signal_quality(model, fitted, **loaders, show_progress=False)


def explicit_samples(model, name, norm, batches):
    """All patches, rows of the weight and which units are on, without the library's sampling."""
    module = model.get_submodule(name)
    layer = LinearLayer.of(module)
    kept = []
    with torch.no_grad():
        for batch in batches:
            inputs = model[: int(name)](batch)
            outputs = module(inputs) if norm is None else norm(module(inputs))
            patches = layer.patches(layer.samples(inputs, outputs)[0])
            outputs = outputs if layer.is_dense else outputs.movedim(1, -1)
            x = patches.reshape(outputs[..., 0].numel(), layer.groups, -1)
            kept.append((x, outputs.reshape(-1, layer.units) > 0))
    x, on = (torch.cat(each) for each in zip(*kept, strict=True))
    rows = layer.rows(folded(module, norm)[0])
    return x.numpy(), rows.numpy(), on.numpy(), layer


@pytest.mark.parametrize("name", ["0", "3", "5", "9"])
@pytest.mark.parametrize("estimator", REGIMES)
def test_quality_is_the_definition_on_explicit_patches(
    model, fitted, loaders, quality, name, estimator
):
    norm = model[1] if name == "0" else None
    x, w, on, layer = explicit_samples(model, name, norm, loaders["fit_loader"])
    other_x, _, other_on, _ = explicit_samples(model, name, norm, loaders["eval_loader"])
    patterns = fitted[estimator]
    rows = layer.rows(patterns[name]).numpy()
    negative = layer.rows(patterns.negative[name]).numpy() if patterns.negative else rows
    for unit in range(layer.units):
        group = unit // (layer.units // layer.groups)
        if not (rows[unit].any() and negative[unit].any()):  # on, or off, once: no pattern
            assert math.isnan(quality[estimator][name][unit])
            continue
        expected = naive_rho(
            x[:, group],
            w[unit],
            on[:, unit],
            rows[unit],
            negative[unit],
            held_out=(other_x[:, group], other_on[:, unit]),
        )
        assert quality[estimator][name][unit].item() == pytest.approx(expected, abs=1e-6)


def test_every_estimator_and_the_baseline_are_there_for_every_layer(quality):
    assert list(quality) == [*REGIMES, "random"]
    for estimator in quality:
        assert {name: len(rho) for name, rho in quality[estimator].items()} == {
            "0": 6,
            "3": 4,
            "5": 6,
            "9": 5,
        }
    assert quality["linear"]["0"].mean() > 0.8 > quality["random"]["0"].mean()


def test_patterns_alone_go_by_their_regime(model, fitted, loaders, quality):
    found = signal_quality(
        model, fitted["linear"], **loaders, random_baseline=False, layers="3", show_progress=False
    )
    assert list(found) == ["linear"]
    assert list(found["linear"]) == ["3"]
    assert_close(found["linear"]["3"], quality["linear"]["3"], rtol=0, atol=0)


def test_one_seed_gives_one_result_whichever_layers_are_asked_for(model, fitted, loaders, quality):
    settings = {**loaders, "max_positions": 3, "show_progress": False}
    first = signal_quality(model, fitted["linear"], **settings)
    again = signal_quality(model, fitted["linear"], **settings, layers=[model[3]])
    other = signal_quality(model, fitted["linear"], **settings, seed=1)
    for estimator in ("linear", "random"):
        assert_close(again[estimator]["3"], first[estimator]["3"], rtol=0, atol=0)
        assert not torch.equal(other[estimator]["3"], first[estimator]["3"])
    assert not torch.equal(first["linear"]["3"], quality["linear"]["3"])


def test_cuts_into_batches_do_not_matter_where_all_positions_are_taken(
    model, fitted, loaders, quality
):
    whole = {name: torch.cat(batches) for name, batches in loaders.items()}
    found = signal_quality(model, fitted, **whole, show_progress=False)
    for estimator in quality:
        for name, rho in quality[estimator].items():
            assert_close(found[estimator][name], rho, rtol=1e-8, atol=1e-8, equal_nan=True)


def test_a_constant_unit_and_one_without_a_pattern_have_no_quality(loaders):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()).double()
    model[0].weight.data[0] = 0.0
    patterns = Patterns.fit(model, images(64, 1), regime="linear", show_progress=False)
    patterns["0"][1] = 0.0
    found = signal_quality(model, patterns, **loaders, show_progress=False)
    assert found["linear"]["0"].isnan().tolist() == [True, True, False]
    assert found["random"]["0"].isnan().tolist() == [True, False, False]
    assert [row.units for row in found.table()] == [1, 2]


def test_a_unit_that_is_constant_on_either_data_has_no_quality():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    varying, constant = torch.randn(2, 50, 3).unbind()
    constant = constant[:1].expand(50, 3)
    patterns = Patterns.fit(model, varying, regime="linear", show_progress=False)
    for pair in ((varying, constant), (constant, varying)):
        found = signal_quality(
            model, patterns, fit_loader=pair[0], eval_loader=pair[1], show_progress=False
        )
        assert found["linear"]["0"].isnan().all()


def test_tokens_are_samples():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    tokens = torch.randn(40, 7, 3)
    patterns = Patterns.fit(model, tokens, regime="filter", show_progress=False)
    settings = {"random_baseline": False, "show_progress": False}
    found = signal_quality(model, patterns, fit_loader=tokens, eval_loader=tokens, **settings)
    flat = tokens.flatten(0, 1)
    alone = signal_quality(model, patterns, fit_loader=flat, eval_loader=flat, **settings)
    assert_close(found["filter"]["0"], alone["filter"]["0"])


def test_a_layer_that_runs_twice_is_judged_on_all_its_calls():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU())
    x = torch.randn(60, 3)
    with torch.no_grad():
        both = torch.cat([x, layer(x).relu()])
    settings = {"random_baseline": False, "show_progress": False}
    patterns = Patterns.fit(model, x, regime="filter", show_progress=False)
    found = signal_quality(model, patterns, fit_loader=[x], eval_loader=[x], **settings)
    single = nn.Sequential(layer, nn.ReLU())
    patterns = Patterns.fit(single, both, regime="filter", show_progress=False)
    alone = signal_quality(single, patterns, fit_loader=[both], eval_loader=[both], **settings)
    assert_close(found["filter"]["0"], alone["filter"]["0"])


@pytest.mark.parametrize("name", ["3", "9"])
def test_a_wide_layer_has_the_same_quality_for_the_units_it_draws(
    model, fitted, quality, loaders, name
):
    settings = {**loaders, "layers": name, "show_progress": False}
    exact = signal_quality(model, fitted, **settings)
    found = signal_quality(model, fitted, **settings, max_width=5, max_units=2)
    for estimator in REGIMES:
        rho = found[estimator][name]
        drawn = ~rho.isnan()
        assert drawn.sum() == 2
        assert_close(rho[drawn], exact[estimator][name][drawn], rtol=0, atol=1e-5)
    again = signal_quality(model, fitted, **settings, max_width=5, max_units=2)
    assert_close(again["linear"][name], found["linear"][name], rtol=0, atol=0, equal_nan=True)


def test_the_model_is_left_as_it_was(fitted, loaders):
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    signal_quality(model, fitted["linear"], **loaders, show_progress=False)
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_too_few_samples_are_reported(model, fitted, loaders):
    few = {**loaders, "fit_loader": images(6, 2)}
    with pytest.warns(ExplanationWarning) as warned:
        signal_quality(model, fitted["linear"], **few, layers=["0", "9"], show_progress=False)
    assert [str(each.message) for each in warned] == [
        "fit_loader gives fewer than 2 patches for each number in a patch at 9: v fits them one by "
        "one, and rho is too high; give more images, or a larger max_positions"
    ]


def test_bad_input_is_refused(model, fitted, loaders):
    def refused(error, *args, **settings):
        with pytest.raises(error) as caught:
            signal_quality(*args, **{**loaders, "show_progress": False, **settings})
        return str(caught.value)

    assert refused(InputError, model, {}) == (
        "there is no estimator to judge; give at least one Patterns"
    )
    assert refused(InputError, model, {"random": fitted["linear"]}) == (
        "'random' is the name of the baseline; rename those patterns or set random_baseline=False"
    )
    assert refused(InputError, model, fitted, max_positions=0) == (
        "max_positions must be at least 1, got 0"
    )
    assert refused(InputError, model, fitted, max_units=0) == "max_units must be at least 1, got 0"
    assert refused(LayerError, model, fitted, layers="2") == (
        "layer '2' has no pattern in 'filter'; choose among '0', '3', '5', '9'"
    )
    assert "no batch" in refused(InputError, model, fitted, eval_loader=[])
    torch.manual_seed(1)
    assert "another model" in refused(ArtifactError, nn.Sequential(nn.Linear(2, 2)), fitted)
    bad = images(6, 0)
    bad[4, 0, 0, 0] = math.nan
    assert refused(InputError, model, fitted, eval_loader=bad.split(3)) == (
        "batch 1 of eval_loader: layer '0' sees NaN or infinite numbers; leave that batch out, or "
        "find the image or layer they come from"
    )


def test_sampled_positions_are_patches_of_the_image_without_repetition():
    layer = LinearLayer.of(nn.Conv2d(1, 2, 1))
    image = torch.arange(2 * 5 * 6.0).reshape(2, 1, 5, 6)
    outputs = torch.cat([image - 10, 10 - image], 1)
    patches, on = sampled_patches(layer, image, outputs, 8, torch.Generator().manual_seed(0))
    drawn = patches.flatten().tolist()
    assert len(set(drawn)) == 16
    assert sum(value < 30 for value in drawn) == 8
    assert on[0, :, 0].tolist() == [value > 10 for value in drawn]
    assert on[0, :, 1].tolist() == [value < 10 for value in drawn]
    counts = np.zeros(30)
    generator = torch.Generator().manual_seed(1)
    for _ in range(300):
        patches, _ = sampled_patches(layer, image[:1], outputs[:1], 8, generator)
        counts[patches.flatten().long()] += 1
    assert (abs(counts - 80) < 40).all()


@pytest.fixture
def by_hand():
    return SignalQuality(
        {
            "linear": {"a": torch.tensor([0.0, 0.5, 1.0, torch.nan]), "b": torch.tensor([1.0])},
            "random": {"a": torch.tensor([0.25, 0.25, 0.25, 0.25]), "b": torch.tensor([torch.nan])},
        }
    )


def test_the_table_is_that_of_the_units_with_a_quality(by_hand):
    first, second, third, fourth = by_hand.table()
    assert first == QualityRow("linear", "a", 0.5, 0.25, 0.5, 0.75, 3)
    assert second == QualityRow("linear", "b", 1.0, 1.0, 1.0, 1.0, 1)
    assert third == QualityRow("random", "a", 0.25, 0.25, 0.25, 0.25, 4)
    assert fourth[:2] == ("random", "b")
    assert all(math.isnan(value) for value in fourth[2:6])
    assert fourth.units == 0


def test_the_files_say_the_same(by_hand, tmp_path):
    by_hand.to_csv(tmp_path / "rho.csv")
    with (tmp_path / "rho.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "estimator": "linear", "layer": "a", "mean": "0.5", "lower_quartile": "0.25",
        "median": "0.5", "upper_quartile": "0.75", "units": "3",
    }  # fmt: skip
    assert rows[3]["mean"] == ""
    assert rows[3]["units"] == "0"
    by_hand.to_json(tmp_path / "rho.json")
    found = json.loads((tmp_path / "rho.json").read_text())
    assert found["rho"]["linear"] == {"a": [0.0, 0.5, 1.0, None], "b": [1.0]}
    assert found["table"][0]["upper_quartile"] == 0.75
    assert found["table"][3]["mean"] is None


def test_the_csv_has_no_formula(tmp_path):
    quality = SignalQuality({"=1+1": {"a": torch.tensor([-0.5])}})
    quality.to_csv(tmp_path / "rho.csv")
    assert (tmp_path / "rho.csv").read_text().splitlines()[1].startswith("'=1+1,a,-0.5,")


def test_a_device_judges_as_the_cpu_does(device, fitted, loaders, quality):
    model = network().to(device)
    found = signal_quality(model, fitted, **loaders, show_progress=False)
    for estimator in quality:
        for name, rho in quality[estimator].items():
            assert found[estimator][name].device.type == "cpu"
            assert_close(found[estimator][name], rho, rtol=1e-6, atol=1e-6, equal_nan=True)
