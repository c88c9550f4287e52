"""Streams: frames in as they come, outputs out, the state kept inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .. import hints
from ..arrays import Array, as_integers, as_rows, check_count, read
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

    def step(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """Take one frame of each row `(B, I)`; return the outputs `(B, O)`, in `out` if given.

        A single row may come without its axis, as `(I,)`, and then returns so.
        """
        if self.looks_ahead:
            raise TypeError("outputs of this stream wait for later frames: use run and finish")
        frame = self._array("x", x)
        y = self._run(self._frames("x", frame[None]))[0]
        if frame.ndim < self._axes:
            y = y[0]
        if out is None:
            return np.asarray(y)
        if not isinstance(out, np.ndarray) or (out.dtype, out.shape) != (y.dtype, y.shape):
            raise ValueError(f"out must be an array of {y.dtype} and shape {y.shape}")
        np.copyto(out, y)
        return out

    def run(self, chunk: npt.ArrayLike) -> Array:
        """Take any number n of frames `(n, B, I)`; return the outputs `(n, B, O)`.

        With `batch_first` the axes are (B, n, ...). A single row may come without its axis.
        """
        x = self._array("chunk", chunk)
        batched = x.ndim > self._axes
        y = self._run(self._frames("chunk", self._swap(x) if batched else x))
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

        return self._write(mapped(anew, self._read(), self._first()), self.batch)

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
        parts, batch = self._parts(), self.batch
        if rows is not None:
            self._check_apart()
            which = np.atleast_1d(self._rows(rows))
            parts, batch = mapped(lambda part: part[..., which, :], parts), len(which)
            check_count("rows", batch)
        return {
            "batch": np.array(batch),
            **{str(n): part for n, part in enumerate(leaves(parts))},
        }

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        """Go back to where `snapshot` was taken, with as many rows as there were then.

        Raises `ValueError` saying what does not fit, and `TypeError` for arrays of another dtype.
        """
        parts, batch = self._taken(snapshot)
        with Rollback(self):
            self._put(parts, batch)
            self._read()  # a layer that has taken its state unseen refuses it now

    def _taken(self, snapshot: Mapping[str, Array]) -> tuple[State, int]:
        """Return the parts that a snapshot holds, and how many rows it is of."""
        mine = self.snapshot().keys()
        if not isinstance(snapshot, Mapping) or mine != snapshot.keys():
            given = ", ".join(snapshot) if isinstance(snapshot, Mapping) else f"{snapshot!r:.80}"
            raise ValueError(f"snapshot must hold {', '.join(mine)}; got {given}")
        parts = (read(name, snapshot[name])[0] for name in mine if name != "batch")
        rows = as_integers("batch", snapshot["batch"])
        if rows.shape != ():
            raise ValueError(f"batch must be one number, got shape {rows.shape}")
        batch = check_count("batch", int(rows))
        return mapped(lambda _: next(parts), self._parts()), batch

    def _check_apart(self) -> None:
        """Refuse to take rows apart that wait for the same frames."""
        if self.looks_ahead:
            raise ValueError("rows of a stream that looks ahead go together: none joins or leaves")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse to be copied or pickled: a copy would share what the core keeps."""
        raise TypeError(f"a stream cannot be copied or pickled: {hints.COPIED}")

    def refresh(self) -> None:
        """Take the weights as they are now."""

    def _rows(self, rows: npt.ArrayLike) -> Array:
        """Return numbers of rows, given as such or as a mask, or refuse them."""
        return as_rows("rows", rows, self.batch)

    # In what the kinds of streams differ. Arrays are (n, B, ...); a state has an entry for each
    # recurrent layer.

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        """Return frames as an array that the first layer takes, with whatever axes."""
        raise NotImplementedError

    def _no_frames(self) -> Array:
        raise NotImplementedError

    def _run(self, x: Array) -> Array:
        """Take frames, all of them or none."""
        raise NotImplementedError

    def _finish(self) -> Array:
        return self._run(self._no_frames())

    def _read(self) -> tuple[State, ...]:
        """Copies of the state's entries."""
        return ()

    def _first(self) -> tuple[State, ...]:
        """The entries of the state from which a row starts, of one row: zero, or what is learnt."""
        return mapped(lambda part: np.zeros_like(part[..., :1, :]), self._read())  # type: ignore[no-any-return]

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        """Take over a state of so many rows; None, also for an entry, is the first one."""
        fill("state", self._read(), state, self._first())
        self.batch = batch

    def _parts(self) -> State:
        """All that tells where the stream stands."""
        return self._read()

    def _put(self, parts: State, batch: int) -> None:
        """Take over `_parts`, of so many rows."""
        for part in leaves(parts):  # before memory is taken for them
            if part.shape[-2:-1] != (batch,):
                raise ValueError(
                    f"state of {batch} rows must have shape (..., {batch}, H), got {part.shape}"
                )
        self._write(parts, batch)

    def _undo(self) -> Callable[[], None]:
        """Return what takes the stream back to where it stands now."""
        return partial(self._put, self._parts(), self.batch)

    def _frames(self, name: str, x: Array) -> Array:
        """Return frames `(n, B, ...)`; those of a single row may lack its axis. A step's n is 1."""
        if x.ndim == self._axes and self.batch == 1:
            x = x[:, None]
        if x.ndim != self._axes + 1 or x.shape[1] != self.batch:
            axes = f"n, {self.batch}" if name == "chunk" else f"{self.batch}"
            axes = f"{self.batch}, n" if name == "chunk" and self.batch_first else axes
            features = ", features" if self._axes == 2 else ""
            given = x.shape[1:] if name == "x" else (self._swap(x) if x.ndim > 2 else x).shape
            raise ValueError(f"{name} must have shape ({axes}{features}), got {given}")
        return x

    def _swap(self, x: Array) -> Array:
        return x.swapaxes(0, 1) if self.batch_first else x


put_hints(Stream, hints.STREAM)


class LookAhead(Stream):
    """Outputs wait for later frames: those that came too early are kept until they serve."""

    looks_ahead = True

    def __init__(self, batch: int, batch_first: bool) -> None:
        super().__init__(batch, batch_first, single=True)
        self._pending: Array | None = None
        self._finished = False

    def reset(self, rows: npt.ArrayLike | None = None) -> None:
        """Start again, with all rows: they wait for the same frames."""
        if rows is not None:
            raise ValueError("rows must be None: the rows of a stream that looks ahead go together")
        self._pending, self._finished = None, False
        self._write(None, self.batch)

    def _settled(self, pending: Array, last: bool) -> tuple[Array, Array]:
        """Return the outputs that are ready (all, if these frames are the last), and what waits."""
        raise NotImplementedError

    def _ahead_of(self, x: Array) -> Array:
        """Return what stands before the first frames that come."""
        return x[:0]

    def _run(self, x: Array) -> Array:
        if self._finished:
            raise RuntimeError("this stream is finished: reset it, or make another one")
        before = self._ahead_of(x) if self._pending is None else self._pending
        if before.shape[2:] != x.shape[2:]:
            raise ValueError(f"chunk must have {before.shape[2]} features, got {x.shape[2]}")
        with Rollback(self):
            y, self._pending = self._settled(np.concatenate((before, x)), False)
        return y

    def _finish(self) -> Array:
        if self._finished:
            raise RuntimeError("this stream is finished: reset it, or make another one")
        pending = self._no_frames() if self._pending is None else self._pending
        with Rollback(self):
            y, self._pending = self._settled(pending, True)
        self._finished = True
        return y

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        self._check_rows(batch)
        super()._write(state, batch)

    def _check_rows(self, batch: int) -> None:
        if batch != self.batch:
            self._check_apart()

    def _parts(self) -> State:
        pending = self._no_frames() if self._pending is None else self._pending
        return self._read(), np.copy(pending), np.array(self._finished)

    def _put(self, parts: State, batch: int) -> None:
        state, pending, finished = parts
        self._write(state, batch)
        pending = native(pending)
        self._check_waiting(pending)
        if finished.dtype != np.bool_ or finished.shape != ():
            raise ValueError(f"whether a stream is finished must be true or false, got {finished}")
        self._pending, self._finished = pending, bool(finished)

    def _check_waiting(self, pending: Array) -> None:
        check_waiting(pending, self._no_frames())

    def _undo(self) -> Callable[[], None]:
        return partial(vars(self).update, vars(self).copy())  # nothing in it is ever written to


def native(array: Array) -> Array:
    """Return a copy in the machine's byte order."""
    copy: Array = array.astype(array.dtype.newbyteorder("="))
    return copy


def check_waiting(frames: Array, like: Array) -> None:
    """Refuse frames that wait which are not of one kind with these."""
    if (frames.dtype, frames.shape[1:]) != (like.dtype, like.shape[1:]):
        raise ValueError(
            f"frames that wait must be {like.dtype} of shape {('n', *like.shape[1:])}, got "
            f"{frames.dtype} {frames.shape}"
        )


class Rollback:
    """Takes streams back to where they stood, if a change of them fails half way."""

    def __init__(self, *streams: Stream) -> None:
        self._undo = [stream._undo() for stream in streams]

    def __enter__(self) -> None:
        pass

    def __exit__(self, error: type[BaseException] | None, *_: Any) -> None:
        if error is not None:
            for undo in self._undo:
                undo()
