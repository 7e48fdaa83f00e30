"""What can be imported from the package; taking a name away must be deliberate."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import captum_blackbox

SURFACE = Path(__file__).with_name("public_api.json")


@pytest.mark.parametrize(("package", "names"), json.loads(SURFACE.read_text()).items())
def test_the_public_names_are_those_of_the_surface_file(package, names):
    # Written by hand: a new name is added there, a removed one is a breaking change.
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(names)
    for name in names:
        value = getattr(module, name)
        assert value.__doc__ or not isinstance(value, type | FunctionType), name
        assert name in dir(module)


def test_importing_the_package_imports_nothing_heavy_and_warns_of_nothing():
    program = (
        "import sys, captum_blackbox; "
        "print([m for m in ('torch', 'captum', 'zennit', 'matplotlib', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'captum_blackbox' has no attribute 'Nothing'"):
        _ = captum_blackbox.Nothing
