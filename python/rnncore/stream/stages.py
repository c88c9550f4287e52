"""What a stream goes through: the compiled layers that modules name in `stages`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array
from ..states import State

if TYPE_CHECKING:
    from ..module import Module


class Stage(NamedTuple):
    """One compiled layer. A recurrent one has states, which are read and written in place."""

    layer: Any
    h: Array | None = None  # (B, P)
    c: Array | None = None  # (B, H)
    masks: tuple[Array | None, ...] | None = None


class Stack(NamedTuple):
    """Recurrent layers that hand on more than their outputs.

    residual: each but the first adds its input to its output; skip: each sees the first one's input
    as well, and the outputs of all go on.
    """

    layers: list[Stage]
    residual: bool
    skip: bool


class Branches(NamedTuple):
    """Stages beside one another, whose outputs are merged; where there are none, x is one."""

    branches: tuple[list[AnyStage], ...]  # of each the stages one after the other
    merge: str


AnyStage: TypeAlias = "Stage | Stack | Branches"


class Stages(NamedTuple):
    """What a module's call does, as stages one after the other."""

    width: int | None  # of a frame; 0: frames are indices; None: any width
    state: State  # the first one, which the stages work on; None: there is none
    stages: list[AnyStage]


def stages_of(modules: Iterable[Module], batch: int, dtype: np.dtype[Any]) -> Stages:
    """Return the stages of modules one after the other.

    The state is a tuple of theirs. Raises `TypeError` where indices come after other layers.
    """
    width: int | None = None
    states: list[State] = []
    found: list[AnyStage] = []
    for module in modules:
        own = module.stages(batch, dtype)
        if own.width == 0 and found:
            raise TypeError("an Embedding takes integers: in a chain it must be the first layer")
        width = own.width if width is None else width
        states += [] if own.state is None else [own.state]
        found += own.stages
    return Stages(width, tuple(states), found)
