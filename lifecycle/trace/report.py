"""What the checker has found: values that print, that turn into JSON, and that raise."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from lifecycle.drawable import Drawable, Printable
from lifecycle.errors import (
    ExpectationError,
    IllegalEventError,
    LifecycleError,
    MissingPayloadError,
    UnknownEventError,
    grouped,
)

__all__ = ["REPORT_VERSION", "Failure", "Report", "Resumption", "Run", "TransitionCount", "Violation", "json_schema"]

REPORT_VERSION = 1
"""Version of the JSON form of a report; it rises when a field changes its meaning or goes."""

Kind = Literal["missing", "swapped", "superfluous", "expectation", "refused", "unknown"]
Status = Literal["complete", "incomplete", "abandoned", "aborted"]
Verdict = Literal["conforms", "violates", "incomplete", "abandoned", "aborted"]


@dataclass(frozen=True, slots=True)
class Violation:
    """An event that was not legal where it came.

    Attributes:
        kind: What it most likely was: events are ``"missing"``, two events are ``"swapped"``, or an event is
            ``"superfluous"``; a count is not as expected (``"expectation"``); the engine had ``"refused"`` it when it
            came; or the name is ``"unknown"`` (with strict names).
        line: The line of the event.
        position: Which event of the run it is, counted from 1.
        event: The event.
        state: The state in which it came.
        allowed: The events that are allowed there.
        before: The last events before it, oldest first.
        counters: `global_batch`, `global_step` and `sequential_epochs` (ended in this calibration epoch).
        cause: What most likely went wrong, in words.
        missing: The events that are missing, if they are.
        where: The line at which they are missing, or of the event that is superfluous or swapped with the next.
        alternatives: What is as likely, in words.
        misses: For each count that is off, what was expected and what was counted.
        reason: The type of the error with which the engine refused it.

    Examples:
        >>> import io
        >>> from lifecycle import trace
        >>> report = trace.check(io.BytesIO(b'{"event": "BATCH_START"}'), "training")
        >>> report.runs[0].violations[0].cause
        'INITIALIZE is missing before it'
    """

    kind: Kind
    line: int
    position: int
    event: str
    state: str
    allowed: tuple[str, ...]
    before: tuple[str, ...]
    counters: dict[str, int]
    cause: str
    missing: tuple[str, ...] = ()
    where: int = 0
    alternatives: tuple[str, ...] = ()
    misses: dict[str, tuple[int, int]] | None = None
    reason: str | None = None

    @property
    def error(self) -> LifecycleError:
        """The error that a live engine would have raised."""
        if not hasattr(self.event, "name"):
            return UnknownEventError(self.cause)
        hint = ", or ".join((self.cause, *self.alternatives))
        context: dict[str, Any] = {
            "event": self.event,
            "state": self.state,
            "allowed": self.allowed,
            "position": self.position,
            "history": self.before,
            "counters": self.counters,
            "hint": hint,
        }
        if self.misses is not None:
            return ExpectationError(misses=self.misses, **context)
        return _REFUSALS.get(self.reason, IllegalEventError)(**context)


_REFUSALS: dict[str | None, type[IllegalEventError]] = {"MissingPayloadError": MissingPayloadError}


@dataclass(frozen=True, slots=True)
class Failure:
    """A handler of an event that raised.

    Attributes:
        event: The event.
        line: Its line.
        state: The state in which it came.
        error: What was raised.

    Examples:
        >>> import io
        >>> from lifecycle import trace
        >>> failed = b'{"event": "INITIALIZE", "ok": false, "error": "out of memory"}'
        >>> trace.check(io.BytesIO(failed)).runs[0].failed.error
        'out of memory'
    """

    event: str
    line: int
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class Resumption:
    """A saved state from which a run went on.

    Attributes:
        line: The line that says so.
        state: The state.
        counters: `global_batch`, `global_step` and `sequential_epochs` (ended in this calibration epoch).
        undone: How many events before it, which are in the trace, came after the state had been saved.
        unseen: How many events before it, which the state has counted, are not in the trace.

    Examples:
        >>> import io
        >>> from lifecycle import Lifecycle, trace
        >>> file, lc = io.BytesIO(), Lifecycle("training")
        >>> _ = lc.attach(trace.Journal(file)), lc.initialize()
        >>> saved = lc.state_dict()
        >>> _ = lc.batch_start()
        >>> lc.load_state_dict(saved)
        >>> _ = lc.finalize()
        >>> trace.check(io.BytesIO(file.getvalue())).runs[0].resumed.undone
        1
    """

    line: int
    state: str
    counters: dict[str, int]
    undone: int
    unseen: int


@dataclass(frozen=True, slots=True)
class TransitionCount:
    """How often a transition was taken, and how long its handlers took.

    Attributes:
        source: The state before.
        event: The event.
        target: The state after.
        count: How often.
        duration: Of all handlers together, in nanoseconds.

    Examples:
        >>> import io
        >>> from lifecycle import trace
        >>> report = trace.check(io.BytesIO(b'{"event": "INITIALIZE"}'), "training")
        >>> [(taken.source, taken.target) for taken in report.runs[0].transitions if taken.count]
        [('created', 'session.ready')]
    """

    source: str
    event: str
    target: str
    count: int
    duration: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run in a trace.

    Attributes:
        number: Which run of the trace it is, counted from 1.
        protocol: The protocol that it was checked against.
        verdict: ``"conforms"``, ``"violates"`` if there are violations, or else how it ended.
        status: How it ended: ``"complete"``; ``"incomplete"`` where the trace ends; ``"abandoned"`` where another run
            begins; ``"aborted"`` as the trace says.
        conforms_to: The smallest built-in protocols that the run obeys, where they were asked for.
        first_line: The line where it begins.
        last_line: The line where it ends.
        first_position: Which event of the run its first one is: more than 1 if the trace was begun during it.
        resumed_count: How often it went on from a saved state.
        resumed: From where it did so last.
        state: Where it stands in the end.
        allowed: The events that could come next.
        to_finish: The shortest sequence of events that would complete it.
        events: How many events came, with those that were undone when a saved state was loaded.
        superfluous: How many of them were left out as superfluous.
        refused: How many events the engine had refused when they came; they are not among `events`.
        ignored: How many events came while the run was suspended; they are not among `events`.
        counts: How often each event was taken.
        durations: How long the handlers of each event took, in nanoseconds.
        counters: The counters in the end.
        transitions: Every transition of the protocol with how often it was taken.
        visited: The states that it was in, in the order of the protocol.
        unvisited: The states that it was not in.
        violation_count: How many violations there are.
        violations: The first of them.
        failure_count: How many handlers failed.
        failed: The last handler that failed.
        error: Why the run was aborted.
        interleaved: How many complete runs would explain it without a violation, if their events are interleaved.

    Examples:
        >>> import io
        >>> from lifecycle import trace
        >>> run = trace.check(io.BytesIO(b'{"event": "INITIALIZE"}'), "training").runs[0]
        >>> run.status, run.state
        ('incomplete', 'session.ready')
    """

    number: int
    protocol: str
    verdict: Verdict
    status: Status
    conforms_to: tuple[str, ...]
    first_line: int
    last_line: int
    first_position: int
    resumed_count: int
    resumed: Resumption | None
    state: str
    allowed: tuple[str, ...]
    to_finish: tuple[str, ...]
    events: int
    superfluous: int
    refused: int
    ignored: int
    counts: dict[str, int]
    durations: dict[str, int]
    counters: dict[str, int]
    transitions: tuple[TransitionCount, ...]
    visited: tuple[str, ...]
    unvisited: tuple[str, ...]
    violation_count: int
    violations: tuple[Violation, ...]
    failure_count: int
    failed: Failure | None
    error: str | None
    interleaved: int

    @property
    def ok(self) -> bool:
        """Whether it is complete and has no violations."""
        return self.verdict == "conforms"


@dataclass(frozen=True, slots=True)
class Report(Drawable, Printable):
    """What is in a trace, and what is wrong with it. It prints as text.

    Attributes:
        version: Of this form.
        name: The trace.
        ok: Whether all runs are complete and have no violations.
        run_count: How many runs there are.
        failed_run_count: How many of them are not complete or have violations.
        violation_count: How many violations there are in all.
        runs: The runs: all, or where there are very many, the first and some of those that are not fine.
        notes: Names in the trace that are no events, with how often they came: all, or the first of very many.
        note_count: How often such names came in all.

    Examples:
        >>> import io
        >>> from lifecycle import trace
        >>> trace.check(io.BytesIO(b'{"event": "INITIALIZE"}'), "training").ok
        False
    """

    version: int
    name: str
    ok: bool
    run_count: int
    failed_run_count: int
    violation_count: int
    runs: tuple[Run, ...]
    notes: dict[str, int]
    note_count: int

    def to_json(self) -> str:
        """The report as a JSON object on one line; ``docs/schema/report.json`` describes it.

        Examples:
            >>> import io
            >>> from lifecycle import trace
            >>> report = trace.check(io.BytesIO(b'{"event": "INITIALIZE"}'), "training")
            >>> report.to_json()[:60]
            '{"version":1,"name":"<trace>","ok":false,"run_count":1,"fail'
        """
        return msgspec.json.encode(self).decode()

    def raise_if_failed(self, *, allow_incomplete: bool = False) -> None:
        """Raise all that is wrong, in one group.

        Args:
            allow_incomplete: Be content with runs that did not end.

        Raises:
            ExceptionGroup: Of a `LifecycleError` for every violation that was kept, and for every run that is not
                complete.

        Examples:
            >>> import io
            >>> from lifecycle import trace
            >>> report = trace.check(io.BytesIO(b'{"event": "INITIALIZE"}'), "training")
            >>> report.raise_if_failed(allow_incomplete=True)
        """
        errors: list[LifecycleError] = []
        for run in self.runs:
            errors += [violation.error for violation in run.violations]
            if run.status != "complete" and not allow_incomplete:
                errors.append(LifecycleError(f"run {run.number} is {run.status}: it ends in {run.state}"))
        if errors:
            failed = f"{self.failed_run_count} of {self.run_count} runs did not go well"
            message = f"{self.name}: {failed}, with {self.violation_count} violations"
            raise grouped(message, errors)


def json_schema() -> dict[str, Any]:
    """The JSON schema of what `Report.to_json` returns; ``docs/schema/report.json`` has it.

    Examples:
        >>> sorted(json_schema()["$defs"])
        ['Failure', 'Report', 'Resumption', 'Run', 'TransitionCount', 'Violation']
    """
    # Turned into text and back, so that it is JSON down to its defaults.
    schema: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(Report)))
    for definition in schema["$defs"].values():
        definition["description"] = inspect.cleandoc(definition["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
