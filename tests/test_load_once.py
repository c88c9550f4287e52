"""Models that workers read once."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rnncore


def test_a_file_is_read_once_and_anew_when_it_was_replaced(tmp_path, monkeypatch):
    path = tmp_path / "model"
    rnncore.Linear(3, 2, seed=0).save(path)
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(rnncore.load_once, [path] * 8)
    assert all(other is first for other in others)
    monkeypatch.chdir(tmp_path)
    assert rnncore.load_once("model") is first
    rnncore.Linear(3, 2, seed=1).save(path)
    os.utime(path, ns=(0, 1))  # however coarse the file system's clock is
    second = rnncore.load_once(str(path))
    assert second is not first
    np.testing.assert_array_equal(
        second.params["weight"], rnncore.Linear(3, 2, seed=1).params["weight"]
    )
    with pytest.raises(FileNotFoundError):
        rnncore.load_once(tmp_path / "none")
