"""Fitting that was killed and goes on, and fitting in two processes."""

import signal
import warnings
from pathlib import Path

import fitting_job
import pytest
import torch
from jobs import run_job, two_processes
from pattern_networks import (
    Chain,
)
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from captum_blackbox.artifacts import load_artifact
from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.patterns import Patterns, fit_patterns

# Small networks of random weights have such units; test_estimators.py is about them.
pytestmark = pytest.mark.filterwarnings("ignore:.* have patterns that are huge or turned around")

ALL = ("positive", "negative", "two_component", "linear", "filter")
JOB = Path(fitting_job.__file__)


def fit(model, loader, regime="positive", **settings):
    return Patterns.fit(model, loader, regime=regime, show_progress=False, **settings)


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


DATA = torch.randn(23, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PAIRS = TensorDataset(DATA, torch.arange(23))


# Killed and resumed.


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    done = run_job(JOB, folder, "killed")
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    return folder / "checkpoint"


@pytest.fixture
def stopped(killed, tmp_path):
    """A checkpoint of a run that was killed after its seventh batch, to be used up."""
    copied = tmp_path / "checkpoint"
    copied.write_bytes(killed.read_bytes())
    return copied


def case_fit(checkpoint=None, regimes=fitting_job.REGIMES, model=None, loader=None, **settings):
    case_model, case_loader = fitting_job.case()
    return fit_patterns(
        model or case_model,
        case_loader if loader is None else loader,
        regimes,
        checkpoint=checkpoint,
        checkpoint_every=2,
        show_progress=False,
        **settings,
    )


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bits(stopped):
    tensors, _ = load_artifact(stopped)
    assert tensors["count/seen"].tolist() == [6, 24]
    model, _ = fitting_job.case()
    ran = []
    model.register_forward_pre_hook(lambda *_: ran.append(1))
    resumed, whole = case_fit(stopped, model=model), case_fit()
    assert len(ran) == 1 + 5  # tracing, and batches 6 … 10
    for regime, patterns in resumed.items():
        assert_same(patterns, whole[regime])
        assert patterns.report == whole[regime].report
    assert not stopped.exists()


def test_a_generator_is_resumed_behind_what_was_read(stopped, tmp_path):
    _, loader = fitting_job.case()
    batches = [batch for batch, _ in loader]
    path = tmp_path / "of a list"
    broken = [*batches[:7], torch.full_like(batches[0], float("nan"))]
    with pytest.raises(InputError, match="batch 7"):
        case_fit(path, loader=iter(broken))
    resumed = case_fit(path, loader=iter(batches))
    for regime, patterns in case_fit(loader=batches).items():
        assert_same(resumed[regime], patterns)


def test_nothing_is_lost_from_a_checkpoint_when_a_batch_is_refused(tmp_path):
    _, loader = fitting_job.case()
    data = loader.dataset.tensors[0]
    path = tmp_path / "checkpoint"
    broken = data.clone()
    broken[21] = float("nan")

    def loaded(values):
        return DataLoader(TensorDataset(values), batch_size=4)

    message = "^batch 5: input 1 has values that are NaN or infinite; remove it from the data$"
    with pytest.raises(InputError, match=message):
        case_fit(path, loader=loaded(broken))
    assert load_artifact(path)[0]["count/seen"].tolist() == [4, 16]
    resumed = case_fit(path, loader=loaded(data))
    for regime, patterns in case_fit(loader=loaded(data)).items():
        assert_same(resumed[regime], patterns)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("weights", "model is"),
        ("data", "data is"),
        ("length", "batches is"),
        ("regimes", "components is"),
        ("final", "components is"),
        ("layers", "structure is"),
        ("centre", "centre is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_says_what_differs(stopped, change, named):
    model, loader = fitting_job.case()
    settings = {"model": model, "loader": loader}
    data = loader.dataset.tensors[0]
    if change == "weights":
        model.conv.bias.data[0] += 1e-9
    elif change == "data":
        settings["loader"] = DataLoader(TensorDataset(data + 1), batch_size=4)
    elif change == "length":
        settings["loader"] = DataLoader(TensorDataset(data[:20]), batch_size=4)
    else:
        settings |= {
            "regimes": {"regimes": ["linear"]},
            "final": {"final": "linear"},
            "layers": {"layers": ["stem"]},
            "centre": {"centre": "sampled"},
        }[change]
    before = stopped.read_bytes()
    with pytest.raises(ArtifactError, match=f"does not belong here: .*{named}"):
        case_fit(stopped, **settings)
    assert stopped.read_bytes() == before


def test_two_processes_fit_what_one_does(tmp_path):
    done = run_job(JOB, tmp_path, "shared", launcher=two_processes())
    assert done.returncode == 0, done.stderr[-3000:]
    model, _ = fitting_job.case()
    for regime, alone in case_fit().items():
        files = [tmp_path / f"shared-{regime}-{rank}.safetensors" for rank in (0, 1)]
        first, second = (Patterns.load(file, model) for file in files)
        assert_same(second, first)
        assert_same(first, alone, **NEAR)
        assert first.report == second.report
        assert (first.report.batches, first.report.images) == (11, 43)


def test_nothing_is_shown_where_no_progress_is_asked_for(capfd):
    fit(nn.Linear(3, 2).double(), DATA)
    assert capfd.readouterr() == ("", "")
    fit_patterns(nn.Linear(3, 2).double(), DATA)
    assert "patterns" in capfd.readouterr().err


def test_no_warning_on_ordinary_data():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Chain(lambda m, x: m.b(m.a(x).relu()), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
        fit_patterns(model.double(), DATA, ["linear"], show_progress=False)
