"""One run of a trace as it is replayed: where it stands, what it has counted, and what was wrong with it."""

from __future__ import annotations

from collections import Counter
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from lifecycle.errors import ExpectationError, IllegalEventError
from lifecycle.protocol.rules import Progress, shown_counters
from lifecycle.trace.report import Failure, Resumption, Run, TransitionCount, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lifecycle.events import Event
    from lifecycle.journal.records import Record
    from lifecycle.trace.checking.causes import Causes
    from lifecycle.trace.checking.counted import CountedProtocol, CountedState, CountedTransition
    from lifecycle.trace.checking.interleaving import Interleaving
    from lifecycle.trace.report import Kind, Status

__all__ = ["NOTHING", "SKIPPED", "TEXT_KEPT", "VIOLATIONS_KEPT", "Replay", "Rules", "Snapshot", "short"]

VIOLATIONS_KEPT = 1000
"""Violations that a report keeps; all are counted."""

TEXT_KEPT = 500
"""Characters that a report keeps of a name or a message."""

NOTHING: Mapping[str, Any] = {}
SKIPPED: Mapping[str, Any] = {"skipped": True}
"""The payload of an event, as far as a trace tells it."""


class Rules(NamedTuple):
    """What a run is checked by.

    Attributes:
        table: The protocol, made ready for replaying.
        causes: Explains its violations.
        expect: The counts that are expected.
        event: The counters before the first event, with the sizes of epochs, steps and invocations.
    """

    table: CountedProtocol
    causes: Causes
    expect: Mapping[str, int]
    event: Event


class Snapshot(NamedTuple):
    """How a run stood."""

    row: CountedState
    event: Event
    progress: Progress


class Replay:
    """A run that is being replayed.

    Args:
        rules: What it is checked by.
        first_line: The line where it begins; 0 if it is not known yet.
        announced: Whether the trace says that it begins, before any of its events.

    Attributes:
        event: The counters, which guards and updates work on as they do in a `Lifecycle`.
        progress: The same.
        expect: The same.
        row: The state.
        aborted: Whether it was aborted.
        suspensions: How often it is suspended.
        superfluous: Events that were left out.
        refused: Events that the engine had refused.
        ignored: Events that came while it was suspended.
        resumed: From where it went on last, if it did so from a saved state.
        violation_count: Violations, of which the first are kept.
        interleaving: Follows what the events are, if several runs are interleaved.
    """

    def __init__(self, rules: Rules, first_line: int, *, announced: bool) -> None:
        self.rules = rules
        self.event, self.progress, self.expect = copy(rules.event), Progress(), rules.expect
        self.row = rules.table.rows[rules.table.protocol.initial]
        self.first_line = first_line
        self.announced = announced
        self.aborted = False
        self.suspensions = 0
        self.superfluous = self.refused = self.ignored = 0
        self.violation_count = 0
        self.interleaving: Interleaving | None = None
        self.resumed: Resumption | None = None
        self._resumed_count = 0
        # What to add to the count of events for their positions.
        self._first_position = self._offset = 1
        self._error: str | None = None
        # Events whose transition is not known, and states that were entered without an event.
        self._unplaced: Counter[Any] = Counter()
        self._entered: set[str] = set()
        self._violations: list[Violation] = []
        self._failure_count = 0
        self._failed: Failure | None = None
        rules.table.restart()

    # What happens to it

    def count(self, counted: CountedTransition, record: Record | None) -> None:
        """Move by a transition, and count what it counts."""
        if counted.apply is not None:
            counted.apply(self.event, self.progress, SKIPPED if record is not None and record.skipped else NOTHING)
        self.row = counted.row

    def take(self, counted: CountedTransition, record: Record) -> None:
        """Take an event."""
        self.count(counted, record)
        counted.count += 1
        counted.duration += record.duration

    def insert(self, event: Any) -> None:
        """Go on as if an event that is missing had come."""
        self.count(self.row.by_member[event], None)
        self._entered.add(self.row.state)

    def fail(self, event: Any, record: Record, state: str) -> None:
        """Take note that a handler of an event raised, in the state in which the event came."""
        self._failure_count += 1
        self._failed = Failure(event, record.line, state, short(record.error or "it does not say why"))

    def abort(self, record: Record) -> None:
        """End the run as failed, unless it is complete."""
        if not self.row.final:
            self.aborted = True
            self._error = short(record.error or record.detail or "it does not say why")

    def join(self, event: Any, record: Record) -> None:
        """Begin in the middle, where an event has left the run."""
        self._first_position = self._offset = _position_in_trace(record)
        self._unplaced[event] += 1
        self._stand_as(record)

    def load(self, record: Record) -> None:
        """Go on from a saved state."""
        expected = _position_in_trace(record) + 1
        if not self.offered():
            self._first_position = self._offset = expected
        undone = self._position() - expected
        self._offset -= undone
        self.aborted, self._error = False, None
        self.interleaving = None
        self._stand_as(record)
        self._resumed_count += 1
        counters = shown_counters(self)
        self.resumed = Resumption(record.line, short(record.state), counters, max(0, undone), max(0, -undone))
        if record.error is not None:
            self.abort(record)

    def _stand_as(self, record: Record) -> None:
        """Stand as a record of a journal says; in a state that the protocol does not have, only its counters count."""
        self.event.global_step = record.global_step
        self.event.global_batch = record.global_batch
        # Several checkers may take the same record.
        self.progress = copy(record.progress) or Progress(
            sequential_epochs=record.sequential_epochs, calibration_epochs=record.calibration_epochs
        )
        if record.state in self.rules.table.rows:
            self.row = self.rules.table.rows[record.state]
            self._entered.add(record.state)

    def snapshot(self) -> Snapshot:
        """How it stands now."""
        return Snapshot(self.row, copy(self.event), copy(self.progress))

    def return_to(self, standing: Snapshot) -> None:
        """Stand as it stood before."""
        self.row, self.event, self.progress = standing.row, copy(standing.event), copy(standing.progress)

    # What is said of it

    def _position(self) -> int:
        """Which event of the run the next one is."""
        return self._offset + self.offered()

    def offered(self) -> int:
        """How many events have come, whatever became of them."""
        taken = sum(counted.count for counted in self.rules.table.transitions()) + sum(self._unplaced.values())
        return taken + self.superfluous + self.refused + self.ignored

    def context(self, event: Any, before: tuple[Any, ...]) -> dict[str, Any]:
        """What an error says of where it stands; the fields of `IllegalEventError` but `hint`."""
        return {
            "event": event,
            "state": self.row.state,
            "allowed": self._allowed(),
            "position": self._position(),
            "history": before,
            "counters": shown_counters(self),
        }

    @property
    def room(self) -> bool:
        """Whether one more violation would be kept."""
        return len(self._violations) < VIOLATIONS_KEPT

    def keep(self, kind: Kind, line: int, error: IllegalEventError, **more: Any) -> Violation:
        """Keep a violation."""
        found: dict[str, Any] = {
            "event": error.event,
            "state": error.state,
            "position": error.position,
            "allowed": error.allowed,
            "before": error.history,
            "counters": error.counters,
            "cause": error.hint,
            "where": line,
        }
        if isinstance(error, ExpectationError):
            found["misses"] = error.misses
        violation = Violation(kind=kind, line=line, **{**found, **more})
        self._violations.append(violation)
        return violation

    def summary(self, number: int, status: Status, last_line: int) -> Run:
        """What the report says of it."""
        table = self.rules.table
        protocol = table.protocol
        counts: Counter[Any] = Counter(self._unplaced)
        durations: Counter[Any] = Counter()
        seen = self._entered | {self.row.state}
        if self._first_position == 1:
            seen.add(protocol.initial)
        for counted in table.transitions():
            if counted.count:
                transition = counted.transition
                counts[transition.event] += counted.count
                durations[transition.event] += counted.duration
                seen |= {transition.source, transition.target}
        to_end = (path for path, state in protocol.walk(self.row.state) if state in protocol.final)
        return Run(
            number=number,
            protocol=protocol.name,
            verdict="violates" if self.violation_count else "conforms" if status == "complete" else status,
            status=status,
            conforms_to=(),
            first_line=self.first_line,
            last_line=max(self.first_line, last_line),
            first_position=self._first_position,
            resumed_count=self._resumed_count,
            resumed=self.resumed,
            state=self.row.state,
            allowed=self._allowed(),
            to_finish=() if self.aborted else next(to_end),
            events=counts.total() + self.superfluous,
            superfluous=self.superfluous,
            refused=self.refused,
            ignored=self.ignored,
            counts={event: counts[event] for event in protocol.events if counts[event]},
            durations={event: durations[event] for event in protocol.events if durations[event]},
            counters={
                "global_step": self.event.global_step,
                "global_batch": self.event.global_batch,
                "calibration_epochs": self.progress.calibration_epochs,
                "sequential_epochs": self.progress.sequential_epochs,
                "total_sequential_epochs": self.progress.total_sequential_epochs,
                "batches": self.progress.batches,
            },
            transitions=tuple(
                TransitionCount(moved.source, moved.event, moved.target, counted.count, counted.duration)
                for moved, counted in ((counted.transition, counted) for counted in table.transitions())
            ),
            visited=tuple(state for state in protocol.states if state in seen),
            unvisited=tuple(state for state in protocol.states if state not in seen),
            violation_count=self.violation_count,
            violations=tuple(self._violations),
            failure_count=self._failure_count,
            failed=self._failed,
            error=self._error,
            interleaved=0 if self.interleaving is None else self.interleaving.runs(),
        )

    def _allowed(self) -> tuple[Any, ...]:
        return () if self.aborted else self.rules.table.protocol.allowed(self.row.state)


def short(text: str) -> str:
    """A text that is not too long to keep."""
    return text if len(text) <= TEXT_KEPT else text[:TEXT_KEPT] + "..."


def _position_in_trace(record: Record) -> int:
    """The position of a record, without what came while the run was suspended: that is in no journal."""
    done = record.progress
    return record.position if done is None else done.accepted + done.rejected
