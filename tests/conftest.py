"""What tests can ask for: a device, the real networks, a call without shape checks."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # tests/networks.py and tests/registry.py
pytest.register_assert_rewrite("commands", "page_contract", "page_reader")

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, max_examples=30)
settings.register_profile("deep", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        action="append",
        help="device to test on, may be repeated; by default cpu, and cuda where there is one",
    )


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        here = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        metafunc.parametrize("device", metafunc.config.getoption("--device") or here)


@pytest.fixture(scope="session")
def data():
    """The module that loads the real networks and images; see tests/SKIPS.md."""
    folder = Path(os.environ.get("CAPTUM_BLACKBOX_DATA", DEFAULT_DATA))
    if not (folder / "networks.py").is_file():
        pytest.skip("no real networks: CAPTUM_BLACKBOX_DATA names no folder with networks.py")
    spec = importlib.util.spec_from_file_location("real_networks", folder / "networks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def as_users_call():
    """Switch off the shape checks that only tests have, to see the errors that users see."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
