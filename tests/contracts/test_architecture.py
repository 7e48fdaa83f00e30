"""The shape of the code base: small files, one place for hooks, one for private names."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "captum_blackbox"
FILES = sorted(PACKAGE.rglob("*.py"))


def code(path):
    return path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_holds_one_idea(path):
    assert len(code(path).splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_hooks_and_private_captum_names_have_one_home(path):
    if path.name != "hooks.py":
        assert not re.search(r"\.register_\w*hook", code(path))
    if path.name != "_compat.py":
        assert not re.search(
            r"(captum|zennit)\S*\._", code(path).replace("captum_blackbox._compat", "")
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_is_unpickled_and_nothing_asserted(path):
    assert not re.search(r"^\s*(import|from) \w*pickle", code(path), re.MULTILINE)
    assert not re.search(r"torch\.load\((?!.*weights_only=True)", code(path))
    assert not re.search(r"\beval\(|\bexec\(", code(path).replace(".eval()", ""))
    assert not re.search(r"^\s*assert ", code(path), re.MULTILINE)
