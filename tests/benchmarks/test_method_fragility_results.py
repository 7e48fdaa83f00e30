"""The committed result on how easily each method moves, and the table of methods made of it."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import harness  # noqa: E402
import method_fragility as study  # noqa: E402
import methods_table  # noqa: E402
import result_files  # noqa: E402

NOT_ATTACKED = {"NetworkDissection", "RISE"}


@pytest.fixture(scope="module")
def record():
    (found,) = result_files.read("method_fragility.json")
    return found


def test_every_method_is_measured_at_every_radius(record):
    assert record["schema"] == harness.SCHEMA
    assert record["settings"]["images"] >= 16
    assert record["settings"]["steps"] == study.STEPS
    assert set(record["rows"]) > NOT_ATTACKED
    for name, row in record["rows"].items():
        assert set(row) == ({"random"} if name in NOT_ATTACKED else set(study.MODES))
        for radii in row.values():
            assert set(radii) == {str(radius) for radius in study.RADII}
            for found in radii.values():
                assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1
                assert found["images"] == record["settings"]["images"]


def test_an_attack_leaves_less_than_random_signs(record):
    for name in set(record["rows"]) - NOT_ATTACKED:
        attacked, shaken = (record["rows"][name][mode]["8"] for mode in ("topk", "random"))
        assert attacked["high"] < shaken["low"]


def test_the_table_counts_what_the_table_of_axioms_marks(tmp_path, monkeypatch):
    axioms = tmp_path / "axioms.md"
    axioms.write_text("| A | ✓ | ✗ | – | ✓ |\n| A, other | ✗ | ✗ | ✗ | ✗ |\n")
    monkeypatch.setattr(methods_table, "AXIOMS", axioms)
    assert methods_table._met("A") == "2 of 3"
    with pytest.raises(SystemExit, match="no row B"):
        methods_table._met("B")
