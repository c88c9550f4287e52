"""Tensors between the layers of a model."""

from __future__ import annotations

from typing import NamedTuple


class Value(NamedTuple):
    """What a layer gives, as far as it is known without running it."""

    place: tuple[str, int]  # an input's or a node's name, and which of its outputs
    rank: int | None  # how many axes it has, if that is known
    masked: bool = False  # whether some steps of it do not count
    origin: str | None = None  # which input of the whole model it is, if it is one
