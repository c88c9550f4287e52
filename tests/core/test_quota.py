"""Processors as containers have them: quotas of time in control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rnncore import _core

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no control groups")

#: What this process may use without a quota.
ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1

V1 = "33 31 0:30 {top} /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "29 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = (
    "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


def system(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> str:
    """Lay out the files of a system, those of groups below /sys/fs/cgroup."""
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    files |= {"proc/self/cgroup": cgroup, "proc/self/mountinfo": OTHERS + mounts}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def second(root: Path, path: str, files: dict[str, str], top: str = "/") -> int:
    return _core.processors(system(root, f"0::{path}\n", V2.format(top=top), files))


def first(root: Path, path: str, files: dict[str, str], top: str = "/") -> int:
    cgroup = f"12:cpuset:/\n3:cpu,cpuacct:{path}\n1:name=systemd:/\n0::/\n"
    return _core.processors(system(root, cgroup, V1.format(top=top), files))


def limits(quota: int, period: int = 100_000) -> dict[str, str]:
    return {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": f"{period}\n"}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


class TestSecondVersion:
    @pytest.mark.parametrize(
        ("quota", "count"),
        [
            ("max 100000", ALL),
            ("50000 100000", 1),
            ("1000 100000", 1),
            ("110000 100000", min(2, ALL)),
        ],
    )
    def test_is_rounded_up(self, tmp_path: Path, quota: str, count: int) -> None:
        assert second(tmp_path, "/a", {"a/cpu.max": quota + "\n"}) == count

    def test_more_than_there_are_is_no_limit(self, tmp_path: Path) -> None:
        assert second(tmp_path, "/a", {"a/cpu.max": "99900000 100000\n"}) == ALL

    def test_the_least_of_all_around_holds(self, tmp_path: Path) -> None:
        files = {"a/b/c/cpu.max": "max 100000\n", "a/cpu.max": "70000 100000\n"}
        assert second(tmp_path, "/a/b/c", files) == 1

    def test_a_container_sees_its_own_group_as_the_root(self, tmp_path: Path) -> None:
        assert second(tmp_path, "/", {"cpu.max": "50000 100000\n"}) == 1

    def test_a_mount_that_shows_a_part(self, tmp_path: Path) -> None:
        files = {"c/cpu.max": "50000 100000\n"}
        assert second(tmp_path, "/docker/x/c", files, top="/docker/x") == 1


class TestFirstVersion:
    @pytest.mark.parametrize(("quota", "count"), [(-1, ALL), (50_000, 1), (110_000, min(2, ALL))])
    def test_is_rounded_up(self, tmp_path: Path, quota: int, count: int) -> None:
        assert first(tmp_path, "/a", below("cpu/a", limits(quota))) == count

    def test_the_least_of_all_around_holds(self, tmp_path: Path) -> None:
        files = below("cpu/a/b", limits(-1)) | below("cpu", limits(20_000))
        assert first(tmp_path, "/a/b", files) == 1

    def test_a_container_sees_its_own_group_as_the_root(self, tmp_path: Path) -> None:
        files = below("cpu", limits(30_000))
        assert first(tmp_path, "/docker/abc", files, top="/docker/abc") == 1

    def test_other_groups_do_not_count(self, tmp_path: Path) -> None:
        files = below("cpu/a", limits(-1)) | below("cpu/b", limits(10_000))
        assert first(tmp_path, "/a", files) == ALL


@pytest.mark.parametrize(
    "text", ["", "\n", "nonsense", "0::", "::::", "a b c", "100000 0", "-5 -5", "\0\xff", "9" * 400]
)
def test_what_makes_no_sense_is_no_limit(tmp_path: Path, text: str) -> None:
    names = ("a/cpu.max", "cpu/a/cpu.cfs_quota_us", "cpu/a/cpu.cfs_period_us")
    assert second(tmp_path, "/a", dict.fromkeys(names, text)) == ALL
    assert _core.processors(system(tmp_path, text, text, {})) == ALL


def test_a_system_without_groups(tmp_path: Path) -> None:
    assert _core.processors(str(tmp_path)) == ALL
