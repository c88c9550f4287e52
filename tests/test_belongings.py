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


def workflows() -> dict[str, dict[str, Any]]:
    return {path.stem: loaded(path) for path in ROOT.glob(".github/workflows/*.yml")}


def test_workflows_run_what_is_there() -> None:
    """Every step has something to run, and every file that it names exists."""
    for workflow in workflows().values():
        for job in workflow["jobs"].values():
            assert re.fullmatch(r"(ubuntu|macos|windows)-[\w.-]+|\$\{\{ .* \}\}", job["runs-on"])
            needs = job.get("needs", [])
            needs = [needs] if isinstance(needs, str) else needs
            assert set(needs) <= set(workflow["jobs"])
            for step in job["steps"]:
                assert ("uses" in step) != ("run" in step), step
                for word in step.get("run", "").split():
                    if word.startswith((".ci/", "tests/", "benchmarks/")):
                        assert (ROOT / word).exists(), word


def test_a_tag_is_published_with_attestations() -> None:
    workflow = workflows()["wheels"]
    triggers = workflow[True]  # YAML 1.1 takes the key `on` for a truth
    assert triggers["push"] == {"tags": ["v*"]}
    job = workflow["jobs"]["publish"]
    assert job["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(job["needs"]) == set(workflow["jobs"]) - {"publish"}
    # Nothing but the workflow's own identity: no token is stored anywhere.
    assert job["permissions"] == {"id-token": "write", "attestations": "write"}
    upload = job["steps"][-1]
    assert upload["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert upload["with"] == {"attestations": True}


def test_the_workflow_builds_for_every_system() -> None:
    """Each system that wheels are promised for has a runner of its own kind."""
    matrix = workflows()["wheels"]["jobs"]["wheels"]["strategy"]["matrix"]
    kinds = {(re.match(r"[a-z]+", name)[0], "arm" in name) for name in matrix["os"]}  # type: ignore[index]
    assert {("ubuntu", False), ("ubuntu", True), ("windows", False), ("windows", True)} <= kinds
    assert {"macos-15", "macos-15-intel"} <= set(matrix["os"])
    assert "pyodide" in [entry["platform"] for entry in matrix["include"]]


def test_cibuildwheel_knows_its_options() -> None:
    schemas = pytest.importorskip("cibuildwheel.schema", reason="needs cibuildwheel")
    validators = pytest.importorskip("fastjsonschema", reason="needs fastjsonschema")
    schema = schemas.get_schema()
    check = validators.compile(schema, use_formats=False)
    config = project()["tool"]["cibuildwheel"]
    check(config)
    with pytest.raises(validators.JsonSchemaException):
        check({**config, "no-such-option": True})


def test_wheels_are_tested_by_what_is_there() -> None:
    config = project()["tool"]["cibuildwheel"]
    for options in (config, config["pyodide"]):
        command, *tests = options["test-command"].split()
        assert command == "pytest"
        assert all((ROOT / name).is_file() for name in tests)
    assert all((ROOT / name).exists() for name in config["test-sources"])
    # What every test needs to be collected at all.
    imported = re.findall(r"^import (\w+)", (ROOT / "tests/conftest.py").read_text(), re.MULTILINE)
    required = {re.match(r"[\w-]+", name)[0] for name in config["test-requires"]}  # type: ignore[index]
    assert set(imported) - set(sys.stdlib_module_names) - {"numpy", "rnncore"} <= required
    supported = {
        version.replace(".", "")
        for version in re.findall(r"Python :: (3\.\d+)", str(project()["project"]["classifiers"]))
    }
    assert {re.sub(r"cp(\d+)-\*", r"\1", name) for name in config["build"]} == supported | {
        "cp314t-*"
    }


@pytest.mark.parametrize(
    ("platform", "machine", "kinds"),
    [
        ("linux", "x86_64", {"manylinux_x86_64", "musllinux_x86_64"}),
        ("linux", "aarch64", {"manylinux_aarch64", "musllinux_aarch64"}),
        ("macos", "x86_64", {"macosx_x86_64"}),
        ("macos", "arm64", {"macosx_arm64"}),
        ("windows", "AMD64", {"win_amd64"}),
        ("windows", "ARM64", {"win_arm64"}),
        ("pyodide", "wasm32", {"pyodide_wasm32"}),
    ],
)
def test_wheels_of_every_python(platform: str, machine: str, kinds: set[str]) -> None:
    """What cibuildwheel itself says that it would build; a few older Pythons lack some systems."""
    pytest.importorskip("cibuildwheel", reason="needs cibuildwheel")
    arguments = ["--print-build-identifiers", "--platform", platform, "--archs", machine, str(ROOT)]
    said = subprocess.run(
        [sys.executable, "-m", "cibuildwheel", *arguments], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    every = {"cp310", "cp311", "cp312", "cp313", "cp314", "cp314t"}
    wheels = {"cp314"} if platform == "pyodide" else every
    assert set(said.stdout.split()) == {f"{tag}-{kind}" for tag in wheels for kind in kinds}


def test_compilers_extensions_have_one_home() -> None:
    """Another compiler is met in three headers. (Pragmas it may pass over by itself.)"""
    home = {"cpp/engine/compiler.hpp", "cpp/kernels/packets.hpp", "cpp/kernels/simd.hpp"}
    beyond = re.compile(
        r"__builtin_|__attribute__|\[\[gnu::|\b(__)?asm(__)?\b|__int128|= *\(\{|__restrict|typeof"
    )
    for path in [*ROOT.glob("cpp/**/*.[ch]pp")]:
        name = path.relative_to(ROOT).as_posix()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            code = line.partition("//")[0]
            assert name in home or not beyond.search(code), f"{name}:{number}: {line}"


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
