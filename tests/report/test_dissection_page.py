"""The page on a dissection: complete in itself, harmless, and its sums are right."""

import dataclasses
import io

import pytest
import torch
from page_contract import PageContract
from page_reader import Reader
from PIL import Image

from captum_blackbox.dissection import NO_CONCEPT, LocalExplanation
from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.report import (
    CategoryRow,
    ClassReason,
    ContributionRow,
    CountRow,
    DissectedImage,
    DissectionPage,
    UnitRow,
    contribution_rows,
    contributions_png,
    lit_png,
    picture_png,
    render_dissection,
)

PNG = picture_png(torch.rand(3, 8, 8), edge=8)


def reason(text, *, is_predicted):
    rows = [ContributionRow(text, 3.0, 2, True), ContributionRow("bias", -1.0, 0, False)]
    return ClassReason(text, is_predicted, 0.75, 2.0, False, rows, {text: PNG})


def page(text="a name", **changes):
    count = CountRow(text, 512, 122, 30, {text: 30}, 0.05)
    reasons = [reason(text, is_predicted=True), reason(text, is_predicted=False)]
    full = DissectionPage(
        title=text,
        lead=text,
        layer=text,
        images_seen=12345,
        iou_threshold=0.04,
        quantile=0.005,
        asked=129,
        count=count,
        categories=[CategoryRow(text, "#0072b2", 129, {text: 7})],
        bars=PNG,
        controls=[count, count],
        layers=[count, dataclasses.replace(count, name="conv4")],
        pages={text: "index.html", "conv4": "conv4.html"},
        figures={text: PNG},
        units=[
            UnitRow(7, text, text, 0.25, True, [PNG, PNG]),
            UnitRow(3, text, text, 0.01, False),
        ],
        images=[DissectedImage(text, PNG, text + "?", reasons)],
        chance_iou=0.07,
        notes=[text],
        skipped={text: text},
        settings={text: text},
        links={text: "units.csv"},
    )
    return dataclasses.replace(full, **changes)


def read(**changes):
    return Reader(render_dissection(page(**changes)))


def explanation(*contributions, concepts, bias=0.5, residual=0.0):
    cells = torch.tensor(contributions).view(1, -1, 1, 1)
    score = cells.sum() + bias + residual
    one = torch.tensor([0])
    return LocalExplanation(
        "conv", one, score[None], torch.tensor([bias]), cells, concepts, torch.tensor([True])
    )


class TestContract(PageContract):
    sections = ["found", "chance", "compared", "gallery", "images", "reading", "all", "settings"]
    alts = [
        "Bars: how many units detect each concept; the same is in the table below.",
        "Ada",
        "Image 1 that unit 7 likes best, lit where it is active.",
        "Image 2 that unit 7 likes best, lit where it is active.",
        "The image Ada, predicted as Ada.",
        "Where Ada supported Ada in Ada.",
        "Where Ada supported Ada in Ada.",
    ]
    texts = 20
    scripts = 1

    def html(self, text):
        return render_dissection(page(text))


def test_what_is_not_there_has_no_section():
    found = read(controls=[], layers=[], figures={}, images=[], units=[], notes=[], chance_iou=None)
    addresses = [each["href"] for each in found.all("a")]
    assert addresses == ["#found", "#reading", "#all", "#settings", "units.csv"]
    assert "Contributions" not in found.text
    assert "one unit in twenty" not in found.text


def test_the_numbers_are_said():
    text = read().text
    assert "122 of 512" in text
    assert "one unit in twenty has an IoU above 0.070" in text
    assert "above a threshold that 0.5\u00a0% of all its activations" in render_dissection(page())
    assert "that 0.05\u00a0% of all" in render_dissection(page(quantile=1 - 0.9995))
    assert "unit 7 · a name · IoU 0.250" in text
    assert "a name (2) 3.00 bias −1.00 score (contributions to first order)2.00" in text
    assert "in truth a name?" in text
    assert "Why a name, the true class" in text


def test_other_layers_have_a_page():
    assert [each["href"] for each in read().all("a") if "conv" in each["href"]] == ["conv4.html"]


def test_bars_lie_on_one_axis_with_zero_between():
    each = reason("x", is_predicted=True)
    assert each.ends == (-1.0, 3.0)
    assert [each.bar(row) for row in each.rows] == [(25.0, 75.0), (0.0, 25.0)]
    nothing = dataclasses.replace(each, rows=[ContributionRow("bias", 0.0, 0, False)])
    assert nothing.bar(nothing.rows[0]) == (0.0, 0.0)


def test_rows_sum_to_the_score_and_name_what_is_left():
    concepts = ("a", "b", "c", "a", NO_CONCEPT, "d-s")
    found = explanation(2.0, -1.0, 0.5, 1.0, -0.25, -2.0, concepts=concepts, residual=0.125)
    rows = contribution_rows(found, count=1)
    assert [(row.name, row.value, row.units) for row in rows] == [
        ("a", 3.0, 2),
        ("d", -2.0, 1),
        ("2 other concepts", -0.5, 2),
        ("units without a concept", -0.25, 1),
        ("bias", 0.5, 0),
        ("beyond first order", 0.125, 0),
    ]
    assert sum(row.value for row in rows) == pytest.approx(float(found.scores))
    assert len({row.color for row in rows}) == 3


def test_a_concept_that_adds_nothing_is_among_the_others():
    rows = contribution_rows(explanation(1.0, 0.0, concepts=("a", "b")))
    assert [row.name for row in rows] == ["a", "1 other concept", "bias"]


def test_rounding_is_no_row():
    rows = contribution_rows(explanation(100.0, concepts=("a",), residual=1e-3))
    assert [row.name for row in rows] == ["a", "bias"]


def test_an_image_that_was_not_explained_is_refused():
    found = explanation(1.0, concepts=("a",))
    with pytest.raises(InputError, match="there is no image 1 among the 1 explained"):
        contribution_rows(found, 1)


def test_a_longer_list_of_terms_is_a_taller_picture():
    few = explanation(1.0, concepts=("a",))
    many = explanation(1.0, 2.0, -1.0, -2.0, concepts=("a", "b", "c", "d"))
    heights = [Image.open(io.BytesIO(contributions_png(each))).height for each in (few, many)]
    assert heights[1] > heights[0] + 100
    assert contributions_png(few) == contributions_png(few)
    assert contributions_png(few) != contributions_png(few, class_name="car")


def test_a_picture_is_dark_where_the_unit_is_not_active():
    mask = torch.tensor([[True, False]])
    pixels = Image.open(io.BytesIO(lit_png(torch.ones(3, 1, 2), mask, edge=2)))
    assert [pixels.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (51, 51, 51)]
    with pytest.raises(ShapeError, match=r"expected a mask \(1, 2\)"):
        lit_png(torch.ones(3, 1, 2), mask.T)
