"""Runs for the tests of the engine: legal ones at random, realistic ones, and what can be seen of a lifecycle."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import sequences
from hypothesis import settings
from hypothesis import strategies as st

from lifecycle import EventType, Lifecycle, protocols

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lifecycle import Protocol

EVERY = [
    *protocols.BUILT_IN.values(),
    *(each.repeat_steps() for each in protocols.BUILT_IN.values() if EventType.OPTIM_PRE_STEP in each.events),
]
"""Every built-in protocol, and those that have optimizer events once more with steps that may repeat."""


unhurried = settings(deadline=None)
"""For properties over whole runs, which take long on a machine that is busy."""


def fire(lifecycle: Lifecycle, run: str | Iterable[str]) -> Lifecycle:
    """Fire the events of a run (letters are events, too), each with a loss."""
    for event in sequences.events(run) if isinstance(run, str) else run:
        lifecycle.fire(event, loss=0.5)
    return lifecycle


def seen(lifecycle: Lifecycle) -> dict[str, Any]:
    """All that can be seen of a run, but for the count of rejected events."""
    saved = lifecycle.state_dict()
    del saved["progress"]["rejected"]
    return {
        "saved": saved,
        "history": lifecycle.history,
        "allowed": lifecycle.allowed,
        "status": lifecycle.status,
        "event": asdict(lifecycle.event),
        "violations": lifecycle.violations,
    }


def long_lists(items: st.SearchStrategy[Any], longest: int) -> st.SearchStrategy[list[Any]]:
    """Lists of all lengths alike; those of `lists` are short most of the time."""
    return st.integers(0, longest).flatmap(lambda length: st.lists(items, min_size=length, max_size=length))


@st.composite
def legal_runs(draw: st.DrawFn, protocol: Protocol, longest: int = 30) -> list[Any]:
    """Complete runs: any legal events up to a length, then the shortest way to the end."""
    state = protocol.initial
    run = []
    for choice in draw(long_lists(st.integers(0, 11), longest)):
        going_on = [event for event in protocol.allowed(state) if event is not EventType.FINALIZE]
        event = going_on[choice % len(going_on)]
        state = protocol.target(state, event)
        run.append(event)
    return [*run, *protocol.path(state, EventType.FINALIZE), EventType.FINALIZE]


def _joined(parts: st.SearchStrategy[str], least: int = 0, most: int = 3) -> st.SearchStrategy[str]:
    return st.lists(parts, min_size=least, max_size=most).map("".join)


_calibration_batches = _joined(st.sampled_from(["BE", "BLE"]))
_accumulated = st.integers(0, 3).map(lambda count: "BLE" * count + "BLPOE")
_epochs = {
    "data_free": st.sampled_from(["CK", "CSK"]),
    "basic": _calibration_batches.map("C{}SK".format) | _calibration_batches.map("C{}K".format),
    "sequential": _joined(_calibration_batches.map("{}S".format), least=1).map("C{}K".format),
    "training": _accumulated,
    "training_microbatched": st.integers(1, 4).map(lambda count: f"B{'L' * count}POE"),
}
_epochs["compression"] = st.one_of(
    *(_epochs[name] for name in ("data_free", "basic", "sequential", "training")),
    _joined(st.sampled_from(["BLPOE", "BLPOES"])).map("C{}K".format),
)
_epochs["upstream"] = st.one_of(*_epochs.values())


def realistic_runs(protocol: Protocol) -> st.SearchStrategy[list[Any]]:
    """Complete runs like those of real pipelines and training loops."""
    return _joined(_epochs[protocol.name.partition("+")[0]]).map(lambda word: sequences.events(f"I{word}F"))


def complete_runs(protocol: Protocol) -> st.SearchStrategy[list[Any]]:
    """Complete runs, random and realistic."""
    return legal_runs(protocol) | realistic_runs(protocol)
