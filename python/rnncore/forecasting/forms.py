"""The forms that series come in: how data and forecasts of each form are built, and read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ..arrays import Array
from .indexes import package_of


class Extra(NamedTuple):
    """A further axis of a forecast: its name, and what stands along it.

    leading: arrays have it before the steps, not behind.
    """

    name: str
    labels: list[Any]
    leading: bool = False


class Form(Protocol):
    """A form of N series."""

    @property
    def timed(self) -> bool:
        """Whether it shows times."""
        ...

    def build(
        self, values: tuple[Array, ...], names: tuple[Any, ...], labels: Any, extra: Extra | None
    ) -> Any:
        """Return values, (T_n,) or with `extra` (T_n, E) of each series, in this form."""
        ...

    def take(self, given: Any, count: int, horizon: int, extra: int | None) -> Array:
        """Return what has this form as an array (N, H), or with `extra` (N, H, E)."""
        ...

    def steps(self, given: Any, count: int) -> int:
        """Return how many steps a forecast in this form has."""
        ...


def _numbers(given: Any, shapes: list[tuple[int, ...]]) -> Array:
    array = np.asarray(given)
    if array.shape not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"a forecast must have shape {wanted}, got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a forecast must hold numbers, got {array.dtype}")
    return array.astype(np.float64)


def _wide(given: Any, count: int, horizon: int, extra: int | None) -> Array:
    """Read an array (H, N) or (H, N, E), or columns (H, N * E), for columns as series."""
    tail = () if extra is None else (extra,)
    shapes = [(horizon, count, *tail), (horizon, count * (extra or 1))]
    shapes += [(horizon, *tail)] if count == 1 else []
    return np.moveaxis(_numbers(given, shapes).reshape(horizon, count, *tail), 1, 0)


@dataclass(frozen=True)
class Arrays:
    """An array (T,), flat, or (T, K); with a package, a series of polars of this name."""

    package: Any = None
    name: Any = None
    flat: bool = True
    timed: ClassVar[bool] = False

    def build(
        self, values: tuple[Array, ...], names: tuple[Any, ...], labels: Any, extra: Extra | None
    ) -> Any:
        """Return an array (T,), (T, K), or with a further axis behind or, if leading, before."""
        if self.package is not None:
            return self._series(values[0], extra)
        out = values[0] if self.flat else np.stack(values, axis=1)
        return np.moveaxis(out, -1, 0) if extra is not None and extra.leading else out

    def take(self, given: Any, count: int, horizon: int, extra: int | None) -> Array:
        """Return an array (N, H) or (N, H, E)."""
        return _wide(given, count, horizon, extra)

    def steps(self, given: Any, count: int) -> int:
        """Return the length of the array, or of the frame."""
        return len(given)

    def _series(self, values: Array, extra: Extra | None) -> Any:
        if extra is None:
            return self.package.Series(self.name, values)
        columns = map(str, extra.labels)
        return self.package.DataFrame(dict(zip(columns, values.T, strict=True)))


@dataclass(frozen=True)
class Indexed:
    """A frame of pandas with time as its index, or, without columns, a series."""

    package: Any
    columns: Any
    name: Any
    timed: ClassVar[bool] = True

    def build(
        self, values: tuple[Array, ...], names: tuple[Any, ...], labels: Any, extra: Extra | None
    ) -> Any:
        """Return a frame or a series; with a further axis, a frame with columns for it."""
        pd = self.package
        if extra is None and self.columns is None:
            return pd.Series(values[0], labels[0], name=self.name)
        table = np.concatenate([part.reshape(len(part), -1) for part in values], axis=1)
        columns = self.columns
        if extra is not None and columns is None:
            columns = pd.Index(extra.labels, name=extra.name)
        elif extra is not None:
            columns = self._columns(extra)
        return pd.DataFrame(table, labels[0], columns)

    def _columns(self, extra: Extra) -> Any:
        """Return the columns with a further level."""
        keys = [key if isinstance(key, tuple) else (key,) for key in self.columns]
        pairs = [(*key, label) for key in keys for label in extra.labels]
        return self.package.MultiIndex.from_tuples(pairs, names=[*self.columns.names, extra.name])

    def take(self, given: Any, count: int, horizon: int, extra: int | None) -> Array:
        """Return an array (N, H) or (N, H, E) of a frame, a series or an array."""
        return _wide(given, count, horizon, extra)

    def steps(self, given: Any, count: int) -> int:
        """Return the length of the array, or of the frame."""
        return len(given)


@dataclass(frozen=True)
class Tables:
    """A frame whose time, if it has one, is a column: wide, or long with a column of series.

    levels: the names of the two levels of its index, where pandas has series and time there. flat:
    it is no frame then, but a series of pandas of one column. told: the columns were said by
    `Columns`.
    """

    package: Any
    time: Any
    series: Any
    values: tuple[Any, ...]
    levels: tuple[Any, Any] | None = None
    flat: bool = False
    told: bool = False
    timed: ClassVar[bool] = True

    def build(
        self, values: tuple[Array, ...], names: tuple[Any, ...], labels: Any, extra: Extra | None
    ) -> Any:
        """Return a frame; with a further axis it has a column for each entry."""
        if self.series is not None:
            return self._long(values, names, labels, extra)
        columns = {} if self.time is None else {self.time: labels[0]}
        for name, part in zip(self.values, values, strict=True):
            if extra is None:
                columns[name] = part
            else:
                columns |= {f"{name}_{at}": part[:, e] for e, at in enumerate(extra.labels)}
        return self.package.DataFrame(columns)

    def _long(
        self, values: tuple[Array, ...], names: tuple[Any, ...], labels: Any, extra: Extra | None
    ) -> Any:
        counts = [len(part) for part in values]
        keys = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
        columns = {self.series: keys, self.time: self._joined(labels)}
        table = np.concatenate(values)
        if extra is None:
            columns[self.values[0]] = table
        else:
            pandas = self.package.__name__ == "pandas"
            named = extra.labels if pandas else map(str, extra.labels)
            columns |= dict(zip(named, table.T, strict=True))
        frame = self.package.DataFrame(columns)
        if self.levels is None:
            return frame
        frame = frame.set_index([self.series, self.time]).rename_axis(self.levels)
        if extra is not None:
            return frame.rename_axis(extra.name, axis=1)
        return frame.iloc[:, 0].rename(self.values[0]) if self.flat else frame

    def _joined(self, labels: list[Any]) -> Any:
        if self.package.__name__ == "pandas":
            return labels[0].append(labels[1:])
        return self.package.concat(labels)

    def take(self, given: Any, count: int, horizon: int, extra: int | None) -> Array:
        """Return an array (N, H) or (N, H, E) of a frame or an array."""
        if hasattr(given, "columns"):
            left = {self.time, self.series} - {None}
            given = given[[column for column in given.columns if column not in left]]
        if self.series is None:
            return _wide(given, count, horizon, extra)
        if package_of(given):
            tail = () if extra is None else (extra,)
            table = _numbers(given, [(count * horizon, extra or 1), (count * horizon, *tail)])
            return table.reshape(count, horizon, *tail)
        return _rows(given, count, horizon, extra)

    def steps(self, given: Any, count: int) -> int:
        """Return the number of rows, of a long frame that of each series."""
        if self.series is None:
            return len(given)
        return len(given) // count if package_of(given) else int(np.shape(given)[1])


def _rows(given: Any, count: int, horizon: int, extra: int | None) -> Array:
    """Read an array (N, H), (N, H, 1), or with a further axis (N, H, E)."""
    tail = () if extra is None else (extra,)
    table = _numbers(given, [(count, horizon, *tail), (count, horizon, 1, *tail)])
    return table.reshape(count, horizon, *tail)


@dataclass(frozen=True)
class Several:
    """A list of what has other forms, each with the names of its series."""

    parts: tuple[tuple[Form, tuple[Any, ...]], ...]

    @property
    def timed(self) -> bool:
        """Whether any part shows its times."""
        return any(form.timed for form, _ in self.parts)

    def build(
        self, values: tuple[Array, ...], names: tuple[Any, ...], labels: Any, extra: Extra | None
    ) -> Any:
        """Return a list of the parts."""
        out, at = [], 0
        for form, own in self.parts:
            part = slice(at, at + len(own))
            out.append(form.build(values[part], own, labels[part], extra))
            at += len(own)
        return out

    def stack(self, parts: list[Any]) -> Any:
        """Return parts that are arrays of one shape as one array, others as they are."""
        plain = all(isinstance(part, np.ndarray) for part in parts)
        return np.stack(parts) if plain and len({part.shape for part in parts}) == 1 else parts

    def take(self, given: Any, count: int, horizon: int, extra: int | None) -> Array:
        """Return an array (N, H) or (N, H, E) of a list or an array."""
        if len(given) != len(self.parts):
            raise ValueError(f"a forecast must have {len(self.parts)} entries, got {len(given)}")
        found = [
            form.take(part, len(own), horizon, extra)
            for (form, own), part in zip(self.parts, given, strict=True)
        ]
        return np.concatenate(found)

    def steps(self, given: Any, count: int) -> int:
        """Return how many steps each part has."""
        return len(given[0]) if len(given) else 0
