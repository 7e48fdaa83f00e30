"""The command ``compare``: tables and files, masks, and what a user gets wrong."""

import csv
import json
from typing import get_args

import numpy as np
import pytest
from commands import Command
from PIL import Image

from captum_blackbox.cli.audit_options import ComparedMethods
from captum_blackbox.compare import READY

compare = Command("compare")
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
"""
MODEL = ["--model", "net.py:make", "--images", "photos", "--out", "out"]
PREPARED = [*MODEL, "--size", "8", "--mean", "0,0,0", "--std", "1,1,1"]
METHODS = ["--methods", "random,saliency"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NETWORK)
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
        Image.fromarray(255 * np.tri(8, k=i - 1, dtype=np.uint8)).save(
            tmp_path / "masks" / f"{i}.png"
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tables_and_files(place):
    result = compare.done(*PREPARED, *METHODS, "--metrics", "deletion,insertion")
    assert "| saliency |" in result.stdout
    out = place / "out"
    found = json.loads((out / "comparison.json").read_text())
    assert list(found["methods"]) == ["random", "saliency"]
    assert found["images"] == 3
    text = (out / "comparison.md").read_text()
    assert text.startswith("# Methods compared on net.py:make\n")
    assert "0. 0.png\n1. 1.png\n2. 2.png\n" in text
    assert len((out / "comparison.csv").read_text().splitlines()) == 1 + 2 * 2 * 3
    for name in ("deletion.png", "insertion.png", "ranks.png"):
        Image.open(out / name).load()


def test_its_help_is_its_own():
    assert "The audit" not in compare.done("--help").stdout


def test_its_help_names_every_method():
    _, option = get_args(ComparedMethods)
    assert [name for name in READY if f"`{name}`" not in option.help] == []


def test_masks_are_read_as_the_images_are(place):
    compare.done(*PREPARED, *METHODS, "--metrics", "relevance_rank", "--masks", "masks")
    found = json.loads((place / "out" / "comparison.json").read_text())
    values = found["methods"]["random"]["metrics"]["relevance_rank"]["values"]
    assert all(0 <= value <= 1 for value in values)


def test_images_are_named_by_their_files(place):
    Image.new("L", (8, 8)).save(place / "masks" / "1.png")
    said = compare.done(*PREPARED, *METHODS, "--metrics", "pointing_game", "--masks", "masks")
    reason = "not applicable: its mask is empty, so that nothing says where a map should point"
    assert f"| random | pointing_game | 1.png | {reason}" in said.stdout
    found = json.loads((place / "out" / "comparison.json").read_text())
    assert found["names"] == ["0.png", "1.png", "2.png"]
    with (place / "out" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows[:3]] == ["0.png", "1.png", "2.png"]


def test_the_demo_has_masks_of_its_own(place):
    compare.done(
        "--model", "demo", "--limit", "2", "--out", "out", *METHODS, "--metrics", "pointing_game"
    )
    assert (place / "out" / "pointing_game.png").is_file()


def test_a_mask_that_is_missing_is_named(place):
    (place / "masks" / "1.png").unlink()
    said = compare.failure(*PREPARED, *METHODS, "--metrics", "pointing_game", "--masks", "masks")
    assert said == ("--masks 'masks' has no mask for the image '1.png'; it would be called 1.png")


def test_a_mask_that_is_no_image_is_named(place):
    (place / "masks" / "1.png").write_text("none")
    said = compare.failure(*PREPARED, *METHODS, "--metrics", "pointing_game", "--masks", "masks")
    assert said.startswith("the mask 'masks/1.png' cannot be read: ")


def test_what_needs_masks_without_masks(place):
    said = compare.failure(*PREPARED, *METHODS, "--metrics", "deletion,pointing_game")
    assert said == (
        "pointing_game need to know where the truth lies; give --masks, or leave these metrics out"
    )


def test_names_that_are_not_known(place):
    said = compare.failure(*PREPARED, "--methods", "salency")
    assert said.startswith("there is no method 'salency'; the nearest names are 'saliency'")
    said = compare.failure(*PREPARED, *METHODS, "--metrics", "deletoin")
    assert said.startswith("there is no metric 'deletoin'; the nearest names are 'deletion'")
    assert "--reference is one of --methods" in compare.misuse(
        *PREPARED, *METHODS, "--reference", "rise"
    )


def test_a_method_that_is_fitted_needs_images_to_fit_to(place):
    said = compare.failure(*PREPARED, "--methods", "pattern_attribution")
    assert "is fitted to images" in said
    compare.done(
        *PREPARED, "--methods", "random,pattern_attribution", "--metrics", "deletion",
        "--fit-images", "photos",
    )  # fmt: skip


def test_a_second_run_asks_nothing_again(place):
    first = compare.done(*PREPARED, *METHODS, "--metrics", "deletion").stdout
    again = compare.done(*PREPARED, *METHODS, "--metrics", "deletion").stdout
    assert first == again  # seconds included: they are kept
    wanted = "--metrics", "deletion", "--batch-size", "1"
    assert compare.done(*PREPARED, *METHODS, *wanted).stdout == first
    other = compare.done(*PREPARED, *METHODS, "--metrics", "deletion", "--seed", "3").stdout
    assert other != first
