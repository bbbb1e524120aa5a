"""A saved run, and what must be true of one before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from lifecycle.errors import LifecycleError
from lifecycle.events import check_count

if TYPE_CHECKING:
    from lifecycle.protocol import Protocol

__all__ = [
    "COUNTERS",
    "HISTORY_LENGTH",
    "SAVED_VERSION",
    "SavedRun",
    "check_keys",
    "check_like",
    "check_same",
    "check_saved",
]

SAVED_VERSION = 1
"""Version of the saved form."""

HISTORY_LENGTH = 16
"""Accepted events that a run remembers."""

COUNTERS = ("global_step", "global_batch")
"""The fields of an event that count; of the others, all but `type_` are configuration."""


class SavedRun(NamedTuple):
    """The parts of a saved run, checked."""

    state: str
    aborted: bool
    type_: Any
    counters: dict[str, int]
    progress: dict[str, int]
    history: list[Any]


def check_saved(saved: Mapping[str, Any], own: Mapping[str, Any], protocol: Protocol) -> SavedRun:
    """Check a saved run against the saved form of the lifecycle that is to load it.

    Raises:
        LifecycleError: It is another protocol's or configuration's, or a part is missing, unknown or out of range.
        TypeError: It is not a mapping, or a part has the wrong type.
    """
    # Another version may well have other parts, so this comes first.
    if isinstance(saved, Mapping) and "version" in saved:  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
        check_same("version", saved["version"], own["version"])
    check_keys("state", saved, own)
    event, progress = saved["event"], saved["progress"]
    check_keys("event", event, own["event"])
    check_keys("progress", progress, own["progress"])
    check_same("protocol", saved["protocol"], own["protocol"])
    for name in event.keys() - {"type_", *COUNTERS}:
        check_same(name, event[name], own["event"][name])
    if saved["state"] not in protocol.states:
        raise LifecycleError(f"the saved run is in {saved['state']!r}, which protocol {protocol.name!r} does not have")
    check_like("aborted", saved["aborted"], own["aborted"])
    counters = {name: event[name] for name in COUNTERS}
    for name, value in counters.items():
        check_count(name, value, error=LifecycleError)
    for name, value in progress.items():
        check_like(name, value, own["progress"][name])
    history = saved["history"]
    if not isinstance(history, list):
        raise TypeError(f"history must be a list, got {history!r}")
    events = [protocol.event(name) for name in cast("list[str]", history)]
    if len(events) > HISTORY_LENGTH:
        raise LifecycleError(f"history has {len(events)} events, and {HISTORY_LENGTH} is the most that is kept")
    type_ = None if event["type_"] is None else protocol.event(event["type_"])
    return SavedRun(saved["state"], saved["aborted"], type_, counters, dict(progress), events)


def check_keys(name: str, found: Any, wanted: Mapping[str, Any]) -> None:
    """Refuse what has not the keys of `wanted`."""
    if not isinstance(found, Mapping):
        raise TypeError(f"{name} must be a mapping, got {found!r}")
    keys = set(cast("Mapping[str, Any]", found))
    missing, unknown = sorted(wanted.keys() - keys), sorted(map(repr, keys - wanted.keys()))
    if missing:
        raise LifecycleError(f"the saved {name} lacks {', '.join(missing)}")
    if unknown:
        raise LifecycleError(f"the saved {name} has unknown {', '.join(unknown)}")


def check_same(name: str, found: object, wanted: object) -> None:
    """Refuse what is not this very value."""
    if found != wanted or type(found) is not type(wanted):
        raise LifecycleError(f"the saved run has {name}={found!r}, this lifecycle has {wanted!r}")


def check_like(name: str, value: object, own: object) -> None:
    """Refuse what is not a flag where our own value is one, and not a count where it is a count."""
    if not isinstance(own, bool):
        check_count(name, value, error=LifecycleError)
    elif not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, got {value!r}")
