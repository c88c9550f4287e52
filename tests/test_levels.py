"""How the library's files may use each other, beside the levels that import-linter keeps."""

import ast
from pathlib import Path

import pytest
import rnncore

ROOT = Path(rnncore.__file__).parent
FILES = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py")}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
#: What `Module` declares, with a default for every module (and `dtype`, which arrays have too).
DECLARED = {"batch_first", "bidirectional", "directions", "looks_ahead", "pointwise", "recurrent"}
DECLARED |= {"stages", "takes_indices"}


def _own_imports(tree: ast.AST) -> set[str]:
    """The names that relative imports bind, and the modules that they name."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name for node in found for alias in node.names} | {f"{n.module}" for n in found}


@pytest.mark.parametrize("name", FILES)
def test_one_file_imports_the_compiled_core(name):
    assert "_core" not in _own_imports(TREES[name]) or name in ("compiled.py", "__init__.py")


@pytest.mark.parametrize("name", FILES)
def test_imports_within_functions_are_optional_packages(name):
    if name.startswith("commands/"):  # a command starts as fast as what it needs
        return
    functions = (n for n in ast.walk(TREES[name]) if isinstance(n, ast.FunctionDef))
    assert not {own for function in functions for own in _own_imports(function)}


@pytest.mark.parametrize("name", FILES)
def test_what_modules_declare_needs_no_default(name):
    calls = (n for n in ast.walk(TREES[name]) if isinstance(n, ast.Call) and len(n.args) == 3)
    asked = [c.args[1] for c in calls if isinstance(c.func, ast.Name) and c.func.id == "getattr"]
    names = {argument.value for argument in asked if isinstance(argument, ast.Constant)}
    assert not names & DECLARED
