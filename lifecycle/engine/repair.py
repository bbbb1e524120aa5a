"""The cheapest explanation of an event that is not legal, for a run that must go on.

Either events are missing before it, or it is itself superfluous. A live run cannot look ahead, so the choice may be
wrong. The other repairs of the same number of violations are therefore followed alongside, each with its own
counters; when the chosen one meets an event that is illegal for it and legal for another, the other takes over. The
number of states bounds the memory.
"""

from __future__ import annotations

import contextlib
from collections import deque
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lifecycle.events import Event
    from lifecycle.protocol import Protocol, Transition
    from lifecycle.protocol.rules import Payload, Progress

__all__ = ["Counters", "Repair", "Repairs", "Step", "insertions"]

LONGEST_INSERTION = 3
"""Events that may be missing at one place before it is likelier that the event itself is superfluous."""

LOOK_BACK = 4
"""Events that may have come since the place where others are missing: those of a batch."""

Step = tuple[str, Any]
"""An event, after the state in which it came."""


class Counters(NamedTuple):
    """The counters of a repair."""

    event: Event
    progress: Progress

    def copy(self) -> Counters:
        """Counters that move by themselves."""
        return Counters(copy(self.event), copy(self.progress))


@dataclass(frozen=True, slots=True)
class Repair:
    """What may have happened.

    Attributes:
        state: Where the run is then.
        edits: Events inserted or dropped, with what is unlikely made dearer. The least is the likeliest.
        counters: The counters then.
        missing: The moves taken to be missing at the last violation.
        last: The move made by the last event; None if that is taken to be superfluous.
    """

    state: str
    edits: int
    counters: Counters
    missing: tuple[Transition, ...] = ()
    last: Transition | None = None


def insertions(
    walk: Callable[[str], Iterable[tuple[tuple[Any, ...], str]]], steps: Sequence[Step]
) -> Iterator[tuple[int, tuple[Any, ...], str, tuple[Any, ...]]]:
    """Every way in which events may be missing before the last of some events, or before an earlier one.

    Args:
        walk: The shortest paths from a state, as those of `Protocol.walk`.
        steps: The events, each with the state in which it came.

    Yields:
        How many events before the last one the others are missing, what is missing, the state there, and what the
        events from there on are then; the nearest place first, the shortest sequence first. Whether that is legal is
        for the caller to find out.

    Examples:
        >>> from lifecycle import protocols
        >>> ways = insertions(protocols.DATA_FREE.walk, [("session.ready", "sequential_epoch_end")])
        >>> [[event.name for event in missing] for _, missing, _, _ in ways][:2]
        [[], ['CALIBRATION_EPOCH_START']]
    """
    since: tuple[Any, ...] = ()
    for back, (state, event) in enumerate(reversed(steps)):
        since = (event, *since)
        for path, _ in walk(state):
            yield back, path, state, (*path, *since)


class Repairs:
    """The repairs of a run that goes on after violations.

    Args:
        protocol: The order that the run should obey.
    """

    __slots__ = ("_others", "_protocol", "_trail")

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._others: list[Repair] = []
        self._trail: deque[Step] = deque(maxlen=LOOK_BACK)

    def follow(self, state: str, event: Any, payload: Payload) -> None:
        """Take note of an event that was legal in `state`, and forget the repairs for which it is not."""
        self._trail.append((state, event))
        if self._others:
            self._others = list(self._taken(event, payload))

    def choose(self, state: str, counters: Counters, event: Any, payload: Payload) -> Repair:
        """Choose how to go on at an event that is illegal in `state`.

        Raises:
            Exception: What the event's update raised; nothing has changed.
        """
        taken = list(self._taken(event, payload))
        if taken:
            chosen = min(taken, key=_edits)
            self._others = [other for other in taken if other is not chosen]
        else:
            candidates = self._candidates(Repair(state, 0, counters), event)
            chosen = _counted(min(candidates, key=_edits), payload)
            self._others = []
            for candidate in candidates:
                if candidate.state != chosen.state:
                    with contextlib.suppress(Exception):
                        self._others.append(_counted(candidate, payload))
        self._trail.clear()
        return chosen

    def _taken(self, event: Any, payload: Payload) -> Iterator[Repair]:
        """The other repairs for which an event is legal, after it."""
        for other in self._others:
            move = self._protocol.move(other.state, event)
            if move is not None:
                # A repair whose counters cannot move is none.
                with contextlib.suppress(Exception):
                    yield _counted(Repair(move.target, other.edits, other.counters, last=move), payload)

    def _candidates(self, current: Repair, event: Any) -> list[Repair]:
        """All ways to explain an illegal event, the cheapest for each state; none of them has counted yet."""
        cheapest: dict[str, Repair] = {}
        for repair in (current, *self._others):
            trail = self._trail if repair is current else ()
            for candidate in (*self._inserted(repair, trail, event), _dropped(repair)):
                known = cheapest.setdefault(candidate.state, candidate)
                if candidate.edits < known.edits:
                    cheapest[candidate.state] = candidate
        return list(cheapest.values())

    def _inserted(self, repair: Repair, trail: Iterable[Step], event: Any) -> Iterator[Repair]:
        """Events that are missing before an event, or a little earlier, if what came since is legal all the same."""
        for back, path, origin, events in insertions(self._protocol.walk, [*trail, (repair.state, event)]):
            moves = self._protocol.moves(origin, events)
            if len(moves) == len(events):
                length = len(path)
                if back:
                    length += LONGEST_INSERTION + 1
                elif length > LONGEST_INSERTION:
                    length += LONGEST_INSERTION
                edits = repair.edits + length
                yield Repair(moves[-1].target, edits, repair.counters, moves[: len(path)], moves[-1])


def _edits(repair: Repair) -> int:
    return repair.edits


def _dropped(repair: Repair) -> Repair:
    return Repair(repair.state, repair.edits + LONGEST_INSERTION + 1, repair.counters)


def _counted(repair: Repair, payload: Payload) -> Repair:
    """The repair with counters of its own, in which all that it says has been counted."""
    counters = repair.counters.copy()
    for move in repair.missing:
        attempt = counters.copy()
        # What came with it is not known, and an update may need it; then the event counters nothing.
        with contextlib.suppress(Exception):
            _count(move, attempt, {})
            counters = attempt
    if repair.last is not None:
        _count(repair.last, counters, payload)
    return replace(repair, counters=counters)


def _count(move: Transition, counters: Counters, payload: Payload) -> None:
    if move.update is not None:
        move.update.apply(counters.event, counters.progress, payload)
