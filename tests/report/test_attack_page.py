"""The page on attacks: complete in itself, harmless, readable by machines that read to people."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from page_contract import PageContract
from page_reader import Reader
from PIL import Image

from captum_blackbox.errors import ShapeError
from captum_blackbox.report import (
    AttackedImage,
    AttackPage,
    AttackRow,
    AttackVerdict,
    AttackView,
    Difference,
    Moved,
    attacked_png,
    change_png,
    importance_png,
    picture_png,
    render_attack,
)
from captum_blackbox.statistics.bootstrap import Estimate

PNG = picture_png(torch.rand(3, 8, 8), edge=8)
OF_IMAGES = ["picture", "clean_map", "attacked_map", "attacked", "change"]


def view(text, **changes):
    full = AttackView(
        method=text, mode=text, radius="8/255", intersection=0.25, rank_correlation=0.5,
        center_shift=12.25, ssim=0.875, confidence=0.625, factor="16", attacked=PNG, change=PNG,
        clean_map=PNG, attacked_map=PNG,
    )  # fmt: skip
    return dataclasses.replace(full, **changes)


def page(text="a name", **changes):
    fell = AttackVerdict(
        text, "2/255", "2/255", "breaks at a radius.", (11, 12), 0.0625, 0.75, 0.375, 7.25, 0.9375
    )
    row = AttackRow(
        text, text, "2/255", Estimate(0.125, 0.0625, 0.1875, 12), Difference(-0.5, -0.625, -0.375),
        0.375, 7.25, None, (0.9, 0.8), 0.9375, (10, 12),
    )  # fmt: skip
    full = AttackPage(
        title=text,
        lead=text,
        images_judged=12,
        k=1000,
        pixels=50176,
        radius_means="the largest change",
        steps=300,
        verdicts=[fell, dataclasses.replace(fell, name="b", breaks_at=None, radius="8/255")],
        visibility=("8/255", 0.8125),
        confidence=(0.96, 0.71),
        rows=[row, dataclasses.replace(row, method="b", mode="random signs", difference=None)],
        curves=PNG,
        images=[AttackedImage(text, PNG, text, 0.75, text + "?", [view(text)])],
        hidden=6,
        left_out={text: text},
        notes=[text],
        skipped={text: text},
        settings={text: text},
        links={text: "attack.json"},
    )
    return dataclasses.replace(full, **changes)


def read(**changes):
    return Reader(render_attack(page(**changes)))


class TestContract(PageContract):
    sections = ["found", "reading", "numbers", "images", "settings"]
    alts = [
        "The region: white where importance was to go.",
        "How far each explanation moves as the radius grows; the numbers are in the table of all numbers.",
        "The image Ada, predicted as Ada.",
        "Ada of Ada before the attack.",
        "Ada of Ada after the attack; 25.0 % of the most important pixels are left.",
        "The attacked image Ada, still predicted as Ada.",
        "The change of Ada, amplified 16 times.",
    ]
    texts = 20

    def html(self, text):
        return render_attack(page(text, region=PNG))


@pytest.mark.parametrize(
    "said",
    [
        "of 2 explanations broke",
        "mean SSIM of images attacked with 8/255, by",
        "96.0 % → 71.0 %",
        "its 1 000 most important pixels (of 50 176)",
        "a name breaks at 2/255 11 of 12 6.2 % 75.0 % 0.375 7.2 0.938",
        "b held up to 8/255 11 of 12",
        "a name a name 2/255 0.125 [0.062, 0.188] −0.500 [−0.625, −0.375] 0.375 7.2 90.0 % → "
        "80.0 % 0.938 10 of 12",
        "b random signs 2/255 0.125 [0.062, 0.188] – 0.375",
        "a name Aim: a name, radius 8/255. Top pixels left 25.0 %, rank correlation 0.500, centre moved 12.2 "
        "pixels; still a name, 62.5 %; SSIM 0.875.",
        "Change × 16",
        "6 further images are in the files only",
        "A failed attack proves nothing.",
        "in 300 steps",
        "in truth a name?",
        "a name is left out. a name.",
    ],
)
def test_numbers_are_printed_as_they_are(said):
    assert said in read().text


def test_an_image_that_was_not_moved_says_why():
    image = AttackedImage("x", PNG, "cat", 0.5, None, [view("m", reason="no gain")])
    assert "Not moved: no gain. Top pixels left" in read(images=[image]).text


def test_a_region_has_a_column():
    row = dataclasses.replace(page().rows[0], region_mass=(0.125, 0.5))
    image = AttackedImage("x", PNG, "cat", 0.5, None, [view("m", region_mass=(0.125, 0.5))])
    text = read(rows=[row], images=[image]).text
    assert "In the region" in text
    assert "7.2 12.5 % → 50.0 % 90.0 %" in text
    assert "pixels, in the region 12.5 % → 50.0 %; still cat" in text
    assert "In the region" not in read().text


def test_a_page_without_extras_is_still_a_page():
    bare = AttackPage("t", "l", 1, 2, 64, "size", 9, (), ("1", None), (1.0, 1.0), (), None, ())
    reader = Reader(render_attack(bare))
    assert not reader.all("img")
    assert not [each for _, each in reader.tags if each.get("role") == "note"]
    assert "image attacked" in reader.text


class TestPictures:
    def test_the_largest_change_fills_the_range(self):
        clean = torch.full((3, 4, 4), 0.5)
        attacked = clean.clone()
        attacked[0, 0, 0] += 8 / 255
        attacked[1, 1, 1] -= 4 / 255
        moved = Moved(clean, attacked, torch.rand(4, 4), torch.rand(4, 4))
        assert moved.amplification == pytest.approx(255 / 16, rel=1e-4)
        pixels = np.asarray(Image.open(io.BytesIO(change_png(moved, edge=4))))
        assert pixels[0, 0].tolist() == [255, 128, 128]
        assert pixels[1, 1].tolist() == [128, 64, 128]
        assert pixels[3, 3].tolist() == [128, 128, 128]

    def test_no_change_is_grey_and_has_no_factor(self):
        clean = torch.rand(1, 4, 4)
        moved = Moved(clean, clean.clone(), torch.rand(4, 4), torch.rand(4, 4))
        assert moved.amplification == 0
        assert set(np.asarray(Image.open(io.BytesIO(change_png(moved, edge=4)))).flat) == {128}

    def test_a_single_bright_pixel_does_not_dim_a_map(self):
        importance = torch.full((20, 20), 0.1)
        importance[:, 10:] = 0.2
        importance[0, 0] = 100.0
        drawn = Image.open(io.BytesIO(importance_png(importance, edge=20)))
        levels = np.asarray(drawn)
        assert levels[10, 15] == levels[0, 0] == 255
        assert levels[10, 5] == 128

    def test_a_row_for_each_attack(self):
        moved = Moved(torch.rand(3, 8, 8), torch.rand(3, 8, 8), torch.rand(8, 8), torch.rand(8, 8))
        one = Image.open(io.BytesIO(attacked_png({"a": moved}, edge=16)))
        two = Image.open(io.BytesIO(attacked_png({"a": moved, "b": moved}, edge=16)))
        assert two.height == one.height + 16 + 8
        assert one.width > 5 * 16

    def test_what_does_not_belong_together_is_refused(self):
        with pytest.raises(ShapeError, match=r"of one size, got \(3, 8, 8\), \(3, 8, 8\), \(4, 4"):
            Moved(torch.rand(3, 8, 8), torch.rand(3, 8, 8), torch.rand(4, 4), torch.rand(8, 8))
