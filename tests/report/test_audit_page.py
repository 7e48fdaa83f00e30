"""The page of an audit: complete in itself, harmless, and says every number."""

import dataclasses

import torch
from page_contract import PageContract
from page_reader import Reader

from captum_blackbox.report import ContributionRow, Difference, picture_png
from captum_blackbox.report.audit_page import (
    AttackedMap,
    AuditedImage,
    AuditMap,
    AuditPage,
    AxiomRow,
    ConceptTerms,
    FragilityRow,
    MethodVerdict,
    MetricCell,
    MetricColumn,
    render_audit,
)

PNG = picture_png(torch.rand(3, 8, 8), edge=8)


def page(text="a name", **changes):
    terms = ConceptTerms(
        [ContributionRow(text, 3.0, 2, True), ContributionRow("bias", -1.0, 0, False)],
        2.0,
        False,
        [(7, text, 1.25)],
    )
    verdict = MethodVerdict(
        text, text, "care", text, text, (3, 4), 0.125, "8/255", (5, 9), 1.5, (10.0, 11.0)
    )
    full = AuditPage(
        title=text,
        lead=text,
        images_judged=12,
        verdicts=[verdict, MethodVerdict("Random", text, "none", text, text)],
        metrics=[MetricColumn(text, True), MetricColumn("Deletion", False)],
        faithful={
            text: [
                MetricCell(0.25, Difference(0.2, 0.1, 0.3), "better"),
                MetricCell(None),
            ]
        },
        ranks=PNG,
        fragility=[
            FragilityRow(text, text, text, 0.125, 0.75, 0.5, 3.25, (11, 12)),
            FragilityRow("Held", None, "8/255", 0.625, None, 0.5, 3.25, (1, 12)),
            FragilityRow("RISE", None, "8/255", None, 0.375, None, None, (6, 12), text),
            FragilityRow("Random", reason=text),
        ],
        attacked=[
            AttackedMap(text, PNG, PNG, PNG, PNG, "16", 0.125, {"after": f"maps/{text}.png"})
        ],
        attacked_name=text,
        axioms={text: text, "dummy": text},
        axiom_rows=[AxiomRow(text, [True, False]), AxiomRow("Unknown", [])],
        images=[
            AuditedImage(
                text,
                PNG,
                text,
                0.75,
                text + "?",
                [
                    AuditMap(text, PNG, {text: text}, links={text: "maps/b.png"}),
                    AuditMap(text, None, {}, text),
                ],
                terms,
            )
        ],
        layer=text,
        detectors=(3, 96),
        area=0.17,
        failures=[(text, text, text)],
        hidden=8,
        notes=[text],
        skipped={text: text},
        settings={text: text},
        links={text: "audit.json"},
    )
    return dataclasses.replace(full, **changes)


def read(**changes):
    return Reader(render_audit(page(**changes)))


class TestContract(PageContract):
    sections = [
        "believe",
        "looked",
        "faithful",
        "breaks",
        "axioms",
        "failures",
        "reading",
        "settings",
    ]
    alts = [
        "The image Ada, predicted as Ada.",
        "Ada of Ada.",
        "Average rank of each method by each metric; the means are in the table of the summary.",
        "Ada before the attack.",
        "Ada after the attack; 12.5 % of the most important pixels are left.",
        "The image changed by the attack on Ada.",
        "The change by the attack on Ada, amplified 16 times.",
    ]
    texts = 35
    scripts = 1

    def html(self, text):
        return render_audit(page(text))


def test_what_is_not_there_has_no_section():
    found = read(images=[], failures=[], attacked=[], ranks=None, notes=[], layer="", area=None)
    addresses = [each["href"] for each in found.all("a")]
    assert addresses == [
        "#believe", "#faithful", "#breaks", "#axioms", "#reading", "#settings", "audit.json",
    ]  # fmt: skip
    assert not found.all("img")
    assert "detect a concept" not in found.text
    assert "true cause" not in found.text


def test_tables_have_captions_and_scopes():
    found = read()
    heads = found.all("th")
    assert all(each.get("scope") in {"col", "row"} for each in heads if heads)
    named = len(found.all("caption")) + sum("aria-label" in t for t in found.all("table"))
    of_base = sum(
        t.get("class") == "settings" or t.get("id") == "skipped" for t in found.all("table")
    )
    assert named + of_base == len(found.all("table"))


def test_the_numbers_are_said():
    text = read().text.replace("\u00a0", " ")
    for words in (
        "images explained and judged 12",
        "not attacked: a name; by random signs held up to 8/255 – 37.5 % – – 6 of 12",
        "3 of 4",
        "12.5 % at 8/255",
        "5 of 9",
        "1.50 10 11",
        "0.250 better 0.200 [0.100, 0.300]",
        "higher is better",
        "lower is better",
        "breaks at a name",
        "held up to 8/255",
        "12.5 % 75.0 % 0.500 3.2 11 of 12",
        "not attacked: a name",
        "12.5 % of the most important pixels are left",
        "not checked",
        "in truth a name?",
        "a name (2) 3.00 bias −1.00 score (contributions to first order)2.00",
        "unit 7a name1.25",
        "no map: a name",
        "8 further images are in the numbers and in the files only",
        "The true cause fills 17.0 % of an image",
    ):
        assert words in text or words.replace(" ", "") in text.replace(" ", ""), words


def test_sorting_has_a_number_for_every_cell_that_is_one():
    values = [each["data-value"] for each in read().all("td") if "data-value" in each]
    assert {"0.125", "0.75", "1.5", "10.0", "11", "", "0.25"} <= set(values)


def test_bars_lie_on_one_axis_with_zero_between():
    terms = page().images[0].concepts
    assert [terms.bar(row) for row in terms.rows] == [(25.0, 75.0), (0.0, 25.0)]
    assert terms.zero == 25.0
    assert ConceptTerms([], 0.0, True, []).zero == 0.0


def test_the_counts_on_top_are_of_the_rows():
    text = read().text
    assert "of 1 method is supported as far as tested" in text  # random maps are no method
    assert "of 2 attacked explanations broke1" in text.replace("broke 1", "broke1")
    assert "image explained and judged" in read(images_judged=1).text
