"""The page on patterns: complete in itself, harmless, readable by machines that read to people."""

import base64
import dataclasses
import io

import pytest
import torch
from page_reader import EVIL, Reader
from PIL import Image

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


def test_every_text_is_escaped():
    harmless, evil = read(), read(text=EVIL)
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in harmless.tags]
    assert not evil.all("script")
    assert not any(name.startswith("on") for _, attributes in evil.tags for name in attributes)
    assert "".join(evil.words).count(EVIL) >= 14


def test_every_picture_has_a_description_and_travels_inside_the_page():
    images = read().all("img")
    assert [each["alt"] for each in images] == [
        "Mean degradation curve of each method; the areas are in the table above.",
        "The image a name, predicted as a name.",
        "a name of a name, in colour.",
        "a name of a name, red for the class and blue against it.",
    ]
    for attributes in images:
        head, _, data = attributes["src"].partition(",")
        assert head == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).load()


def test_nothing_is_loaded_from_elsewhere():
    text = render_patterns(page())
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert not Reader(text).all("link")


def test_the_page_can_be_read_without_seeing_it():
    reader = read()
    assert reader.all("html") == [{"lang": "en"}]
    assert all(each.get("scope") in {"col", "row"} for each in reader.all("th"))
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [each["href"][1:] for each in reader.all("a") if each["href"].startswith("#")]
    labels = [each["aria-labelledby"] for _, each in reader.tags if "aria-labelledby" in each]
    assert set(targets + labels) <= set(ids)
    assert targets == ["methods", "reading", "images", "settings"]
    assert len(reader.all("h1")) == 1
    assert [each for each in reader.all("meta") if each.get("name") == "viewport"]


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
