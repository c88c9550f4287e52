"""Every public name that came or went since the last release stands in the changelog.

At a release `python -m tests.test_changelog` writes the list of its names.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "rnncore"
#: Public names, one a line: those of the last release (before the first: when the changelog began).
RELEASED = Path(__file__).parent / "public_names.txt"
#: The modules that users import from; "" is `rnncore` itself.
MODULES = (
    *(
        "",
        "batches",
        "cells",
        "convert",
        "distributed",
        "distributions",
        "estimators",
        "forecasting",
    ),
    *("init", "losses", "optim", "schedules", "search", "text", "torch", "training"),
)


def source(module: str) -> Path:
    """The file that says what a module makes public."""
    folder = PACKAGE / module
    for path in (folder / "__init__.pyi", folder / "__init__.py", folder.with_suffix(".py")):
        if path.is_file():
            return path
    raise FileNotFoundError(f"there is no rnncore.{module}")


def names_in(text: str) -> set[str]:
    """What a module of this text makes public: `__all__`, or what it defines and exports."""
    found: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):  # `import X as X` exports X
            found |= {alias.name for alias in node.names if alias.asname == alias.name}
    return {name for name in found if not name.startswith("_")}


def public_names() -> set[str]:
    return {
        ".".join(filter(None, ("rnncore", module, name)))
        for module in MODULES
        for name in names_in(source(module).read_text(encoding="utf-8"))
    }


def said(changelog: str) -> set[str]:
    """The words between backticks under "Unreleased"."""
    latest = re.split(r"^## ", changelog, flags=re.MULTILINE)[1]
    assert latest.startswith("Unreleased")
    return {word for code in re.findall(r"`([^`]+)`", latest) for word in re.findall(r"\w+", code)}


def unsaid(now: set[str], released: set[str], changelog: str) -> set[str]:
    """Names that came or went of which the changelog says nothing."""
    words = said(changelog)
    return {name for name in now ^ released if name.rpartition(".")[2] not in words}


def test_public_names_that_changed_stand_in_the_changelog() -> None:
    released = set(RELEASED.read_text(encoding="utf-8").split())
    missing = unsaid(public_names(), released, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert not missing, f"CHANGELOG.md, Unreleased, says nothing of {', '.join(sorted(missing))}"


def test_a_name_without_an_entry_is_found() -> None:
    changelog = "# Changelog\n\n## Unreleased\n\n- `New(size)`.\n\n## 0.1\n\n- `Older`, Gone.\n"
    released = {"rnncore.Gone", "rnncore.Kept"}
    now = {"rnncore.Kept", "rnncore.New", "rnncore.layers.Older"}
    assert unsaid(now, released, changelog) == {"rnncore.Gone", "rnncore.layers.Older"}


def test_names_are_those_that_are_exported() -> None:
    text = "from .a import B as B\nfrom .a import c\nclass D: ...\ndef e(): ...\ndef _f(): ...\n"
    assert names_in(text) == {"B", "D", "e"}
    assert names_in(text + '__all__ = ["B"]\n') == {"B"}
    assert {"rnncore.LSTM", "rnncore.convert.from_keras", "rnncore.optim.Adam"} < public_names()


if __name__ == "__main__":
    RELEASED.write_text("\n".join(sorted(public_names())) + "\n", encoding="utf-8")
