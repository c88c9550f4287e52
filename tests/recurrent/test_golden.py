"""The reference and the compiled layers against PyTorch's own answers, stored in a file."""

from pathlib import Path

import numpy as np
import pytest

from tests.support import cases
from tests.support.cases import GOLDEN, TOLERANCE, Case, Named, Numbers, each
from tests.support.compare import assert_close

FILE = Path(__file__).parents[1] / "golden" / "torch.npz"


@pytest.fixture(scope="module")
def golden() -> Named:
    with np.load(FILE) as file:
        return dict(file)


def numbers_and_answers(record: np.ndarray) -> tuple[Numbers, tuple[Named, Named]]:
    def group(prefix: str) -> Named:
        names = record.dtype.names or ()
        return {n.removeprefix(prefix): record[n] for n in names if n.startswith(prefix)}

    lengths = record["lengths"] if "lengths" in (record.dtype.names or ()) else None
    numbers = Numbers(group("inputs."), group("upstream."), lengths)
    return numbers, (group("outputs."), group("gradients."))


def test_the_file_holds_the_golden_cases_of_the_table(golden: Named) -> None:
    assert golden.keys() == {case.id for case in GOLDEN} | {"torch_version", "seed"}
    assert str(golden["torch_version"]).startswith("2.13.0")


@each(GOLDEN)
def test_the_reference_agrees_with_torch(case: Case, golden: Named) -> None:
    numbers, answers = numbers_and_answers(golden[case.id])
    results = cases.reference_results(case, numbers)
    for got, want in zip(results, answers, strict=True):
        assert_close(got, want, TOLERANCE[case.dtype])


@each(GOLDEN)
def test_the_layers_agree_with_torch(case: Case, golden: Named) -> None:
    numbers, answers = numbers_and_answers(golden[case.id])
    results = cases.layer_results(case, numbers)
    for got, want in zip(results, answers, strict=True):
        assert_close(got, want, TOLERANCE[case.dtype])
