"""The page: complete in itself, harmless, readable by machines that read to people."""

import dataclasses

import pytest
import torch
from page_contract import PageContract
from page_reader import Reader

from captum_blackbox.report import (
    Difference,
    ExplainedImage,
    ExplanationPage,
    LayerResult,
    MethodResult,
    MethodSummary,
    StudentSummary,
    heat_png,
    picture_png,
    render,
)
from captum_blackbox.report.comparison import FEW_IMAGES

PNG = picture_png(torch.rand(3, 8, 8), edge=8)
HEAT = heat_png(torch.rand(4, 4))


def page(text="a name", **changes):
    method = MethodResult(text, PNG, 0.125, 0.875, 0.5)
    image = ExplainedImage(
        name=text,
        picture=PNG,
        predicted=text,
        probability=0.75,
        student_predicted=text + "!",
        truth=text + "?",
        methods=[method],
        deletion=PNG,
        insertion=PNG,
        layers=[LayerResult(text, HEAT, 1.0)],
    )
    full = ExplanationPage(
        title=text,
        lead=text,
        reference=text,
        images_judged=FEW_IMAGES,
        queries=12345,
        object_area=0.0625,
        methods=[
            MethodSummary(text, 0.125, 0.875, None, None, 0.5),
            MethodSummary(
                "b", 0.25, 0.5, Difference(-0.1, -0.2, -0.05), Difference(0.0, -1.0, 1.0), 0.5
            ),
        ],
        deletion=PNG,
        insertion=PNG,
        images=[image],
        layers={text: PNG},
        student=StudentSummary(0.9, 0.1, None, text, 0.7, PNG),
        notes=[text],
        skipped={text: text},
        settings={text: text},
        links={text: "results.json"},
    )
    return dataclasses.replace(full, **changes)


class TestContract(PageContract):
    sections = ["methods", "reading", "layers", "images", "settings"]
    alts = [
        "Mean deletion curve of each method; the areas are in the table above.",
        "Mean insertion curve of each method; the areas are in the table above.",
        "Ada",
        "The image Ada, predicted as Ada.",
        "Ada map of Ada.",
        "Deletion curves of all methods on Ada.",
        "Insertion curves of all methods on Ada.",
        "Map of layer Ada.",
        "Distillation loss after each epoch.",
    ]
    texts = 15

    def html(self, text):
        return render(page(text))


def test_numbers_are_printed_as_they_are():
    text = " ".join("".join(Reader(render(page())).text).split())
    for number in ("0.125", "0.875", "−0.100 [−0.200, −0.050] better", "12 345", "90.0 %", "6.2 %"):
        assert number in text
    assert "0.000 [−1.000, 1.000] worse" not in text


@pytest.mark.parametrize(
    ("images", "low", "said"),
    [(FEW_IMAGES, 0.0005001, True), (FEW_IMAGES, 0.0004, False), (FEW_IMAGES - 1, 0.1, False)],
)
def test_a_verdict_needs_enough_images_and_the_interval_as_printed(images, low, said):
    method = MethodSummary("b", 0.5, 0.5, Difference(0.15, low, 0.2), None)
    written = Reader(render(page(methods=[method], images_judged=images))).text
    text = " ".join("".join(written).split())
    assert f"0.150 [{low:.3f}, 0.200]" in text
    assert ("0.200] worse" in text) == said


def test_without_a_reference_there_are_no_differences():
    text = "".join(Reader(render(page(reference=None))).text)
    assert "reference" not in text
    assert "−0.100 [" not in text
    assert "mean difference" not in text


@pytest.mark.parametrize(("agreement", "warned"), [(0.69, True), (0.7, False)])
def test_a_student_that_disagrees_is_announced(agreement, warned):
    student = StudentSummary(agreement, 0.1, 0.5, "held-out images", 0.7)
    text = "".join(Reader(render(page(student=student, notes=()))).text)
    assert ("Do not trust the Grad-CAM maps below." in text) == warned


def test_a_model_that_explains_itself_has_no_student_on_its_page():
    text = "".join(Reader(render(page(student=None, notes=()))).text)
    assert "KL divergence" not in text
    assert "those of the student" not in text


def test_a_page_without_extras_is_still_a_page():
    bare = ExplanationPage("t", "l", "r", 2, (), PNG, PNG, ())
    reader = Reader(render(bare))
    assert len(reader.all("img")) == 2
    assert not reader.all("details")
