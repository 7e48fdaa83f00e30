"""Processes that share a cache and a budget, and processes that are killed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from captum_blackbox import BlackBox

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
ASKER = Path(__file__).with_name("asker.py")


def started(scene, folder, **options):
    arguments = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", json.dumps(value))
    ]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(ASKER), scene, str(folder), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def printed(process):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output


def asked(folder):
    return [n for line in (folder / "log").read_text().splitlines() for n in json.loads(line)]


def contents(folder):
    """Number of answers and the count, from a file that must be whole."""
    with sqlite3.connect(folder / "cache.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        answers = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
        counted = connection.execute("SELECT queries FROM count").fetchone()[0]
    connection.close()
    return answers, counted


def test_a_process_killed_while_it_asks_loses_only_that_batch(tmp_path):
    (tmp_path / "go").touch()
    numbers = list(range(12))
    process = started("ask", tmp_path, numbers=numbers, batch_size=4, stall_at=9)
    deadline = time.monotonic() + 120
    while not (tmp_path / "log").exists() or 9 not in asked(tmp_path):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert contents(tmp_path) == (8, 8)
    again = json.loads(printed(started("ask", tmp_path, numbers=numbers, batch_size=4)))
    assert again == {"right": True, "queries": 12}
    assert contents(tmp_path) == (12, 12)
    assert asked(tmp_path) == [*range(12), *range(8, 12)]


def test_killed_at_any_moment_the_file_stays_whole_and_the_count_right(tmp_path):
    kills = json.loads(printed(started("killed_again_and_again", tmp_path)))["kills"]
    assert kills >= 3
    assert contents(tmp_path) == (400, 400)
    # Each kill costs at most one batch of three.
    assert 400 <= len(asked(tmp_path)) <= 400 + 3 * kills


def test_two_processes_ask_each_image_once_in_total(tmp_path):
    first, second = list(range(40)), list(range(39, 9, -1))
    processes = [
        started("ask", tmp_path, numbers=numbers, batch_size=3, seconds=0.01, budget=40)
        for numbers in (first, second)
    ]
    (tmp_path / "go").touch()
    reports = [json.loads(printed(process)) for process in processes]
    assert [report.get("right") for report in reports] == [True, True]
    assert sorted(asked(tmp_path)) == list(range(40))
    assert contents(tmp_path) == (40, 40)


def test_a_shared_budget_is_spent_to_the_last_pair_and_never_exceeded(tmp_path):
    printed(started("race_for_budget", tmp_path, budget=61))
    assert len(asked(tmp_path)) == 60
    assert contents(tmp_path) == (60, 60)
    assert len({number // 1000 for number in asked(tmp_path)}) > 1  # there was a race


def test_many_processes_may_open_a_new_file_at_once(tmp_path):
    assert printed(started("open_at_once", tmp_path)).split() == ["12"] * 6


def test_a_fork_after_opening_confuses_nobody(tmp_path):
    # In the file 0, 1, 10; by each child its own 20 numbers; by either child 2 … 19.
    expected = 2 + 1 + 2 * 20 + 18 - 1
    assert int(printed(started("fork_after_opening", tmp_path))) == expected
    assert contents(tmp_path) == (expected, expected)
    in_memory = 2 + 2
    assert len(asked(tmp_path)) == expected + in_memory


def test_a_file_can_be_opened_and_read_while_another_process_asks(tmp_path):
    path = tmp_path / "cache.sqlite"
    images = torch.arange(4.0).view(4, 1, 1, 1)
    BlackBox(lambda x: x.flatten(1) - 9, output="logits", cache=path)(images)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # it would wait for this for ever
    box = BlackBox(lambda x: pytest.fail("asked"), output="logits", cache=path, num_classes=1)
    assert box.answers(images).flatten().tolist() == [-9, -8, -7, -6]
    assert box.queries == 4
    other.close()
