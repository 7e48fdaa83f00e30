"""The pages: every public package has one, links lead somewhere, the citation is well formed.

`make docs` builds them, with warnings as errors; that takes too long for here.
"""

import json
import re
from importlib import import_module, util
from pathlib import Path

import pytest
import yaml

import captum_blackbox

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PACKAGES = json.loads((ROOT / "tests/contracts/public_api.json").read_text())
WITH_LINKS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
WITH_LINKS += sorted(DOCS.glob("*.md"))


def entries(directive):
    """Name after a directive → the page it is on."""
    return {
        name: page.stem
        for page in REFERENCE.glob("*.rst")
        for name in re.findall(rf"^\.\. {directive}:: (\S+)", page.read_text(), re.MULTILINE)
    }


def relative_links(text):
    """Targets of Markdown links and pictures that are no addresses and no places on the page."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [each.partition("#")[0] for each in targets if not re.match(r"[a-z]+:|#", each)]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_package_has_a_page(package):
    assert package in entries("public-names")
    if package != "captum_blackbox":  # its names have their entries elsewhere
        assert entries("automodule")[package] == entries("public-names")[package]


def test_every_page_is_in_the_contents():
    contents = (REFERENCE / "index.rst").read_text().split("toctree::")[1].split()
    assert set(contents[2:]) == {page.stem for page in REFERENCE.glob("*.rst")} - {"index"}


@pytest.mark.parametrize("package", sorted(entries("automodule")))
def test_a_page_is_about_a_package_that_is_there(package):
    assert import_module(package).__doc__


@pytest.mark.parametrize("name", captum_blackbox.__all__)
def test_every_name_at_the_top_has_an_entry_on_some_page(name):
    value = getattr(captum_blackbox, name)
    pages = entries("automodule")
    homes = [
        package
        for package in pages
        if package == getattr(value, "__name__", None)
        or any(getattr(import_module(package), each) is value for each in exported(package))
    ]
    assert homes


def exported(package):
    return getattr(import_module(package), "__all__", ())


def test_a_link_is_found():
    text = "[a](b.md#c) ![p](q/r.png) [no](https://x.y) [no](#z)\n```\n[no](d.md)\n```\n"
    assert relative_links(text) == ["b.md", "q/r.png"]


@pytest.mark.parametrize("page", WITH_LINKS, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page):
    missing = [
        link for link in relative_links(page.read_text()) if not (page.parent / link).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_what_a_page_includes_is_there_once(page):
    text = page.read_text()
    for block in re.findall(r"```\{include\} (.*?)```", text, re.DOTALL):
        included = (page.parent / block.split("\n")[0]).read_text()
        for border in re.findall(r':(?:start-after|end-before): "(.*)"', block):
            assert included.count(f"\n{border}\n") == 1, border


def test_nothing_is_fetched_when_a_page_is_read():
    settings = (DOCS / "conf.py").read_text()
    assert 'html_math_renderer = "mathml"' in settings
    assert "https:" not in settings
    assert "http:" not in settings


def test_formulas_of_the_tutorials_are_understood():
    written = [path.name for path in (ROOT / "tutorials").glob("*.py") if "$" in path.read_text()]
    assert not written or "dollarmath" in (DOCS / "conf.py").read_text(), written


@pytest.fixture
def tutorial_pages(monkeypatch, tmp_path):
    """The module that writes the pages of tutorials, and a tutorial of three cells."""
    monkeypatch.setenv("TUTORIAL_OUT", "set anew by a run, and put back here")
    spec = util.spec_from_file_location("tutorial_pages", DOCS / "tutorial_pages.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = tmp_path / "01_toy.py"
    source.write_text(
        "# %% [markdown]\n# # Toy\n#\n# Some *text*.\n\n# %%\nimport os\n"
        "from pathlib import Path\n\n# %%\nprint(6 * 7)\n"
        "(Path(os.environ['TUTORIAL_OUT']) / 'dot.png').write_bytes(b'png')\n"
    )
    return module, source


def test_a_tutorial_that_is_not_run_shows_text_and_code(tutorial_pages, tmp_path):
    module, source = tutorial_pages
    assert module.write_page(source, tmp_path, run=False)
    page = (tmp_path / "01_toy.md").read_text()
    assert page.startswith("# Toy\n\nSome *text*.\n\n```python\nimport os\n")
    assert "```python\nprint(6 * 7)\n" in page
    assert "dot.png)" not in page


def test_a_tutorial_that_is_run_shows_what_it_printed_and_drew_below_the_cell(
    tutorial_pages, tmp_path
):
    module, source = tutorial_pages
    assert module.write_page(source, tmp_path, run=True)
    page = (tmp_path / "01_toy.md").read_text()
    assert page.endswith("```\n\n```text\n42\n```\n\n![dot](01_toy/dot.png)\n")
    assert (tmp_path / "01_toy/dot.png").read_bytes() == b"png"


def test_what_a_run_showed_is_kept_until_the_tutorial_changes(tutorial_pages, tmp_path):
    module, source = tutorial_pages
    module.write_page(source, tmp_path, run=True)
    assert not module.write_page(source, tmp_path, run=False)
    assert "dot.png)" in (tmp_path / "01_toy.md").read_text()
    source.write_text(source.read_text().replace("6 * 7", "6 * 8"))
    assert module.write_page(source, tmp_path, run=False)
    assert "dot.png)" not in (tmp_path / "01_toy.md").read_text()


def test_a_tutorial_that_fails_fails_the_run(tutorial_pages, tmp_path):
    module, source = tutorial_pages
    source.write_text("# %%\nassert 1 > 2, 'a claim'\n")
    with pytest.raises(AssertionError, match="a claim"):
        module.write_page(source, tmp_path, run=True)
    assert not (tmp_path / "01_toy.md").exists()


@pytest.fixture
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_citation_names_this_version_and_licence(citation):
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["title"] == "captum_blackbox"
    assert citation["authors"] == [{"name": "The captum_blackbox authors"}]
    assert citation["version"] == captum_blackbox.__version__
    assert citation["license"] == "BSD-3-Clause"
    assert citation["type"] == "software"


def test_the_citation_names_the_paper_of_each_method(citation):
    papers = [(each["authors"][0]["family-names"], each["year"]) for each in citation["references"]]
    assert papers == [("Jeong", 2021), ("Kindermans", 2018), ("Bau", 2017), ("Ghorbani", 2019)]
    for each in citation["references"]:
        assert each["type"] in {"article", "conference-paper"}
        assert each["url"].startswith("https://")
        assert each["title"]
        for name in each["notes"].split(", "):
            assert name in captum_blackbox.__all__
        assert all({"family-names"} <= set(a) or set(a) == {"name"} for a in each["authors"])
