"""Timing of contestants side by side, and the files that results are kept in; see README.md."""

import argparse
import datetime
import gc
import json
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

SCHEMA = 1
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "captum", "grad-cam", "quantus", "numpy")


@dataclass(frozen=True)
class Contestant:
    """Something to be timed.

    Attributes:
        name: As it appears in the tables.
        call: Does the work once.
        units: How many units of work one call does; ratios compare the time of one unit.
        without: Is timed too and subtracted, to leave fixed costs out.
        goal: The largest ratio to the floor that we aim at.
        ours: Whether it is this library.
        rounds: Takes part in the first so many rounds only; for slow ones.
    """

    name: str
    call: Callable[[], object]
    units: float = 1
    without: Callable[[], object] | None = None
    goal: float | None = None
    ours: bool = False
    rounds: int | None = None


def race(
    work: str,
    floor: Contestant,
    others: Sequence[Contestant],
    *,
    rounds: int,
    device: str,
    setting: Mapping[str, Any] | None = None,
    unavailable: Mapping[str, str] | None = None,
    clock: Callable[[Callable[[], object]], float] | None = None,
) -> dict[str, Any]:
    """Time ``others`` beside ``floor`` and return a row of results.

    Each round times every contestant once, a different one first each time, after one round that
    is not counted. A ratio belongs to one round; reported are the median and the quartiles.
    """
    clock = clock or clock_of(device)
    field = [floor, *others]
    seconds: dict[str, list[float]] = {each.name: [] for each in field}
    for number in range(rounds + 1):
        first = number % len(field)
        for each in field[first:] + field[:first]:
            if each.rounds is None or number <= each.rounds:
                spent = clock(each.call) - (clock(each.without) if each.without else 0.0)
                if number > 0:
                    seconds[each.name].append(spent / each.units)
    rows = [_summary(each, seconds[each.name], seconds[floor.name]) for each in others]
    rows += [{"name": name, "unavailable": why} for name, why in (unavailable or {}).items()]
    row = {
        "work": work,
        "setting": dict(setting or {}),
        "floor": floor.name,
        "floor_seconds": round(float(np.median(seconds[floor.name])), 6),
        "contestants": rows,
    }
    print(_line(row), flush=True)
    return row


def clock_of(device: str) -> Callable[[Callable[[], object]], float]:
    """Return what times a call: CPU time of the process, or CUDA events."""
    return _cuda_seconds if torch.device(device).type == "cuda" else _cpu_seconds


def save(suite: str, device: str, content: Mapping[str, Any]) -> Path:
    """Write ``results/<suite>--<device>.json``, whole or not at all."""
    return write_json(RESULTS / f"{suite}--{torch.device(device).type}.json", content)


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file that a person can read: lists of numbers stay on one line."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    text = re.sub(r"\[[-+0-9.eE,\s]*\]", lambda found: re.sub(r"\s+", " ", found.group()), text)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    Path(name).chmod(0o644)
    Path(name).replace(path)
    return path


def result(suite: str, device: str, rows: Sequence[Mapping[str, Any]], rounds: int) -> dict:
    """Return the content of a file of speed results."""
    clock = "CUDA events" if torch.device(device).type == "cuda" else "CPU time of the process"
    return {
        "schema": SCHEMA,
        "suite": suite,
        "environment": environment(device),
        "clock": clock,
        "rounds": rounds,
        "rows": list(rows),
    }


def environment(device: str) -> dict[str, Any]:
    """Return what the numbers depend on: versions, threads, device and commit."""
    cuda = torch.device(device).type == "cuda"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "threads": torch.get_num_threads(),
    }


def version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def arguments(description: str, rounds: int = 5) -> argparse.ArgumentParser:
    """Return a parser of what every suite of speed understands."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="counted rounds, 5 or more")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    return parser


def _cpu_seconds(call: Callable[[], object]) -> float:
    gc.collect()
    start = time.process_time()
    call()
    return time.process_time() - start


def _cuda_seconds(call: Callable[[], object]) -> float:
    gc.collect()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def _summary(each: Contestant, seconds: Sequence[float], floor: Sequence[float]) -> dict[str, Any]:
    ratios = np.array(seconds) / np.array(floor[: len(seconds)])
    low, middle, high = (round(float(q), 4) for q in np.quantile(ratios, [0.25, 0.5, 0.75]))
    return {
        "name": each.name,
        "ours": each.ours,
        "ratio": middle,
        "quartiles": [low, high],
        "rounds": len(seconds),
        "seconds": round(float(np.median(seconds)), 6),
        "goal": each.goal,
    }


def _line(row: Mapping[str, Any]) -> str:
    setting = ", ".join(f"{key} {value}" for key, value in row["setting"].items())
    lines = [f"{row['work']} ({setting}): floor {row['floor_seconds']:.4f} s"]
    for each in row["contestants"]:
        if "unavailable" in each:
            lines.append(f"  {each['name']:42} unavailable: {each['unavailable']}")
            continue
        low, high = each["quartiles"]
        goal = "" if each["goal"] is None else f"  goal {each['goal']}"
        lines.append(f"  {each['name']:42} {each['ratio']:.3f}  [{low:.3f}, {high:.3f}]{goal}")
    return "\n".join(lines)


def _commit() -> str | None:
    def git(*command: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "../captum_blackbox")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found.group(1) if found else platform.machine()
