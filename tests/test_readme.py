"""The examples of the README run, in order, and print what it says that they print."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")
ELSEWHERE = {"rel": 0.2, "abs": 0.1}  # decimals differ from machine to machine


def check_said(printed, said):
    """Compare the words, and the decimals nearly; … stands for any lines."""
    pattern = re.escape(NUMBER.sub("0.0", said.strip())).replace("…\\\n", r"(?:.*\n)*?")
    pattern = pattern.replace("\\\n", r"\n")
    found = re.fullmatch(pattern, NUMBER.sub("0.0", printed.strip()))
    assert found, f"the README says\n{said}\nand this was printed\n{printed}"
    if "…" not in said:
        numbers, expected = (list(map(float, NUMBER.findall(each))) for each in (printed, said))
        assert numbers == pytest.approx(expected, **ELSEWHERE)


def test_the_examples_run_and_print_what_stands_below_them(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # they write files
    names = {}
    blocks = BLOCK.findall(README.read_text())
    assert len(blocks) > 10
    for block, said in blocks:
        exec(compile(block, str(README), "exec"), names)
        check_said(capsys.readouterr().out, said)
    assert names["maps"].shape == (4, 1, 64, 64)
    assert names["page"].is_file()


@pytest.mark.parametrize(
    ("printed", "said"),
    [("unit 3: car, 0.30", "unit 3: car, 0.33"), ("a\nb 1.0\nc", "…\nb 1.0\nc"), ("", "")],
)
def test_what_is_said_may_differ_in_decimals_and_leave_lines_out(printed, said):
    check_said(printed, said)


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("unit 3: car, 0.30", "unit 4: car, 0.30"),
        ("unit 3: car, 0.30", "unit 3: bus, 0.30"),
        ("unit 3: car, 0.30", "unit 3: car, 0.60"),
        ("something", ""),
        ("a\nb", "…\na"),
    ],
)
def test_what_is_said_otherwise_is_found(printed, said):
    with pytest.raises(AssertionError):
        check_said(printed, said)
