"""Calls of every public class and function, with arguments that nobody should give them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rnncore
from rnncore import Module, convert
from rnncore.configuration import Builder, describe

from tests.support import streams

from . import targets_functions as functions
from .child import MEGABYTE, Target
from .hostile import AskedForMuch, Hostile, Program, same
from .seeds import all_models
from .targets_alignments import ALIGNMENTS

#: What any call may raise, by its documentation: a wrong kind, a wrong value.
_ALWAYS = (TypeError, ValueError)
#: And what the documentation of some says besides.
_USED = (RuntimeError,)  # a pullback that has run, a stream that is finished
_NOT_FINITE = (FloatingPointError,)  # a training loss that is not finite
_NO_FILE = (OSError,)


def targets() -> list[Target]:
    """One for each family of calls."""
    made = [
        _target("layers", [_layer], *_USED, share=4),
        _target("constructors", [_constructor], share=2),
        _target("streams", [_stream], *_USED, share=3),
        _target("losses", functions.LOSSES, *_USED, share=2),
        _target("alignments", ALIGNMENTS, *_USED, share=2),
        _target("optimisers", functions.OPTIMISERS),
        _target("values", functions.VALUES),
        _target("forests", functions.FORESTS, *_USED, share=2),
        _target("searches", functions.SEARCHES, share=0.5),
        _target("texts", functions.TEXTS),
        _target("batches", functions.BATCHES),
        _target("training", functions.TRAINING, *_USED, *_NOT_FINITE, share=0.5),
        _target("parameters_of", [_parameters], KeyError),
        _target("conversions", [_conversion], *_NO_FILE, share=0.3),
    ]
    if find_spec("sklearn"):
        from . import targets_estimators

        made.append(_target("estimators", targets_estimators.PROGRAMS, *_NOT_FINITE, share=0.2))
    return made


class Different(AssertionError):
    """A call whose outcome depends on how its arrays lie in memory."""


def _target(
    name: str, programs: list[Program], *more: type[BaseException], share: float = 1.0
) -> Target:
    documented = _ALWAYS + more
    refused = (*documented, MemoryError, AskedForMuch)

    def outcome(program: Program, seed: int, plain: bool) -> Any:
        hostile = Hostile(seed, plain)
        try:
            program(hostile)
        except refused as error:
            return error
        return hostile.results

    def prepare(luck: Random, path: Path) -> Callable[[], Any]:
        program, seed = luck.choice(programs), luck.getrandbits(64)

        def action() -> None:
            got = outcome(program, seed, False)
            want = outcome(program, seed, True)
            beyond = (MemoryError, AskedForMuch)
            if not isinstance(got, beyond) and not isinstance(want, beyond):
                _compare(got, want)
            if isinstance(got, BaseException):
                raise got

        return action

    memory = 512 * MEGABYTE
    return Target(
        name, prepare, (*documented, AskedForMuch), share=share, memory=memory, may_ask=True
    )


def _compare(got: Any, want: Any) -> None:
    if isinstance(got, BaseException):
        if type(got) is not type(want):
            raise Different(f"got {got!r}, arrays in one piece give {want!r:.500}") from got
    elif isinstance(want, BaseException):
        raise Different(f"accepted, but arrays in one piece give {want!r}") from want
    elif not same(got, want):
        raise Different(f"got {got!r:.1000}, arrays in one piece give {want!r:.1000}")


# Modules


class Twisted:
    """Stands for a module where it is called; what it is given is changed before it gets there."""

    def __init__(self, module: Module, hostile: Hostile) -> None:
        self._module, self._hostile = module, hostile

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return partial(self._hostile.call, value) if inspect.ismethod(value) else value

    def __call__(self, *args: Any, **options: Any) -> Any:
        module, hostile = self._module, self._hostile
        if module.recurrent and hostile.maybe(0.3):
            options["state"] = copy.deepcopy(module(*args, **options)[1])
        ragged = module.recurrent or module.takes_lengths
        if ragged and np.ndim(args[0]) == 3 and hostile.maybe(0.3):
            options["lengths"] = np.array([4, 2])
        if hostile.maybe(0.4):
            return hostile.call(module, *args, **options)
        out, pullback = hostile.call(module.vjp, *args, **options)
        grads = out if module.recurrent or hostile.maybe(0.1) else (out,)
        hostile.call(pullback, *grads)
        hostile.results.append(dict(module.grads))
        if hostile.maybe(0.1):
            pullback(*grads)
        return out


def _layer(hostile: Hostile) -> None:
    """A model of any class, called as the tests call it."""
    model, call = hostile.luck.choice(all_models())
    call(Twisted(copy.deepcopy(model), hostile))


def _constructor(hostile: Hostile) -> None:
    """A class made with other arguments than those of a model, and called if it lets itself."""
    model, call = hostile.luck.choice(all_models())
    hostile.rate = 0.3
    given = describe(model)["arguments"]
    arguments = {name: Builder().build(value) for name, value in given.items()}
    if type(model) in (rnncore.Chain, rnncore.Parallel):
        made = hostile.call(type(model), *arguments.pop("layers", ()), **arguments)
    else:
        names = list(inspect.signature(type(model).__init__).parameters)[1:]
        if names and hostile.maybe(0.3):
            arguments[hostile.luck.choice(names)] = hostile.value()
        made = hostile.call(type(model), **arguments)
    hostile.results.clear()  # weights drawn without a seed
    repr(made)
    call(made)


def _parameters(hostile: Hostile) -> None:
    """Parameters set, replaced and read."""
    model = copy.deepcopy(hostile.luck.choice(all_models())[0])
    state = model.state_dict()
    if not state:
        return
    name, array = hostile.luck.choice(list(state.items()))
    match hostile.luck.randrange(4):
        case 0:
            hostile.call(model.load_state_dict, state)
        case 1:
            hostile.call(model.params.__setitem__, name, array)
        case 2:
            hostile.call(model.params.update, {name: array})
        case 3:
            hostile.call(model.load_state_dict, {name: array, hostile.luck.choice("ab"): array})
    hostile.results.append(model.state_dict())


def _stream(hostile: Hostile) -> None:
    """Everything that a stream does, in any order."""
    luck = hostile.luck
    module = luck.choice([*streams.PROMPT.values(), *streams.DELAYED.values()])
    x = streams.frames(module, 6, 3, seed=1)
    stream = hostile.call(module.stream, 3)
    hostile.results.clear()
    kept = stream.snapshot()
    for _ in range(luck.randint(1, 8)):
        if stream.batch > 100:  # streams without a state take any number of rows
            return
        batch = np.arange(stream.batch) % 3
        match luck.randrange(10):
            case 0 | 1 if not stream.looks_ahead:
                hostile.call(stream.step, x[0, batch])
            case 0 | 1 | 2 | 3:
                hostile.call(stream.run, x[: luck.randint(0, 6), batch])
            case 4 if not stream.looks_ahead:
                frame, out = _in_and_out(hostile, stream, x[0, batch])
                hostile.results.append(np.copy(stream.step(frame, out=out)))
            case 4 | 5:
                rows = luck.choice((None, [0], np.array([1]), np.arange(stream.batch) == 1))
                hostile.call(stream.reset, rows)
            case 6 if stream.batch < 40 and not stream.looks_ahead:
                hostile.call(stream.join, luck.randint(1, 3))
            case 7:
                hostile.call(stream.leave, np.array([luck.randrange(4)]))
            case 8:
                if hostile.maybe():
                    kept = stream.snapshot()
                else:
                    hostile.call(stream.restore, kept)
            case _:
                stream.state = hostile.twisted(stream.state, hostile.rate)
    hostile.results.append(stream.snapshot())
    if hostile.maybe(0.2):
        hostile.call(stream.finish)


def _in_and_out(hostile: Hostile, stream: Any, frame: np.ndarray) -> tuple[Any, Any]:
    """A frame, and an array for the outputs that may be the frame, overlap it or not be fit."""
    before = stream.snapshot()
    out = np.zeros_like(stream.step(frame))
    stream.restore(before)
    held = np.zeros(2 * out.size + frame.size, out.dtype)
    match hostile.luck.randrange(6):
        case 0 if out.shape == frame.shape and out.dtype == frame.dtype:
            return frame, frame
        case 1 if out.dtype == frame.dtype:
            over = held[: frame.size].reshape(frame.shape)
            over[...] = frame
            return over, held[frame.size // 2 :][: out.size].reshape(out.shape)
        case 2:
            return frame, held[: 2 * out.size : 2].reshape(out.shape)
        case 3:
            out.flags.writeable = False
        case 4:
            return frame, hostile.other_array(out)
    return hostile.twisted(frame, hostile.rate), out


# Conversions

_CHECKED: list[tuple[Callable[..., Any], Callable[..., Any], str]] = [
    (convert.to_rtneural, convert.from_rtneural, "model.json")
]
if find_spec("onnx"):
    _CHECKED.append((convert.to_onnx, lambda path: convert.from_onnx(path).module(), "model.onnx"))


def _conversion(hostile: Hostile) -> None:
    """A model written and read back: refused by name, or the same within the project's bounds."""
    model = copy.deepcopy(hostile.luck.choice(all_models())[0])
    hostile.rate /= 4
    with TemporaryDirectory() as folder:
        if hostile.maybe(0.3):
            state = hostile.call(convert.to_torch_state_dict, model)
            hostile.call(convert.from_torch, state)
        else:
            write, read, name = hostile.luck.choice(_CHECKED)
            path = f"{folder}/{name}"
            hostile.call(write, model, path, verify=True, report=lambda check: None)
            read(path)
    hostile.results.clear()
