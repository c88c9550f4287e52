"""Bidirectional layers with a bounded latency: chunks with look-ahead, whole or as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_count
from ..module import Module
from ..states import State, add, mapped, split_state
from ..stream.ahead import LookAhead
from ..stream.base import Stream
from ..widths import width_through
from .bidirectional import Bidirectional
from .composition import Composition, Run, Sequences, as_input, check_frames, check_one_way
from .lookahead import no_frames
from .merging import merged
from .ragged import from_end


class LatencyControlled(Composition):
    """Bidirectional layers over chunks with look-ahead, LC-BLSTM (Zhang et al. 2016).

    Also Xue and Yan 2017. Time is cut into chunks of `chunk` frames. Each chunk and the `right`
    frames after it go through the first layer, all of that through the next, and so on; of the last
    layer's outputs those for the `right` frames are dropped. The forward parts start from where
    they stood at the end of the chunk before, the backward parts anew at the end of the
    look-ahead. A frame waits for at most chunk - 1 + right others.

    layers: `Bidirectional`s or pairs (forward, backward), which are merged by "concat"; parts in
    one direction. State: a tuple of the forward parts' states, after each sequence's own end.
    Parameters: `0.forward...`, `0.backward...`, `1.forward...`. With chunk >= T it equals the
    stacked bidirectional layers to the bit, and so does `stream` equal a call.
    """

    looks_ahead = True
    takes_resets = False

    def __init__(
        self, layers: Sequence[Bidirectional | tuple[Module, Module]], chunk: int, right: int = 0
    ) -> None:
        if not isinstance(layers, Iterable):
            raise TypeError(f"layers must be a list of layers, got {type(layers).__name__}")
        pairs = [_pair(at, layer) for at, layer in enumerate(layers)]
        if not pairs:
            raise ValueError("layers must hold at least one pair (forward, backward)")
        super().__init__({f"layers[{at}]": pair for at, pair in enumerate(pairs)})
        self.layers = tuple(pairs)
        self.out_width(None)
        self.chunk, self.right = check_count("chunk", chunk), check_frames("right", right)
        self._entries = f"of {len(pairs)}, one for each layer's forward part"

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers as "0", "1", ..."""
        return ((name.removeprefix("layers."), part) for name, part in super().children())

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        return width_through(((f"layers[{n}]", pair) for n, pair in enumerate(self.layers)), width)

    def stream(self, batch: int = 1) -> Stream:
        """Return a stream; outputs come a chunk at a time, once its look-ahead is there."""
        return _Chunks(self, batch)

    def _run(self, given: Sequences, record: bool) -> Run:
        x, state, lengths, _ = given
        states = split_state("state", state, self._entries, len(self.layers))
        steps = len(x) if lengths is None else int(lengths.max(initial=0))
        chunks, outputs = [], []
        for start in range(0, max(steps, 1), self.chunk):
            block = slice(start, min(start + self.chunk + self.right, steps))
            count = min(self.chunk, steps - start)
            left = None if lengths is None else np.clip(lengths - start, 0, block.stop - start)
            run = self._run_chunk(Sequences(x[block], states, left), count, record)
            states = run.state
            outputs.append(run.y)
            if record:
                chunks.append((slice(start, start + count), block, run.pullback))
        padding = np.zeros((len(x) - steps, *outputs[0].shape[1:]), outputs[0].dtype)
        y = np.concatenate((*outputs, padding))

        def pullback(dy: Array, dstate: State) -> tuple[Any, State]:
            dstates: State = split_state("dstate", dstate, self._entries, len(self.layers))
            dx = None if x.dtype.kind in "iu" else np.zeros(x.shape, x.dtype)
            for own, block, back in reversed(chunks):
                d, dstates = back(dy[own], dstates)
                if dx is not None:
                    dx[block] += d
            return dx, tuple(dstates)

        return Run(y, tuple(states), pullback)

    def _run_chunk(self, given: Sequences, count: int, record: bool) -> Run:
        """Run over a chunk of `count` frames and its look-ahead: all frames in, `count` out."""
        x, after, pullbacks, last = given.x, [], [], len(self.layers) - 1
        for at, (pair, state) in enumerate(zip(self.layers, given.state, strict=True)):
            wanted = count if at == last else len(x)
            run = _run_pair(pair, Sequences(x, state, given.lengths), count, wanted, record)
            x = run.y
            after.append(run.state)
            pullbacks.append(run.pullback)

        def pullback(dy: Array, dstates: State) -> tuple[Any, State]:
            before = []
            d: Any = dy
            for back, dstate in zip(reversed(pullbacks), reversed(dstates), strict=True):
                d, dfirst = back(d, dstate)
                before.append(dfirst)
            return d, before[::-1]

        return Run(x, after, pullback)


def _run_pair(pair: Bidirectional, given: Sequences, count: int, wanted: int, record: bool) -> Run:
    """Run over `count` frames and the look-ahead after them; `wanted` frames come out.

    The state is the forward part's after `count` frames.
    """
    forward, backward = pair.parts
    x, state, lengths, _ = given
    own, rest = _cut_lengths(lengths, count)
    runs = [forward.run(Sequences(x[:count], state, own), record)]
    if wanted > count:
        runs.append(forward.run(Sequences(x[count:], runs[0].state, rest), record))
    ahead = np.concatenate([run.y for run in runs])
    back = from_end(backward.run, given._replace(state=None), record)
    y, unmerge = merged(pair.merge, {"forward": ahead, "backward": back.y[:wanted]})

    def pullback(dy: Array, dstate: State) -> tuple[Any, State]:
        d_ahead, d_wanted = unmerge(dy)
        d_back = np.zeros(back.y.shape, back.y.dtype)
        d_back[:wanted] = d_wanted
        dx_back, _ = back.pullback(d_back, None)
        dx = None if dx_back is None else np.array(dx_back)
        if wanted > count:
            dx_rest, dmiddle = runs[1].pullback(d_ahead[count:], None)
            dstate = add(dstate, dmiddle)
            if dx is not None:
                dx[count:] += dx_rest
        dx_own, dfirst = runs[0].pullback(d_ahead[:count], dstate)
        if dx is not None:
            dx[:count] += dx_own
        return dx, dfirst

    return Run(y, runs[0].state, pullback)


def _cut_lengths(lengths: Array | None, count: int) -> tuple[Array | None, Array | None]:
    if lengths is None:
        return None, None
    return np.minimum(lengths, count), np.maximum(lengths - count, 0)


def _pair(at: int, layer: Bidirectional | tuple[Module, Module]) -> Bidirectional:
    if not isinstance(layer, Bidirectional):
        if not isinstance(layer, (tuple, list)) or len(layer) != 2:
            raise TypeError(
                f"layers[{at}] must be a Bidirectional or a pair (forward, backward), "
                f"got {type(layer).__name__}"
            )
        layer = Bidirectional(*layer)
    check_one_way(f"layers[{at}].forward", layer.forward)
    check_one_way(f"layers[{at}].backward", layer.backward)
    return layer


class _Chunks(LookAhead):
    """The stream of a latency-controlled net; outputs come a chunk at a time, often none.

    Its state is that of the forward parts after the frames whose outputs have been given.
    """

    def __init__(self, model: LatencyControlled, batch: int) -> None:
        super().__init__(batch, model.batch_first)
        self._model, self._axes = model, 1 if model.takes_indices else 2
        self._state: tuple[State, ...] = (None,) * len(model.layers)

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return as_input(self._model, name, x)

    def _settled(self, pending: Array, last: bool) -> tuple[Array, Array]:
        chunk, right = self._model.chunk, self._model.right
        ready = [self._outputs(pending[:0], 0)]
        while len(pending) >= chunk + right:
            ready.append(self._outputs(pending[: chunk + right], chunk))
            pending = pending[chunk:]
        while last and len(pending):
            ready.append(self._outputs(pending, min(chunk, len(pending))))
            pending = pending[chunk:]
        return np.concatenate(ready), pending

    def _outputs(self, block: Array, count: int) -> Array:
        run = self._model._run_chunk(Sequences(block, self._state), count, False)
        self._state = tuple(run.state)
        return run.y

    def _read(self) -> tuple[State, ...]:
        self._outputs(self._no_frames(), 0)  # None becomes arrays
        return (mapped(np.copy, self._state),)

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        own = None if state is None else state[0]
        self._check_rows(batch)
        self._state = tuple(split_state("state", own, self._model._entries, len(self._state)))

    def _no_frames(self) -> Array:
        return no_frames(self._model, self.batch)
