"""What entries are called: renamed as the caller says, without what wrappers put in front."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ...arrays import short
from ...files import listed

#: Our names with those of the source, or a function from those to ours, None for what to leave out.
Names: TypeAlias = Mapping[str, str] | Callable[[str], str | None]

#: What torch.compile puts into names, and torch.nn.DataParallel and its kin in front of all.
_COMPILED, _PARALLEL = re.compile(r"(^|(?<=\.))_orig_mod\."), "module."
#: Entries that count steps.
_COUNTERS = ("num_batches_tracked", "n_averaged")


def renamed(entries: Mapping[str, Any], names: Names | None) -> dict[str, Any]:
    """Call entries as `names` says; those that it does not name keep theirs."""
    if names is None:
        return dict(entries)
    if isinstance(names, Mapping):
        ours = _by_theirs(names, entries)
        called: dict[str, str | None] = {name: ours.get(name, name) for name in entries}
    elif callable(names):
        called = {name: names(name) for name in entries}
    else:
        kind = type(names).__name__
        raise TypeError(f"names must be a mapping of names, or a function of one, got {kind}")
    for name, mine in called.items():
        if not isinstance(mine, str | None):
            raise TypeError(f"names must give a name or None, got {short(mine)} for {name!r:.80}")
    return _distinct((mine, entries[name]) for name, mine in called.items() if mine is not None)


def _by_theirs(names: Mapping[str, str], entries: Mapping[str, Any]) -> dict[str, str]:
    """Our names by those of the source."""
    absent = [theirs for theirs in names.values() if theirs not in entries]
    if absent:
        raise ValueError(f"names: there is no {listed(absent)}; there are {listed(entries)}")
    ours = {theirs: mine for mine, theirs in names.items()}
    if len(ours) < len(names):
        raise ValueError("names must not give one entry of the source two names here")
    return ours


def unwrapping(names: Iterable[str]) -> Callable[[str], str]:
    """Return the function that takes from names, and prefixes, what wrappers have put there."""
    bare = [_COMPILED.sub("", name) for name in names if not is_counter(name)]
    parallel = bool(bare) and all(name.startswith(_PARALLEL) for name in bare)

    def unwrap(name: str) -> str:
        name = _COMPILED.sub("", name)
        return name.removeprefix(_PARALLEL) if parallel else name

    return unwrap


def unwrapped(entries: Mapping[str, Any], unwrap: Callable[[str], str]) -> dict[str, Any]:
    """Return the entries under their names without wrappers, and without counters of steps."""
    kept = {name: value for name, value in entries.items() if not is_counter(name)}
    return _distinct((unwrap(name), value) for name, value in kept.items())


def is_counter(name: str) -> bool:
    """Whether an entry counts steps, and is no parameter."""
    return name.rpartition(".")[2] in _COUNTERS


def _distinct(called: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in called:
        if name in found:
            raise ValueError(f"two entries of the source are called {name!r:.80}")
        found[name] = value
    return found
