"""When pytest shares the tests out to several processes by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest

ROOT = Path(__file__).parent
Choose = Callable[..., SimpleNamespace]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    """The options that result from others and arguments, on four processors."""
    monkeypatch.setattr(conftest, "get_num_threads", lambda: 4)
    monkeypatch.setattr(os, "environ", {})

    def chosen(*args: Any, xdist: bool = True, **given: Any) -> SimpleNamespace:
        defaults = {"numprocesses": None, "dist": "no", "tx": [], "capture": "fd"}
        off = dict.fromkeys(("usepdb", "trace", "collectonly"), False)
        option = SimpleNamespace(**defaults | off | given)
        plugins = SimpleNamespace(hasplugin=lambda name: xdist and name == "xdist")
        config: Any = SimpleNamespace(
            option=option, args=[str(arg) for arg in args], pluginmanager=plugins
        )
        conftest.pytest_cmdline_main(config)
        return option

    return chosen


def test_folders_have_a_worker_for_each_processor(choose: Choose) -> None:
    option = choose(ROOT, ROOT / "layers")
    assert (option.numprocesses, option.dist) == (4, "worksteal")
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    "given",
    [
        *({"usepdb": True}, {"trace": True}, {"capture": "no"}, {"collectonly": True}),
        *({"cov_source": ["rnncore"]}, {"xdist": False}),
    ],
    ids=str,
)
def test_what_is_watched_has_none(choose: Choose, given: dict[str, Any]) -> None:
    option = choose(ROOT, **given)
    assert (option.numprocesses, option.dist) == (None, "no")
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("given", [{"numprocesses": 0}, {"numprocesses": 7}, {"tx": ["popen"]}])
def test_what_was_told_is_kept(choose: Choose, given: dict[str, Any]) -> None:
    option = choose(ROOT, **given)
    assert {name: getattr(option, name) for name in given} == given
    assert option.dist == "no"
    assert ("OMP_NUM_THREADS" in os.environ) == (given.get("numprocesses", 0) > 0)


@pytest.mark.parametrize("arg", [__file__, f"{__file__}::test_what_was_told_is_kept"])
def test_files_and_single_tests_have_none(choose: Choose, arg: str) -> None:
    assert choose(arg).numprocesses is None
    assert choose(ROOT, arg).numprocesses is None


def test_workers_start_no_workers(choose: Choose) -> None:
    os.environ["PYTEST_XDIST_WORKER"] = "gw0"
    assert choose(ROOT).numprocesses is None
