"""Convolutions, pooling, batch normalisation and GLU against torch's, forward and backward."""

import numpy as np
import pytest
import rnncore

from tests.golden.make_convolution_golden import CASES, FILE
from tests.support.compare import assert_close


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_is_torchs(name, dtype, tolerance):
    case = CASES[name]
    with np.load(FILE) as file:
        want = {
            key.removeprefix(f"{name}/"): file[key] for key in file if key.startswith(f"{name}/")
        }
    x, dy = (want.pop(key).astype(dtype) for key in ("x", "dy"))
    own = {} if "Pool" in case.layer or case.layer == "GLU" else {"dtype": dtype}
    layer = getattr(rnncore, case.layer)(*case.arguments, **case.options, **own)
    layer.load_state_dict({key: want.pop(key).astype(dtype) for key in layer.state_dict()})
    got = {"evaluated": layer(x)}
    y, pullback = layer.vjp(x)
    got |= {"y": y, "dx": pullback(dy)}
    got |= {f"d{key}": grad for key, grad in layer.grads.items()}
    got |= {f"new {key}": buffer for key, buffer in layer.buffers.items()}
    assert all(array.dtype == dtype for array in got.values())
    assert_close(got, want, tolerance)
