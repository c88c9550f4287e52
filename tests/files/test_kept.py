"""Model files that an earlier release wrote: the same parameters to the bit, the same outputs."""

from pathlib import Path

import numpy as np
import pytest
import rnncore
from safetensors.numpy import load_file

from tests.golden.make_models import FOLDER, MODELS, outputs
from tests.support.cases import TOLERANCE
from tests.support.compare import assert_close, assert_same


@pytest.mark.parametrize("name", MODELS)
def test_loads_to_the_same_model(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.safetensors"
    model, params = rnncore.load(path), load_file(path)
    assert params
    assert_same(dict(model.params), params)

    with np.load(FOLDER / "outputs.npz") as file:
        given = {n: array for n, array in file.items() if n.split("/")[0] == name}
    _, call = MODELS[name]
    found = outputs(call(model), name)
    assert found.keys() == given.keys() != set()
    for n, array in given.items():
        assert found[n].dtype == array.dtype
        assert_close({n: found[n]}, {n: array}, TOLERANCE[str(array.dtype)])

    model.save(tmp_path / "again")
    assert_same(dict(rnncore.load(tmp_path / "again").params), params)


def test_every_file_is_tested() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {f"{name}.safetensors" for name in MODELS} | {"outputs.npz"}
