"""What all tests share: helpers whose assertions explain themselves, and one way to be random."""

from collections.abc import Callable, Iterator

import hypothesis
import numpy as np
import pytest
from rnncore import get_num_threads, set_num_threads

pytest.register_assert_rewrite("tests.support")

hypothesis.settings.register_profile("rnncore", deadline=None, derandomize=True)
hypothesis.settings.load_profile("rnncore")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20140603)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Choose the number of threads; after the test it is what it was."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)
