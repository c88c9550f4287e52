"""First states that are learnt: as if they had been given, row for row, and with a gradient."""

from __future__ import annotations

import copy
import pickle
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Chain,
    DeepRNN,
    LatencyControlled,
    Linear,
    Readout,
    Reversed,
    Windowed,
    quantize,
)
from rnncore.recurrent import registry

from tests.support import cases
from tests.support.cases import CELLS, FULL, TOLERANCE, VARIED, Case, Numbers, each
from tests.support.compare import assert_close, assert_same
from tests.support.gradients import check_cell, check_recurrent, leaves
from tests.support.streams import called, learned, same

#: Every cell, two layers in both directions, ragged; and the odd sizes.
TABLE = [*FULL, *(replace(case, steps=1, batch=1, hidden_size=3) for case in FULL)]


def firsts(case: Case, numbers: Numbers) -> cases.Named:
    """The parameters by which every row starts as the first one of these numbers does."""
    suffixes = [
        f"_l{n}{back}"
        for n in range(case.num_layers)
        for back in ("", "_reverse")[: case.directions]
    ]
    return {
        f"initial_{kind}{suffix}": numbers.inputs[f"{kind}_0"][at, 0]
        for at, suffix in enumerate(suffixes)
        for kind in case.under_test.states
    }


def alike(case: Case) -> Numbers:
    """Numbers whose rows all start as the first one does."""
    numbers = case.draw()
    for kind in case.under_test.states:
        numbers.inputs[f"{kind}_0"][...] = numbers.inputs[f"{kind}_0"][:, :1]
    return numbers


def results(case: Case, numbers: Numbers, **options: Any) -> tuple[cases.Named, cases.Named]:
    """Outputs and gradients of the layer that starts by itself, h_0 and c_0 among the latter."""
    layer = case.layer(learned_state=True, **options)
    layer.load_state_dict(numbers.params | firsts(case, numbers))
    called, _ = layer(numbers.x, lengths=numbers.lengths)
    (y, state), pullback = layer.vjp(numbers.x, lengths=numbers.lengths)
    assert_same({"y": called}, {"y": y})
    dx, dstate = pullback(numbers.dy, numbers.dstate)
    outputs = {"y": y} | cases.named_state(state, "_n")
    return outputs, {"x": dx} | cases.named_state(dstate, "_0") | dict(layer.grads)


class TestLayers:
    @each(TABLE)
    def test_it_is_a_state_that_every_row_is_given(self, case: Case) -> None:
        numbers = alike(case)
        outputs, gradients = results(case, numbers)
        wanted, wanted_gradients = cases.layer_results(case, numbers)
        assert_same(outputs, wanted)
        assert_same({name: gradients[name] for name in wanted_gradients}, wanted_gradients)

    @each(TABLE)
    def test_its_gradient_is_the_references_over_all_rows(self, case: Case) -> None:
        numbers = alike(case)
        _, gradients = results(case, numbers)
        _, wanted = cases.reference_results(case, numbers.astype("float64"))
        sums = {
            name: wanted[f"{name[8]}_0"].sum(axis=1)[at // len(case.under_test.states)]
            for at, name in enumerate(firsts(case, numbers))
        }
        assert_close({n: gradients[n] for n in sums}, sums, TOLERANCE[case.dtype])

    @each(FULL)
    def test_layouts_and_replay_change_nothing(self, case: Case) -> None:
        numbers = alike(case)
        outputs, gradients = results(case, numbers)
        again = results(case, numbers, checkpoint=2)
        assert_same(again[0], outputs)
        assert_same(again[1], gradients)
        turned = replace(
            numbers,
            inputs=numbers.inputs | {"x": numbers.x.swapaxes(0, 1)},
            upstream=numbers.upstream | {"y": numbers.dy.swapaxes(0, 1)},
        )
        got, got_gradients = results(case, turned, batch_first=True)
        assert_same(got, outputs | {"y": outputs["y"].swapaxes(0, 1)})
        assert_same(got_gradients, gradients | {"x": gradients["x"].swapaxes(0, 1)})

    @pytest.mark.parametrize("name", registry.LAYERS)
    def test_it_is_zero_at_first(self, name: str, rng: np.random.Generator) -> None:
        plain, layer = (
            registry.LAYERS[name](3, 5, 2, bidirectional=True, seed=1, learned_state=on)
            for on in (False, True)
        )
        kinds = "hc" if layer.has_cell_state else "h"
        ends = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
        added = {f"initial_{kind}{end}": np.zeros(5, "f4") for end in ends for kind in kinds}
        assert_same(dict(layer.params), dict(plain.params) | added)
        x = rng.standard_normal((4, 2, 3), np.float32)
        same(layer(x)[0], plain(x)[0])
        assert repr(layer).endswith("bidirectional=True, learned_state=True)")

    def test_widths_of_a_projected_state(self) -> None:
        layer = LSTM(3, 5, proj_size=2, learned_state=True)
        assert layer.params["initial_h_l0"].shape == (2,)
        assert layer.params["initial_c_l0"].shape == (5,)

    @pytest.mark.parametrize("options", [{"zoneout": (0.3, 0.2)}, {"weight_drop": 0.4}], ids=str)
    def test_with_regularisers(self, options: dict[str, Any], rng: np.random.Generator) -> None:
        rates = {"variational_dropout": 0.3, "recurrent_dropout": 0.2, "dropout": 0.5}
        layer = learned(
            LSTM(3, 4, 2, **rates, **options, learned_state=True, dtype="float64", seed=0)
        )
        check_recurrent(layer, rng.standard_normal((5, 3, 3)), lengths=[5, 1, 3])

    def test_what_is_given_counts(self, rng: np.random.Generator) -> None:
        layer = learned(LSTM(3, 4, learned_state=True, seed=0))
        plain = LSTM(3, 4, seed=0)
        x = rng.standard_normal((5, 2, 3), np.float32)
        h, c = rng.standard_normal((2, 1, 2, 4), np.float32)
        same(layer(x, (h, c))[0], plain(x, (h, c))[0])
        own_h, own_c = (
            np.repeat(layer.params[f"initial_{kind}_l0"][None, None], 2, axis=1) for kind in "hc"
        )
        for given, whole in (((h, None), (h, own_c)), ((None, c), (own_h, c))):
            same(layer(x, given)[0], plain(x, whole)[0])
            layer.zero_grad()
            (y, _), pullback = layer.vjp(x, given)
            same(y, plain(x, whole)[0])
            pullback(y)
            has = [bool(layer.grads[f"initial_{kind}_l0"].any()) for kind in "hc"]
            assert has == [part is None for part in given]
        layer.zero_grad()
        (y, _), pullback = layer.vjp(x, (h, c))
        pullback(y)
        assert not any(g.any() for n, g in layer.grads.items() if n.startswith("initial"))

    def test_one_sequence_without_its_axis(self, rng: np.random.Generator) -> None:
        layer = learned(GRU(3, 4, 2, bidirectional=True, learned_state=True, seed=0))
        x = rng.standard_normal((5, 3), np.float32)
        (y, _), pullback = layer.vjp(x)
        pullback(y)
        alone = {name: grad.copy() for name, grad in layer.grads.items()}
        layer.zero_grad()
        (batch, _), pullback = layer.vjp(x[:, None])
        pullback(batch)
        same(y, batch[:, 0])
        assert_same(alone, dict(layer.grads))

    @pytest.mark.parametrize("shape", [(0, 3, 3), (4, 0, 3), (0, 0, 3)], ids=str)
    def test_no_steps_and_no_rows(self, shape: tuple[int, ...]) -> None:
        layer = learned(LSTM(3, 4, learned_state=True, dtype="float64", seed=0))
        (_, (h, c)), pullback = layer.vjp(np.zeros(shape))
        assert h.shape == c.shape == (1, shape[1], 4)
        for kind, part in zip("hc", (h, c), strict=True):
            if shape[0] == 0:
                same(part, np.tile(layer.params[f"initial_{kind}_l0"], (1, shape[1], 1)))
        pullback(None, (np.ones_like(h), 2 * np.ones_like(c)))
        if shape[0] == 0:
            assert (layer.grads["initial_h_l0"] == shape[1]).all()
            assert (layer.grads["initial_c_l0"] == 2 * shape[1]).all()

    def test_a_flag(self) -> None:
        with pytest.raises(TypeError, match="learned_state must be True or False, got 'yes'"):
            GRU(3, 4, learned_state="yes")
        with pytest.raises(TypeError):
            GRU(3, 4, 1, True, False, 0.0, False, True)

    def test_threads_may_share_a_layer(self) -> None:
        """Gradients of long states, which NumPy adds without the GIL."""
        layer = learned(RNN(2, 3000, learned_state=True, seed=0))
        x = np.ones((1, 2, 2), np.float32)
        whole = np.ones((1, 2, 3000), np.float32)

        def train() -> None:
            for _ in range(20):
                layer.vjp(x[:0])[1](None, whole)

        threads = [threading.Thread(target=train) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (layer.grads["initial_h_l0"] == 8 * 20 * 2).all()


class TestCells:
    @pytest.mark.parametrize("name", registry.STEPS)
    def test_it_is_a_state_that_every_row_is_given(
        self, name: str, rng: np.random.Generator
    ) -> None:
        cell = learned(registry.STEPS[name](3, 5, learned_state=True, seed=0))
        plain = registry.STEPS[name](3, 5, seed=0)
        firsts = [p for n, p in cell.params.items() if n in ("initial_h", "initial_c")]
        state = tuple(np.tile(first, (2, 1)) for first in firsts)
        state = state if cell.has_cell_state else state[0]
        x = rng.standard_normal((2, 3), np.float32)
        for got, want in zip(leaves(cell(x)), leaves(plain(x, state)), strict=True):
            same(got, want)
        for got, want in zip(leaves(cell(x[0])), leaves(plain(x, state)), strict=True):
            same(got, want[0])
        for got, want in zip(leaves(cell(x, state)), leaves(plain(x, state)), strict=True):
            same(got, want)

    @pytest.mark.parametrize("shape", [(2, 3), (3,)], ids=str)
    @pytest.mark.parametrize("name", registry.STEPS)
    def test_gradients(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        cell = learned(registry.STEPS[name](3, 5, learned_state=True, dtype="float64", seed=0))
        check_cell(cell, rng.standard_normal(shape), None)


def one(kind: Any, size: int = 3, **options: Any) -> Any:
    return kind(size, 4, **{"learned_state": True, "dtype": "float64", "seed": 1} | options)


COMPOSITIONS = {
    "chain": lambda: Chain(one(GRU), Linear(4, 4, dtype="float64", seed=2), one(LSTM, 4, seed=3)),
    "bidirectional": lambda: Bidirectional(one(LSTM), one(GRU, seed=2), "mul"),
    "reversed": lambda: Reversed(one(LSTM, num_layers=2)),
    "deep": lambda: one(DeepRNN, cell="lstm", num_layers=2, input_depth=2, output_depth=2),
    "deep, residual and skip": lambda: one(
        DeepRNN, cell="mgu", num_layers=2, residual=True, skip=True, bidirectional=True
    ),
    "windows": lambda: Windowed(one(GRU), one(LSTM, seed=2), 2, 1),
    "windows back": lambda: Windowed(one(GRU), None, 2),
    "windows, all back": lambda: Windowed(one(GRU), one(LSTM, seed=2), None, 1, "sum"),
    "chunks": lambda: LatencyControlled([(one(GRU), one(LSTM, seed=2))], 2, 1),
    "readout": lambda: Readout(one(LSTM, bidirectional=True)),
    "readout of two": lambda: Readout(Bidirectional(one(LSTM), one(GRU, seed=2)), "mean"),
}


class TestCompositions:
    @pytest.mark.parametrize("lengths", [None, [5, 1, 3]], ids=["even", "ragged"])
    @pytest.mark.parametrize("name", COMPOSITIONS)
    def test_gradients(self, name: str, lengths: Any, rng: np.random.Generator) -> None:
        module = learned(COMPOSITIONS[name]())
        check_recurrent(module, rng.standard_normal((5, 3, 3)), lengths=lengths)

    @pytest.mark.parametrize("lengths", [[5, 0, 3, 0], [0, 0, 0, 0]], ids=str)
    @pytest.mark.parametrize("name", ["readout", "readout of two"])
    def test_rows_of_no_steps_end_where_they_start(
        self, name: str, lengths: list[int], rng: np.random.Generator
    ) -> None:
        module, x = learned(COMPOSITIONS[name]()), rng.standard_normal((5, 4, 3))
        check_recurrent(module, x, lengths=lengths)
        _, state = module(x, lengths=lengths)
        _, first = module.layer(x[:0])
        for got, want in zip(leaves(state), leaves(first), strict=True):
            same(got[:, [1, 3]], want[:, [1, 3]])


class TestCopies:
    def test_files_pickles_and_copies(self, tmp_path: Any, rng: np.random.Generator) -> None:
        module = learned(Chain(one(LSTM, num_layers=2), one(GRU, 4)))
        x = rng.standard_normal((5, 3, 3))
        module.save(tmp_path / "model")
        copies = [rnncore.load(tmp_path / "model"), pickle.loads(pickle.dumps(module))]
        for other in (*copies, copy.deepcopy(module)):
            assert_same(dict(other.params), dict(module.params))
            same(other(x)[0], module(x)[0])
            (y, _), pullback = other.vjp(x)
            pullback(y)
            assert all(other.grads[n].any() for n in other.grads if "initial_" in n)

    @pytest.mark.parametrize("weights", ["int8", "bfloat16"])
    def test_quantized(self, weights: Any, tmp_path: Any, rng: np.random.Generator) -> None:
        model = learned(LSTM(3, 4, 2, learned_state=True, seed=0))
        small = quantize(model, weights)
        x = rng.standard_normal((5, 3, 3)).astype("f4")
        firsts = {n: p for n, p in model.params.items() if n.startswith("initial")}
        assert_same({n: small.params[n] for n in firsts}, firsts)
        _, state = model(x[:0])
        plain = LSTM(3, 4, 2, seed=0)
        same(small(x)[0], quantize(plain, weights)(x, state)[0])
        small.save(tmp_path / "small")
        same(rnncore.load(tmp_path / "small")(x)[0], small(x)[0])
        stream = small.stream(3)
        same(np.stack([stream.step(frame) for frame in x]), small(x)[0])


def test_streams_keep_it_until_refresh(rng: np.random.Generator) -> None:
    model = Chain(one(LSTM), Linear(4, 2, dtype="float64", seed=2))
    learned(model)
    x = rng.standard_normal((4, 2, 3))
    before, _ = called(model, x)
    stream = model.stream(2)
    model.params["0.initial_h_l0"] *= -2
    after, _ = called(model, x)
    same(stream.run(x), before)
    stream.reset([1])
    same(stream.run(x)[:, 1], before[:, 1])
    stream.leave([0])
    stream.join()
    same(stream.run(x)[:, 1], before[:, 1])
    stream.refresh()
    stream.reset([0])
    same(stream.run(x)[:, 0], after[:, 0])
    stream.state = None
    same(stream.run(x), after)
    stream.state = (None,)
    same(stream.run(x), after)


def test_rows_of_a_stream_in_parts(rng: np.random.Generator) -> None:
    class Softer(rnncore.Tanh):
        """Calls otherwise than `stages` says, so that the chain runs in parts."""

        def __call__(self, x: Any) -> Any:
            return super().__call__(x) / 2

    model = learned(Chain(one(GRU), Softer(), one(LSTM, 4)))
    x = rng.standard_normal((4, 3, 3))
    y, _ = model(x)
    stream = model.stream(2)
    stream.run(x[:, 1:])
    stream.reset([0])
    stream.leave(1)
    stream.join(2)
    same(stream.run(x), y)


@pytest.mark.parametrize("proj_size", [0, 2])
def test_torch_has_the_same_gradients(proj_size: int, rng: np.random.Generator) -> None:
    """The way it is done there: a parameter, expanded to the batch."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    options = {"bidirectional": True, "proj_size": proj_size}
    ours = learned(LSTM(3, 4, 2, **options, learned_state=True, dtype="float64", seed=0))
    theirs = torch.nn.LSTM(3, 4, 2, **options, dtype=torch.float64)
    params = {name: torch.from_numpy(p.copy()) for name, p in ours.params.items()}
    first = {kind: [p for n, p in params.items() if f"initial_{kind}" in n] for kind in "hc"}
    first = {kind: torch.stack(parts).requires_grad_() for kind, parts in first.items()}
    theirs.load_state_dict({n: p for n, p in params.items() if not n.startswith("initial")})
    x, lengths = rng.standard_normal((5, 3, 3)), [5, 2, 3]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(x), lengths, enforce_sorted=False
    )
    state = tuple(part[:, None].expand(-1, 3, -1).contiguous() for part in first.values())
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed, state)[0])
    (y, _), pullback = ours.vjp(x, lengths=lengths)
    assert_close({"y": y}, {"y": padded.detach().numpy()}, 1e-12)
    dy = rng.standard_normal(y.shape)
    padded.backward(torch.from_numpy(dy))
    pullback(dy)
    for kind, part in first.items():
        names = [name for name in ours.grads if f"initial_{kind}" in name]
        got = np.stack([ours.grads[name] for name in names])
        assert_close({kind: got}, {kind: part.grad.numpy()}, 1e-12)


def test_table_has_every_cell() -> None:
    assert {case.cell for case in TABLE} == {*CELLS, *VARIED}
