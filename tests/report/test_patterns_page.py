"""The page on patterns: complete in itself, harmless, readable by machines that read to people."""

import dataclasses

import pytest
import torch
from page_contract import PageContract
from page_reader import Reader

from captum_blackbox.report import (
    DegradationSummary,
    Difference,
    PatternsImage,
    PatternsMap,
    PatternsPage,
    picture_png,
    render_patterns,
)
from captum_blackbox.report.comparison import FEW_IMAGES

PNG = picture_png(torch.rand(3, 8, 8), edge=8)


def page(text="a name", **changes):
    image = PatternsImage(
        name=text,
        picture=PNG,
        predicted=text,
        probability=0.75,
        logit=-2.5,
        attributed=1.25,
        truth=text + "?",
        signals=[PatternsMap(text, PNG)],
        attributions=[PatternsMap(text, PNG, 0.375)],
    )
    full = PatternsPage(
        title=text,
        lead=text,
        reference=text,
        images_judged=FEW_IMAGES,
        images_fitted=12345,
        layers=3,
        degenerate=(7, 426),
        unstable=11,
        patch=5,
        methods=[
            DegradationSummary(text, 0.125),
            DegradationSummary("b", 0.25, Difference(0.1, 0.05, 0.2)),
            DegradationSummary("c", -0.25, Difference(-0.1, -0.2, -0.05)),
        ],
        degradation=PNG,
        images=[image],
        left_out={text: text},
        notes=[text],
        skipped={text: text},
        settings={text: text},
        links={text: "results.json"},
    )
    return dataclasses.replace(full, **changes)


def read(**changes):
    return Reader(render_patterns(page(**changes)))


class TestContract(PageContract):
    sections = ["methods", "reading", "images", "settings"]
    alts = [
        "Mean degradation curve of each method; the areas are in the table above.",
        "The image Ada, predicted as Ada.",
        "Ada of Ada, in colour.",
        "Ada of Ada, red for the class and blue against it.",
    ]
    texts = 14

    def html(self, text):
        return render_patterns(page(text))


@pytest.mark.parametrize(
    "said",
    [
        "12 345",
        "of 426 units have no pattern",
        "patches of 5 × 5 pixels",
        "0.125 reference",
        "0.250 0.100 [0.050, 0.200] better",
        "−0.250 −0.100 [−0.200, −0.050] worse",
        "logit −2.50, sum of PatternAttribution 1.25",
        "AOPC 0.375",
        "in truth a name?",
        "a name is left out. a name.",
    ],
)
def test_numbers_are_printed_as_they_are(said):
    assert said in read().text


def test_few_images_give_no_verdict():
    text = read(images_judged=FEW_IMAGES - 1).text
    assert "0.200] better" not in text
    assert "−0.050] worse" not in text


def test_a_page_without_extras_is_still_a_page():
    bare = PatternsPage("t", "l", None, 1, 1, 1, (0, 2), 0, 9, (), PNG, ())
    reader = Reader(render_patterns(bare))
    assert len(reader.all("img")) == 1
    assert not reader.all("details")
    assert not [each for _, each in reader.tags if each.get("role") == "note"]
    assert "mean difference" not in reader.text
