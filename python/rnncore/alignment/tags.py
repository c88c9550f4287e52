"""Names of tags that mark spans, BIO and BIOES: what may follow what, and the spans they mark.

B-X begins a span of kind X, I-X continues it, O is outside of all       (BIO, as in CoNLL-2000)
and E-X ends one, S-X is one of a single step                            (BIOES)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, as_booleans, check_choice, check_count, short

#: The schemes, each by its letters.
SCHEMES = ("BIO", "BIOES")


class Constraints(NamedTuple):
    """What a CRF allows, as booleans."""

    transitions: Array  # (K, K), [from, to]
    start: Array  # (K,)
    end: Array  # (K,)


class Span(NamedTuple):
    """Steps start..stop-1 of a sequence, and of what kind they are."""

    kind: str
    start: int
    stop: int


def tag_constraints(names: Sequence[str], scheme: str = "BIO") -> Constraints:
    """Return what the names of K tags allow, in their order, for `CRF(K, constraints=...)`.

    BIO: I-X only behind B-X or I-X. BIOES: B-X and I-X only before I-X or E-X, and these only
    behind those. Raises `ValueError` for names that are not of the scheme, that come twice, or
    that could never come in an allowed sequence, such as I-X without a B-X.
    """
    names = _names(names)
    tags = [_split(name, scheme) for name in names]
    if not names:
        raise ValueError("names must have at least one name, got none")
    twice = [name for at, name in enumerate(names) if name in names[:at]]
    if twice:
        raise ValueError(f"names have {twice[0]!r} twice")
    for name, (mark, kind) in zip(names, tags, strict=True):
        wanted = [("B", kind)] if mark in ("I", "E") else []
        if scheme == "BIOES" and mark in ("B", "I"):
            wanted.append(("E", kind))
        for other in wanted:
            if other not in tags:
                raise ValueError(f"names have {name!r}, but no {'-'.join(other)!r} to go with it")
    ends = scheme == "BIOES"
    opens = [kind if mark in ("B", "I") else None for mark, kind in tags]
    wants = [kind if mark in ("I", "E") else None for mark, kind in tags]
    transitions = [
        [before == after if after or (ends and before) else True for after in wants]
        for before in opens
    ]
    start = [kind is None for kind in wants]
    end = [not (ends and kind) for kind in opens]
    return Constraints(*(np.array(part, np.bool_) for part in (transitions, start, end)))


def tag_spans(names: Iterable[str], scheme: str = "BIO") -> list[Span]:
    """Return the spans that a sequence of names of tags marks.

    What is not allowed is read as conlleval does: I-X or E-X behind anything but an open span of
    kind X begins one, and what ends without an E-X ends there.
    """
    spans: list[Span] = []
    kind, start, at = "", 0, 0
    for at, name in enumerate([*_names(names), "O"]):
        mark, own = _split(name, scheme)
        if kind and (mark in "OBS" or own != kind):
            spans.append(Span(kind, start, at))
            kind = ""
        if mark != "O" and not kind:
            kind, start = own, at
        if mark in "ES":
            spans.append(Span(kind, start, at + 1))
            kind = ""
    return spans


def span_tags(spans: Iterable[tuple[str, int, int]], length: int, scheme: str = "BIO") -> list[str]:
    """Return the names of tags that mark spans `(kind, start, stop)` in a sequence of `length`.

    Raises `ValueError` for spans that are empty, overlap, or do not lie within it.
    """
    check_choice("scheme", scheme, SCHEMES)
    tags = ["O"] * check_count("length", length, 0)
    for kind, start, stop in spans:
        if not 0 <= start < stop <= length or any(tag != "O" for tag in tags[start:stop]):
            raise ValueError(
                f"spans must be apart and within 0..{length}, got {short((kind, start, stop))}"
            )
        marks = ["B", *"I" * (stop - start - 1)]
        if scheme == "BIOES":
            marks = ["S"] if len(marks) == 1 else [*marks[:-1], "E"]
        tags[start:stop] = [f"{mark}-{kind}" for mark in marks]
    return tags


def read_constraints(constraints: Any, tags: int) -> Array:
    """Return what is allowed as booleans `(K + 2, K)`: transitions, starts, ends.

    Raises `ValueError` for other shapes, and if nothing at all is allowed.
    """
    if not isinstance(constraints, (tuple, list)) or len(constraints) != 3:
        raise ValueError(
            "constraints must be three boolean arrays, transitions, start and end, "
            f"got {short(constraints)}"
        )
    parts = []
    for name, part, shape in zip(
        Constraints._fields, constraints, ((tags, tags), (tags,), (tags,)), strict=True
    ):
        part = as_booleans(f"constraints: {name}", part)
        if part.shape != shape:
            raise ValueError(f"constraints: {name} must have shape {shape}, got {part.shape}")
        if name != "transitions" and not part.any():
            raise ValueError(f"constraints: {name} must allow at least one tag")
        parts.append(part.reshape(-1, tags))
    allowed = np.concatenate(parts)
    allowed.flags.writeable = False
    return allowed


def _names(names: Iterable[str]) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"names must be a list of names of tags, got {short(names)}")
    return list(names)


def _split(name: Any, scheme: str) -> tuple[str, str]:
    """Return the letter of a name, and the kind of span."""
    letters = check_choice("scheme", scheme, SCHEMES)
    if name == "O":
        return "O", ""
    mark, dash, kind = name.partition("-") if isinstance(name, str) else ("", "", "")
    if not (dash and kind and mark in letters and mark != "O" and len(mark) == 1):
        marks = ", ".join(f"{letter}-..." for letter in letters if letter != "O")
        raise ValueError(f"names must be O or {marks} in the scheme {scheme}, got {short(name)}")
    return mark, kind
