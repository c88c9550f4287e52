"""The fuzzing program: it finds what is wrong, and finds nothing wrong here."""

import sys
from pathlib import Path

import pytest

from tests.support.processes import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and forks")

ROOT = Path(__file__).parent.parent

#: Targets that do what none may, on some of their inputs.
FAULTS = """
import ctypes, sys, time
sys.path.insert(0, {root!r})
from tests.fuzz.__main__ import main
from tests.fuzz.child import Target

def faulty(name, fault, **options):
    def prepare(luck, path):
        path.write_bytes(b"x" * 10)
        return fault if luck.random() < 0.1 else lambda: None
    return Target(name, prepare, (ValueError,), **options)

def refuse():
    raise ValueError("documented")

targets = [
    faulty("crash", lambda: ctypes.string_at(8)),
    faulty("hang", lambda: time.sleep(60), seconds=0.2),
    faulty("error", lambda: {{}}["key"]),
    faulty("memory", lambda: bytearray(100 << 20)),
    faulty("large", lambda: bytearray(100 << 20), memory=200 << 20),
    faulty("refusal", refuse),
]
sys.exit(main(sys.argv[1:] + ["--inputs", "240", "--keep", {keep!r}], targets) - 1)
"""


def test_it_finds_what_is_wrong(tmp_path: Path) -> None:
    code = FAULTS.format(root=str(ROOT), keep=str(tmp_path))
    found = run_python(code).splitlines()
    for name, kind in (
        ("crash", "SIGSEGV"),
        ("hang", "hang of 0.2 s"),
        ("error", "KeyError"),
        ("memory", "MemoryError"),
    ):
        assert any(line.startswith(f"FOUND {name}: {kind} at ") for line in found), found
        assert list(tmp_path.glob(f"{name}-0-*.txt"))
    assert found[-1] == "4 findings"


@pytest.mark.parametrize("part", ["files", "calls"])
def test_it_finds_nothing_here(part: str) -> None:
    """The same inputs every time; `.ci/run` tries more of them under the address sanitizer."""
    code = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from tests.fuzz.__main__ import main
        from tests.fuzz import targets_{part}
        sys.exit(main(["--inputs", "2000", "--seconds", "60"], targets_{part}.targets()))
    """
    said = run_python(code, timeout=300)
    counts = [line.split() for line in said.splitlines() if " accepted " in line]
    assert len(counts) > 6
    for name, *numbers in counts:
        accepted, refused = (int(number.replace(",", "")) for number in numbers[:3:2])
        if accepted + refused > 50:  # a slow machine tries fewer
            assert accepted > 0, f"{name}: nothing is accepted"
            assert refused > 0, f"{name}: nothing is refused"
