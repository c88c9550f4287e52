"""Layers of own cells: equal to the built-in ones, and used like them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import cells
from rnncore.cells import CellDefinition, Gate, Recurrent, sigmoid, tanh
from rnncore.training import Trainer, evaluate

from tests.support import cases
from tests.support.cases import CASES, Case, Named, Numbers, each
from tests.support.compare import assert_close, assert_same
from tests.support.gradients import check_recurrent
from tests.support.own_cells import OWN
from tests.support.shelf import SHELF

#: The rows of the table that are written as own cells.
TABLE = [case for case in CASES if case.cell in OWN]


def own_layer(case: Case, numbers: Numbers) -> Recurrent:
    layer: Recurrent = OWN[case.cell](
        case.input_size,
        case.hidden_size,
        case.num_layers,
        bias=case.bias,
        bidirectional=case.bidirectional,
        dtype=case.dtype,
    )
    layer.load_state_dict(numbers.params)
    return layer


def results(layer: Any, numbers: Numbers) -> tuple[Named, Named]:
    (y, state), pullback = layer.vjp(numbers.x, numbers.state, lengths=numbers.lengths)
    dx, dstate = pullback(numbers.dy, numbers.dstate)
    outputs = {"y": y} | cases.named_state(state, "_n")
    return outputs, {"x": dx} | cases.named_state(dstate, "_0") | dict(layer.grads)


@each(TABLE)
def test_it_equals_the_built_in_cell(case: Case) -> None:
    """One step within 4 units in the last place, many within what they add up to."""
    numbers = case.draw()
    layer, built_in = own_layer(case, numbers), cases.built(case, numbers)
    assert list(layer.params) == list(built_in.params)
    tolerance = (4 if case.steps <= 1 else 16) * np.finfo(case.dtype).eps
    want = results(built_in, numbers)
    for got, expected in zip(results(layer, numbers), want, strict=True):
        assert_close(got, expected, tolerance)
    y, state = layer(numbers.x, numbers.state, lengths=numbers.lengths)
    assert_same({"y": y} | cases.named_state(state, "_n"), results(layer, numbers)[0])


def positive(rng: np.random.Generator, *shape: int, dtype: str = "float64") -> np.ndarray:
    return rng.uniform(0.1, 1, shape).astype(dtype)


def inputs_of(layer: Recurrent, steps: int, batch: int, seed: int = 0) -> tuple[np.ndarray, Any]:
    """x whose columns behind the features are positive, and a state that is."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((steps, batch, layer.columns)).astype(layer.dtype)
    beside = positive(rng, steps, batch, layer.columns - layer.input_size, dtype=layer.dtype)
    x[..., layer.input_size :] = beside
    rows = (layer.num_layers * layer.directions, batch, layer.hidden_size)
    state = tuple(positive(rng, *rows, dtype=layer.dtype) for _ in layer.definition.states)
    return x, state if len(state) > 1 else state[0]


def layers_of(cell: CellDefinition) -> int:
    """A stream of several layers has no inputs beside x."""
    return 1 if any(cell.width_beside) else 2


ALL = OWN | SHELF
every = pytest.mark.parametrize("name", ALL)


@every
def test_check_agrees(name: str) -> None:
    found = cells.check(ALL[name])
    assert found.kernel < 1e-13
    assert found.gradient < 1e-7


def test_gradients_where_the_second_stage_sees_no_h() -> None:
    """Nothing but `of` reaches the recurrent weights: the old h has no gradient at all."""

    @cells.define(gates=[Gate("a", recurrent=False), Gate("n", of=lambda a: tanh(a))])
    def forgetful(a: Any, n: Any) -> Any:
        return tanh(n) * sigmoid(a)

    assert cells.check(forgetful).gradient < 1e-7


@every
def test_gradients_ragged_in_both_directions(name: str) -> None:
    cell = ALL[name]
    layer = cell(2, 3, layers_of(cell), bidirectional=True, dtype="float64", seed=1)
    x, state = inputs_of(layer, 4, 3, seed=2)
    check_recurrent(layer, x, state, lengths=[4, 1, 2])


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_streams_have_the_bits_of_a_call(name: str, dtype: str) -> None:
    cell = ALL[name]
    layer = cell(3, 17, layers_of(cell), dtype=dtype, seed=1)
    x, state = inputs_of(layer, 9, 5)
    y, final = layer(x, state)
    (recorded, _), _ = layer.vjp(x, state)
    assert recorded.tobytes() == y.tobytes()
    stream = layer.stream(5)
    stream.state = state
    parts = [stream.run(x[:2]), stream.step(x[2])[None], stream.run(x[3:])]
    assert np.concatenate(parts).tobytes() == y.tobytes()
    ends = final if isinstance(final, tuple) else (final,)
    kept = stream.state if isinstance(stream.state, tuple) else (stream.state,)
    assert_same(dict(enumerate(kept)), dict(enumerate(ends)))
    chunk, middle = layer(x[:4], state)
    rest, _ = layer(x[4:], middle)
    assert np.concatenate([chunk, rest]).tobytes() == y.tobytes()


@every
def test_threads_and_checkpoints_change_no_bit(name: str) -> None:
    cell = ALL[name]
    found = []
    before = rnncore.get_num_threads()
    try:
        for threads, checkpoint in [(1, False), (2, False), (3, 3), (2, True)]:
            rnncore.set_num_threads(threads)
            layer = cell(5, 40, layers_of(cell), bidirectional=True, seed=1, checkpoint=checkpoint)
            x, state = inputs_of(layer, 20, 33)
            (y, final), pullback = layer.vjp(x, state, lengths=np.arange(33) % 20 + 1)
            dx, dstate = pullback(np.cos(y), final)
            arrays = {"y": y, "x": dx} | dict(layer.grads)
            arrays |= {f"d{k}": a for k, a in enumerate(np.atleast_1d(dstate))}
            found.append(arrays)
    finally:
        rnncore.set_num_threads(before)
    for other in found[1:]:
        assert_same(other, found[0])


@every
def test_a_row_does_not_depend_on_the_others(name: str) -> None:
    cell = ALL[name]
    layer = cell(3, 19, layers_of(cell), seed=1)
    x, state = inputs_of(layer, 6, 7)
    y, _ = layer(x, state, lengths=[6, 1, 3, 6, 2, 5, 4])
    for b, length in enumerate([6, 1, 3, 6, 2, 5, 4]):
        own = [a[:, b : b + 1] for a in (state if isinstance(state, tuple) else (state,))]
        alone, _ = layer(x[:length, b : b + 1], tuple(own) if len(own) > 1 else own[0])
        assert alone.tobytes() == np.ascontiguousarray(y[:length, b : b + 1]).tobytes()
        assert not y[length:, b].any()


@every
def test_files_copies_and_pickles_give_it_back(name: str, tmp_path: Path) -> None:
    cell = ALL[name]
    layer = cell(3, 5, layers_of(cell), bidirectional=True, learned_state=True, seed=1)
    x, state = inputs_of(layer, 4, 2)
    y, _ = layer(x, state)
    layer.save(tmp_path / "a")
    for other in (
        rnncore.load(tmp_path / "a"),
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
    ):
        assert type(other) is Recurrent
        assert repr(other) == repr(layer)
        assert repr(other.definition) == repr(cell)
        assert other(x, state)[0].tobytes() == y.tobytes()


@every
@pytest.mark.parametrize("weights", ["int8", "bfloat16", "bfloat16_dot"])
def test_it_may_be_quantized(name: str, weights: Any, tmp_path: Path) -> None:
    cell = ALL[name]
    layer = cell(8, 32, layers_of(cell), seed=1)
    x, _ = inputs_of(layer, 6, 4)
    held = rnncore.quantize(layer, weights)
    y, found = layer(x)[0], held(x)[0]
    assert 0 < np.abs(found - y).max() < 0.05 * np.abs(y).max()
    held.save(tmp_path / "a")
    assert rnncore.load(tmp_path / "a")(x)[0].tobytes() == found.tobytes()


class TestStates:
    def test_they_come_in_their_order_each_by_itself(self) -> None:
        layer = SHELF["slstm"](3, 4, 2, bidirectional=True, seed=0)
        x, state = inputs_of(layer, 5, 2)
        _, final = layer(x, state)
        assert [a.shape for a in final] == [(4, 2, 4)] * 4
        assert layer.has_cell_state

    def test_none_is_zero(self) -> None:
        layer = SHELF["slstm_sigmoid"](3, 4, seed=0)
        x, _ = inputs_of(layer, 5, 2)
        zero = np.zeros((1, 2, 4), np.float32)
        assert_same({"y": layer(x)[0]}, {"y": layer(x, (None, zero, None, zero))[0]})
        (_, _), pullback = layer.vjp(x)
        _, dstate = pullback(None, (None, zero + 1, None, None))
        assert len(dstate) == 4

    @pytest.mark.parametrize("state", [np.zeros((1, 2, 4)), (None,) * 3, 5, "hcnm!"])
    def test_others_are_refused(self, state: Any) -> None:
        layer = SHELF["slstm"](3, 4, dtype="float64", seed=0)
        with pytest.raises(TypeError, match=r"state must be a tuple \(h, c, n, m\)"):
            layer(np.zeros((5, 2, 3)), state)
        with pytest.raises(ValueError, match=r"state\[2\]"):
            layer(np.zeros((5, 2, 3)), (None, None, np.zeros((1, 2, 5)), None))

    def test_one_that_is_learnt(self) -> None:
        layer = SHELF["slstm_sigmoid"](
            2, 3, 2, bidirectional=True, learned_state=True, dtype="float64", seed=0
        )
        assert layer.params["initial_c_l1_reverse"].shape == (9,)
        for name, array in layer.params.items():
            if name.startswith("initial"):
                array[...] = np.random.default_rng(1).uniform(0.1, 1, array.shape)
        x, state = inputs_of(layer, 4, 3)
        check_recurrent(layer, x, lengths=[4, 1, 2])
        with pytest.raises(ValueError, match="must be given together"):
            layer(x, (None, state[1], None, None))
        stream = layer.definition(2, 3, learned_state=True, seed=0).stream(2)
        assert len(stream.state) == 4

    def test_one_sequence_without_a_batch(self) -> None:
        layer = SHELF["slstm"](3, 4, 2, seed=0)
        x, state = inputs_of(layer, 5, 1)
        y, final = layer(x, state)
        alone, ends = layer(x[:, 0], tuple(a[:, 0] for a in state))
        assert_same({"y": alone}, {"y": y[:, 0]})
        assert_same(dict(enumerate(ends)), {k: a[:, 0] for k, a in enumerate(final)})


class TestInputs:
    def test_join_puts_them_behind_the_features(self) -> None:
        @cells.define(gates="n", inputs=("e", "f"), vectors="v")
        def cell(n, h, e, f, v):
            return tanh(n + e * h) * v + f

        layer = cell(2, 3, batch_first=True, dtype="float64", seed=0)
        rng = np.random.default_rng(0)
        x, e, f = rng.standard_normal((4, 5, 2)), rng.random((4, 5)), rng.random((4, 5))
        v = rng.random((4, 5, 3))
        joined = layer.join(x, v=v, f=f, e=e)
        assert joined.shape == (4, 5, 7) == (4, 5, layer.columns)
        np.testing.assert_array_equal(joined[..., 2:4], np.stack([e, f], axis=-1))
        check_recurrent(layer, joined, lengths=[5, 1, 3, 2])
        with pytest.raises(TypeError, match="join takes e, f, v beside x, got e"):
            layer.join(x, e=e)
        with pytest.raises(ValueError, match=r"v must have shape \(4, 5, 3\)"):
            layer.join(x, e=e, f=f, v=e)
        with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 2\)"):
            layer.join(v, e=e, f=f, v=v)

    @pytest.mark.parametrize("name", ["ltc", "gru_d"])
    def test_each_of_several_layers_reads_them(self, name: str) -> None:
        layer = SHELF[name](3, 4, 3, bidirectional=True, dtype="float64", seed=0)
        x, state = inputs_of(layer, 5, 2)
        y, final = layer(x, state)
        beside, below = x[..., 3:], x
        for n in range(3):
            one = SHELF[name](3 if n == 0 else 8, 4, bidirectional=True, dtype="float64")
            own = {k: a for k, a in layer.params.items() if f"_l{n}" in k}
            one.load_state_dict({k.replace(f"_l{n}", "_l0"): a for k, a in own.items()})
            below, end = one(below, state[2 * n : 2 * n + 2])
            assert end.tobytes() == final[2 * n : 2 * n + 2].tobytes()
            found, below = below, np.concatenate([below, beside], axis=-1)
        assert found.tobytes() == y.tobytes()
        layer = SHELF[name](2, 3, 2, bidirectional=True, dropout=0.3, dtype="float64", seed=0)
        x, state = inputs_of(layer, 4, 3)
        check_recurrent(layer, x, state, lengths=[4, 1, 2])
        with pytest.raises(ValueError, match="with inputs beside x cannot run as a stream"):
            SHELF[name](2, 3, 2).stream()

    def test_x_without_them_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"x must have shape \(T, B, 4\)"):
            SHELF["ltc"](3, 4)(np.zeros((5, 2, 3), np.float32))

    def test_two_stages_that_read_a_vector(self) -> None:
        @cells.define(
            gates=["r", Gate("n", of=lambda r, h, v, e: sigmoid(r) * h * v * e)],
            vectors="v",
            inputs="e",
        )
        def cell(r, n, h, v, e):
            return tanh(n) * v + sigmoid(r) * h * e

        layer = cell(2, 3, bidirectional=True, dtype="float64", seed=0)
        x, state = inputs_of(layer, 4, 3)
        check_recurrent(layer, x, state, lengths=[4, 1, 2])


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [{"dropout": 0.4}, {"variational_dropout": 0.4}, {"weight_drop": 0.4}],
    )
    @pytest.mark.parametrize("name", ["slstm", "gru_reset_before", "lstm_peephole"])
    def test_dropout(self, name: str, options: Any) -> None:
        layer = ALL[name](2, 3, 2, bidirectional=True, dtype="float64", seed=0, **options)
        x, state = inputs_of(layer, 4, 3)
        check_recurrent(layer, x, state, lengths=[4, 1, 2])
        (y, _), _ = layer.vjp(x, state)
        assert np.abs(layer(x, state)[0] - y).max() > 1e-3

    def test_weights_of_cells_without_recurrent_ones_cannot_be_dropped(self) -> None:
        with pytest.raises(ValueError, match="weight_drop needs recurrent weights"):
            SHELF["sru"](3, 4, weight_drop=0.1)

    @pytest.mark.parametrize("cell", ["lstm", lambda x: x, rnncore.LSTM])
    def test_a_cell_is_a_definition(self, cell: Any) -> None:
        with pytest.raises(TypeError, match="cell must be a CellDefinition"):
            Recurrent(cell, 3, 4)

    def test_units_start_as_the_definition_says(self) -> None:
        layer = SHELF["lru"](3, 400, seed=0)
        nu, theta = layer.params["weight_hh_l0"]
        assert -4.6 <= nu.min() < -4.4 < -0.5 < nu.max() <= -0.4
        assert theta.max() <= 1.1
        assert not any(n.startswith("weight_hh") for n in layer.weight_names())

    def test_forget_gates_are_found_by_their_letter(self) -> None:
        own, built_in = OWN["lstm"](3, 4, 2, seed=0), rnncore.LSTM(3, 4, 2, seed=0)
        rnncore.init.set_forget_bias(own, 2.0)
        rnncore.init.set_forget_bias(built_in, 2.0)
        assert_same(own.params, built_in.params)
        with pytest.raises(ValueError, match="set_forget_bias needs an LSTM"):
            rnncore.init.set_forget_bias(SHELF["nbrc"](3, 4))

    def test_onnx_refuses_it_by_name(self, tmp_path: Path) -> None:
        pytest.importorskip("onnx")
        with pytest.raises((TypeError, ValueError), match="Recurrent"):
            rnncore.convert.to_onnx(OWN["lstm"](3, 4), tmp_path / "a.onnx")

    def test_a_model_with_one_is_trained_and_streamed(self) -> None:
        model = rnncore.Chain(OWN["lstm"](2, 8, seed=0), rnncore.Linear(8, 1, seed=1))
        rng = np.random.default_rng(0)
        x = rng.standard_normal((10, 16, 2)).astype(np.float32)
        target = np.cumsum(x[..., :1], axis=0) / 4
        batches, loss = [(x, target)], rnncore.MeanSquaredError()
        before = evaluate(model, loss, batches)
        Trainer(model, loss, rnncore.Adam(model, lr=0.02), batches).fit(60, quiet=True)
        assert evaluate(model, loss, batches) < 0.3 * before
        stream = model.stream(16)
        assert np.stack([stream.step(f) for f in x]).tobytes() == model(x)[0].tobytes()

    @pytest.mark.parametrize("options", [{}, {"residual": True}, {"skip": True}])
    def test_deep_rnn_takes_a_definition(self, options: Any, tmp_path: Path) -> None:
        model = rnncore.DeepRNN(3, 5, cell=SHELF["slstm"], num_layers=2, seed=0, **options)
        named = rnncore.DeepRNN(3, 5, cell=OWN["lstm"], num_layers=2, seed=0, **options)
        plain = rnncore.DeepRNN(3, 5, cell="lstm", num_layers=2, seed=0, **options)
        x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
        assert named(x)[0].tobytes() == plain(x)[0].tobytes()
        for one in (model, named):
            y, _ = one(x)
            stream = one.stream(2)
            assert np.stack([stream.step(f) for f in x]).tobytes() == y.tobytes()
            one.save(tmp_path / "a")
            assert rnncore.load(tmp_path / "a")(x)[0].tobytes() == y.tobytes()

    def test_estimators_take_a_definition(self) -> None:
        estimators = pytest.importorskip("rnncore.estimators")
        sklearn = pytest.importorskip("sklearn.base")
        rng = np.random.default_rng(0)
        x = [rng.standard_normal((n, 2)).astype(np.float32) for n in rng.integers(3, 9, 30)]
        y = np.array([row[:, 0].sum() > 0 for row in x])
        options = {"hidden_size": 8, "max_iter": 3, "random_state": 0}
        own = sklearn.clone(estimators.SequenceClassifier(cell=OWN["lstm"], **options)).fit(x, y)
        named = estimators.SequenceClassifier(cell="lstm", **options).fit(x, y)
        np.testing.assert_array_equal(own.predict_proba(x), named.predict_proba(x))
        timed = estimators.SequenceClassifier(cell=SHELF["cfc"], **options)
        gaps = [np.concatenate([row, np.ones_like(row[:, :1])], axis=1) for row in x]
        assert timed.fit(gaps, y).network_.params["0.layer.weight_ih_l0"].shape == (24, 2)
        with pytest.raises(ValueError, match="x must have features beside the 1 columns"):
            timed.fit([row[:, :1] for row in x], y)
        with pytest.raises(ValueError, match="cell must be one of"):
            estimators.SequenceClassifier(cell="lstn", **options).fit(x, y)


class TestCompositions:
    """States of four arrays go where those of two go."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda cell: rnncore.Readout(cell(3, 4, seed=0, dtype="float64")),
            lambda cell: rnncore.Readout(
                rnncore.Bidirectional(
                    cell(3, 4, seed=0, dtype="float64"), cell(3, 4, seed=1, dtype="float64")
                )
            ),
            lambda cell: rnncore.Reversed(cell(3, 4, 2, seed=0, dtype="float64")),
            lambda cell: rnncore.Residual(cell(3, 3, 2, seed=0, dtype="float64")),
            lambda cell: rnncore.Chain(
                cell(3, 4, seed=0, dtype="float64"), rnncore.GRU(4, 2, seed=0, dtype="float64")
            ),
            lambda cell: rnncore.DeepRNN(
                3, 4, cell=cell, num_layers=2, skip=True, seed=0, dtype="float64"
            ),
        ],
    )
    def test_gradients(self, make: Any) -> None:
        module = make(SHELF["slstm_sigmoid"])
        x = np.random.default_rng(0).standard_normal((5, 3, 3))
        check_recurrent(module, x, lengths=[5, 1, 3])

    def test_return_state(self) -> None:
        layer = SHELF["slstm"](3, 4, 2, seed=0)
        x, state = inputs_of(layer, 5, 2)
        y, *rows = rnncore.ReturnState(layer)(x, *(a[n] for n in range(2) for a in state))
        whole, final = layer(x, state)
        assert y.tobytes() == whole.tobytes()
        for at, row in enumerate(rows):
            np.testing.assert_array_equal(row, final[at % 4][at // 4])

    def test_a_decoder_takes_those_of_two(self) -> None:
        embedding, head = rnncore.Embedding(7, 3, seed=0), rnncore.Linear(4, 7, seed=1)
        with pytest.raises(ValueError, match="the state h or"):
            rnncore.Decoder(embedding, SHELF["slstm"](3, 4), None, head)
        own = rnncore.Decoder(embedding, OWN["lstm"](3, 4, seed=2), None, head)
        plain = rnncore.Decoder(embedding, rnncore.LSTM(3, 4, seed=2), None, head)
        ids = np.array([[1, 2], [3, 6]])
        memory = np.zeros((5, 2, 6), np.float32)
        assert own(ids, memory)[0].tobytes() == plain(ids, memory)[0].tobytes()
