"""Instruction sets in one module: each level apart from the others, true to its name, and right."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rnncore import _core

from tests.support.processes import run_python

ROOT = Path(__file__).resolve().parents[2]

#: From the lowest to the highest.
LEVELS: list[str] = _core.info()["compiled_for"]

#: The tests that walk the table of cells, and those of other kernels.
TABLE = (
    "recurrent/test_recurrent",
    "layers/test_activations",
    "core/test_weights",
    "alignment/test_ctc",
)

VECTOR_BYTES = {"v2": 16, "v3": 32, "v4": 64}

#: What a kernel may take from outside: the C library's ways to move memory, and functions.
OUTSIDE = re.compile(
    r"(__)?mem(cpy|move|set)(_chk)?|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|(exp|log|log1p|sin|cos)f?"
)


def info_at(level: str) -> dict[str, Any]:
    """What a process says of itself that is forced to a level, or to none."""
    facts: dict[str, Any] = ast.literal_eval(
        run_python("from rnncore import _core; print(_core.info())", RNNCORE_ISA=level)
    )
    return facts


@functools.cache
def best() -> str:
    """The level that this processor gets."""
    return str(info_at("")["instruction_set"])


def skip_unless_it_runs(level: str) -> None:
    if LEVELS.index(level) > LEVELS.index(best()):
        pytest.skip(f"this processor does not run {level}")


def kernels_of(level: str) -> str:
    """The level whose kernels it has: v4's for v4_vnni."""
    return level.split("_")[0]


#: The levels that have kernels of their own.
COMPILED = [level for level in LEVELS if level == kernels_of(level)]


def import_error(level: str) -> str:
    code = """
    try:
        import rnncore
    except ImportError as error:
        print(error)
    """
    return run_python(code, RNNCORE_ISA=level).strip()


class TestEachLevel:
    @pytest.mark.parametrize("level", LEVELS)
    def test_is_what_its_name_says(self, level: str) -> None:
        skip_unless_it_runs(level)
        info = info_at(level)
        assert info["instruction_set"] == level
        if level != "native":
            assert info["macros"] == kernels_of(level)
        assert info["vector_bytes"] == VECTOR_BYTES.get(info["macros"], 16)

    @pytest.mark.parametrize("level", LEVELS)
    def test_computes_the_whole_table_right(self, level: str) -> None:
        skip_unless_it_runs(level)
        if level != kernels_of(level):
            pytest.skip(
                f"its kernels are those of {kernels_of(level)}, but for products of few bits"
            )
        if level == kernels_of(_core.info()["instruction_set"]):
            pytest.skip("the tests around this one do it")
        run_python(
            *("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not Differences"),
            *(str(ROOT / "tests" / f"{name}.py") for name in TABLE),
            timeout=600,
            RNNCORE_ISA=level,
        )


class TestForcing:
    def test_an_unknown_level_fails_and_names_the_known(self) -> None:
        assert import_error("v9") == f"RNNCORE_ISA=v9 is not one of {', '.join(LEVELS)}"

    def test_a_level_beyond_the_processor_fails(self) -> None:
        beyond = LEVELS[LEVELS.index(best()) + 1 :]
        if not beyond:
            pytest.skip("this processor runs every level")
        for level in beyond:
            complaint = "this processor does not have that instruction set"
            assert import_error(level) == f"RNNCORE_ISA={level}: {complaint}"


def tool(*command: str) -> str:
    if not shutil.which(command[0]):
        pytest.skip(f"needs {command[0]}, which comes with a compiler")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def objects(build: Path, level: str) -> list[str]:
    """The level's object files."""
    parts = (f"**/{part}_{level}.dir/**/*.o" for part in ("float32", "kernels", "options"))
    return [str(path) for part in parts for path in build.glob(part)]


def builds() -> list[Path]:
    """The trees that building from source leaves."""
    trees = [cache.parent for cache in ROOT.glob("build/*/CMakeCache.txt")]
    found = [tree for tree in trees if all(objects(tree, level) for level in COMPILED)]
    return found or pytest.skip("needs the build tree of an installation from source")


def symbols(*command: str) -> Iterator[tuple[str, str]]:
    """Names and the letters that `nm` has for their kinds."""
    for line in tool("nm", "-P", *command).splitlines():
        name, kind, *_ = [*line.split(), ""]
        if len(kind) == 1:
            yield name, kind


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
class TestTheWall:
    """The linker keeps one of several symbols of a name: it must not have any to choose from."""

    def test_every_symbol_carries_its_level(self) -> None:
        for build, level in itertools.product(builds(), COMPILED):
            own = re.compile(rf"7rnncore{len(level)}{level}|Eigen_{level}")
            visible = [
                n for n, kind in symbols(*objects(build, level)) if kind.isupper() or kind == "u"
            ]
            assert len(visible) > 100
            assert [n for n in visible if not own.search(n) and not OUTSIDE.fullmatch(n)] == []

    def test_nothing_runs_before_the_processor_is_known(self) -> None:
        for build, level in itertools.product(builds(), COMPILED):
            sections = tool("objdump", "-h", *objects(build, level))
            assert ".text" in sections
            assert not re.search(r"\.(preinit_array|init_array|ctors)", sections)

    def test_the_module_shows_only_its_entries(self) -> None:
        shown = {name for name, _ in symbols("-D", "--defined-only", _core.__file__)}
        assert shown == {"PyInit__core", "rnncore_get_num_threads", "rnncore_set_num_threads"}

    def test_the_module_is_hardened(self) -> None:
        dynamic, segments = (tool("readelf", "-W", how, _core.__file__) for how in ("-d", "-l"))
        assert "BIND_NOW" in dynamic
        assert "GNU_RELRO" in segments
        assert re.search(r"GNU_STACK.* RW +0x", segments)  # nothing on the stack is run
        assert not re.search("TEXTREL|RPATH|RUNPATH", dynamic)
        assert any(name.startswith("__stack_chk") for name, _ in symbols("-D", _core.__file__))

    @pytest.mark.parametrize(("level", "flag"), [("v4", "v3"), ("v3", "v2"), ("v2", "v3")])
    def test_a_level_without_its_flag_does_not_compile(self, level: str, flag: str) -> None:
        if level not in LEVELS:
            pytest.skip(f"not built with {level}")
        cache = (builds()[0] / "CMakeCache.txt").read_text()
        compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache, re.MULTILINE)
        assert compiler
        done = subprocess.run(
            [
                *(compiler[1], "-std=c++20", "-fsyntax-only", f"-march=x86-64-{flag}"),
                *(f"-DRNNCORE_LEVEL={level}", "-x", "c++"),
                str(ROOT / "cpp" / "kernels" / "level.hpp"),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert "compiled without the flags of its level" in done.stderr
