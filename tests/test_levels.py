"""How the library's files may use each other, beside the levels that import-linter keeps."""

import ast
from pathlib import Path

import pytest
import rnncore

ROOT = Path(rnncore.__file__).parent
#: What `Module` declares, with a default for every module (and `dtype`, which arrays have too).
DECLARED = {"batch_first", "bidirectional", "directions", "looks_ahead", "pointwise", "recurrent"}
DECLARED |= {"stages", "takes_indices"}


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """The syntax of each of the library's files, by its path."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in ROOT.rglob("*.py")
    }


def _own_imports(tree: ast.AST) -> set[str]:
    """The names that relative imports bind, and the modules that they name."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name for node in found for alias in node.names} | {f"{n.module}" for n in found}


def test_one_file_imports_the_compiled_core(trees):
    found = {name for name, tree in trees.items() if "_core" in _own_imports(tree)}
    assert found == {"compiled.py", "__init__.py"}


def test_imports_within_functions_are_optional_packages(trees):
    for name, tree in trees.items():
        functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
        found = {own for function in functions for own in _own_imports(function)}
        # A command starts as fast as what it needs.
        assert not found or name.startswith("commands/"), f"{name}: {found}"


def test_what_modules_declare_needs_no_default(trees):
    for name, tree in trees.items():
        calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and len(n.args) == 3)
        asked = [c.args[1] for c in calls if ast.unparse(c.func) == "getattr"]
        names = {argument.value for argument in asked if isinstance(argument, ast.Constant)}
        assert not names & DECLARED, f"{name}: {names & DECLARED}"
