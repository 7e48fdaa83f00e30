"""Two processes gather what one would (gloo, started by torchrun)."""

import importlib.util
from pathlib import Path

import pytest
import torch
from jobs import run_job, two_processes
from torch.testing import assert_close

from captum_blackbox.artifacts import load_artifact
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.statistics import RegimeCovariance, merge_across_processes

JOB = Path(__file__).with_name("across_processes_job.py")


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    done = run_job(JOB, folder, launcher=two_processes())
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def alone():
    """The same statistics of all the data, and their batches."""
    spec = importlib.util.spec_from_file_location("across_processes_job", JOB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    layers, data = module.batches()
    statistics = {name: RegimeCovariance(LinearLayer.of(layer)) for name, layer in layers.items()}
    for name, statistic in statistics.items():
        for batch in data[name]:
            statistic.update(*batch)
    return statistics


def merged(folder, kind, rank, name, like):
    tensors, _ = load_artifact(folder / f"{kind}-{rank}.safetensors")
    statistic = like.empty()
    statistic.load_state(
        {key.split("/")[1]: each for key, each in tensors.items() if key.startswith(name)}
    )
    return statistic


@pytest.mark.parametrize("kind", ["uneven", "idle"])
def test_two_processes_equal_one(together, alone, kind):
    for name, statistic in alone.items():
        found = merged(together, kind, 0, name, statistic)
        expected = statistic.compute()
        assert found.state()["batches"] == 5
        for regime, moments in found.compute().items():
            for field, values in vars(moments).items():
                assert_close(values, getattr(expected[regime], field), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["uneven", "idle", "nothing"])
def test_all_processes_end_with_the_same_bits(together, kind):
    first, second = (load_artifact(together / f"{kind}-{rank}.safetensors")[0] for rank in (0, 1))
    assert_close(second, first, rtol=0, atol=0)


def test_where_nobody_saw_anything_the_merge_is_empty(together, alone):
    for rank in (0, 1):
        for name, statistic in alone.items():
            assert merged(together, "nothing", rank, name, statistic).state()["batches"] == 0


def test_without_a_group_nothing_happens(alone):
    before = {
        name: {k: v.clone() for k, v in statistic.state().items()}
        for name, statistic in alone.items()
    }
    merge_across_processes(alone)
    assert_close({n: s.state() for n, s in alone.items()}, before, rtol=0, atol=0)
    assert torch.distributed.is_initialized() is False
