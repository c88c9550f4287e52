"""The oracle itself: against central differences, against itself, and exact on whole numbers."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from rnncore import reference

from tests.support import cases
from tests.support.cases import CASES, CASES_FLOAT64, CELLS, LINEAR, SMALL, VARIANTS, Case, each
from tests.support.compare import assert_close, assert_gradient_along, assert_gradients, assert_same


def test_the_rows_of_the_table_are_distinct() -> None:
    assert len({case.id for case in CASES}) == len(CASES)


@each(SMALL)
def test_every_entry_of_every_gradient_agrees_with_its_difference(case: Case) -> None:
    numbers = case.draw()
    _, gradients = cases.reference_results(case, numbers)
    assert_gradients(partial(cases.reference_outputs, case), numbers, gradients)


@each(CASES_FLOAT64)
def test_gradients_agree_with_a_difference_along_a_random_direction(case: Case) -> None:
    numbers = case.draw()
    _, gradients = cases.reference_results(case, numbers)
    assert_gradient_along(partial(cases.reference_outputs, case), numbers, gradients)


@each([case for case in CASES_FLOAT64 if case.ragged])
def test_ragged_is_each_sequence_by_itself(case: Case) -> None:
    numbers = case.draw()
    outputs, gradients = cases.reference_results(case, numbers)
    total = {name: np.zeros_like(gradient) for name, gradient in gradients.items()}
    for b in range(case.batch):
        length = numbers.length(b)
        outputs_alone, gradients_alone = cases.reference_results(case, numbers.row(b))
        assert_close(cases.row(outputs, b, length), outputs_alone, 1e-13)
        for name, part in cases.row(total, b, length).items():
            part += gradients_alone[name]
        assert not outputs["y"][length:, b].any()
    assert_close(gradients, total, 1e-12)


@each([case for case in CASES_FLOAT64 if case.ragged and case.steps > 1 and case.batch])
def test_what_the_padding_holds_does_not_matter(case: Case) -> None:
    numbers = case.draw()
    ends = [numbers.length(b) for b in range(case.batch)]
    padding = np.arange(case.steps)[:, np.newaxis] >= ends
    spoilt = case.draw()
    spoilt.x[padding] = np.nan
    spoilt.dy[padding] = np.nan
    for got, want in zip(
        cases.reference_results(case, spoilt), cases.reference_results(case, numbers), strict=True
    ):
        assert_same(got, want)


@pytest.mark.parametrize("cell", CELLS | VARIANTS)
def test_full_lengths_are_no_lengths(cell: str) -> None:
    case = Case(cell, num_layers=2, bidirectional=True)
    numbers = case.draw()
    full = replace(numbers, lengths=np.full(case.batch, case.steps))
    for got, want in zip(
        cases.reference_results(case, full), cases.reference_results(case, numbers), strict=True
    ):
        assert_same(got, want)


@each(LINEAR)
def test_linear_cells_are_exact_on_whole_numbers(case: Case) -> None:
    numbers = case.draw_integers()
    floats = cases.reference_results(case, numbers)
    integers = cases.reference_results(case, numbers.astype("int64"))
    for got, want in zip(floats, integers, strict=True):
        assert all(np.abs(array).max() < 2**22 for array in want.values())
        assert_close(got, want, 0)


def test_resetting_before_or_after_is_the_same_where_units_do_not_mix(
    rng: np.random.Generator,
) -> None:
    case = Case("gru", num_layers=1)
    numbers = case.draw()
    new_rows = slice(2 * case.hidden_size, None)
    numbers.params["weight_hh_l0"][new_rows] = np.diag(rng.standard_normal(case.hidden_size))
    numbers.params["bias_hh_l0"][new_rows] = 0
    after = cases.reference_outputs(case, numbers)
    before = cases.reference_outputs(replace(case, cell="gru_reset_before"), numbers)
    assert_close(before, after, 1e-15)


def test_an_lstm_step_by_hand() -> None:
    """With every pre-activation zero: i = f = o = 1/2, g = 0, so c' = c / 2, h' = tanh(c') / 2."""
    params = {"weight_ih_l0": np.zeros((4, 1)), "weight_hh_l0": np.zeros((4, 1))}
    state = (np.full((1, 1, 1), 5.0), np.full((1, 1, 1), 3.0))
    y, (h, c), _ = reference.forward(reference.LSTM(), params, np.ones((1, 1, 1)), state)
    assert c.item() == 1.5
    assert h.item() == y.item() == pytest.approx(np.tanh(1.5) / 2, rel=1e-15)


@pytest.mark.parametrize("cell", CELLS | VARIANTS)
def test_everything_keeps_the_precision_of_the_parameters(cell: str) -> None:
    case = Case(cell, "float32", num_layers=2, bidirectional=True, ragged=True)
    outputs, gradients = cases.reference_results(case, case.draw())
    assert {array.dtype.name for array in (outputs | gradients).values()} == {"float32"}


def test_no_steps_give_back_the_state_and_its_gradient() -> None:
    case = Case("lstm", num_layers=2, bidirectional=True, steps=0)
    numbers = case.draw()
    outputs, gradients = cases.reference_results(case, numbers)
    for name in ("h", "c"):
        np.testing.assert_array_equal(outputs[f"{name}_n"], numbers.inputs[f"{name}_0"])
        np.testing.assert_array_equal(gradients[f"{name}_0"], numbers.upstream[f"{name}_n"])
    assert not any(gradients[name].any() for name in numbers.params)


def test_no_upstream_gradient_means_zero() -> None:
    case = Case("gru", num_layers=2, bidirectional=True, ragged=True)
    numbers = case.draw()
    *_, tape = reference.forward(
        case.under_test.reference,
        numbers.params,
        numbers.x,
        numbers.state,
        numbers.lengths,
        2,
        True,
    )
    dx, dstate, grads = reference.backward(tape)
    assert not any(np.any(array) for array in (dx, dstate, *grads.values()))
