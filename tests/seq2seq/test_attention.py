"""Attention's kernels against the reference, and what they promise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore import BahdanauAttention, LuongAttention, _core
from rnncore.reference.attention import attend, attend_backward

from tests.support.cases import TOLERANCE
from tests.support.compare import assert_close, assert_gradients_of, assert_same

KERNELS = {"float32": _core.MemoryF32, "float64": _core.MemoryF64}
#: T, R = B, S, A, M
SHAPES = [
    (1, 1, 1, 1, 1),
    (6, 4, 7, 5, 3),
    (9, 3, 21, 33, 70),
    (5, 2, 4, 64, 16),
    (2, 3, 17, 7, 65),
]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=["-".join(map(str, s)) for s in SHAPES])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_form = pytest.mark.parametrize("additive", [False, True], ids=["products", "additive"])
each_window = pytest.mark.parametrize("window", [0, 2], ids=["global", "local"])


def drawn(shape: Any, dtype: str, additive: bool, window: int) -> dict[str, Any]:
    T, B, S, A, M = shape
    rng = np.random.default_rng(sum(shape))
    arrays: dict[str, Any] = {
        "query": rng.standard_normal((T, B, A)),
        "keys": rng.standard_normal((S, B, A)),
        "values": rng.standard_normal((S, B, M)),
        "v": rng.standard_normal(A) if additive else None,
        "dcontext": rng.standard_normal((T, B, M)),
    }
    lengths = rng.integers(1, S + 1, B)
    arrays["centre"] = rng.random((T, B)) * lengths if window else None
    arrays = {n: None if a is None else a.astype(dtype) for n, a in arrays.items()}
    return arrays | {"lengths": lengths, "steps": rng.integers(1, T + 1, B)}


def kernels(case: dict[str, Any], window: float) -> Any:
    make = KERNELS[case["query"].dtype.name]
    return make(case["keys"], case["values"], case["lengths"], case["v"], window)


def computed(case: dict[str, Any], window: float) -> dict[str, np.ndarray]:
    memory, v = kernels(case, window), case["v"]
    asked = case["query"], None, case["steps"], case["centre"]
    context, weights = memory.attend(*asked, 0)
    dkeys, dvalues = np.zeros_like(case["keys"]), np.zeros_like(case["values"])
    dv = None if v is None else np.zeros_like(v)
    dquery, dcentre = memory.attend_backward(
        case["dcontext"], weights, case["query"], *asked[2:], dkeys, dvalues, dv
    )
    found = {"context": context, "weights": weights, "query": dquery}
    found |= {"keys": dkeys, "values": dvalues, "v": dv, "centre": dcentre}
    return {name: array for name, array in found.items() if array is not None}


def expected(case: dict[str, Any], window: float) -> dict[str, np.ndarray]:
    """The same by the reference, in float64, query by query."""
    case = {n: a if a is None or a.dtype == int else a.astype(float) for n, a in case.items()}
    (T, B, _), S = case["query"].shape, len(case["keys"])
    context, weights = np.zeros_like(case["dcontext"]), np.zeros((T, B, S))
    d = {n: np.zeros_like(case[n]) for n in ("query", "keys", "values")}
    d |= {n: np.zeros_like(case[n]) for n in ("v", "centre") if case[n] is not None}
    for b, (length, steps) in enumerate(zip(case["lengths"], case["steps"], strict=True)):
        k, m = case["keys"][:length, b], case["values"][:length, b]
        for t in range(steps):
            p = None if case["centre"] is None else case["centre"][t, b]
            context[t, b], found = attend(case["query"][t, b], k, m, case["v"], p, window)
            weights[t, b, :length] = found.weights
            dq, dk, dm, dv, dp = attend_backward(case["dcontext"][t, b], found)
            d["query"][t, b] = dq
            d["keys"][:length, b] += dk
            d["values"][:length, b] += dm
            if dv is not None:
                d["v"] += dv
            if dp is not None:
                d["centre"][t, b] = dp
    return {"context": context, "weights": weights} | d


class TestReference:
    @each_window
    @each_form
    def test_agrees_with_differences(self, additive: bool, window: int) -> None:
        rng = np.random.default_rng(0)
        arrays = {"q": rng.standard_normal(3), "k": rng.standard_normal((6, 3))}
        arrays |= {"m": rng.standard_normal((6, 2))}
        arrays |= {"v": rng.standard_normal(3)} if additive else {}
        arrays |= {"p": np.array(2.7)} if window else {}
        dcontext = rng.standard_normal(2)
        _, found = attend(**arrays, D=window)
        gradients = zip("qkmvp", attend_backward(dcontext, found), strict=True)
        assert_gradients_of(
            lambda: float(attend(**arrays, D=window)[0] @ dcontext),
            [(arrays[name], np.asarray(d)) for name, d in gradients if name in arrays],
        )


class TestKernels:
    @each_window
    @each_form
    @each_dtype
    @each_shape
    def test_agree_with_the_reference(
        self, shape: Any, dtype: str, additive: bool, window: int
    ) -> None:
        case = drawn(shape, dtype, additive, window)
        assert_close(computed(case, window), expected(case, window), TOLERANCE[dtype])

    @each_window
    @each_form
    @each_dtype
    def test_steps_by_themselves_have_the_same_bits(
        self, dtype: str, additive: bool, window: int
    ) -> None:
        case = drawn((9, 3, 21, 33, 70), dtype, additive, window)
        memory = kernels(case, window)
        whole = memory.attend(case["query"], None, None, case["centre"], 0)
        for t in range(9):
            centre = case["centre"][t : t + 1] if window else None
            one = memory.attend(case["query"][t : t + 1], None, None, centre, 0)
            for got, want in zip(one, whole, strict=True):
                np.testing.assert_array_equal(got[0], want[t])

    @each_form
    def test_rows_may_share_a_source(self, additive: bool) -> None:
        case = drawn((1, 4, 7, 5, 3), "float32", additive, 0)
        memory, source = kernels(case, 0), np.array([2, 0, 2, 2, 3, 1])
        query = np.random.default_rng(1).standard_normal((1, 6, 5)).astype("float32")
        got = memory.attend(query, source, None, None, 0)
        picked = {n: np.ascontiguousarray(case[n][:, source]) for n in ("keys", "values")}
        repeated = case | picked | {"lengths": case["lengths"][source]}
        want = kernels(repeated, 0).attend(query, None, None, None, 0)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)

    @each_window
    @each_form
    def test_the_number_of_threads_changes_no_bit(
        self, additive: bool, window: int, set_threads: Callable[[int], None]
    ) -> None:
        case = drawn((20, 40, 15, 48, 64), "float32", additive, window)
        set_threads(1)
        alone = computed(case, window)
        set_threads(3)
        assert_same(computed(case, window), alone)

    @each_window
    @each_form
    def test_padding_is_never_looked_at(self, additive: bool, window: int) -> None:
        case = drawn((6, 4, 7, 5, 3), "float32", additive, window)
        clean = computed(case, window)
        for b, (length, steps) in enumerate(zip(case["lengths"], case["steps"], strict=True)):
            case["keys"][length:, b] = case["values"][length:, b] = np.nan
            case["query"][steps:, b] = case["dcontext"][steps:, b] = np.nan
        assert_same(computed(case, window), clean)

    @each_form
    def test_nan_stays_in_its_row(self, additive: bool) -> None:
        case = drawn((6, 4, 7, 5, 3), "float32", additive, 0)
        clean = computed(case, 0)
        case["values"][0, 2] = np.nan
        context = computed(case, 0)["context"]
        assert np.isnan(context[0, 2]).all()
        np.testing.assert_array_equal(np.delete(context, 2, 1), np.delete(clean["context"], 2, 1))

    @each_form
    def test_scores_may_be_large(self, additive: bool) -> None:
        case = drawn((6, 4, 7, 5, 3), "float64", additive, 0)
        case["query"] *= 1e3
        got, want = computed(case, 0), expected(case, 0)
        for name in ("context", "weights"):
            assert_close({name: got[name]}, {name: want[name]}, 1e-12)


class TestModule:
    """An attention by itself."""

    @pytest.mark.parametrize(
        "options",
        [{}, {"score": "concat", "size": 4}, {"window": 2}, {"score": "concat", "window": 1}],
        ids=["general", "concat", "local", "local concat"],
    )
    def test_gradients_agree_with_differences(self, options: dict[str, Any]) -> None:
        attention, rng = (
            LuongAttention(5, 3, dtype="float64", seed=0, **options),
            np.random.default_rng(0),
        )
        for param in attention.params.values():
            param *= 2
        query, values = rng.standard_normal((4, 2, 5)), rng.standard_normal((6, 2, 3))
        lengths, dy = [6, 2], rng.standard_normal((4, 2, 3))
        (y, weights), pullback = attention.vjp(query, values, lengths=lengths)
        assert y.shape == (4, 2, 3)
        assert weights.shape == (4, 2, 6)
        dquery, dvalues = pullback(dy)
        used = {n: p for n, p in attention.params.items() if n != "combine.weight"}
        assert_gradients_of(
            lambda: float(np.vdot(attention(query, values, lengths=lengths)[0], dy)),
            [
                (query, dquery),
                (values, dvalues),
                *((p, attention.grads[n]) for n, p in used.items()),
            ],
        )

    def test_arrays_may_lie_in_any_order(self) -> None:
        attention, rng = LuongAttention(5, 3, dtype="float64", seed=0), np.random.default_rng(0)
        query, values = rng.standard_normal((4, 2, 5)), rng.standard_normal((6, 2, 3))
        dy = rng.standard_normal((4, 2, 3))
        results = []
        for order in "CF":
            arrays = [np.asarray(a, order=order) for a in (query, values, dy)]
            (y, weights), pullback = attention.vjp(*arrays[:2])
            results.append(dict(zip("ywqv", (y, weights, *pullback(arrays[2])), strict=True)))
        assert_same(*results)

    def test_checks_its_arguments(self) -> None:
        attention = LuongAttention(5, 3)
        query, values = np.zeros((4, 2, 5), "float32"), np.zeros((6, 2, 3), "float32")
        with pytest.raises(ValueError, match=r"query must have shape \(T, 2, 5\), got \(4, 1, 5\)"):
            attention(query[:, :1], values)
        with pytest.raises(
            ValueError, match=r"looked at must have shape \(S, B, 3\), got \(6, 2, 2\)"
        ):
            attention(query, values[..., :2])
        with pytest.raises(TypeError, match="values is float64"):
            attention(query, values.astype(float))
        with pytest.raises(ValueError, match=r"lengths must be in 1\.\.6"):
            attention(query, values, lengths=[7, 1])


class TestErrors:
    def test_name_the_score(self) -> None:
        with pytest.raises(ValueError, match="score must be one of dot, general, concat"):
            LuongAttention(4, 4, "product")
        with pytest.raises(ValueError, match="query_size = memory_size, got 4 and 6"):
            LuongAttention(4, 6, "dot")
        with pytest.raises(ValueError, match="window"):
            LuongAttention(4, 6, window=0)

    def test_bahdanau_scores_by_concatenation(self) -> None:
        assert BahdanauAttention(4, 6).params.keys() == {
            "v",
            "query.weight",
            "query.bias",
            "key.weight",
            "combine.weight",
        }
