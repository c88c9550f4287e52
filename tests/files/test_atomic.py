"""Files are replaced at once or not at all, whatever they are and whatever happens meanwhile."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import files
from rnncore.arrays import write_atomic

from tests.fuzz import saves

fcntl = pytest.importorskip("fcntl", reason="files are locked by it")


@pytest.fixture(params=["unnamed", "named"])
def folder(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a system that has files without a name, and of one that has not."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return tmp_path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# What is there already


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_new_file_has_the_mode_that_the_umask_leaves(mask: int, folder: Path) -> None:
    before = os.umask(mask)
    try:
        write_atomic(folder / "file", b"new")
    finally:
        os.umask(before)
    assert mode_of(folder / "file") == 0o666 & ~mask


def test_the_umask_is_never_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "umask")
    write_atomic(folder / "file", b"new")


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o755, 0o444])
def test_a_file_keeps_its_mode(mode: int, folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_atomic(path, b"new")
    assert (path.read_bytes(), mode_of(path)) == (b"new", mode)


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
@pytest.mark.parametrize("absolute", [True, False])
def test_of_a_link_the_target_is_replaced(there: bool, absolute: bool, folder: Path) -> None:
    (folder / "models").mkdir()
    target = folder / "models" / "of today"
    if there:
        target.write_bytes(b"old")
        target.chmod(0o640)
    first, second = folder / "latest", folder / "link to the link"
    first.symlink_to(target if absolute else "models/of today")
    second.symlink_to("latest")
    write_atomic(second, b"new")
    assert first.is_symlink()
    assert second.is_symlink()
    assert target.read_bytes() == b"new"
    assert not there or mode_of(target) == 0o640
    assert sorted(os.listdir(folder)) == ["latest", "link to the link", "models"]
    assert os.listdir(folder / "models") == ["of today"]


def test_a_link_in_a_circle_is_an_error(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomic(folder / "a", b"new")
    assert sorted(os.listdir(folder)) == ["a", "b"]


def test_a_pipe_is_written_into(folder: Path) -> None:
    path, got = folder / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    rnncore.Linear(2, 2, seed=0).save(path)
    reader.join()
    assert stat.S_ISFIFO(path.lstat().st_mode)
    rnncore.Linear(2, 2, seed=0).save(folder / "file")
    assert len(got[0]) == len((folder / "file").read_bytes())


def test_a_device_is_written_into() -> None:
    write_atomic("/dev/null", bytes(1 << 20))
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)


def test_folders_and_nothing_are_errors(folder: Path) -> None:
    for path in (folder, folder / "absent" / "file", f"{folder}/absent/", ""):
        with pytest.raises(OSError):  # noqa: PT011 (each system has its own words)
            write_atomic(path, b"new")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "日" * 85, "."])
def test_long_names(name: str, folder: Path) -> None:
    path = folder / name[:255] if name != "." else folder / f".{'n' * 254}"
    for content in (b"old", b"new"):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert os.listdir(folder) == [path.name]


# What is left over


def stale(path: Path) -> Path:
    """What a save of `path` that was killed has left."""
    (kept,) = [name for name in temporary_names(path) if name]
    return path.parent / kept


def temporary_names(path: Path) -> list[str]:
    names: list[str] = []
    replace = os.replace

    def note(source: str, target: str) -> None:
        names.append(os.path.basename(source))
        raise OSError("no")

    with pytest.MonkeyPatch.context() as patch, suppress(OSError):
        patch.setattr(os, "replace", note)
        write_atomic(path, b"")
    assert os.replace is replace
    return names


def test_the_next_save_removes_what_a_killed_one_left(folder: Path) -> None:
    path, other = folder / "file", folder / "another"
    left, its = stale(path), stale(other)
    left.write_bytes(b"half")
    its.write_bytes(b"half")
    os.mkfifo(f"{left}a")  # nobody's, but it must not be waited for
    write_atomic(path, b"new")
    assert sorted(os.listdir(folder)) == sorted([its.name, "file"])
    write_atomic(other, b"new")
    assert sorted(os.listdir(folder)) == ["another", "file"]


def test_what_another_is_writing_stays(folder: Path) -> None:
    path = folder / "file"
    left = stale(path)
    with left.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomic(path, b"new")
        assert left.exists()
    write_atomic(path, b"newer")
    assert os.listdir(folder) == ["file"]


def test_a_file_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    lock, locked = files._lock, []

    def late(file: Any) -> None:
        if not locked:
            files._sweep(str(tmp_path), ".rnncore-")
        locked.append(lock(file))

    monkeypatch.setattr(files, "_lock", late)
    write_atomic(tmp_path / "file", b"new")
    assert len(locked) == 2
    assert os.listdir(tmp_path) == ["file"]


def test_savers_of_one_file_leave_each_other_alone(folder: Path) -> None:
    path, errors = folder / "file", []
    contents = [bytes([n]) * 100_000 for n in range(4)]

    def save(content: bytes) -> None:
        try:
            for _ in range(50):
                write_atomic(path, content)
                assert path.read_bytes() in contents
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(folder) == ["file"]


# Interrupts


STEPS = [
    (os, name) for name in ("open", "fstat", "fchmod", "fsync", "link", "replace", "close", "stat")
]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("module", "name"), STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_at_any_step(
    error: type[BaseException],
    module: Any,
    name: str,
    late: bool,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = folder / "file"
    path.write_bytes(b"old")
    opened = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    step, struck = getattr(module, name), []

    def strike(*args: Any, **options: Any) -> Any:
        if late or struck:
            done = step(*args, **options)
        if not struck:
            struck.append(name)
            if late and name == "open":
                os.close(done)  # or the test itself would lose it
            raise error
        return done

    with monkeypatch.context() as patch:
        patch.setattr(module, name, strike)
        with suppress(error):
            write_atomic(path, b"new")
            assert not struck
    assert path.read_bytes() in (b"old", b"new")
    assert os.listdir(folder) == ["file"]
    if opened and name != "close":
        assert len(os.listdir("/proc/self/fd")) == opened


def test_data_are_on_the_disk_before_the_old_file_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def note(name: str, what: Callable[..., str]) -> None:
        step = getattr(os, name)

        def run(*args: Any) -> Any:
            said.append(what(*args))
            return step(*args)

        monkeypatch.setattr(os, name, run)

    note("fsync", lambda n: "folder" if stat.S_ISDIR(os.fstat(n).st_mode) else "file")
    note("replace", lambda *_: "replace")
    write_atomic(folder / "file", b"new")
    assert said == ["file", "replace", "folder"]


def test_killed_and_interrupted_saves(capsys: pytest.CaptureFixture[str]) -> None:
    assert saves.main(["--kills", "8", "--interrupts", "100"]) == 0, capsys.readouterr().out


def test_interrupted_saves_of_files_with_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    assert saves.interrupted(100, tmp_path, saves.random.Random(1)) == []


def test_everything_that_is_written_is_written_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No writer leaves half a file where its folder's disk is full."""
    pytest.importorskip("matplotlib", reason="matplotlib draws")
    from rnncore.commands.measure.report import Results
    from rnncore.convert import to_rtneural
    from rnncore.training.plots import plot_attention, plot_history

    chain = rnncore.Chain(rnncore.GRU(1, 2, seed=0), rnncore.Linear(2, 1, seed=0))
    writers: list[Callable[[Path], Any]] = [
        chain.save,
        lambda path: to_rtneural(chain, path),
        lambda path: plot_history([], path),
        lambda path: plot_attention(np.ones((1, 1)), ["a"], ["b"], path),
        Results({}, []).save,
    ]
    for number, write in enumerate(writers):
        path = tmp_path / f"file{number}.png"
        write(path)
        before = path.read_bytes()

        def full(*_: Any) -> None:
            raise OSError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="no space left"):
                write(path)
        assert path.read_bytes() == before
    assert len(os.listdir(tmp_path)) == len(writers)
