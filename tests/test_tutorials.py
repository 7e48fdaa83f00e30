"""Each tutorial runs as it is, and its own assertions hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.py"))


def test_there_are_tutorials():
    assert TUTORIALS


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_its_claims_hold(path, tmp_path):
    done = subprocess.run(
        [sys.executable, path],
        env={**os.environ, "MPLBACKEND": "agg", "TUTORIAL_OUT": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert any(tmp_path.glob("*.png"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_in_percent_format(path):
    assert path.read_text().startswith("# %% [markdown]\n# # ")
