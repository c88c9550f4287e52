"""The site: sphinx-build -W docs build/site.

With RNNCORE_DOCS_ONLINE set, names of NumPy, scikit-learn and PyTorch become links to their sites;
then the build reads the lists of names there, and without it needs no network.
"""

import inspect
import os
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import rnncore
from sphinx.ext.intersphinx import resolve_reference_detect_inventory
from sphinx.util import logging
from sphinx.util.inspect import stringify_signature
from sphinx.util.typing import stringify_annotation

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # for the extension in charts.py

project = "rnncore"
copyright = "the rnncore developers"
version = release = rnncore.__version__
html_title = f"{project} {version}"
html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["site.css"]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.linkcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "charts",
]
suppress_warnings = ["ref.python"]  # two classes are called Vocabulary
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "code"
toc_object_entries_show_parents = "hide"
copybutton_exclude = ".linenos, .gp, .go"
intersphinx_mapping = (
    {
        "numpy": ("https://numpy.org/doc/stable/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
    if os.environ.get("RNNCORE_DOCS_ONLINE")
    else {}
)

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": (project,),
    "reference_url": {project: None},
    "show_signature": False,
    "capture_repr": (),
    "abort_on_example_error": True,
}

autodoc_mock_imports = [] if find_spec("torch") else ["torch"]
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
autodoc_type_aliases = {name: name for name in ("Array", "State", "npt.ArrayLike")}
autodoc_default_options = {
    "members": True,
    "special-members": "__call__",
    # Members of base classes as well, but for these, which have an entry of their own or none.
    "inherited-members": "Module, RecurrentBase, HoldsWeights, BaseEstimator, tuple, object",
    # What compositions ask of their parts, described at `Module`.
    "exclude-members": "stages, out_width, children, compiles, branches, slide",
}

REPOSITORY = re.search(
    r'^Homepage = "(.*)"', DOCS.with_name("pyproject.toml").read_text(), re.M
)[1]


def linkcode_resolve(domain, info):
    """Return where the source of a name is."""
    found = import_module(info["module"])
    for name in info["fullname"].split("."):
        found = getattr(found, name, None)
    found = inspect.unwrap(found.fget if isinstance(found, property) else found)
    try:
        file = Path(inspect.getsourcefile(found)).resolve()
        lines, first = inspect.getsourcelines(found)
        path = file.relative_to(Path(rnncore.__file__).resolve().parent).as_posix()
    except (TypeError, OSError, ValueError):  # compiled, an attribute, or not ours
        return None
    return f"{REPOSITORY}/blob/main/python/rnncore/{path}#L{first}-L{first + len(lines) - 1}"


def literal_blocks(app, what, name, obj, options, lines):
    """Show what is indented in a docstring, equations and code, as it stands there."""
    lines[:] = re.sub(r"\n\n(?= {4}\S)", r"\n\n::\n\n", "\n".join(lines)).split("\n")


def skip_foreign(app, what, name, obj, skip, options):
    """Leave out what scikit-learn and PyTorch add: their docstrings refer to their own sites."""
    module = getattr(obj, "__module__", None) or ""
    return True if module.split(".")[0] in ("sklearn", "torch") else None


def written_signature(app, what, name, obj, options, signature, returns):
    """Show types by the names that the code gives them, and what no `(*args, **kwargs)` hides."""
    if signature and not inspect.isbuiltin(obj):
        written = inspect.signature(obj)
        parameters = [
            p for p in written.parameters.values() if p.name not in ("self", "cls")
        ]
        written = written.replace(parameters=parameters)
        signature = stringify_signature(written, show_return_annotation=False)
        if what != "class" and written.return_annotation is not written.empty:
            returns = stringify_annotation(written.return_annotation)
    mocked = autodoc_mock_imports and name.startswith("rnncore.torch.")
    if signature and not mocked and re.search(r"\*args\b.*\*\*kwargs\b", signature):
        logging.getLogger(__name__).warning(
            "%s shows %s: name what it takes", name, signature
        )
    return tuple(text and qualified(text) for text in (signature, returns))


def qualified(text):
    """Write `npt.ArrayLike` and the like as links that show the last part of the name."""
    return re.sub(
        r"(?<!= )\bnp\.", "~numpy.", re.sub(r"\bnpt\.", "~numpy.typing.", text)
    )


def resolve_alias(app, env, node, contnode):
    """Find types that another site lists as data, such as `numpy.typing.ArrayLike`."""
    if node.get("refdomain") != "py" or not intersphinx_mapping:
        return None
    node["reftype"] = "obj"
    return resolve_reference_detect_inventory(env, node, contnode)


def setup(app):
    """Connect the above."""
    app.connect("autodoc-process-docstring", literal_blocks)
    app.connect("missing-reference", resolve_alias)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-signature", written_signature)
