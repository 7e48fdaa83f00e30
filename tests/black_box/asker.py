"""A process that asks a black box; test_sharing.py starts it, kills it, runs several at once.

Image ``n`` has the value ``n``. Every call that reaches the black box is one line in a log.
"""

import argparse
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from captum_blackbox.black_box import BlackBox
from captum_blackbox.black_box.ledger import Ledger
from captum_blackbox.errors import QueryBudgetError


def naive(images):
    first = images[:, 0, 0, 0]
    return torch.stack([first + 1, first - 2, 4 * first], 1)


def numbered(numbers):
    return torch.tensor(list(numbers), dtype=torch.float32).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)


class Service:
    """Answers after a while and writes down what it was asked."""

    def __init__(self, log, seconds=0.0, stall_at=None):
        self.log, self.seconds, self.stall_at = log, seconds, stall_at

    def __call__(self, images):
        numbers = [int(each) for each in images[:, 0, 0, 0]]
        with Path(self.log).open("a") as file:  # one write, so lines do not mix
            file.write(json.dumps(numbers) + "\n")
        time.sleep(3600 if self.stall_at in numbers else self.seconds)
        return naive(images)


def forked(work, *arguments):
    """Run ``work`` in a child without anything that the parent does at its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def joined(children):
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def report(result):
    sys.stdout.write(f"{result}\n")


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.001)


def ask(folder, options):
    """Ask all numbers in one call; used for two processes that start at the same moment."""
    wait_for(folder / "go")
    box = BlackBox(
        Service(folder / "log", options.seconds, options.stall_at),
        output="logits",
        batch_size=options.batch_size,
        cache=folder / "cache.sqlite",
        query_budget=options.budget,
    )
    images = numbered(options.numbers)
    try:
        right = torch.equal(box.answers(images), naive(images))
        report(json.dumps({"right": right, "queries": box.queries}))
    except QueryBudgetError as error:
        report(json.dumps({"refused": str(error), "queries": box.queries}))


def race_for_budget(folder, options):
    """Four processes ask different images one by one until the shared budget is spent."""

    def work(which):
        wait_for(folder / "go")
        box = BlackBox(
            Service(folder / "log", 0.005),
            output="logits",
            cache=folder / "cache.sqlite",
            query_budget=options.budget,
        )
        for number in range(options.budget):
            try:
                box(numbered([1000 * which + number, 1000 * which + 500 + number]))
            except QueryBudgetError:
                return

    children = [forked(work, which) for which in range(4)]
    (folder / "go").touch()
    joined(children)


def open_at_once(folder, options):
    """Twelve processes open one new file at the same moment, several times."""

    def work(path, go):
        wait_for(go)
        ledger = Ledger(path, {"output": "logits"})
        with ledger.asking():
            ledger.count(1)

    for number in range(6):
        path, go = folder / f"{number}.sqlite", folder / f"go {number}"
        children = [forked(work, path, go) for _ in range(12)]
        time.sleep(0.05)
        go.touch()
        joined(children)
        report(Ledger(path, {"output": "logits"}).queries)


def fork_after_opening(folder, options):
    """The children ask on when the parent has closed its box."""
    service = Service(folder / "log")

    def box_on(path):
        return BlackBox(service, output="logits", batch_size=2, cache=path)

    box, memory = box_on(folder / "cache.sqlite"), box_on(":memory:")
    box(numbered([0, 1]))
    memory(numbered([0, 1]))

    def work(which, box):
        for number in range(20):
            images = numbered([0, 1, number, 100 + 50 * which + number])
            assert torch.equal(box.answers(images), naive(images))
            if number == 5:
                (folder / f"child {which}").touch()
                wait_for(folder / "parent is done")
        memory(numbered([1, 2]))
        assert memory.queries == 3

    children = [forked(work, which, box) for which in range(2)]
    box(numbered([10]))
    for which in range(2):
        wait_for(folder / f"child {which}")
    del box
    (folder / "parent is done").touch()
    joined(children)
    assert memory.queries == 2
    report(BlackBox(service, output="logits", cache=folder / "cache.sqlite").queries)


def killed_again_and_again(folder, options):
    """A child asks 400 images and is killed at random moments until one comes to the end."""
    path, write = folder / "cache.sqlite", Ledger.write

    def work(round_):
        if round_ % 3 == 0:  # killed between writing and committing

            def write_and_die(self, answers):
                write(self, answers)
                if max(map(len, answers)) and torch.rand(()) < 0.1:
                    os.kill(os.getpid(), signal.SIGKILL)

            Ledger.write = write_and_die
        torch.manual_seed(round_)
        box = BlackBox(Service(folder / "log", 0.001), output="logits", batch_size=3, cache=path)
        images = numbered(range(400))
        assert torch.equal(box.answers(images), naive(images))

    kills = 0
    for round_ in range(200):
        child = forked(work, round_)
        if round_ % 3:
            time.sleep(0.02 + 0.005 * (round_ % 7))
            os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        kills += 1
    report(json.dumps({"kills": kills}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scene")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--numbers", type=json.loads)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--stall-at", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    globals()[given.scene](given.folder, given)
