"""The compiled layer over DLPack's tensors, as rnncore.torch calls it: the same as over arrays."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, RNN

INPUT, HIDDEN = 5, 9
LENGTHS = {
    "falling": [7, 4, 4, 1],
    "equal": [3, 3, 3],
    "of one step": [1, 1],
    "one sequence": [6],
    "many": sorted(np.random.default_rng(0).integers(1, 30, 50).tolist(), reverse=True),
}


class Tensor:
    """What NumPy takes a capsule from."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def array_of(capsule: Any) -> Any:
    return None if capsule is None else np.from_dlpack(Tensor(capsule))


def lent(array: Any) -> Any:
    return None if array is None else array.__dlpack__()


def forward(module: Any, x: Any, state: Any = (None, None), sizes: Any = None) -> Any:
    """y, h, c and the tape."""
    given = map(lent, (sizes, x, *state))
    *found, tape = module.kernels[0].forward_tensors(*given, True)
    return *map(array_of, found), tape


def backward(module: Any, tape: Any, x: Any, y: Any, upstream: Any, wanted: Any = None) -> Any:
    """The gradients of x, the states and the parameters."""
    wanted = wanted or [True] * (3 + len(module.params))
    groups, given = module._groups(module._params)[0], tuple(map(lent, upstream))
    # A copy: NumPy lends nothing that is read-only.
    found = module.kernels[0].backward_tensors(tape, lent(x), lent(y.copy()), given, groups, wanted)
    return [array_of(capsule) for capsule in found]


def padded_and_packed(lengths: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (T, B, I), the same packed (rows, I), and how many sequences have each step."""
    there = np.arange(lengths[0])[:, None] < lengths
    x = np.random.default_rng(1).standard_normal((*there.shape, INPUT)).astype(np.float32)
    return x, x[there], there.sum(1)


def over_arrays(module: Any, x: Any, state: Any, lengths: Any, upstream: Any) -> tuple[Any, Any]:
    """What forward and backward return over arrays."""
    (layer,), (targets,) = module.kernels, module.gradients()
    module.zero_grad()
    y, *final, _, tape = layer.forward(x, *state, lengths, 0, False, None)
    gradients = layer.backward(tape, *upstream, targets, True)
    return (y, *final), [*gradients, *map(np.copy, module.grads.values())]


def assert_same(found: Any, wanted: Any) -> None:
    for got, want in zip(found, wanted, strict=True):
        assert (got is None) == (want is None)
        assert got is None or (got.shape == want.shape and got.tobytes() == want.tobytes())


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
def test_packed_steps(kind: Any, both: bool, lengths: list[int]) -> None:
    module = kind(INPUT, HIDDEN, bidirectional=both, seed=0)
    x, packed, sizes = padded_and_packed(lengths)
    there = np.arange(len(x))[:, None] < lengths
    h = np.random.default_rng(2).standard_normal((1 + both, len(lengths), HIDDEN))
    h = h.astype(np.float32)
    state = (h, h + 1) if kind is LSTM else (h, None)
    dy = np.cos(np.arange(x.shape[0] * x.shape[1] * HIDDEN * (1 + both), dtype=np.float32))
    dy = dy.reshape(*x.shape[:2], -1) * there[..., None]
    (y, *final), (dx, *gradients) = over_arrays(module, x, state, np.array(lengths), (dy, h, None))
    *found, tape = forward(module, packed, state, sizes)
    assert_same(found, [y[there], *final])
    found = backward(module, tape, packed, found[0], (dy[there], h, None))
    assert_same(found, [dx[there], *gradients])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(LSTM, {"proj_size": 3}), (LSTM, {"peephole": True}), (GRU, {"bias": False}), (RNN, {})],
)
def test_rows_of_a_batch(kind: Any, options: dict[str, Any], dtype: Any) -> None:
    module = kind(INPUT, HIDDEN, batch_first=True, dtype=dtype, seed=0, **options)
    x = np.random.default_rng(1).standard_normal((2, 4, INPUT)).astype(dtype)
    dy = np.cos(np.arange(2 * 4 * (options.get("proj_size") or HIDDEN), dtype=dtype))
    upstream = dy.reshape(2, 4, -1), None, None
    want, gradients = over_arrays(module, x, (None, None), None, upstream)
    *found, tape = forward(module, x)
    assert_same(found, want)
    assert_same(backward(module, tape, x, found[0], upstream), gradients)
    *_, tape = forward(module, x)
    wanted = [n % 2 == 1 for n in range(len(gradients))]
    some = backward(module, tape, x, found[0], upstream, wanted)
    has_c = kind is LSTM
    assert [d is not None for d in some] == [w and (n != 2 or has_c) for n, w in enumerate(wanted)]
    assert_same(some[3:], [d if w else None for d, w in zip(gradients, wanted, strict=True)][3:])


def test_large_ones_outlive_the_layer() -> None:
    module = GRU(INPUT, 256, seed=0)
    x = np.random.default_rng(1).standard_normal((70, 4, INPUT)).astype(np.float32)
    want = module(x)[0]
    y, *_ = forward(module, x)
    assert y.nbytes > 256 << 10
    del module, _
    gc.collect()
    others = [GRU(INPUT, 256, seed=1) for _ in range(3)]
    kept = [forward(other, x)[0] for other in others]
    assert len(kept) == 3
    np.testing.assert_array_equal(y, want)


def test_numbers_at_odd_addresses() -> None:
    module = GRU(INPUT, HIDDEN, seed=0)
    x = np.random.default_rng(1).standard_normal((3, 2, INPUT)).astype(np.float32)
    odd = np.frombuffer(bytearray(x.nbytes + 1), np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    assert not odd.flags.aligned
    assert_same(forward(module, odd)[:2], forward(module, x)[:2])


class TestRefusals:
    @pytest.mark.parametrize("sizes", [[4, 4], [1, 2, 3], [6, 0], [], [[6]], [7, -1]])
    def test_batch_sizes_that_cannot_be(self, sizes: list[int]) -> None:
        module, packed = RNN(INPUT, HIDDEN, seed=0), np.zeros((6, INPUT), np.float32)
        with pytest.raises(ValueError, match="batch_sizes must be positive, never grow, and add"):
            forward(module, packed, sizes=np.array(sizes, np.int64))

    @pytest.mark.parametrize(
        "x",
        [
            np.zeros((3, 2, INPUT)),
            np.zeros((3, 2, INPUT), np.int32),
            np.zeros((2, 3, INPUT), np.float32).transpose(1, 0, 2),
        ],
    )
    def test_tensors_of_another_kind(self, x: Any) -> None:
        with pytest.raises(TypeError, match="x must be a contiguous tensor of float32 on the CPU"):
            forward(RNN(INPUT, HIDDEN, seed=0), x)

    def test_shapes(self) -> None:
        module, x = LSTM(INPUT, HIDDEN, seed=0), np.zeros((3, 2, INPUT), np.float32)
        for wrong in (x[0], x[..., :4].copy()):
            with pytest.raises(ValueError, match="x: unexpected shape"):
                forward(module, wrong)
        h = np.zeros((1, 3, HIDDEN), np.float32)
        with pytest.raises(ValueError, match=r"c0 must have shape \(1, 2, 9\), got \(1, 3, 9\)"):
            forward(module, x, (None, h))
        y, _, _, tape = forward(module, x)
        for given in ((x[:2], y, y), (x, y[:2], y), (x, y, y[:2])):
            with pytest.raises(ValueError, match="x, y and dy must have the shapes"):
                backward(module, tape, *given[:2], (given[2].copy(), None, None))
        with pytest.raises(ValueError, match="wanted must be of x, h0, c0 and 4 parameters"):
            backward(module, tape, x, y, (None, None, None), [True] * 3)

    def test_what_is_no_capsule(self) -> None:
        with pytest.raises(ValueError, match="PyCapsule"):
            RNN(INPUT, HIDDEN, seed=0).kernels[0].forward_tensors(None, 1, None, None, False)

    def test_a_tape_serves_once(self) -> None:
        module, x = LSTM(INPUT, HIDDEN, seed=0), np.zeros((3, 2, INPUT), np.float32)
        y, _, _, tape = forward(module, x)
        backward(module, tape, x, y, (None, None, None))
        with pytest.raises(RuntimeError, match="this pullback has run already"):
            backward(module, tape, x, y, (None, None, None))
