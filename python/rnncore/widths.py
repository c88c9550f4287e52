"""How wide the arrays are that layers take and give, one after another."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from .configuration import is_own
from .module import Module


class WrongWidth(ValueError):
    """x is not `wanted` features wide, as a module takes it."""

    def __init__(self, message: str, wanted: int) -> None:
        super().__init__(message)
        self.wanted = wanted


def check_width(width: int | None, wanted: int) -> None:
    """Refuse x of another width than a module takes."""
    if width is not None and width != wanted:
        gives, takes = (f"{n} features" if n else "indices" for n in (width, wanted))
        message = f"one gives {gives}, the next takes {takes if wanted == 0 else wanted}"
        raise WrongWidth(message, wanted)


def width_through(layers: Iterable[tuple[str, Module]], width: int | None = None) -> int | None:
    """Return `out_width` of layers one after another; `ValueError` naming one that does not fit."""
    for name, layer in layers:
        try:
            width = layer.out_width(width) if _tells_width(layer) else None
        except WrongWidth as error:
            message = f"{name}, a {type(layer).__name__}: {error}"
            raise WrongWidth(message, error.wanted) from None
        except ValueError as error:
            raise ValueError(f"{name}, a {type(layer).__name__}: {error}") from None
    return width


def taken_width(module: Module) -> int | None:
    """Return how wide x must be, None where that is not known or any width will do.

    `out_width` is asked for a width that nothing has: what refuses it names the right one.
    """
    try:
        width_through([("", module)], -1)
    except WrongWidth as error:
        with suppress(ValueError):  # unless something before changes the width
            width_through([("", module)], error.wanted)
            return error.wanted
    except ValueError:
        pass
    return None


def _tells_width(module: Module) -> bool:
    """Whether `out_width` is that of its calls: a class of somebody's own may call otherwise."""
    for cls in type(module).__mro__:
        if is_own(cls) or "out_width" in vars(cls):
            return True
        if "__call__" in vars(cls):
            return False
    return False
