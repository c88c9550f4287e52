"""Streams: frames in as they come, outputs out, the state kept inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .. import hints
from ..arrays import (
    Array,
    as_different_rows,
    as_integers,
    as_lengths,
    as_resets,
    as_rows,
    as_shape,
    check_count,
    read,
)
from ..hinting import put_hints
from ..states import State, fill, leaves, mapped


class Stream:
    """Sequences that arrive frame by frame, in `batch` rows; made by a module's `stream(batch)`.

    Outputs are those of one call over whole sequences, to the bit, however time is cut. Recurrent
    and linear layers keep the weights that they had when the stream was made until `refresh`; other
    layers read theirs as they are. Streams of one module share its packed weights, and may run side
    by side in several threads, each of them in one. A call that raises leaves the state as it was.
    """

    #: Whether outputs wait for later frames: then `run` may return fewer than it was given.
    looks_ahead = False
    #: Axes of one frame of all rows: (B, I), or (B) where frames are indices.
    _axes = 2

    def __init__(self, batch: int, batch_first: bool = False, single: bool = False) -> None:
        """`single`: the state is the only entry of what `_read` returns, not the tuple of all."""
        self.batch, self.batch_first = check_count("batch", batch), bool(batch_first)
        self._single = single

    def step(
        self,
        x: npt.ArrayLike,
        out: Array | None = None,
        resets: npt.ArrayLike | None = None,
        *,
        rows: npt.ArrayLike | None = None,
    ) -> Array:
        """Take one frame of each row `(B, I)`; return the outputs `(B, O)`, in `out` if given.

        A single row may come without its axis, as `(I,)`, and then returns so. resets: booleans
        `(B,)`, true where a row starts from the first state again with this frame. rows: numbers of
        R different rows, or a mask `(B,)`: x `(R, I)`, resets `(R,)` and the outputs are theirs, in
        this order, and the other rows stay as they are.
        """
        if self.looks_ahead:
            raise TypeError("outputs of this stream wait for later frames: use run and finish")
        which = self._chosen(rows)
        count = self.batch if which is None else len(which)
        frame = self._array("x", x)
        where = None if resets is None else as_resets(resets, (count,))[None]
        y = self._take(self._frames("x", frame[None], count), where, which)[0]
        if frame.ndim < self._axes:
            y = y[0]
        if out is None:
            return np.asarray(y)
        if not isinstance(out, np.ndarray) or (out.dtype, out.shape) != (y.dtype, y.shape):
            raise ValueError(f"out must be an array of {y.dtype} and shape {y.shape}")
        np.copyto(out, y)
        return out

    def run(
        self,
        chunk: npt.ArrayLike,
        resets: npt.ArrayLike | None = None,
        *,
        rows: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
    ) -> Array:
        """Take any number n of frames `(n, B, I)`; return the outputs `(n, B, O)`.

        With `batch_first` the axes are (B, n, ...). A single row may come without its axis. resets:
        booleans `(n, B)`, in the chunk's order of axes, true where a row starts from the first
        state again. rows: as in `step`. lengths: integers `(B,)` or, with rows, `(R,)` in 0..n: how
        many of the frames a row takes. What is past them is not read, and outputs are zero there.
        """
        which = self._chosen(rows)
        count = self.batch if which is None else len(which)
        x = self._array("chunk", chunk)
        batched = x.ndim > self._axes
        frames = self._frames("chunk", self._swap(x) if batched else x, count)
        ends = as_lengths(lengths, len(frames), count, least=0)
        where = None
        if resets is not None:
            given = as_resets(resets, x.shape[:2] if batched else x.shape[:1])
            where = self._swap(given) if batched else given[:, None]
        if ends is None or (ends == len(frames)).all():
            y = self._take(frames, where, which)
        else:
            y = self._ragged(frames, where, which, ends)
        return self._swap(y) if batched else y[:, 0]

    def finish(self) -> Array:
        """Return the outputs that were waiting for later frames; without look-ahead there are none.

        After that, a stream that looks ahead takes no more frames until `reset`.
        """
        return self._swap(self._finish())

    @property
    def state(self) -> State:
        """A copy of the state, as a call of the module returns it. Set it; None: the first."""
        entries = self._read()
        return entries[0] if self._single else entries

    @state.setter
    def state(self, state: State) -> None:
        with Rollback(self):
            self._write((state,) if self._single and state is not None else state, self.batch)
            if state is not None:
                self._read()  # a layer that has taken it unseen refuses it now

    def reset(self, rows: npt.ArrayLike | None = None) -> None:
        """Let all rows, or these, start from the first state again."""
        if rows is None:
            return self._write(None, self.batch)
        which = self._rows(rows)

        def anew(part: Array, first: Array) -> Array:
            part[..., which, :] = first
            return part

        mapped(anew, self._live(), self._first())
        return None

    def join(self, count: int = 1, *, snapshot: Mapping[str, Array] | None = None) -> None:
        """Add rows after those that are there: in the first state, or those of a snapshot.

        What does not fit raises as in `restore`.
        """
        if snapshot is not None:
            self._join(*self._taken(snapshot))
            return
        batch = check_count("batch", self.batch + check_count("count", count))

        def longer(part: Array, first: Array) -> Array:
            return np.concatenate((part, np.repeat(first, count, axis=-2)), axis=-2)

        with Rollback(self):
            self._write(mapped(longer, self._read(), self._first()), batch)

    def _join(self, parts: State, count: int) -> None:
        self._check_apart()

        def longer(own: Array, other: Array) -> Array:
            fits = (*own.shape[:-2], count, *own.shape[-1:])
            if other.shape != fits:
                raise ValueError(f"state of {count} rows must have shape {fits}, got {other.shape}")
            return np.concatenate((own, other), axis=-2)

        with Rollback(self):
            self._put(mapped(longer, self._parts(), parts), self.batch + count)

    def leave(self, rows: npt.ArrayLike) -> None:
        """Take these rows out; those after them move up."""
        left = np.delete(np.arange(self.batch), self._rows(rows))
        if not len(left):
            raise ValueError(f"rows {rows!r} are all that there are: one has to stay")
        with Rollback(self):
            self._write(mapped(lambda part: part[..., left, :], self._read()), len(left))

    def snapshot(self, rows: npt.ArrayLike | None = None) -> dict[str, Array]:
        """Return where the stream, or these rows of it, stand, as named arrays.

        `rnncore.arrays.save_arrays` writes them to a file, `restore` and `join` take them.
        """
        if rows is None:
            parts, batch = self._parts(), self.batch
        else:
            self._check_apart()
            which = np.atleast_1d(self._rows(rows))
            parts, batch = self._parts_of(which), check_count("rows", len(which))
        return {
            "batch": np.array(batch),
            **{str(n): part for n, part in enumerate(leaves(parts))},
        }

    def restore(self, snapshot: Mapping[str, Array], *, rows: npt.ArrayLike | None = None) -> None:
        """Go back to where `snapshot` was taken, with as many rows as there were then.

        rows: numbers of different rows, or a mask `(B,)`: these go to where the snapshot's rows
        stood, and the others stay as they are. Raises `ValueError` saying what does not fit, and
        `TypeError` for arrays of another dtype.
        """
        which = self._chosen(rows)
        parts, batch = self._taken(snapshot)
        if which is not None:
            if batch != len(which):
                raise ValueError(f"snapshot must be of {len(which)} rows, got {batch}")
            return self._place(parts, which)
        with Rollback(self):
            self._put(parts, batch)
            self._read()  # a layer that has taken its state unseen refuses it now
        return None

    def _taken(self, snapshot: Mapping[str, Array]) -> tuple[State, int]:
        """Return the parts that a snapshot holds, and how many rows it is of."""
        mine = ["batch", *(str(n) for n, _ in enumerate(leaves(self._live_parts())))]
        if not isinstance(snapshot, Mapping) or set(mine) != snapshot.keys():
            given = ", ".join(snapshot) if isinstance(snapshot, Mapping) else f"{snapshot!r:.80}"
            raise ValueError(f"snapshot must hold {', '.join(mine)}; got {given}")
        parts = (read(name, snapshot[name])[0] for name in mine if name != "batch")
        rows = as_integers("batch", snapshot["batch"])
        if rows.shape != ():
            raise ValueError(f"batch must be one number, got shape {rows.shape}")
        batch = check_count("batch", int(rows))
        return mapped(lambda _: next(parts), self._live_parts()), batch

    def _check_apart(self) -> None:
        """Refuse to take rows apart that wait for the same frames."""
        if self.looks_ahead:
            raise ValueError(
                "rows of a stream that looks ahead go together: all take the same frames, none "
                "joins or leaves"
            )

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse to be copied or pickled: a copy would share what the core keeps."""
        raise TypeError(f"a stream cannot be copied or pickled: {hints.COPIED}")

    def refresh(self) -> None:
        """Take the weights as they are now."""

    def _rows(self, rows: npt.ArrayLike) -> Array:
        """Return numbers of rows, given as such or as a mask, or refuse them."""
        return as_rows("rows", rows, self.batch)

    def _chosen(self, rows: npt.ArrayLike | None) -> Array | None:
        """Return the numbers of the rows that a call is about; None: of all."""
        if rows is None:
            return None
        self._check_apart()
        return as_different_rows("rows", rows, self.batch)

    # In what the kinds of streams differ. Arrays are (n, B, ...); a state has an entry for each
    # recurrent layer.

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        """Return frames as an array that the first layer takes, with whatever axes."""
        raise NotImplementedError

    def _no_frames(self) -> Array:
        raise NotImplementedError

    def _run(self, x: Array, rows: Array | None = None) -> Array:
        """Take frames of all or some rows `(n, R, ...)`, all of them or none."""
        raise NotImplementedError

    def _take(self, x: Array, resets: Array | None, rows: Array | None = None) -> Array:
        """`_run`, rows starting anew where resets `(n, R)` says so."""
        if resets is None:
            return self._run(x, rows)
        cuts = {0, *np.flatnonzero(resets.any(axis=1)).tolist(), len(x)}
        outputs = []
        with Rollback(self, rows=rows):
            for begin, end in pairwise(sorted(cuts)):
                if resets[begin].any():
                    self.reset(resets[begin] if rows is None else rows[resets[begin]])
                outputs.append(self._run(x[begin:end], rows))
        return np.concatenate(outputs) if outputs else self._run(x, rows)

    def _ragged(self, x: Array, resets: Array | None, rows: Array | None, lengths: Array) -> Array:
        """`_take` so many frames of each row."""
        self._check_apart()
        rows = np.arange(self.batch) if rows is None else rows
        ready, begin = [], 0
        with Rollback(self, rows=rows):
            for end in np.unique(lengths[lengths > 0]).tolist():
                on = np.flatnonzero(lengths >= end)  # these go together until one of them ends
                where = None if resets is None else resets[begin:end, on]
                ready.append((begin, end, on, self._take(x[begin:end, on], where, rows[on])))
                begin = end
        like = ready[0][-1] if ready else self._run(x[:0], rows)
        y = np.zeros((len(x), len(rows), *like.shape[2:]), like.dtype)
        for begin, end, on, part in ready:
            y[begin:end, on] = part
        return y

    def _finish(self) -> Array:
        return self._run(self._no_frames())

    def _read(self) -> tuple[State, ...]:
        """Copies of the state's entries."""
        return tuple(mapped(np.copy, self._live()))

    def _live(self) -> tuple[State, ...]:
        """The state's entries, in which rows are read and written."""
        return ()

    def _first(self) -> tuple[State, ...]:
        """The entries of the state from which a row starts, of one row: zero, or what is learnt."""
        return mapped(lambda part: np.zeros_like(part[..., :1, :]), self._read())  # type: ignore[no-any-return]

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        """Take over a state of so many rows; None, also for an entry, is the first one."""
        fill("state", self._read(), state, self._first())
        self.batch = batch

    def _parts(self) -> State:
        """All that tells where the stream stands, copied."""
        return mapped(np.copy, self._live_parts())

    def _live_parts(self) -> State:
        """All that tells where the stream stands; where rows are apart, to read and write them."""
        return self._live()

    def _parts_of(self, rows: Array) -> State:
        """`_parts` of some rows."""
        return mapped(lambda part: part[..., rows, :], self._live_parts())

    def _place(self, parts: State, rows: Array) -> None:
        """Take over `_parts` of some rows."""

        def fitting(live: Array, part: Array) -> Array:
            shape = *live.shape[:-2], len(rows), live.shape[-1]
            return as_shape(f"state of {len(rows)} rows", part, live.dtype, shape)

        def put(live: Array, part: Array) -> Array:
            live[..., rows, :] = part
            return live

        live = self._live_parts()
        mapped(put, live, mapped(fitting, live, parts))

    def _put(self, parts: State, batch: int) -> None:
        """Take over `_parts`, of so many rows."""
        for part in leaves(parts):  # before memory is taken for them
            if part.shape[-2:-1] != (batch,):
                raise ValueError(
                    f"state of {batch} rows must have shape (..., {batch}, H), got {part.shape}"
                )
        self._write(parts, batch)

    def _undo(self, rows: Array | None = None) -> Callable[[], None]:
        """Return what takes the stream, or these rows of it, back to where it stands now."""
        if rows is not None:
            return partial(self._place, self._parts_of(rows), rows)
        return partial(self._put, self._parts(), self.batch)

    def _frames(self, name: str, x: Array, count: int) -> Array:
        """Return frames of so many rows `(n, R, ...)`; a single row may lack its axis.

        A step's n is 1.
        """
        if x.ndim == self._axes and count == 1:
            x = x[:, None]
        if x.ndim != self._axes + 1 or x.shape[1] != count:
            axes = f"n, {count}" if name == "chunk" else f"{count}"
            axes = f"{count}, n" if name == "chunk" and self.batch_first else axes
            features = ", features" if self._axes == 2 else ""
            given = x.shape[1:] if name == "x" else (self._swap(x) if x.ndim > 2 else x).shape
            raise ValueError(f"{name} must have shape ({axes}{features}), got {given}")
        return x

    def _swap(self, x: Array) -> Array:
        return x.swapaxes(0, 1) if self.batch_first else x


put_hints(Stream, hints.STREAM)


class Rollback:
    """Takes streams, or some rows of them, back to where they stood if a change fails half way."""

    def __init__(self, *streams: Stream, rows: Array | None = None) -> None:
        self._undo = [stream._undo(rows) for stream in streams]

    def __enter__(self) -> None:
        pass

    def __exit__(self, error: type[BaseException] | None, *_: Any) -> None:
        if error is not None:
            for undo in self._undo:
                undo()
