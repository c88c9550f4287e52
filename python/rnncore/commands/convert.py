"""Convert a model between PyTorch, Keras, ONNX, RTNeural and rnncore, by the files' suffixes.

From .safetensors (a model of ours, or a PyTorch state_dict), .npz, .pt, .pth and .ckpt
(state_dicts), .keras, .h5, .onnx, .nam, .aidax and .json (RTNeural or GuitarML; with --prefix a
state_dict); to .safetensors (ours; plain layers have torch's names), .onnx and .json. What cannot
be said is refused by name. With --weights the model is quantized (`rnncore.quantize`), and how far
its outputs are from those in float32 is said.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..arrays import load_arrays
from ..compositions.chain import Chain
from ..module import KEY, WEIGHT_TYPES, load
from ..precision import quantize
from . import options

_PREFIX = "name of the layer, as encoder.lstm, in a state_dict; several make a chain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", type=Path, metavar="IN", help="the model to read")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument("--prefix", action="append", help=_PREFIX)
    parser.add_argument(
        "--batch-first", action="store_true", help="of a state_dict: inputs are (B, T, I)"
    )
    parser.add_argument(
        "--lengths", action="store_true", help="of Keras: lengths stand in the place of masks"
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare with a reference on random input, both ways"
    )
    parser.add_argument(
        "--weights",
        choices=WEIGHT_TYPES,
        help="quantize: the type that weights are held in",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="with --weights: inputs to compare on too, .npy, or .npz with an array x",
    )


def run(args: argparse.Namespace) -> None:
    """Read, write, and say what."""
    from .. import convert

    readers: dict[str, Callable[[], Any]] = {
        ".safetensors": lambda: _read(args),
        ".keras": lambda: convert.from_keras(args.source, lengths=args.lengths, verify=args.verify),
        ".onnx": lambda: convert.from_onnx(args.source, verify=args.verify).module(),
        ".json": lambda: _read_json(args),
        ".aidax": lambda: convert.from_rtneural(args.source, verify=args.verify),
        ".nam": lambda: convert.from_nam(args.source, verify=args.verify),
    }
    readers[".h5"] = readers[".keras"]
    readers |= dict.fromkeys((".npz", ".pt", ".pth", ".ckpt"), lambda: _read_state(args))
    writers: dict[str, Callable[[Any], None]] = {
        ".safetensors": lambda module: module.save(args.out),
        ".onnx": lambda module: convert.to_onnx(module, args.out, verify=args.verify),
        ".json": lambda module: convert.to_rtneural(module, args.out, verify=args.verify),
    }
    for name, path, known in (("IN", args.source, readers), ("OUT", args.out, writers)):
        if path.suffix.lower() not in known:
            raise ValueError(f"{name} must end in {', '.join(known)}, got {path}")
    options.check_writable(args.out)
    data = _inputs(args)
    try:
        module = readers[args.source.suffix.lower()]()
    except TypeError as error:  # arrays of a dtype that no model has: the file's fault, not ours
        raise ValueError(f"{args.source}: {error}") from error
    numbers = sum(array.size for array in module.params.values())
    held = ""
    if args.weights:
        module, held = _quantized(args, module, data)
    writers[args.out.suffix.lower()](module)
    layers = module.layers if isinstance(module, Chain) else [module]
    kinds = ", ".join(type(layer).__name__ for layer in layers)
    print(f"{args.out}: {kinds}; {numbers:,} parameters{held}")


def _read(args: argparse.Namespace) -> Any:
    """Read a .safetensors: a file of ours says more of its model than the shapes do."""
    if args.prefix is None and KEY in load_arrays(args.source)[1]:
        if args.batch_first:
            raise ValueError(f"--batch-first is not for {args.source}, which says so itself")
        return load(args.source)
    return _read_state(args)


def _read_state(args: argparse.Namespace) -> Any:
    from .. import convert

    return convert.from_torch(
        args.source, args.prefix, batch_first=args.batch_first, verify=args.verify
    )


def _read_json(args: argparse.Namespace) -> Any:
    """Read an RTNeural or GuitarML model, or what prefixes name in a state_dict."""
    from .. import convert
    from ..convert.guitarml import is_guitarml

    if args.prefix is not None:
        return _read_state(args)
    read = convert.from_guitarml if is_guitarml(args.source) else convert.from_rtneural
    return read(args.source, verify=args.verify)


def _inputs(args: argparse.Namespace) -> Any:
    """Return what is in the file of data, if there is one."""
    from . import rounding

    if args.data and not args.weights:
        raise ValueError("--data is for --weights")
    return rounding.inputs(args.data) if args.data else None


def _quantized(args: argparse.Namespace, module: Any, data: Any) -> tuple[Any, str]:
    """Quantize, and say what that changes; return also how much the parameters take."""
    from . import rounding

    made = quantize(module, args.weights)
    for line in rounding.differences(module, made, args.data, data):
        print(f"{args.weights} weights: {line}")
    before, after = (sum(array.nbytes for array in m.params.values()) for m in (module, made))
    return made, f" in {after:,} bytes, {before:,} before"
