"""The compiled layers: right, and the same to the bit however they are called."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore.recurrent import registry

from tests.support import cases
from tests.support.cases import (
    CASES,
    CASES_FLOAT64,
    CELLS,
    FULL,
    LINEAR,
    SMALL,
    TOLERANCE,
    VARIANTS,
    Case,
    Numbers,
    each,
    named_state,
)
from tests.support.compare import assert_close, assert_gradient_along, assert_gradients, assert_same

#: The cases that vary everything, but dense.
DENSE = [replace(case, ragged=False) for case in FULL]

LONG = [
    Case(cell, dtype, 1, ragged, ragged, 1000, 4, 17, 33)
    for cell in CELLS
    for dtype in TOLERANCE
    for ragged in (False, True)
]

#: What a cell can do.
STEPS = [Case(cell, dtype) for cell in CELLS for dtype in TOLERANCE]
STEPS += [Case(cell) for cell, row in VARIANTS.items() if row.layer in ("RNN", "LSTM", "GRU")]


def unaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers, none of them at a multiple of its own size."""
    buffer = np.empty(array.nbytes + 1, np.uint8)[1:]
    moved = buffer.view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


#: Ways for the same numbers to lie in memory.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1),
    "unaligned": unaligned,
    "read-only": read_only,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}


def per_row(case: Case, numbers: Numbers) -> cases.Named:
    """All results but those of the parameters: each belongs to one sequence of the batch."""
    outputs, gradients = cases.layer_results(case, numbers)
    return outputs | {name: g for name, g in gradients.items() if name not in numbers.params}


class TestAgainstTheReference:
    @each(CASES + LONG)
    def test_outputs_and_gradients_agree(self, case: Case) -> None:
        numbers = case.draw()
        results = cases.layer_results(case, numbers)
        wanted = cases.reference_results(case, numbers.astype("float64"))
        for got, want in zip(results, wanted, strict=True):
            assert {array.dtype.name for array in got.values()} == {case.dtype}
            assert_close(got, want, TOLERANCE[case.dtype])

    @each(FULL)
    def test_saturated_units_agree(self, case: Case) -> None:
        numbers = case.draw()
        numbers.x[...] *= 100
        results = cases.layer_results(case, numbers)
        wanted = cases.reference_results(case, numbers.astype("float64"))
        for got, want in zip(results, wanted, strict=True):
            assert_close(got, want, TOLERANCE[case.dtype])

    @each(LINEAR)
    def test_linear_cells_are_exact_on_whole_numbers(self, case: Case) -> None:
        numbers = case.draw_integers()
        results = cases.layer_results(case, numbers)
        wanted = cases.reference_results(case, numbers.astype("int64"))
        for got, want in zip(results, wanted, strict=True):
            assert_close(got, want, 0)


class TestAgainstDifferences:
    @each(SMALL)
    def test_every_entry_of_every_gradient_agrees(self, case: Case) -> None:
        numbers = case.draw()
        _, gradients = cases.layer_results(case, numbers)
        assert_gradients(partial(cases.layer_outputs, case), numbers, gradients)

    @each(CASES_FLOAT64)
    def test_gradients_agree_along_a_random_direction(self, case: Case) -> None:
        numbers = case.draw()
        _, gradients = cases.layer_results(case, numbers)
        assert_gradient_along(partial(cases.layer_outputs, case), numbers, gradients)

    @pytest.mark.parametrize("cell", CELLS)
    def test_dropout_between_layers_has_the_gradient_of_its_own_mask(self, cell: str) -> None:
        case = Case(cell, num_layers=3, bidirectional=True, ragged=True)
        numbers = case.draw()

        def same_mask(numbers: Numbers) -> tuple[cases.Named, cases.Named]:
            return cases.layer_results(case, numbers, dropout=0.5, seed=1)

        _, gradients = same_mask(numbers)
        assert_gradient_along(lambda moved: same_mask(moved)[0], numbers, gradients)


class TestToTheBit:
    """However a computation is cut, called or laid out in memory, its bits are the same."""

    @each(CASES)
    def test_inference_is_what_training_computes(self, case: Case) -> None:
        numbers = case.draw()
        outputs, _ = cases.layer_results(case, numbers)
        assert_same(cases.layer_outputs(case, numbers), outputs)

    @pytest.mark.parametrize("size", [1, 2, 7])
    @each([case for case in CASES if not case.bidirectional and not case.ragged])
    def test_chunks_of_time_are_the_whole(self, case: Case, size: int) -> None:
        numbers = case.draw()
        layer = cases.built(case, numbers)
        y, last = layer(numbers.x, numbers.state)
        pieces, state = [y[:0]], numbers.state
        for start in range(0, max(case.steps, 1), size):
            piece, state = layer(numbers.x[start : start + size], state)
            pieces.append(piece)
        assert_same({"y": np.concatenate(pieces)}, {"y": y})
        assert_same(named_state(state, "_n"), named_state(last, "_n"))

    @each([case for case in CASES if case.batch > 1])
    def test_a_row_does_not_depend_on_the_batch_around_it(self, case: Case) -> None:
        numbers = case.draw()
        together = per_row(case, numbers)
        for b in range(case.batch):
            alone = per_row(case, numbers.row(b))
            assert_same(alone, cases.row(together, b, numbers.length(b)))

    @each([case for case in CASES if case.ragged and case.steps and case.batch])
    def test_padding_is_neither_read_nor_written(self, case: Case) -> None:
        numbers, spoilt = case.draw(), case.draw()
        ends = [numbers.length(b) for b in range(case.batch)]
        padding = np.arange(case.steps)[:, np.newaxis] >= ends
        spoilt.x[padding] = np.nan
        spoilt.dy[padding] = np.nan
        results = cases.layer_results(case, spoilt)
        for got, want in zip(results, cases.layer_results(case, numbers), strict=True):
            assert_same(got, want)
        assert not results[0]["y"][padding].any()
        assert not results[1]["x"][padding].any()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @each(FULL)
    def test_what_is_not_finite_stays_in_its_row(self, case: Case, bad: float) -> None:
        numbers, spoilt = case.draw(), case.draw()
        spoilt.x[0, 1, 0] = bad
        clean, tainted = per_row(case, numbers), per_row(case, spoilt)
        for b in set(range(case.batch)) - {1}:
            end = numbers.length(b)
            assert_same(cases.row(tainted, b, end), cases.row(clean, b, end))
        if np.isnan(bad):
            assert np.isnan(tainted["y"][0, 1]).all()

    @each(FULL)
    def test_batch_first_is_transposed(self, case: Case) -> None:
        numbers = case.draw()
        outputs, gradients = cases.layer_results(case, numbers)
        turned = replace(
            numbers,
            inputs=numbers.inputs | {"x": numbers.x.swapaxes(0, 1)},
            upstream=numbers.upstream | {"y": numbers.dy.swapaxes(0, 1)},
        )
        got, got_gradients = cases.layer_results(case, turned, batch_first=True)
        assert_same(got, outputs | {"y": outputs["y"].swapaxes(0, 1)})
        assert_same(got_gradients, gradients | {"x": gradients["x"].swapaxes(0, 1)})

    @pytest.mark.parametrize("batch_first", [False, True])
    @each([replace(case, batch=1) for case in DENSE])
    def test_one_unbatched_sequence_is_a_batch_of_one(self, case: Case, batch_first: bool) -> None:
        numbers = case.draw()
        outputs, gradients = cases.layer_results(case, numbers)
        single = replace(
            numbers,
            inputs={n: a if n in numbers.params else a[:, 0] for n, a in numbers.inputs.items()},
            upstream={name: a[:, 0] for name, a in numbers.upstream.items()},
        )
        got, got_gradients = cases.layer_results(case, single, batch_first=batch_first)
        assert_same(got, {name: a[:, 0] for name, a in outputs.items()})
        assert_same(
            got_gradients,
            {n: a if n in numbers.params else a[:, 0] for n, a in gradients.items()},
        )

    @pytest.mark.parametrize("layout", LAYOUTS)
    @each(FULL)
    def test_the_layout_in_memory_does_not_matter(self, case: Case, layout: str) -> None:
        numbers, lay_out = case.draw(), LAYOUTS[layout]
        laid_out = replace(
            numbers,
            inputs={name: lay_out(array) for name, array in numbers.inputs.items()},
            upstream={name: lay_out(array) for name, array in numbers.upstream.items()},
        )
        results = cases.layer_results(case, laid_out)
        for got, want in zip(results, cases.layer_results(case, numbers), strict=True):
            assert_same(got, want)

    @each(FULL)
    def test_threads_may_share_a_layer(self, case: Case) -> None:
        numbers = case.draw()
        layer = cases.built(case, numbers)
        want, _ = layer(numbers.x, numbers.state, lengths=numbers.lengths)
        with ThreadPoolExecutor(4) as pool:
            calls = [
                pool.submit(layer, numbers.x, numbers.state, lengths=numbers.lengths)
                for _ in range(16)
            ]
        for call in calls:
            assert_same({"y": call.result()[0]}, {"y": want})

    @each(FULL)
    def test_saved_and_loaded_is_the_same(self, case: Case, tmp_path: Path) -> None:
        numbers = case.draw()
        layer, other = cases.built(case, numbers), case.layer(seed=5)
        layer.save(tmp_path / "model.safetensors")
        other.load(tmp_path / "model.safetensors")
        want, got = (
            m(numbers.x, numbers.state, lengths=numbers.lengths)[0] for m in (layer, other)
        )
        assert_same({"y": got}, {"y": want})


class TestCells:
    """A cell is one time step: walked by hand it is a layer of one direction."""

    def cell(self, case: Case, numbers: Numbers) -> Any:
        cell = getattr(rnncore, case.under_test.layer + "Cell")(
            case.input_size, case.hidden_size, dtype=case.dtype, **case.options
        )
        cell.load_state_dict({n.replace("_l0", ""): a for n, a in numbers.params.items()})
        return cell

    @each(STEPS)
    def test_walked_by_hand_it_is_the_layer(self, case: Case) -> None:
        numbers = case.draw()
        cell, state = self.cell(case, numbers), of_only_layer(numbers.state)
        outputs = cases.layer_outputs(case, numbers)
        for x, y in zip(numbers.x, outputs["y"], strict=True):
            state = cell(x, state)
            h = state[0] if isinstance(state, tuple) else state
            assert_same({"h": h}, {"h": y})

    @each(STEPS)
    def test_walked_back_by_hand_it_has_the_gradients(self, case: Case) -> None:
        numbers = case.draw()
        cell, state = self.cell(case, numbers), of_only_layer(numbers.state)
        pullbacks = []
        for x in numbers.x:
            state, pullback = cell.vjp(x, state)
            pullbacks.append(pullback)
        dstate = of_only_layer(numbers.dstate)
        dx = np.empty_like(numbers.x)
        for t in reversed(range(case.steps)):
            dh, *dc = dstate if isinstance(dstate, tuple) else (dstate,)
            dh = dh + numbers.dy[t]
            dx[t], dstate = pullbacks[t]((dh, *dc) if dc else dh)
        _, want = cases.reference_results(case, numbers.astype("float64"))
        got = {"x": dx} | {n: a[np.newaxis] for n, a in named_state(dstate, "_0").items()}
        got |= {name: cell.grads[name.replace("_l0", "")] for name in numbers.params}
        assert_close(got, want, TOLERANCE[case.dtype])

    @pytest.mark.parametrize("name", registry.STEPS)
    def test_no_state_is_zero(self, name: str, rng: np.random.Generator) -> None:
        cell = registry.STEPS[name](3, 5, seed=0)
        x, zero = rng.standard_normal((2, 3), np.float32), np.zeros((2, 5), np.float32)
        zeros = (zero, zero) if cell.has_cell_state else zero
        assert_same(named_state(cell(x), ""), named_state(cell(x, zeros), ""))


def of_only_layer(state: Any) -> Any:
    """The state of a layer of one direction, as its cell takes it."""
    return tuple(component[0] for component in state) if isinstance(state, tuple) else state[0]
