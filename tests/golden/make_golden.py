"""Make `torch.npz`, the answers that PyTorch gives to the golden cases of `tests/support/cases.py`.

    pip install torch==2.13.0 numpy pytest
    PYTHONPATH=python python -m tests.golden.make_golden

The file holds one record for each case under its id, with a field for every array: `inputs.x`,
`upstream.y`, `outputs.y`, `gradients.weight_ih_l0` and so on; and beside them `torch_version` and
`seed`. Ragged cases went through `pack_padded_sequence`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.support.cases import GOLDEN, Array, Case, Named, Numbers, named_state

TORCH_VERSION = "2.13.0"
SEED = 20141024
FILE = Path(__file__).with_name("torch.npz")


def main() -> None:
    """Write the file."""
    version = torch.__version__.partition("+")[0]
    if version != TORCH_VERSION:
        raise SystemExit(f"the golden file is made with torch {TORCH_VERSION}, this is {version}")
    records = {}
    for case in GOLDEN:
        numbers = rounded(case.draw(SEED))
        outputs, gradients = torch_results(case, numbers)
        groups = {"inputs": numbers.inputs, "upstream": numbers.upstream}
        groups |= {"outputs": outputs, "gradients": gradients}
        fields = {
            f"{group}.{name}": a for group, named in groups.items() for name, a in named.items()
        }
        if numbers.lengths is not None:
            fields["lengths"] = numbers.lengths
        records[case.id] = as_record(fields)
    np.savez_compressed(
        FILE, torch_version=np.array(torch.__version__), seed=np.array(SEED), **records
    )
    print(f"{FILE}: {len(records)} cases, {FILE.stat().st_size / 1024:.0f} KB")


def rounded(numbers: Numbers) -> Numbers:
    """The numbers on a grid of 1/1024, which compress well."""
    for named in (numbers.inputs, numbers.upstream):
        for array in named.values():
            np.round(array * 1024, out=array)
            array /= 1024
    return numbers


def torch_results(case: Case, numbers: Numbers) -> tuple[Named, Named]:
    """Outputs and gradients by torch.nn."""
    layer = getattr(torch.nn, case.under_test.layer)(
        case.input_size,
        case.hidden_size,
        case.num_layers,
        bias=case.bias,
        bidirectional=case.bidirectional,
        dtype=getattr(torch, case.dtype),
        **case.options,
    )
    layer.load_state_dict({name: torch.from_numpy(a) for name, a in numbers.params.items()})
    leaves = {name: torch.from_numpy(a) for name, a in numbers.inputs.items()}
    inputs = {n: leaf.requires_grad_() for n, leaf in leaves.items() if n not in numbers.params}

    y, last = run(layer, inputs, numbers.lengths)
    outputs = {"y": y} | named_state(last, "_n")
    upstream = {name: torch.from_numpy(a) for name, a in numbers.upstream.items()}
    sum((outputs[name] * d).sum() for name, d in upstream.items()).backward()
    gradients = {
        name: t.grad.numpy() for name, t in (inputs | dict(layer.named_parameters())).items()
    }
    return {name: t.detach().numpy() for name, t in outputs.items()}, gradients


def run(layer: Any, inputs: dict[str, Any], lengths: Array | None) -> tuple[Any, Any]:
    """The layer's outputs and last state, packed on the way if there are lengths."""
    x, first = inputs["x"], tuple(inputs[name] for name in ("h_0", "c_0") if name in inputs)
    state = first if len(first) == 2 else first[0]
    if lengths is None:
        return layer(x, state)
    packed = pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
    packed, last = layer(packed, state)
    return pad_packed_sequence(packed, total_length=len(x))[0], last


def as_record(fields: Named) -> Array:
    """One structured scalar that holds every array in a field of its own shape."""
    record = np.zeros((), [(name, array.dtype, array.shape) for name, array in fields.items()])
    for name, array in fields.items():
        record[name] = array
    return record


if __name__ == "__main__":
    main()
