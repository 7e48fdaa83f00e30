"""What the built package says of itself."""

import re
from importlib.metadata import distribution
from pathlib import Path

import captum_blackbox

ROOT = Path(__file__).parents[1]


def test_the_metadata_is_what_setup_cfg_says():
    built = distribution("captum-blackbox").metadata
    assert built["License-Expression"] == "BSD-3-Clause"
    assert built["Requires-Python"] == ">=3.11"
    assert built["Version"] == captum_blackbox.__version__
    requires = " ".join(built.get_all("Requires-Dist"))
    for name in ("captum>=0.9", "zennit>=0.5.1", "torch>=2.3", "torchvision", "safetensors"):
        assert name in requires
    assert set(built.get_all("Provides-Extra")) == {"bench", "testing", "timm"}


def test_the_command_is_installed():
    scripts = distribution("captum-blackbox").entry_points.select(group="console_scripts")
    assert [(s.name, s.value) for s in scripts] == [("captum-blackbox", "captum_blackbox.cli:main")]


def test_what_is_no_code_is_in_the_package():
    package = Path(captum_blackbox.__file__).parent
    for name in (
        "py.typed",
        "demo/weights.safetensors",
        "demo/shortcut.safetensors",
        "demo/control.safetensors",
        "report/attack.html.jinja",
        "report/explanation.html.jinja",
        "report/patterns.html.jinja",
    ):
        assert (package / name).is_file(), name


def test_the_version_is_in_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(captum_blackbox.__version__)}\]", text, re.MULTILINE)


def test_every_makefile_target_explains_itself():
    text = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "test-all", "test-real", "lint", "bench", "docs", "pages"):
        assert re.search(rf"^{target}:.*## \S", text, re.MULTILINE), target
