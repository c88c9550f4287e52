"""What stands beside the code: licences, citation, and files for those who build it elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import pytest
import rnncore

ROOT = Path(__file__).parent.parent
YAML = [
    *ROOT.glob(".github/**/*.yml"),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
]


def loaded(path: Path) -> Any:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    text: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return text


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_is_yaml(path: Path) -> None:
    assert isinstance(loaded(path), dict)


def test_the_top_level_holds_what_belongs_there() -> None:
    try:
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a clone by git")
    names = {name.split("/")[0] for name in listed}
    assert {name for name in names if not name.startswith(".")} == {
        *("benchmarks", "cpp", "docs", "examples", "python", "tests"),
        *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "NOTICE", "README.md"),
        *("SECURITY.md", "CMakeLists.txt", "pyproject.toml"),
    }


def test_versions_agree() -> None:
    version = project()["project"]["version"]
    assert loaded(ROOT / "CITATION.cff")["version"] == version
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").count("## Unreleased") == 1


def test_urls_have_one_home() -> None:
    home = project()["project"]["urls"]["Homepage"]
    assert all(url.startswith(home) for url in project()["project"]["urls"].values())
    assert loaded(ROOT / "CITATION.cff")["repository-code"] == home


def test_workflows_run_what_is_there() -> None:
    """Every step has something to run, and every file that it names exists."""
    for path in ROOT.glob(".github/workflows/*.yml"):
        for job in loaded(path)["jobs"].values():
            assert re.fullmatch(r"(ubuntu|macos|windows)-[\w.-]+|\$\{\{ .* \}\}", job["runs-on"])
            for step in job["steps"]:
                assert ("uses" in step) != ("run" in step), step
                for word in step.get("run", "").split():
                    if word.startswith((".ci/", "tests/", "benchmarks/")):
                        assert (ROOT / word).exists(), word


def test_wheels_are_tested_by_what_is_there() -> None:
    config = project()["tool"]["cibuildwheel"]
    command, *tests = config["test-command"].split()
    assert command == "pytest"
    assert all((ROOT / name).is_file() for name in tests)
    assert all((ROOT / name).exists() for name in config["test-sources"])
    supported = {
        version.replace(".", "")
        for version in re.findall(r"Python :: (3\.\d+)", str(project()["project"]["classifiers"]))
    }
    assert {re.sub(r"cp(\d+)-\*", r"\1", name) for name in config["build"]} == supported | {
        "cp314t-*"
    }


def test_groups_are_the_extras() -> None:
    extras = project()["project"]["optional-dependencies"]
    for name, entries in project()["dependency-groups"].items():
        assert entries == [f"rnncore[{name}]"]
        assert name in extras


def test_licences_go_with_the_wheel() -> None:
    files = project()["project"]["license-files"]
    assert all((ROOT / name).is_file() for name in files)
    try:
        installed = metadata("rnncore")
    except PackageNotFoundError:
        pytest.skip("rnncore is not installed")
    assert installed.get_all("License-File") == files


def test_the_command_tells_its_version() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "rnncore", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == f"rnncore {rnncore.__version__}".strip()  # none if not installed
