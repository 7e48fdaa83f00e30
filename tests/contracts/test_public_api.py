"""What can be imported from the package; taking a name away must be deliberate."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import captum_blackbox

SURFACE = Path(__file__).with_name("public_api.json")


def test_the_public_names_are_those_of_the_surface_file():
    # Written by hand: a new name is added there, a removed one is a breaking change.
    assert sorted(captum_blackbox.__all__) == sorted(json.loads(SURFACE.read_text()))


def test_every_public_name_exists_and_is_documented():
    for name in captum_blackbox.__all__:
        assert getattr(captum_blackbox, name).__doc__, name
    assert set(captum_blackbox.__all__) <= set(dir(captum_blackbox))


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
