"""How Sphinx builds the pages: `make docs`, or `make pages` with the tutorials run before."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from captum_blackbox import __version__  # noqa: E402

project = "captum_blackbox"
author = "The captum_blackbox authors"
copyright = author  # noqa: A001 - Sphinx's name
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_parser",
    "site_extension",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"captum_blackbox {release}"
html_static_path: list[str] = []
# The pages need no network: formulas become MathML, letters are the reader's own.
html_math_renderer = "mathml"

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_default_options = {
    # Members of our own bases belong to a class; those of these do not.
    "inherited-members": (
        "Attribution, GradientAttribution, LayerAttribution, PerturbationAttribution, "
        "Perturbation, Module, Dataset, Composite, Mapping, Sequence, StrEnum, Protocol, ABC, "
        "tuple, Exception, Warning, object"
    ),
}
autodoc_inherit_docstrings = False  # Captum's are in another style
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them
toc_object_entries_show_parents = "hide"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# What cannot be linked without a network, and what has no entry of its own.
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|contextlib|hypothesis|jaxtyping|numpy|pathlib|PIL|torch|zennit)\..*"),
    (r"py:class", r"Tensor"),
    (r"py:class", r"'.*'"),  # the shape in Float[Tensor, "batch channels height width"]
    (r"py:class", r"captum_blackbox\.\w+\.\w+\..*"),  # types that are not public
]
# Pages that are parts of the README start at a lower level of its headings.
suppress_warnings = ["myst.header"]
