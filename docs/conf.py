"""The site: sphinx-build -W docs build/site."""

import re
from importlib.util import find_spec

import rnncore

project = "rnncore"
version = release = rnncore.__version__
html_title = project
html_theme = "furo"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
default_role = "code"
autodoc_mock_imports = [] if find_spec("torch") else ["torch"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_default_options = {  # scikit-learn's, whose docstrings refer to its own site
    "exclude-members": ", ".join(
        f"set_{method}_request"
        for method in ("fit", "partial_fit", "score", "transform", "inverse_transform")
    )
}


def literal_blocks(app, what, name, obj, options, lines):
    """Show what is indented in a docstring, equations and code, as it stands there."""
    lines[:] = re.sub(r"\n\n(?= {4}\S)", r"\n\n::\n\n", "\n".join(lines)).split("\n")


def setup(app):
    """Connect the above."""
    app.connect("autodoc-process-docstring", literal_blocks)
