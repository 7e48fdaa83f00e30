"""What these pages need beyond Sphinx: tables of public names, and formulas without a script."""

import ast
import html
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autosummary import Autosummary
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

ROOT = "captum_blackbox"
_COLON = "\N{RATIO}"
_log = logging.getLogger(__name__)


class PublicNames(Autosummary):
    """``.. public-names:: package``: its ``__all__`` as a table that links to the entries."""

    has_content = False
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table: each name, and the first sentence of its docstring."""
        package = self.arguments[0]
        self.options["nosignatures"] = None
        entries = [f"~{entry_of(package, name)}" for name in import_module(package).__all__]
        return self.get_table(self.get_items(entries))


def entry_of(package: str, name: str) -> str:
    """Return the full name under which a public name is documented.

    What the top of the library exports has its entry on the page of the package it comes from.
    """
    if package != ROOT:
        return f"{package}.{name}"
    value = getattr(import_module(ROOT), name)
    if isinstance(value, ModuleType):
        return value.__name__
    home = value.__module__
    while name not in getattr(import_module(home), "__all__", ()):
        home = home.rpartition(".")[0]
    return f"{home}.{name}"


def document_constants(app: Sphinx) -> None:
    """Let a package know the docstrings of the constants that it imports from its modules.

    Sphinx finds the docstring of a constant in the source where it is set, and there only.
    """
    for page in Path(app.srcdir, "reference").glob("*.rst"):
        for package in re.findall(r"public-names:: (\S+)", page.read_text(encoding="utf-8")):
            here = _analysed(package)
            for module, name in _imported(here.code):
                text = _analysed(module).attr_docs.get(("", name))
                if text:
                    here.attr_docs["", name] = [*text, ":meta hide-value:", ""]


def _analysed(module: str) -> ModuleAnalyzer:
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    return analyzer


def _imported(code: str) -> list[tuple[str, str]]:
    return [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(ROOT)
        for alias in node.names
    ]


def hide_colon(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Hide a colon from Napoleon, which takes what stands before it in a property for a type."""
    if what in {"attribute", "data", "property"}:
        lines[:1] = [line.replace(":", _COLON) for line in lines[:1]]


def show_colon(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Show it again."""
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def readable_defaults(
    app: Sphinx,
    what: str,
    name: str,
    value: object,
    options: object,
    signature: str | None,
    result: str | None,
) -> tuple[str | None, str | None]:
    """Show defaults that a data class makes anew as ``...``, which is an expression."""
    return signature and signature.replace("<factory>", "..."), result


def skip_member(
    app: Sphinx, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    """Skip what comes from Captum, and fields that the docstring of their named tuple describes."""
    of_captum = str(getattr(value, "__module__", "")).startswith("captum.") or (
        name == "compute_convergence_delta" and not callable(value)  # annotated there, not set
    )
    is_field = str(getattr(value, "__doc__", "")).startswith("Alias for field number")
    return True if of_captum or is_field else None


def unlink_files(app: Sphinx, doctree: nodes.document) -> None:
    """Make text of links to files of the repository that have no page here."""
    for node in list(doctree.findall(pending_xref)):
        target = str(node.get("reftarget", "")).partition("#")[0]
        if node.get("reftype") != "myst" or not target:
            continue
        # MyST has seen the file of a document; an included page names files as the README does.
        is_elsewhere = node.get("refdomain") == "doc" and target not in app.env.found_docs
        if is_elsewhere or (app.srcdir.parent / target).exists():
            node.replace_self(node.children)


def find_public(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    """Link a name to its entry, where a docstring or type names the module that defines it."""
    if node.get("refdomain") != "py" or not node.get("refdoc"):
        return None
    target, module = node["reftarget"], node.get("py:module") or ROOT
    first, _, rest = target.removeprefix(f"{ROOT}.").partition(".")
    if first in import_module(ROOT).__all__:
        target = ".".join(filter(None, (entry_of(ROOT, first), rest)))
    found = [
        (name, entry)
        for name, entry in env.domains.python_domain.objects.items()
        if not entry.aliased and _means(target, name, module)
    ]
    if len(found) != 1:
        return None
    name, entry = found[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, [text], name)


def _means(target: str, entry: str, module: str) -> bool:
    """Tell whether a target is the entry ``package.Name`` or ``package.Name.attribute``.

    A target may lack the start, or name a module of the package, ``package.module.Name``.
    """
    if not target.startswith(ROOT):
        return entry.startswith(module) and entry.endswith(f".{target}")
    here, there = target.split("."), entry.split(".")
    return target == entry or (
        len(here) == len(there) + 1 > 3 and here[:2] == there[:2] and here[3:] == there[2:]
    )


def inline_formula(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula as MathML, which browsers show by themselves."""
    translator.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def block_formula(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    translator.body.append(f'<div class="math">{_mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, as_block: bool) -> str:
    # In MathML parentheses grow with what they enclose, and the place decides the style.
    formula = re.sub(r"\\(?:[Bb]igg?|textstyle)(?![A-Za-z])", "", node.astext())
    try:
        return tex2mathml(formula, as_block=as_block)
    except MathError as error:
        _log.warning("cannot show the formula %s: %s", formula, error, location=node)
        return f"<code>{html.escape(formula)}</code>"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Add them to Sphinx."""
    app.add_directive("public-names", PublicNames)
    app.connect("builder-inited", document_constants)
    app.connect("autodoc-process-docstring", hide_colon, priority=400)  # Napoleon has 500
    app.connect("autodoc-process-docstring", show_colon, priority=600)
    app.connect("autodoc-process-signature", readable_defaults)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("doctree-read", unlink_files)
    app.connect("missing-reference", find_public)
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
