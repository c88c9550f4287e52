"""What all tests share: helpers whose assertions explain themselves, and one way to be random."""

import hypothesis
import numpy as np
import pytest

pytest.register_assert_rewrite("cases", "compare", "gradients")

hypothesis.settings.register_profile("rnncore", deadline=None, derandomize=True)
hypothesis.settings.load_profile("rnncore")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20140603)
