"""What a file says of a model beside its numbers: classes of this library, and their arguments.

    {"class": "Chain", "arguments": {"layers": [
        {"class": "GRU", "arguments": {"input_size": 1, "hidden_size": 32}},
        {"class": "Linear", "arguments": {"in_features": 32, "out_features": 1}}]}}

An object is described by what its constructor was given, and made again by giving it the same:
reading calls the constructors of known classes, which check their arguments, and nothing else.
`seed` and `init` say how parameters start, and are left out. The second place of one object is
`{"shared": n}`, the n-th object counted from the outside in.
"""

from __future__ import annotations

import importlib
import inspect
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .arrays import short as _short
from .arrays import take_places
from .hinting import check_keywords

#: How deep objects and lists may lie in one another.
DEPTH = 100
_NOT_STORED = ("seed", "init")
#: This library's own classes by name; and modules with some that are not public.
_CLASSES: dict[str, type[Configured]] = {}
_LATE = ("text",)


class Unstorable(NamedTuple):
    """Stands for an argument that a file cannot hold."""

    kind: str


class _Signature:
    """A class's signature, which is its `__init__`'s, not that of `Configured.__new__`."""

    def __get__(self, made: object, cls: Any) -> inspect.Signature | None:
        if made is not None:  # an object's is that of its `__call__`
            return None
        signature = inspect.signature(cls.__init__)
        parameters = [*signature.parameters.values()][1:]
        return signature.replace(parameters=parameters, return_annotation=signature.empty)


_Made = TypeVar("_Made", bound="Configured")


class Configured:
    """An object that remembers what its constructor was given, as far as a file can hold it."""

    __signature__ = _Signature()
    #: What `repr` of a module writes in the place of the call that makes it.
    written_as: str = ""
    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls: type[_Made], *args: Any, **kwargs: Any) -> _Made:
        """Remember the arguments."""
        check_keywords(cls, kwargs)
        made = super().__new__(cls)
        given = tuple(map(remembered, args)), {n: remembered(v) for n, v in kwargs.items()}
        vars(made)["_given"] = given
        return made

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if is_own(cls):
            _CLASSES[cls.__name__] = cls


def remembered(value: Any, above: tuple[Any, ...] = ()) -> Any:
    """Return an argument as far as a file can hold it; sequences become tuples."""
    if value is None or isinstance(value, (str, int, float, Configured)):
        return value
    if type(value) in (tuple, list) and not any(value is one for one in above):
        return tuple(remembered(part, (*above, value)) for part in value)
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if isinstance(value, np.dtype) or value is float or _is_scalar_type(value):
        return np.dtype(value).name
    return Unstorable(type(value).__name__)


def _is_scalar_type(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, np.generic)


def is_own(cls: type) -> bool:
    """Whether a class is this library's."""
    return cls.__module__.startswith(f"{__package__}.")


def _name(cls: type) -> str:
    return cls.__name__ if is_own(cls) else f"{cls.__module__}.{cls.__qualname__}"


def describe(value: Configured) -> dict[str, Any]:
    """Return the description of an object as JSON; arguments that it cannot hold are named in it.

    Raises `ValueError` if objects lie more than `DEPTH` deep in one another.
    """
    return _describe(value, {}, DEPTH)  # type: ignore[no-any-return]


def _describe(value: Any, seen: dict[int, int], depth: int) -> Any:
    if not depth:
        raise ValueError(f"modules lie more than {DEPTH} deep in one another")
    if isinstance(value, Unstorable):
        return {"unstorable": value.kind}
    if isinstance(value, tuple):
        return [_describe(part, seen, depth - 1) for part in value]
    if not isinstance(value, Configured):
        return value
    if id(value) in seen:
        return {"shared": seen[id(value)]}
    seen[id(value)] = len(seen)
    given = arguments_of(value).items()
    arguments = {name: _describe(part, seen, depth - 1) for name, part in given}
    return {"class": _name(type(value)), "arguments": arguments}


def arguments_of(value: Configured) -> dict[str, Any]:
    """The arguments that an object was given, by name."""
    args, kwargs = value._given
    signature = inspect.signature(type(value).__init__)
    named = signature.bind(value, *args, **kwargs).arguments
    del named[next(iter(signature.parameters))]  # self
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    drawn = Unstorable("Generator"), Unstorable("SeedSequence")
    return {n: v for n, v in named.items() if n not in _NOT_STORED and v not in drawn}


class Builder:
    """Makes objects again from descriptions: of this library's classes, and of `classes`."""

    def __init__(self, classes: Iterable[type[Configured]] = (), seed: int | None = None) -> None:
        classes = list(classes)
        self._given = {c.__name__: c for c in classes} | {_name(c): c for c in classes}
        self._seeds = None if seed is None else np.random.default_rng(seed)
        self._made: list[Configured | None] = []
        # In how many places objects stand so far, and in how many the parts of each and itself.
        self._places, self._sizes = 0, list[int]()

    def build(self, value: Any, depth: int = DEPTH) -> Any:
        """Return what a description describes, or raise `ValueError` saying what is wrong."""
        if not depth:
            raise ValueError(f"objects lie more than {DEPTH} deep in one another")
        if isinstance(value, list):
            return tuple(self.build(part, depth - 1) for part in value)
        if not isinstance(value, dict):
            return value
        if value.keys() == {"shared"}:
            return self._shared(value["shared"])
        if value.keys() != {"class", "arguments"} or not isinstance(value["arguments"], dict):
            raise ValueError(f"this describes no object: {_short(value)}")
        at, before = len(self._made), self._places
        self._made.append(None)  # until it is made: what refers to it here goes round in a circle
        self._sizes.append(0)
        self._places += 1
        cls = self._find(value["class"])
        arguments = {}
        for name, given in value["arguments"].items():
            if isinstance(given, dict) and given.keys() == {"unstorable"}:
                raise ValueError(
                    f"the argument {name} of {cls.__name__} was a {_short(given['unstorable'])}, "
                    "which a file does not hold: make the module yourself and call its load(path)"
                )
            arguments[name] = self.build(given, depth - 1)
        self._sizes[at] = self._places - before
        made = self._made[at] = self._call(cls, arguments)
        return made

    def _shared(self, number: Any) -> Configured:
        known = type(number) is int and 0 <= number < len(self._made)
        made: Configured | None = self._made[number] if known else None
        if made is None:
            raise ValueError(
                f"object {_short(number)} "
                + ("contains itself" if known else "is referred to before it is described")
            )
        take_places(self._sizes[number] - 1)  # a few bytes stand for all of them
        self._places += self._sizes[number]
        return made

    def _find(self, name: Any) -> type[Configured]:
        if not isinstance(name, str):
            raise ValueError(f"a class must be a name, got {_short(name)}")
        module, _, own = name.rpartition(".")
        if module:  # perhaps it has moved to another module since
            found = self._given.get(name) or self._given.get(own)
        else:
            if name not in _CLASSES:
                _enter(name)
            found = _CLASSES.get(name)
        if found is None:
            hint = f": give it, load(path, classes=[{own}])" if module else ""
            raise ValueError(f"the class {_short(name)} is unknown{hint}")
        return found

    def _call(self, cls: type[Configured], arguments: dict[str, Any]) -> Configured:
        signature = inspect.signature(cls.__init__)
        parameters = list(signature.parameters.values())[1:]
        names = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
        others = {name: arguments.pop(name) for name in [*arguments] if name not in names}
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments[parameter.name], others = others, {}
        if others:
            raise ValueError(f"{cls.__name__} has no argument {_short(next(iter(others)))}")
        if self._seeds is not None and "seed" in names:
            arguments["seed"] = int(self._seeds.integers(1 << 62))
        signature = signature.replace(parameters=parameters)
        call = inspect.BoundArguments(signature, OrderedDict(arguments))
        try:
            made: Configured = cls(*call.args, **call.kwargs)
        except Exception as error:  # whatever a constructor makes of arguments from anywhere
            raise ValueError(f"{cls.__name__}: {str(error) or type(error).__name__}") from error
        return made


def _enter(name: str) -> None:
    """Import the module of this library that a class may be in."""
    package = importlib.import_module(__package__)
    if name in package.__all__:
        getattr(package, name)
    else:
        for module in _LATE:
            importlib.import_module(f".{module}", __package__)
