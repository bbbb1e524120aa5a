"""Checks a trace: chooses the protocol for each run, and puts together the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lifecycle import protocols
from lifecycle.errors import ProtocolError, TraceFormatError
from lifecycle.events import Event
from lifecycle.protocol import Protocol
from lifecycle.protocol.rules import check_expect
from lifecycle.trace.checking.causes import Causes
from lifecycle.trace.checking.counted import CountedProtocol
from lifecycle.trace.checking.inclusion import smallest
from lifecycle.trace.checking.replay import VIOLATIONS_KEPT, Rules
from lifecycle.trace.checking.runs import Checker
from lifecycle.trace.formats.readers import batches
from lifecycle.trace.formats.source import name_of
from lifecycle.trace.report import REPORT_VERSION, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lifecycle.journal.records import Record
    from lifecycle.trace.formats.source import Source
    from lifecycle.trace.report import Run, Violation

__all__ = ["AUTO", "Checking", "check"]

AUTO = "auto"
"""In place of a protocol: all built-in ones."""

RUNS_KEPT = 100
"""Runs that a report keeps; all are counted."""

NAMES_SHOWN = 3
"""Names that are no events that a message shows."""

NOTES_KEPT = 100
"""Different names that are no events that a report keeps; all are counted."""


def check(
    source: Source,
    protocol: Protocol | str | None = None,
    *,
    expect: Mapping[str, int] | None = None,
    repeat_steps: bool = False,
    strict_names: bool = False,
    name: str | None = None,
) -> Report:
    r"""Check a trace.

    Args:
        source: A path, or a file open for reading bytes; see `read` for the formats.
        protocol: A protocol, the name of a built-in one, or ``"auto"`` for the smallest built-in ones that the run
            obeys. By default that with which a journal was written, and ``"compression"`` for other traces.
        expect: Counts that are expected, as in `Lifecycle`; by default those of the journal.
        repeat_steps: Whether the optimizer may be called several times for one step.
        strict_names: Whether a name that is no event is a violation; otherwise it is noted and counted.
        name: What the report and messages call the trace; by default its path or name.

    Raises:
        LifecycleError: There is no such protocol or count.
        OSError: A path cannot be opened or read.
        TraceFormatError: It is no trace, or a line of it is no record.
        TypeError: An argument has the wrong type.

    Examples:
        >>> import io
        >>> rows = b'{"event": "INITIALIZE"}\n{"event": "BATCH_START"}\n{"event": "BATCH_END"}\n'
        >>> report = check(io.BytesIO(rows), "training", name="run.jsonl")
        >>> report.ok
        False
        >>> report.runs[0].violations[0].cause
        'LOSS_CALCULATED is missing before it'
    """
    checking = Checking(
        name_of(source, name), protocol, expect=expect, repeat_steps=repeat_steps, strict_names=strict_names
    )
    for records in batches(source, name=checking.name):
        checking.feed(records)
    return checking.end()


class Checking:
    """A check that is under way.

    Args:
        name: What the report and messages call the trace.
        protocol: As in `check`.
        expect: As in `check`.
        repeat_steps: As in `check`.
        strict_names: As in `check`.
        on_violation: Called with each violation when it is found, unless the protocol is ``"auto"``.
    """

    def __init__(
        self,
        name: str,
        protocol: Protocol | str | None = None,
        *,
        expect: Mapping[str, int] | None = None,
        repeat_steps: bool = False,
        strict_names: bool = False,
        on_violation: Callable[[Violation], object] | None = None,
    ) -> None:
        self.name = name
        self._expect = None if expect is None else check_expect(expect)
        self._repeat_steps = repeat_steps
        self._compiled: dict[tuple[int, bool], tuple[CountedProtocol, Causes]] = {}
        self._line = 1
        self._notes: Counter[str] = Counter()
        self._note_count = 0
        self._runs: list[Run] = []
        self._run_count = self._failed_run_count = self._violation_count = self._violations_kept = 0
        self._choices = self._chosen(protocol)
        self._checkers = [
            Checker(
                partial(self._rules, choice),
                note=self._note if number == 0 else _nobody,
                report=on_violation if on_violation is not None and len(self._choices) == 1 else _nobody,
                strict_names=strict_names,
            )
            for number, choice in enumerate(self._choices)
        ]

    def feed(self, records: Sequence[Record]) -> None:
        """Take the next records."""
        for checker in self._checkers:
            checker.feed(records)
        if records:
            self._line = records[-1].line
        self._collect()

    def settle(self) -> None:
        """Explain the violations that wait for what comes next by what there is."""
        for checker in self._checkers:
            checker.settle()

    @property
    def over(self) -> bool:
        """Whether the last run has ended, and no other has begun."""
        return all(checker.over for checker in self._checkers)

    def end(self) -> Report:
        """What was found.

        Raises:
            TraceFormatError: There was no event at all.
        """
        for checker in self._checkers:
            checker.end()
        self._collect()
        if not self._run_count:
            names = ", ".join(map(repr, list(self._notes)[:NAMES_SHOWN]))
            found = f"; its {self._note_count} names are no events: {names}" if names else ""
            raise TraceFormatError(f"{self.name}, line {self._line}: the trace ends without an event{found}")
        return Report(
            version=REPORT_VERSION,
            name=self.name,
            ok=not self._failed_run_count,
            run_count=self._run_count,
            failed_run_count=self._failed_run_count,
            violation_count=self._violation_count,
            runs=tuple(self._runs),
            notes=dict(self._notes),
            note_count=self._note_count,
        )

    def _chosen(self, protocol: Protocol | str | None) -> list[Protocol | None]:
        if protocol == AUTO:
            return [_repeating(each) if self._repeat_steps else each for each in protocols.BUILT_IN.values()]
        if isinstance(protocol, str):
            protocol = protocols.get(protocol)
        elif protocol is not None and not isinstance(protocol, Protocol):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
            raise TypeError(f"protocol must be a Protocol or the name of one, got {protocol!r}")
        return [protocol.repeat_steps() if protocol is not None and self._repeat_steps else protocol]

    def _rules(self, choice: Protocol | None, record: Record | None) -> Rules:
        """By what the runs after the header of a journal are checked, and those that are in no journal."""
        header = None if record is None else record.header
        event = Event()
        if record is not None and header is not None:
            event = Event(None, header.steps_per_epoch, header.batches_per_step, header.invocations_per_step)
            protocol = choice or self._written_with(header.protocol, record.line)
        else:
            protocol = choice or protocols.COMPRESSION
        if event.invocations_per_step > 1 or (choice is None and self._repeat_steps):
            protocol = _repeating(protocol)
        expect = self._expect if self._expect is not None else dict(header.expect) if header is not None else {}
        key = (id(protocol), bool(expect))
        if key not in self._compiled:
            self._compiled[key] = (CountedProtocol(protocol, judged=bool(expect)), Causes(protocol))
        return Rules(*self._compiled[key], expect, event)

    def _written_with(self, name: str, line: int) -> Protocol:
        protocol = protocols.find(name)
        if protocol is None:
            raise TraceFormatError(
                f"{self.name}, line {line}: written with protocol {name!r}, which is not built in; say where "
                "it is, as FILE.py:NAME"
            )
        return protocol

    def _note(self, name: str) -> None:
        self._note_count += 1
        if name in self._notes or len(self._notes) < NOTES_KEPT:
            self._notes[name] += 1

    def _collect(self) -> None:
        """Take over the runs that all checkers are done with."""
        for runs in list(zip(*(checker.finished for checker in self._checkers), strict=False)):
            self._add(runs[0] if len(runs) == 1 else self._smallest(runs))
            for checker in self._checkers:
                del checker.finished[0]

    def _smallest(self, runs: Sequence[Run]) -> Run:
        """The run as the first of the smallest protocols that it obeys sees it, or the default if it obeys none."""
        obeyed = [(choice, run) for choice, run in zip(self._choices, runs, strict=True) if not run.violation_count]
        if not obeyed:
            return runs[0]
        names = [protocol.name for protocol in smallest(choice for choice, _ in obeyed if choice is not None)]
        return next(replace(run, conforms_to=tuple(names)) for _, run in obeyed if run.protocol in names)

    def _add(self, run: Run) -> None:
        self._run_count += 1
        self._failed_run_count += not run.ok
        self._violation_count += run.violation_count
        room = VIOLATIONS_KEPT - self._violations_kept
        run = replace(run, violations=run.violations[:room])
        if len(self._runs) == RUNS_KEPT and not run.ok:
            # One that is fine makes way for one that is not.
            fine = [index for index, kept in enumerate(self._runs) if kept.ok]
            if fine:
                del self._runs[fine[-1]]
        if len(self._runs) < RUNS_KEPT:
            self._runs.append(run)
            self._violations_kept += len(run.violations)


def _repeating(protocol: Protocol) -> Protocol:
    """The protocol in which the optimizer may be called several times for one step, if it knows the optimizer."""
    try:
        return protocol.repeat_steps()
    except ProtocolError:
        return protocol


def _nobody(_: object) -> None:
    """Take no notice."""
