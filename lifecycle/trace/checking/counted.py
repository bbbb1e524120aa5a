"""The rows of a protocol, made ready for replaying traces."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from lifecycle.events import EventType
from lifecycle.protocol.rules import GUARDS, UPDATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle.events import Event
    from lifecycle.protocol import Protocol, Transition
    from lifecycle.protocol.rules import Guard, Payload, Progress

    Apply = Callable[[Event, Progress, Payload], None]

__all__ = ["CountedProtocol", "CountedState", "CountedTransition"]

_COUNTED = (GUARDS[EventType.CALIBRATION_EPOCH_END], GUARDS[EventType.FINALIZE])
"""The guards that need no payload, and so can be judged from a trace."""


class CountedTransition:
    """A transition, and how often a run has taken it.

    Attributes:
        transition: The transition.
        row: The row after it.
        apply: What it counts, if anything.
        guard: The condition that a trace is judged by, if there is one.
        count: How often it was taken.
        duration: How long the handlers took, in nanoseconds.
    """

    __slots__ = ("apply", "count", "duration", "guard", "row", "transition")

    def __init__(self, transition: Transition, row: CountedState, apply: Apply | None) -> None:
        self.transition = transition
        self.row = row
        self.apply = apply
        self.guard: Guard | None = transition.guard if transition.guard in _COUNTED else None
        self.count = 0
        self.duration = 0


class CountedState(dict[str, CountedTransition]):
    """A state with its transitions, by every spelling of their events.

    Attributes:
        state: The name of the state.
        final: Whether a run is complete in it.
        by_member: The transitions by the members themselves.
    """

    __slots__ = ("by_member", "final", "state")

    def __init__(self, state: str, *, final: bool) -> None:
        super().__init__()
        self.state = state
        self.final = final
        self.by_member: dict[Any, CountedTransition] = {}


class CountedProtocol:
    """All rows of a protocol.

    Args:
        protocol: The protocol.
        judged: Whether counts are expected. Then the rows have no event whose guard depends on them, and
            `CountedState.by_member` has.

    Attributes:
        protocol: The protocol.
        rows: The rows by their states.
        members: The events of its vocabularies by all their spellings.
        opening: The events that can begin a run.
        closing: The events that always end one.
    """

    __slots__ = ("closing", "members", "opening", "protocol", "rows")

    def __init__(self, protocol: Protocol, *, judged: bool) -> None:
        self.protocol = protocol
        self.members = protocol.spellings
        texts: dict[Any, list[str]] = {}
        for text, member in self.members.items():
            texts.setdefault(member, []).append(text)
        self.rows = {state: CountedState(state, final=state in protocol.final) for state in protocol.states}
        for transition in protocol.transitions:
            event: Any = transition.event
            # The updates and where they lead are those that the engine runs on.
            _, _, update, _ = protocol.rows[transition.source][event]
            if update is not None and all(update is not own.apply for own in UPDATES.values()):
                update = _lenient(update)
            counted = CountedTransition(transition, self.rows[transition.target], update)
            self.rows[transition.source].by_member[event] = counted
            if not (judged and counted.guard):
                self.rows[transition.source].update(dict.fromkeys(texts[event], counted))
        self.opening = frozenset(protocol.allowed(protocol.initial))
        to_final = {t.event for t in protocol.transitions if t.target in protocol.final}
        self.closing = to_final - {t.event for t in protocol.transitions if t.target not in protocol.final}

    def transitions(self) -> Iterator[CountedTransition]:
        """All transitions, in the order of the protocol."""
        for transition in self.protocol.transitions:
            yield self.rows[transition.source].by_member[transition.event]

    def restart(self) -> None:
        """Begin to count a new run."""
        for counted in self.transitions():
            counted.count = counted.duration = 0


def _lenient(update: Apply) -> Apply:
    """An update of a user's own, which may need a payload that the trace has not; then it counts nothing."""

    def apply(event: Event, progress: Progress, payload: Payload) -> None:
        with contextlib.suppress(Exception):
            update(event, progress, payload)

    return apply
