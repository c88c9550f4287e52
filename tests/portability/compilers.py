"""Build the C++ core and its tests with every compiler that is there, run them, and print a table.

    apt-get install g++-11 clang-14 libc++-14-dev libc++abi-14-dev qemu-user-static wine64
    pip install ziglang cmake ninja 'cmeel-eigen>=3.4.1,<3.5' wasmtime
    python tests/portability/compilers.py [row ...]

What is not installed is left out, and the table says so. One level of instructions each, with
little optimisation: this is about what compiles and is right. Builds stay in --build and go on from
there. About a minute of a processor for each row, and for zig once more for its C++ library.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ENVIRONMENT = {"PYTHON": sys.executable, "RNNCORE_NUM_THREADS": "2", "WINEDEBUG": "-all"}


@dataclass
class Row:
    """A compiler, for a system, and how to run there what it makes."""

    name: str
    compiler: str
    level: str = "v2"
    defines: dict[str, str] = field(default_factory=dict)
    runner: list[str] = field(default_factory=list)
    needs: str = ""  # a header, without which this is not there
    runs: bool = True


def system(name: str, processor: str) -> dict[str, str]:
    """What CMake is told of another system."""
    return {"CMAKE_SYSTEM_NAME": name, "CMAKE_SYSTEM_PROCESSOR": processor}


def zig(target: str, **options: object) -> Row:
    return Row(f"zig, {target}", f"{HERE / 'zig.sh'} {target}", **options)  # type: ignore[arg-type]


def found(*names: str) -> list[str]:
    """The first program of these that is installed, as a command; else the first name."""
    return [next((path for name in names if (path := shutil.which(name))), names[0])]


LIBCXX = {"CMAKE_CXX_FLAGS": "-stdlib=libc++"}
OWN_VECTORS = {"CMAKE_CXX_FLAGS": "-DEIGEN_DONT_VECTORIZE"}
ROWS = [
    Row("GCC", "g++"),
    Row("GCC 11", "g++-11"),
    Row("Clang 14, libstdc++", "clang++-14"),
    Row("Clang 14, libc++", "clang++-14", defines=LIBCXX, needs="/usr/lib/llvm-14/include/c++/v1"),
    Row("Clang 14, vectors not Eigen's", "clang++-14", "generic", OWN_VECTORS),
    zig("x86_64-linux-musl"),
    zig(
        "aarch64-linux-gnu",
        level="generic",
        defines=system("Linux", "aarch64") | {"CMAKE_EXE_LINKER_FLAGS": "-static"},
        runner=found("qemu-aarch64-static", "qemu-aarch64"),
    ),
    zig(
        "x86_64-windows-gnu",
        defines=system("Windows", "x86_64"),
        runner=found("wine64", "wine", "/usr/lib/wine/wine64"),
    ),
    zig("aarch64-macos", level="generic", defines=system("Darwin", "arm64"), runs=False),
    zig(
        "wasm32-wasi",
        level="generic",
        defines=system("WASI", "wasm32"),
        runner=[sys.executable, str(HERE / "wasi.py")],
    ),
]


def call(command: list[str], log: Path, **environment: str) -> bool:
    """Run a command, with what it prints in a file; whether it succeeded."""
    with log.open("a", encoding="utf-8") as file:
        print(*command, file=file, flush=True)
        done = subprocess.run(
            command, stdout=file, stderr=file, env=os.environ | ENVIRONMENT | environment, cwd=ROOT
        )
    return done.returncode == 0


def tool(name: str) -> str:
    """A program beside this interpreter, or on the path."""
    beside = Path(sysconfig.get_path("scripts")) / name
    return str(beside) if beside.exists() else name


def built(row: Row, build: Path, log: Path) -> bool:
    """Whether the core and its tests compile, with no warning."""
    defines = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_PREFIX_PATH": sysconfig.get_path("purelib"),
        "RNNCORE_MODULE": "OFF",
        "RNNCORE_TESTS": "ON",
        "RNNCORE_OPTIMISATION": "-O1" if row.runs else "-O0",
        "RNNCORE_WERROR": "ON",
        "RNNCORE_LEVELS": row.level,
        **row.defines,
    }
    configure = [tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja"]
    configure += [f"-D{name}={value}" for name, value in defines.items()]
    return call(configure, log, CXX=row.compiler) and call(
        [tool("cmake"), "--build", str(build)], log
    )


def run(row: Row, build: Path, log: Path) -> str:
    """Run both programs of tests; what came of it."""
    if not row.runs:
        return "not run: no such system here"
    if row.runner and not shutil.which(row.runner[0]):
        return f"not run: no {row.runner[0]}"
    said = []
    for name in ("smoke", f"test_kernels_{row.level}"):
        made = (build / "tests/cpp").glob(f"{name}*")
        program = next(path for path in made if path.suffix in ("", ".exe", ".wasm"))
        passed = call([*row.runner, str(program)], log)
        said.append(f"{name.removesuffix('_' + row.level)} {'passes' if passed else 'FAILS'}")
    return ", ".join(said)


def version(row: Row) -> str:
    """The first line of what the compiler says of itself; empty if it is not there."""
    command = row.compiler.split()
    if row.needs and not Path(row.needs).exists():
        return ""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, env=os.environ | ENVIRONMENT
    )
    return done.stdout.partition("\n")[0].partition(" (http")[0] if done.returncode == 0 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", help="parts of names of rows; all, if none is given")
    parser.add_argument("--build", type=Path, default=ROOT / "build/portability")
    arguments = parser.parse_args()
    failed = False
    print("| compiler | version | compiles | runs |\n|---|---|---|---|", flush=True)
    for row in ROWS:
        if arguments.rows and not any(part in row.name for part in arguments.rows):
            continue
        says = version(row)
        if not says:
            print(f"| {row.name} | not installed | | |", flush=True)
            continue
        build = arguments.build / "".join(c if c.isalnum() else "_" for c in row.name)
        build.mkdir(parents=True, exist_ok=True)
        log = build / "log"
        log.unlink(missing_ok=True)
        compiles = built(row, build, log)
        runs = run(row, build, log) if compiles else ""
        failed |= not compiles or "FAILS" in runs
        print(f"| {row.name} | {says} | {'yes' if compiles else 'NO'} | {runs} |", flush=True)
        if not compiles or "FAILS" in runs:
            print(f"see {log}", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
