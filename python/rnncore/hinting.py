"""Errors that say what to write here for the names of other libraries, from the tables in `hints`.

Only what fails asks for a hint: nothing is looked up where a name is right.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NoReturn, TypeVar

from .hints import CALL, CONSTRUCTOR, FILES

_Call = TypeVar("_Call", bound=Callable[..., Any])
_Made = TypeVar("_Made", bound="Hinting")


class Elsewhere:
    """In the place of an attribute that modules of other libraries have: raises with a hint.

    A `__getattr__` would be asked about every attribute that is missing, and slows down the others.
    """

    def __init__(self, name: str, hint: str) -> None:
        self.name, self.hint = name, hint

    def __get__(self, made: object, kind: type) -> NoReturn:
        raise AttributeError(f"{kind.__name__!r} object has no {self.name!r}: {self.hint}")


def put_hints(kind: type, hints: Mapping[str, str]) -> None:
    """Have a class say what to write for names that it lacks; its subclasses may define them."""
    for name, hint in hints.items():
        setattr(kind, name, Elsewhere(name, hint))
    listed: Any = kind.__dir__

    def __dir__(self: Any) -> list[str]:
        return [name for name in listed(self) if name not in hints or hasattr(self, name)]

    kind.__dir__ = __dir__  # type: ignore[assignment]


def check_keywords(
    kind: type, names: Iterable[str], hints: Mapping[str, str] = CONSTRUCTOR
) -> None:
    """Raise `TypeError` with a hint for a keyword that a class's constructor does not take."""
    if hints.keys().isdisjoint(names):
        return
    taken = inspect.signature(kind).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    for name in names:
        if name in hints and name not in taken:
            raise TypeError(f"{kind.__name__} takes no {name!r}: {hints[name]}")


class Hinting:
    """A class whose constructor answers the keywords of other libraries with a hint.

    A base of its own: beside an `__init__` a `__new__` would be the class's signature.
    """

    #: What to write for keywords.
    _hints: ClassVar[Mapping[str, str]] = CONSTRUCTOR

    def __new__(cls: type[_Made], *args: Any, **kwargs: Any) -> _Made:
        """Check the keywords."""
        check_keywords(cls, kwargs, cls._hints)
        return super().__new__(cls)


def hinted(hints: Mapping[str, str]) -> Callable[[_Call], _Call]:
    """Have a function answer keywords of other libraries with a hint."""

    def decorated(call: _Call) -> _Call:
        @functools.wraps(call)
        def checked(*args: Any, **kwargs: Any) -> Any:
            for name in hints.keys() & kwargs.keys():
                raise TypeError(f"{call.__qualname__} takes no {name!r}: {hints[name]}")
            return call(*args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorated


def missing(package: str, hints: Mapping[str, str]) -> Callable[[str], NoReturn]:
    """Return the `__getattr__` of a package that says what to write for names that it lacks."""

    def __getattr__(name: str) -> NoReturn:
        if name not in hints:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        message = f"{package} has no {name!r}: {hints[name]}"
        # `from package import name` would drop the message of an AttributeError.
        if sys._getframe(1).f_code.co_name == "_handle_fromlist":
            raise ImportError(message)
        raise AttributeError(message)

    return __getattr__


def refuses_others(call: _Call) -> _Call:
    """Leave `**others`, which a function takes to refuse it, out of its signature."""
    signature = inspect.signature(call)
    kept = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    call.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return call


def of_file(path: str | os.PathLike[str]) -> str:
    """Return what to add to an error about a file: who reads it, if its name tells."""
    hint = FILES.get(os.path.splitext(path)[1])
    return f". {hint}" if hint else ""


def unknown_keyword(made: object, others: Mapping[str, Any]) -> TypeError:
    """Return what to raise where a module is called with keywords that it does not take."""
    name = next(iter(others))
    hint = f": {CALL[name]}" if name in CALL else ""
    return TypeError(f"a call of {type(made).__name__} takes no {name!r}{hint}")
