"""Ways around layers: what they compute, their gradients, padding, states, streams, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import (
    GRU,
    LSTM,
    MGU,
    RNN,
    Bidirectional,
    Chain,
    Conv1d,
    Embedding,
    FinalBridge,
    Identity,
    LayerNorm,
    Linear,
    Module,
    Parallel,
    Readout,
    Residual,
    Reversed,
    RowConvolution,
    Sigmoid,
    Tanh,
)
from rnncore.compositions.merging import MERGES
from rnncore.seq2seq.bridge import finals

from tests.support.compare import assert_same
from tests.support.gradients import check_layer, check_recurrent, leaves
from tests.support.streams import same

F64 = {"dtype": "float64"}
LENGTHS = [4, 6, 1]


def gru(inputs: int = 3, size: int = 3, **options: Any) -> GRU:
    return GRU(inputs, size, **F64, **{"seed": 1} | options)


def lstm(inputs: int = 3, size: int = 3, **options: Any) -> LSTM:
    return LSTM(inputs, size, **F64, **{"seed": 2} | options)


def linear(inputs: int, outputs: int) -> Linear:
    return Linear(inputs, outputs, **F64, seed=3)


#: Recurrent ones by name; x has three features.
RECURRENT = {
    "residual": lambda **o: Residual(gru(**o)),
    "residual of two": lambda **o: Residual(Chain(lstm(size=4, **o), linear(4, 3))),
    "residual, nested": lambda **o: Chain(Residual(Residual(lstm(**o))), Residual(gru(**o))),
    "residual of both ways": lambda **o: Residual(Bidirectional(gru(**o), lstm(**o), "sum")),
    "concat": lambda **o: Parallel(gru(size=2, **o), Identity(), lstm(size=4, **o), linear(3, 1)),
    "sum": lambda **o: Parallel(gru(**o), linear(3, 3), Tanh(), lstm(**o), merge="sum"),
    "mean": lambda **o: Parallel(gru(**o), Reversed(gru(**o)), Identity(), merge="mean"),
    "mul": lambda **o: Parallel(gru(**o), Sigmoid(), lstm(**o), merge="mul"),
    "one": lambda **o: Parallel(lstm(**o), merge="sum"),
    "of readouts": lambda **o: Parallel(Readout(gru(**o)), Readout(lstm(**o), "mean")),
    "nested": lambda **o: Parallel(
        Parallel(gru(**o), lstm(**o)), Residual(gru(**o)), merge="concat"
    ),
}
POINTWISE = {
    "residual": lambda: Residual(Chain(linear(3, 5), Tanh(), linear(5, 3))),
    "residual of an activation": lambda: Residual(Tanh()),
    "concat": lambda: Parallel(linear(3, 2), Identity(), LayerNorm(3, **F64)),
    "mul": lambda: Parallel(linear(3, 3), Chain(Sigmoid()), Tanh(), merge="mul"),
    "convolutions": lambda: Parallel(
        Conv1d(3, 3, 3, padding="same", **F64, seed=1),
        Conv1d(3, 3, 1, **F64, seed=2),
        Identity(),
        merge="mean",
    ),
}
each_recurrent = pytest.mark.parametrize("name", RECURRENT)
each_raggedness = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["even", "ragged"])


@pytest.mark.parametrize("merge", MERGES)
def test_outputs_are_merged(merge: str, rng: np.random.Generator) -> None:
    layers = gru(size=4), linear(3, 4), Chain(lstm(size=4), Tanh())
    x = rng.standard_normal((6, 2, 3))
    outputs = np.stack([layers[0](x)[0], layers[1](x), layers[2](x)[0]])
    want = {
        "concat": np.concatenate(outputs, axis=-1),
        "sum": outputs.sum(axis=0),
        "mean": outputs.mean(axis=0),
        "mul": outputs.prod(axis=0),
    }
    model = Parallel(*layers, merge=merge)
    y, state = model(x)
    np.testing.assert_allclose(y, want[merge], rtol=1e-14)
    assert [len(leaves(part)) for part in state] == [1, 2]
    assert model.out_width(3) == model.out_width(None) == y.shape[-1]


def test_x_is_added(rng: np.random.Generator) -> None:
    layer = lstm(num_layers=2)
    x = rng.standard_normal((6, 2, 3))
    state = tuple(rng.standard_normal((2, 2, 2, 3)))
    (y, after), (inner, final) = Residual(layer)(x, state), layer(x, state)
    same(y, x + inner)
    for got, want in zip(after, final, strict=True):
        same(got, want)
    same(Residual(Tanh())(x), x + Tanh()(x))
    same(Residual(Tanh())([[1.0, 2.0]]), np.float32([[1, 2]]) + Tanh()([[1.0, 2.0]]))


class TestGradients:
    @each_raggedness
    @each_recurrent
    def test_of_recurrent_ones(self, name: str, lengths: Any, rng: np.random.Generator) -> None:
        model, x = RECURRENT[name](), rng.standard_normal((6, 3, 3))
        check_recurrent(model, x, lengths=lengths)
        check_recurrent(model, x, model(x)[1], lengths=lengths)

    @pytest.mark.parametrize("name", POINTWISE)
    def test_of_others(self, name: str, rng: np.random.Generator) -> None:
        model = POINTWISE[name]()
        check_layer(model, rng.standard_normal((6, 2, 3)))
        check_layer(model, rng.standard_normal((6, 3)))

    def test_of_indices(self, rng: np.random.Generator) -> None:
        model = Parallel(
            Chain(Embedding(5, 3, **F64, seed=0), gru()), Embedding(5, 2, **F64, seed=1)
        )
        x = rng.integers(5, size=(6, 3))
        check_recurrent(model, x)
        check_recurrent(model, x, lengths=LENGTHS)
        check_layer(Parallel(*model.layers[1:], merge="mul"), x)

    def test_nothing_is_zero(self, rng: np.random.Generator) -> None:
        model, x = RECURRENT["concat"](), rng.standard_normal((6, 3, 3))
        (y, state), pullback = model.vjp(x)
        dx, dstate = pullback(None, None)
        assert not dx.any()
        assert not any(d.any() for d in leaves(dstate))
        (_, state), pullback = model.vjp(x)
        dx, _ = pullback(None, (None, state[1]))
        assert dx.any()
        assert not any(g.any() for n, g in model.grads.items() if n.startswith("0."))
        with pytest.raises(RuntimeError, match="already run"):
            pullback(y)


class TestPadding:
    @each_recurrent
    def test_holds_anything(self, name: str, rng: np.random.Generator) -> None:
        model, x = RECURRENT[name](), rng.standard_normal((6, 3, 3))
        results = []
        for spoilt in (0.0, np.nan):
            for row, length in enumerate(LENGTHS):
                x[length:, row] = spoilt
            model.zero_grad()
            (y, state), pullback = model.vjp(x, lengths=LENGTHS)
            dy = np.random.default_rng(0).standard_normal(y.shape)
            if y.ndim == 3:
                for row, length in enumerate(LENGTHS):
                    assert not y[length:, row].any()
                    dy[length:, row] = spoilt
            found = [y, *leaves(state), *leaves(pullback(dy)), *model.grads.values()]
            results.append({str(n): np.array(array) for n, array in enumerate(found)})
            same(model(x, lengths=LENGTHS)[0], y)
        assert_same(results[1], results[0])

    @each_recurrent
    def test_rows_do_not_see_it(self, name: str, rng: np.random.Generator) -> None:
        model, x = RECURRENT[name](), rng.standard_normal((6, 3, 3))
        y, _ = model(x, lengths=LENGTHS)
        for row, length in enumerate(LENGTHS):
            alone, _ = model(x[:length, row])
            np.testing.assert_array_equal(y[row] if y.ndim == 2 else y[:length, row], alone)
        turned, _ = RECURRENT[name](batch_first=True)(x.swapaxes(0, 1), lengths=LENGTHS)
        np.testing.assert_array_equal(turned if y.ndim == 2 else turned.swapaxes(0, 1), y)

    def test_of_convolutions(self, rng: np.random.Generator) -> None:
        """Without a state: lengths are told, and what becomes of them."""
        model, x = POINTWISE["convolutions"](), rng.standard_normal((6, 3, 3))
        y = model(x, lengths=LENGTHS)
        for row, length in enumerate(LENGTHS):
            np.testing.assert_allclose(y[:length, row], model(x[:length, row]), rtol=1e-13)
            assert not y[length:, row].any()
        np.testing.assert_array_equal(model.out_lengths(LENGTHS), LENGTHS)
        shorter = Parallel(Conv1d(3, 2, 3, **F64), Chain(Conv1d(3, 4, 3, **F64)))
        assert shorter(x).shape == (4, 3, 6)
        np.testing.assert_array_equal(shorter.out_lengths(LENGTHS), [2, 4, 0])
        deep = Residual(Chain(Conv1d(3, 4, 3, padding="same", **F64), Tanh(), linear(4, 3)))
        check_layer(deep, x)
        np.testing.assert_allclose(deep(x, lengths=LENGTHS)[:4, 0], deep(x[:4, 0]), rtol=1e-13)
        with pytest.raises(ValueError, match="must leave rows of the same lengths"):
            Parallel(Conv1d(3, 2, 3, **F64), Identity()).out_lengths(LENGTHS)
        with pytest.raises(ValueError, match=r"same axes but for the last, got \(6, 3, 3\) from x"):
            Residual(Conv1d(3, 3, 3, **F64))(x)


@each_recurrent
@pytest.mark.parametrize("shape", [(0, 3, 3), (5, 0, 3)], ids=str)
def test_no_steps_and_no_rows(name: str, shape: tuple[int, ...]) -> None:
    model = RECURRENT[name]()
    (y, state), pullback = model.vjp(np.zeros(shape))
    same(model(np.zeros(shape))[0], y)
    dx, dstate = pullback(np.ones_like(y), state)
    assert dx.shape == shape
    assert [d.shape for d in leaves(dstate)] == [part.shape for part in leaves(state)]


@pytest.mark.usefixtures("set_threads")
@each_recurrent
def test_any_number_of_threads(name: str, set_threads: Any, rng: np.random.Generator) -> None:
    model, x = RECURRENT[name](), rng.standard_normal((9, 40, 3))
    results = []
    for count in (1, 3):
        set_threads(count)
        model.zero_grad()
        (y, state), pullback = model.vjp(x)
        found = [y, *leaves(state), *leaves(pullback(y)), *model.grads.values()]
        results.append({str(n): np.array(array) for n, array in enumerate(found)})
    assert_same(results[1], results[0])


def test_names_and_states(rng: np.random.Generator) -> None:
    model = Chain(Parallel(gru(size=2), Tanh(), lstm(size=1)), Residual(gru(6, 6)))
    assert [*model.params][:1] == ["0.0.weight_ih_l0"]
    assert "0.2.weight_ih_l0" in model.params
    assert "1.module.weight_ih_l0" in model.params
    x = rng.standard_normal((6, 2, 3))
    y, state = model(x)
    first, middle = model(x[:3])
    rest, end = model(x[3:], middle)
    same(np.concatenate((first, rest)), y)
    for got, want in zip(leaves(end), leaves(state), strict=True):
        same(got, want)
    own = state[0][0], None
    same(model(x, (own, None))[0][:1], model(x[:1], (own, None))[0])


class TestStreams:
    """Those of the tables of `tests.support.streams` are tried in tests/stream."""

    def test_of_what_is_not_compiled(self, rng: np.random.Generator) -> None:
        class Doubled(Module):
            pointwise = True

            def __call__(self, x: Any) -> Any:
                return 2 * x

        model = Chain(
            Parallel(Chain(Embedding(5, 3, **F64), gru()), Embedding(5, 3, **F64), merge="sum"),
            Residual(Chain(Doubled(), lstm())),
        )
        x = rng.integers(5, size=(8, 3))
        y, state = model(x)
        stream = model.stream(2)
        got = [stream.step(frame[:2]) for frame in x[:3]]
        stream.join()
        stream.reset([2])
        got += [stream.run(x[3:])[:, :2]]
        same(np.concatenate([np.stack(got[:3]), got[3]]), y[:, :2])
        stream.reset()
        same(stream.run(x), y)
        for mine, theirs in zip(leaves(stream.state), leaves(state), strict=True):
            same(mine, theirs)
        with pytest.raises(ValueError, match="state must be a tuple of 1 entries"):
            stream.state = ((state[0][0], state[0][0]), state[1])
        for mine, theirs in zip(leaves(stream.state), leaves(state), strict=True):
            same(mine, theirs)

    def test_single_activations_are_not_skipped(self) -> None:
        """What has no parameters is called; its kernels alone are not all of it."""
        x, out = np.float32([[1, -2, 3]]), np.empty((1, 3), np.float32)
        for model in (Residual(Tanh()), Parallel(Tanh(), Identity(), merge="sum")):
            same(model.stream().step(x, out), model(x))
            chain = Chain(Tanh(), model)
            same(chain.stream().step(x, out), chain(x))

    def test_outputs_wait_for_one_another(self, rng: np.random.Generator) -> None:
        model = Parallel(RowConvolution(3, 2, **F64), gru(), merge="sum")
        x = rng.standard_normal((8, 2, 3))
        y, _ = model(x)
        stream = model.stream(2)
        assert len(stream.run(x[:2])) == 0
        same(stream.run(x[2:5]), y[:3])
        before = stream.snapshot()
        same(np.concatenate((stream.run(x[5:]), stream.finish())), y[3:])
        stream.restore(before)
        same(np.concatenate((stream.run(x[5:]), stream.finish())), y[3:])
        with pytest.raises(RuntimeError, match="finished"):
            stream.run(x)
        other = model.stream(2)
        other.restore(stream.snapshot())
        with pytest.raises(RuntimeError, match="finished"):
            other.run(x)
        stream.reset()
        same(np.concatenate((stream.run(x), stream.finish())), y)
        for change in (stream.join, lambda: stream.leave(0), lambda: stream.reset([0])):
            with pytest.raises(ValueError, match="go together"):
                change()
        damaged = before | {name: part[:, :1] for name, part in before.items() if part.ndim == 3}
        with pytest.raises(ValueError):  # noqa: PT011  whichever part is looked at first
            stream.restore(damaged)
        stream.restore({n: part.astype(part.dtype.newbyteorder(">")) for n, part in before.items()})
        same(np.concatenate((stream.run(x[5:]), stream.finish())), y[3:])
        last = max(before, key=lambda name: -1 if name == "batch" else int(name))
        with pytest.raises(ValueError, match=r"frames that wait must be float64 of shape \('n', 2"):
            stream.restore(before | {last: before[last][..., :1]})

    def test_convolutions_wait_and_remember(self, rng: np.random.Generator) -> None:
        x = rng.standard_normal((8, 2, 3))
        for padding in ("same", "causal", 0):
            convolution = Conv1d(3, 3, 3, padding=padding, **F64, seed=1)
            model = Chain(
                Parallel(convolution, gru() if padding else Conv1d(3, 2, 3, **F64)), Tanh()
            )
            y = model(x)[0] if model.recurrent else model(x)
            stream = model.stream(2)
            parts = [stream.run(x[:1]), stream.run(x[1:6]), stream.run(x[6:]), stream.finish()]
            same(np.concatenate(parts), y)
            if padding == "causal":
                stream.reset()
                stream.run(x[:, ::-1])
                stream.reset([1])
                stream.leave(0)
                same(stream.run(x[:, 1:]), y[:, 1:])

    def test_refusals(self) -> None:
        for model in (Residual(Reversed(gru())), Parallel(gru(), Bidirectional(gru(), gru()))):
            with pytest.raises(TypeError, match="cannot run as a stream: it reads sequences from"):
                model.stream()


class TestRefusals:
    def test_widths(self) -> None:
        for build, message in (
            (lambda: Residual(gru(3, 4)), "as many features as it takes, but of 3 it makes 4"),
            (lambda: Residual(Chain(linear(2, 5), lstm(5, 3))), "of 2 it makes 3"),
            (lambda: Parallel(gru(3, 4), gru(4, 4)), "layer 0 takes 3 features, layer 1 4"),
            (lambda: Parallel(gru(), Embedding(3, 3, **F64)), "takes 3 features, layer 1 indices"),
            (lambda: Parallel(gru(), lstm(3, 4), merge="sum"), "3 from layer 0 and 4 from layer 1"),
            (lambda: Chain(linear(3, 4), Residual(gru())), "one gives 4 features, the next takes"),
            (lambda: Chain(Residual(gru()), linear(4, 3)), "one gives 3 features, the next takes"),
        ):
            with pytest.raises(ValueError, match=message):
                build()
        assert Residual(Tanh()).out_width(None) is None
        assert Parallel(Tanh(), gru(size=4)).out_width(None) is None
        assert Parallel(Tanh(), gru(size=4)).out_width(3) == 7

    def test_layers(self) -> None:
        for build, error, message in (
            (Parallel, ValueError, "layers must be at least one"),
            (lambda: Parallel(gru(), "gru"), TypeError, "layer 1 must be a Module, got str"),
            (lambda: Residual(None), TypeError, "module must be a Module, got NoneType"),
            (lambda: Residual(Embedding(3, 3)), ValueError, "module must take features"),
            (lambda: Parallel(Embedding(3, 3), Identity()), ValueError, "must all take indices"),
            (lambda: Parallel(gru(), merge="concatenate"), ValueError, "merge must be one of conc"),
            (lambda: Parallel(gru(), GRU(3, 3)), ValueError, "must have the same dtype"),
            (lambda: Parallel(gru(), gru(batch_first=True)), ValueError, "the same batch_first"),
        ):
            with pytest.raises(error, match=message):
                build()

    def test_a_number_has_no_features(self) -> None:
        for model in (Residual(Tanh()), Parallel(Tanh(), Sigmoid(), merge="mul")):
            with pytest.raises(ValueError, match=r"axes but for the last, got \(\) from"):
                model(np.float32(1))

    def test_calls(self, rng: np.random.Generator) -> None:
        x = rng.standard_normal((6, 3, 3))
        model = Parallel(gru(), lstm(), Tanh())
        _, state = model(x)
        for given in (state[:1], (*state, None)):
            with pytest.raises(ValueError, match="state must be a tuple of one entry for each"):
                model(x, given)
        with pytest.raises(TypeError, match="state must be a tuple of one entry for each recurr"):
            model(x, state[0])
        for other in (Residual(Tanh()), Parallel(linear(3, 2))):
            for options in ({"state": state}, {"lengths": LENGTHS}):
                with pytest.raises(TypeError, match="recurrent: it takes no state or lengths"):
                    other(x, **options)
        with pytest.raises(ValueError, match=r"lengths must be in 0\.\.6, got 7"):
            model(x, lengths=[7, 1, 1])
        with pytest.raises(ValueError, match=r"lengths must have shape \(3,\), got \(2,\)"):
            model(x, lengths=[1, 1])
        with pytest.raises(TypeError, match="x must be integers, got float64"):
            Parallel(Embedding(3, 3))(x)
        with pytest.raises(ValueError, match=r"got \(6, 3, 3\) from layer 0 and \(3, 3\) from"):
            Parallel(gru(), Readout(gru()))(x)
        (y, _), pullback = model.vjp(x)
        with pytest.raises(ValueError, match=r"dy must have shape \(6, 3, 9\)"):
            pullback(y[..., 1:])


def test_bridges_read_what_goes_around(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 2, 3))
    layer = lstm(num_layers=2)
    (layers, _), (want, _) = (
        finals(encoder, encoder(x)[1]) for encoder in (Chain(Residual(layer)), layer)
    )
    for got, wanted in zip(layers, want, strict=True):
        same(got[0], wanted[0])
    encoder = Parallel(gru(), gru())
    with pytest.raises(TypeError, match="a bridge cannot read the state of a Parallel"):
        finals(encoder, encoder(x)[1])
    decoder = rnncore.Decoder(None, lstm(3, 3, num_layers=2), None, linear(3, 3))
    model = rnncore.Seq2Seq(Residual(layer), decoder, FinalBridge())
    assert model(x, x).shape == (5, 2, 3)


def test_cells_of_any_kind_may_stand_beside(rng: np.random.Generator) -> None:
    """Wide enough for sums in several vectors, float32, as a stream and as a call."""
    layers = [kind(7, 33, seed=n) for n, kind in enumerate((RNN, GRU, LSTM, MGU))]
    x = rng.standard_normal((5, 3, 7)).astype(np.float32)
    for merge in MERGES:
        model = Parallel(*layers, merge=merge)
        same(model.stream(3).run(x), model(x)[0])
