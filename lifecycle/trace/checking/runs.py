"""Replays the runs of a trace by the rules of the engine, and explains what is not legal.

A legal event costs a look-up in a row, and what the engine itself counts for it. Everything else is odd: a control, a
name that is no event, a violation. The last records are kept, and how the run stood before them, since what explains a
violation may lie a few events back, and all since then must be counted anew.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from lifecycle.engine.listeners import Control
from lifecycle.errors import EVENTS_SHOWN, IllegalEventError
from lifecycle.events import nearest
from lifecycle.protocol.rules import SUSPENDABLE
from lifecycle.trace.checking.causes import LOOK_AHEAD, LOOK_BACK, Cause, described
from lifecycle.trace.checking.counted import CountedState
from lifecycle.trace.checking.interleaving import Interleaving
from lifecycle.trace.checking.replay import NOTHING, SKIPPED, Replay, short
from lifecycle.trace.formats.jsonlines import CUT_OFF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lifecycle.journal.records import Record
    from lifecycle.trace.checking.counted import CountedTransition
    from lifecycle.trace.checking.replay import Rules, Snapshot
    from lifecycle.trace.report import Kind, Run, Status, Violation

__all__ = ["Checker"]

RECORDS_AHEAD = 256
"""Records after a violation among which the next events are looked for."""

_CONTROLS = frozenset(get_args(Control)) - {"load"}
"""What may be said by a name alone; of what was loaded, a journal says more."""

_CLOSED = CountedState("", final=False)


class _Mark(NamedTuple):
    """How the run stood before a record of the buffer."""

    place: int
    standing: Snapshot


class _Step(NamedTuple):
    """A legal event in the buffer: the row it came in, and what it did."""

    row: CountedState
    counted: CountedTransition
    record: Record


class Checker:
    """Checks the runs of a trace against one protocol, in memory that does not grow with the trace.

    Args:
        rules: Says by what the runs after the header of a journal are checked, and those before any.
        note: Called with every name that is no event.
        report: Called with every violation that is kept.
        strict_names: Whether a name that is no event is a violation.

    Attributes:
        finished: The runs that are over; whoever takes one over removes it.
    """

    def __init__(
        self,
        rules: Callable[[Record | None], Rules],
        *,
        note: Callable[[str], object],
        report: Callable[[Violation], object],
        strict_names: bool,
    ) -> None:
        self._rules = rules
        self._note = note
        self._report = report
        self._strict_names = strict_names
        self._ended = False
        self._number = 0
        self.finished: list[Run] = []
        # The records that are kept, how many of them are done, and whether some of those are no events.
        self._buffer: list[Record] = []
        self._done: int = 0
        self._odd = False
        self._last_line = 0
        # The run, where in the buffer it begins, and its last events before that.
        self._run = Replay(rules(None), 0, announced=False)
        self._start: int = 0
        self._earlier: tuple[Any, ...] = ()
        # No explanation goes back beyond the older mark, and between the two are events enough.
        self._older: _Mark = _Mark(0, self._run.snapshot())
        self._newer: _Mark = self._older
        # Up to where an interleaving has followed.
        self._followed: int = 0

    def feed(self, records: Sequence[Record]) -> None:
        """Take the next records."""
        if records and not self._run.first_line:
            self._run.first_line = records[0].line
        self._buffer += records
        self._advance()
        self._trim()

    def settle(self) -> None:
        """Explain a violation that waits for what comes next by what there is."""
        self._ended = True
        self._advance()
        self._ended = False
        self._trim()

    def end(self) -> None:
        """Take note that the trace is over."""
        self._ended = True
        self._advance()
        self._finish("incomplete")

    @property
    def over(self) -> bool:
        """Whether the run has ended, and no other has begun."""
        return self._run.row.final or self._run.aborted

    # Records, one by one. Methods that take records return how many they took: 0 if they have to wait for more.

    def _advance(self) -> None:
        """Replay the buffer, to its end or to a violation that needs what comes after it to be explained."""
        buffer = self._buffer
        while self._done < len(buffer):
            run = self._run
            row, event, progress = self._row(), run.event, run.progress
            for place, record in enumerate(islice(buffer, self._done, None), self._done):
                counted = row.get(record.event)
                if counted is not None:
                    apply = counted.apply
                    if apply is not None:
                        apply(event, progress, SKIPPED if record.skipped else NOTHING)
                    counted.count += 1
                    counted.duration += record.duration
                    row = counted.row
                    if record.error is not None:
                        run.fail(counted.transition.event, record, counted.transition.source)
                    continue
                if row is not _CLOSED:
                    run.row = row
                self._done = place
                taken = self._take_odd(record)
                self._done += taken
                if taken == 0:
                    return
                if taken > 1:
                    break
                run = self._run
                row, event, progress = self._row(), run.event, run.progress
            else:
                if row is not _CLOSED:
                    run.row = row
                self._done = len(buffer)

    def _row(self) -> CountedState:
        """Where a legal event is found; while the run is aborted or suspended, none is taken at first sight."""
        return _CLOSED if self._run.aborted or self._run.suspensions else self._run.row

    def _take_odd(self, record: Record) -> int:
        self._odd = True
        event = self._event(record)
        # A record that names an event is nothing else, whatever more it says.
        action = record.event.lower() or record.control
        if event is not None:
            return self._take_event(event, record)
        if record.event and action not in _CONTROLS:
            self._take_unknown(record)
        elif record.header is not None and not record.event:
            return self._take_header(record)
        elif record.rejected is not None and not record.event:
            self._take_refusal(record, record.rejected)
        elif action == "reset":
            self._begin(self._run.rules, record, announced=True)
        elif action == "abort":
            self._run.abort(record)
        elif action == "load":
            self._take_load(record)
        else:
            self._run.suspensions = max(0, self._run.suspensions + (1 if action == "suspend" else -1))
            self._mark(1)
        return 1

    def _event(self, record: Record) -> Any:
        """The member that a record names, if it names one."""
        return self._run.rules.table.members.get(record.event)

    def _take_event(self, event: Any, record: Record) -> int:
        table = self._run.rules.table
        if event in table.opening and (self._run.aborted or not table.closing.isdisjoint(self._before()[-1:])):
            self._begin(self._run.rules, record, announced=False)
        run = self._run
        counted = run.row.by_member.get(event)
        if run.suspensions and event in SUSPENDABLE:
            run.ignored += 1
            self._mark(1)
            # It is not among the events that came before others.
            self._earlier, self._start = self._before(), self._done + 1
        elif (
            counted is None
            and record.position > 1
            and record.state in table.rows
            and not (self._before() or run.resumed)
        ):
            run.join(event, record)
            self._mark(1)
        elif counted is None or run.aborted:
            return self._take_illegal(event, record)
        else:
            guard = counted.guard
            if guard is not None and not guard.check(run, NOTHING):
                self._violate("expectation", record, event, partial(guard.error, guard, run))
            if record.error is not None:
                run.fail(event, record, run.row.state)
            run.take(counted, record)
        return 1

    def _take_header(self, record: Record) -> int:
        """Begin another run, unless the last one goes on in another process, which loads it first of all."""
        following = self._buffer[self._done + 1 : self._done + 2]
        if not (following or self._ended):
            return 0
        run, rules = self._run, self._rules(record)
        loaded = following and following[0].control == "load"
        if not loaded or run.row.final or rules != run.rules:
            self._begin(rules, record, announced=True)
        # What had suspended it in the other process is no more.
        self._run.announced, self._run.suspensions = True, 0
        return 1

    def _take_load(self, record: Record) -> None:
        """Go on from a saved state; a run that is complete stays so, and what is loaded then is another one."""
        if self._run.row.final:
            self._begin(self._run.rules, record, announced=True)
        self._run.load(record)
        self._start, self._earlier = self._done + 1, ()
        self._mark(1)

    def _take_refusal(self, record: Record, name: str) -> None:
        """Report what the engine had refused, or had let through although it was in order."""
        run = self._run
        event = run.rules.table.members.get(name)
        counted = run.row.by_member.get(event)
        if record.let_through and (counted is None or (counted.guard is not None and run.expect)):
            # The event itself comes next, and is judged then.
            return
        hint = short((record.error or "").rpartition("hint: ")[2])
        error = partial(IllegalEventError, hint=hint)
        self._violate("refused", record, event or short(name), error, reason=record.reason)
        run.refused += not record.let_through

    def _take_unknown(self, record: Record) -> None:
        name = short(record.event)
        self._note(name)
        # A line that its writer could not finish is no name.
        if self._strict_names and name != CUT_OFF:
            self._violate("unknown", record, name, partial(self._unknown, name))

    def _unknown(self, name: str, **context: Any) -> IllegalEventError:
        known = dict.fromkeys(member.value for member in self._run.rules.table.members.values())
        return IllegalEventError(hint=f"{name!r} is not an event; {nearest(name, known)}", **context)

    def _violate(
        self, kind: Kind, record: Record, event: Any, error: Callable[..., IllegalEventError], **more: Any
    ) -> None:
        """Count a violation, and keep it if there is room; `error` makes its error from where the run stands."""
        run = self._run
        run.violation_count += 1
        if run.room:
            self._report(run.keep(kind, record.line, error(**run.context(event, self._before())), **more))

    # Explanations

    def _take_illegal(self, event: Any, record: Record) -> int:
        """Explain an event that is not legal, and go on as the explanation says."""
        coming = self._coming(event)
        if coming is None:
            return 0
        run = self._run
        table = run.rules.table
        steps = self._steps()
        if run.aborted:
            causes: tuple[Cause, ...] = (Cause("superfluous", 0),)
        else:
            past = [(step.row.state, step.counted.transition.event) for step in steps]
            causes = run.rules.causes.find(past, run.row.state, event, [each for _, each in coming])
            if not run.violation_count and event in table.opening:
                run.interleaving = Interleaving(table.protocol, run.row.state, event)
                self._followed = self._done + 1
        places = [(step.counted.transition.event, step.record.line) for step in steps]
        places += [(event, record.line), *((each, self._buffer[place].line) for place, each in coming[:1])]
        words = [described(cause, places, len(steps)) for cause in causes]
        cause = causes[0]
        if cause == Cause("superfluous", 0):
            words[0] += self._why_superfluous(event)
        self._violate(
            cause.kind,
            record,
            event,
            partial(IllegalEventError, hint=words[0]),
            missing=cause.missing,
            where=places[len(steps) - max(cause.back, 0)][1],
            alternatives=tuple(words[1:]),
        )
        if record.error is not None:
            run.fail(event, record, run.row.state)
        return self._repair(cause, steps, (event, record), coming)

    def _why_superfluous(self, event: Any) -> str:
        if self._run.aborted:
            return ": the run was aborted"
        if self._run.row.final:
            return ": the run was over"
        return ": it came twice" if self._before()[-1:] == (event,) else ""

    def _repair(
        self, cause: Cause, steps: list[_Step], illegal: tuple[Any, Record], coming: list[tuple[int, Any]]
    ) -> int:
        """Go on from where the mistake is, through all that has come since."""
        run = self._run
        earlier = steps[len(steps) - max(cause.back, 0) :]
        since = [*((step.counted.transition.event, step.record) for step in earlier), illegal]
        taken = 1
        if earlier:
            self._go_back(earlier)
        if cause.back < 0:
            place, event = coming[0]
            since.append((event, self._buffer[place]))
            if self._buffer[place].error is not None:
                run.fail(event, self._buffer[place], run.row.state)
            taken = place - self._done + 1
            for between in islice(self._buffer, self._done + 1, place):
                self._take_unknown(between)
        for missing in cause.missing:
            run.insert(missing)
        if cause.kind == "superfluous":
            run.superfluous += 1
            del since[0]
        elif cause.kind == "swapped":
            since[0], since[1] = since[1], since[0]
        for event, record in since:
            run.take(run.row.by_member[event], record)
        self._mark(taken)
        return taken

    def _go_back(self, steps: list[_Step]) -> None:
        """Stand where the first of some steps was taken, with the counters from before it."""
        self._run.return_to(self._older.standing)
        for step in takewhile(lambda step: step.record is not steps[0].record, self._legal()):
            self._run.count(step.counted, step.record)
        for step in steps:
            step.counted.count -= 1
            step.counted.duration -= step.record.duration

    def _steps(self) -> list[_Step]:
        """The last legal events since the last violation."""
        return list(deque(self._legal(), maxlen=LOOK_BACK))

    def _legal(self) -> Iterator[_Step]:
        """The legal events since the older mark."""
        row = self._older.standing.row
        for record in islice(self._buffer, self._older.place, self._done):
            event = self._event(record)
            if event is not None:
                step = _Step(row, row.by_member[event], record)
                row = step.counted.row
                yield step

    def _coming(self, event: Any) -> list[tuple[int, Any]] | None:
        """The next events of the run, with their places in the buffer; None if more must be read to know them."""
        table = self._run.rules.table
        coming: list[tuple[int, Any]] = []
        start = self._done + 1
        for place, record in enumerate(islice(self._buffer, start, start + RECORDS_AHEAD), start):
            following = self._event(record)
            if following is None and record.event and record.event.lower() not in _CONTROLS:
                continue
            if following is None or (event in table.closing and following in table.opening):
                return coming
            coming.append((place, following))
            if len(coming) == LOOK_AHEAD:
                return coming
            event = following
        return coming if self._ended or len(self._buffer) >= start + RECORDS_AHEAD else None

    def _before(self, place: int | None = None) -> tuple[Any, ...]:
        """The last events of the run, or those before a place in the buffer."""
        place = self._done if place is None else place
        found: deque[Any] = deque()
        while place > self._start and len(found) < EVENTS_SHOWN:
            place -= 1
            event = self._event(self._buffer[place])
            if event is not None:
                found.appendleft(event)
        return (*self._earlier, *found)[-EVENTS_SHOWN:]

    # The buffer

    def _mark(self, taken: int) -> None:
        """Let no explanation go back beyond the records that are being taken."""
        self._older = self._newer = _Mark(self._done + taken, self._run.snapshot())

    def _trim(self) -> None:
        """Forget what no explanation can go back to."""
        self._last_line = self._line()
        self._follow()
        older, newer = self._older, self._newer
        if self._odd:
            # Only events count for how far an explanation goes back, so nothing else may fill the buffer.
            events = [record for record in self._buffer[newer.place : self._done] if self._event(record) is not None]
            self._buffer[newer.place : self._done] = events
            self._done = newer.place + len(events)
            self._odd = False
        if self._done - newer.place >= LOOK_BACK:
            older, newer = newer, _Mark(self._done, self._run.snapshot())
        self._earlier = self._before(older.place)
        del self._buffer[: older.place]
        self._done -= older.place
        self._start = max(0, self._start - older.place)
        self._older, self._newer = older._replace(place=0), newer._replace(place=newer.place - older.place)
        self._followed = self._done

    def _line(self) -> int:
        """The line of the last record that is done; it may have been forgotten already, if it was no event."""
        return max(self._last_line, self._buffer[self._done - 1].line) if self._done else self._last_line

    def _follow(self) -> None:
        """Let an interleaving see what was done since it was last here."""
        if self._run.interleaving is not None:
            for record in islice(self._buffer, self._followed, self._done):
                event = self._event(record)
                if event is not None:
                    self._run.interleaving.take(event)

    # Runs

    def _begin(self, rules: Rules, record: Record, *, announced: bool) -> None:
        self._finish("abandoned")
        self._run = Replay(rules, record.line, announced=announced)
        self._start, self._earlier = self._done, ()
        self._mark(0)

    def _finish(self, otherwise: Status) -> None:
        """End the run, if there was one."""
        run = self._run
        only = run.announced and self._ended and not self._number
        if run.offered() or run.violation_count or run.resumed or only:
            self._number += 1
            self._follow()
            status: Status = "complete" if run.row.final else "aborted" if run.aborted else otherwise
            self.finished.append(run.summary(self._number, status, self._line()))
