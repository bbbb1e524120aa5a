"""A report as text for people, and as annotations for a GitHub workflow."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lifecycle.trace.report import Report, Resumption, Run, Violation

__all__ = ["to_github", "to_text"]

VIOLATIONS_SHOWN = 20
"""Violations of a run that are shown; the JSON form has more."""

NOTES_SHOWN = 10
"""Names that are no events that are shown."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns"))


def to_text(report: Report) -> str:
    """A report as text: the verdict on each run first, then what is wrong, then what was counted."""
    lines = [line for run in report.runs for line in _run_lines(report, run)]
    left = report.run_count - len(report.runs)
    if left:
        lines.append(f"{report.name}: {_number(left, 'more run')}")
    if report.note_count:
        shown = [f"{name} {count}x" for name, count in list(report.notes.items())[:NOTES_SHOWN]]
        more = len(report.notes) > NOTES_SHOWN or sum(report.notes.values()) < report.note_count
        lines.append(f"{report.name}: names that are no events: {', '.join(shown)}{', and more' if more else ''}")
    return "\n".join(map(_visible, lines))


def headline(run: Run) -> str:
    """The verdict on a run, in words."""
    protocols = ", ".join(run.conforms_to) or run.protocol
    if run.ok:
        return f"run {run.number} conforms to {protocols}"
    end = f"is {run.status}: it ends in {run.state}"
    if not run.violation_count:
        return f"run {run.number} {end} and obeys {protocols} so far"
    violations = _number(run.violation_count, "violation")
    also = "" if run.status == "complete" else f", and {end}"
    return f"run {run.number} violates {run.protocol}: {violations}{also}"


def violation_lines(violation: Violation) -> list[str]:
    """A violation, in the words of a live engine."""
    first, *rest = str(violation.error).split("\n")
    refused = "" if violation.kind != "refused" else f", and was refused with {violation.reason}"
    return [_visible(line) for line in (f"line {violation.line}: {first}{refused}", *rest)]


def _visible(line: str) -> str:
    """A line as it can be shown: what a trace says may try to move the cursor, or to begin another line."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], line)


def _run_lines(report: Report, run: Run) -> Iterator[str]:
    yield f"{report.name}: {headline(run)}"
    if run.resumed is not None:
        yield f"  {_resumed(run, run.resumed)}"
    if run.interleaved:
        yield f"  it looks like {run.interleaved} runs whose events are interleaved, each of which conforms"
    for violation in run.violations[:VIOLATIONS_SHOWN]:
        yield from (f"  {line}" for line in violation_lines(violation))
    left = run.violation_count - len(run.violations[:VIOLATIONS_SHOWN])
    if left:
        yield f"  and {_number(left, 'more violation')}"
    if run.failed is not None:
        again = f", the last of {run.failure_count}" if run.failure_count > 1 else ""
        event = _names([run.failed.event])
        yield f"  the handler of {event} failed in line {run.failed.line}{again}: {run.failed.error}"
    if run.error is not None:
        yield f"  it was aborted: {run.error}"
    if run.to_finish:
        yield f"  {_names(run.to_finish)} {'is' if len(run.to_finish) == 1 else 'are'} missing at the end"
    yield f"  {_extent(run)}"
    yield f"  {_progress(run)}"
    if run.counts:
        counted = (_counted(event, count, run.durations.get(event, 0)) for event, count in run.counts.items())
        yield f"  {', '.join(counted)}"
    taken = sum(bool(transition.count) for transition in run.transitions)
    yield (
        f"  covers {len(run.visited)} of {len(run.visited) + len(run.unvisited)} states "
        f"and {taken} of {len(run.transitions)} transitions of {run.protocol}"
    )


def to_github(report: Report, *, allow_incomplete: bool = False) -> str:
    """A report as annotations: GitHub shows them beside the lines of the trace.

    Args:
        report: The report.
        allow_incomplete: Whether a run that did not end is only worth a warning.

    Returns:
        One workflow command a line; nothing if all is well.
    """
    lines: list[str] = []
    for run in report.runs:
        for violation in run.violations:
            first, *rest = violation_lines(violation)
            lines.append(
                _command("error", report.name, violation.line, first, "\n".join(line.strip() for line in rest))
            )
        left = run.violation_count - len(run.violations)
        if left:
            lines.append(_command("error", report.name, run.last_line, headline(run), _number(left, "more violation")))
        if run.status != "complete":
            level = "warning" if allow_incomplete else "error"
            failed = (
                "" if run.failed is None else f"the handler of {_names([run.failed.event])} failed: {run.failed.error}"
            )
            message = failed or run.error or f"missing at the end: {_names(run.to_finish)}"
            lines.append(_command(level, report.name, run.last_line, headline(run), message))
    if report.note_count:
        names = ", ".join(list(report.notes)[:NOTES_SHOWN])
        lines.append(_command("notice", report.name, 1, "names that are no events", names))
    return "\n".join(lines)


def _command(level: str, file: str, line: int, title: str, message: str) -> str:
    # As the runner unpacks them: https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
    data: dict[str, str | int | None] = {"%": "%25", "\r": "%0D", "\n": "%0A"}
    properties = str.maketrans({**data, ":": "%3A", ",": "%2C"})
    where = f"file={file.translate(properties)},line={line},title={title.translate(properties)}"
    return f"::{level} {where}::{message.translate(str.maketrans(data))}"


def _extent(run: Run) -> str:
    parts = [f"{_number(run.events, 'event')} in lines {run.first_line} to {run.last_line}"]
    parts += [f"{count} {what}" for what in ("superfluous", "refused", "ignored") if (count := getattr(run, what))]
    if run.first_position > 1:
        parts.append(f"seen from event {run.first_position} on")
    return ", ".join(parts)


def _resumed(run: Run, resumed: Resumption) -> str:
    counters = resumed.counters
    parts = [
        f"resumed at {resumed.state}",
        f"global_batch={counters['global_batch']}",
        f"global_step={counters['global_step']} in line {resumed.line}",
    ]
    if run.resumed_count > 1:
        parts.append(f"the last of {run.resumed_count} times")
    if resumed.undone:
        parts.append(f"{_number(resumed.undone, 'event')} before it undone")
    if resumed.unseen:
        parts.append(f"{_number(resumed.unseen, 'event')} before it not in the trace")
    return ", ".join(parts)


def _progress(run: Run) -> str:
    counters = run.counters
    return ", ".join(
        [
            _number(counters["global_batch"], "batch", "batches"),
            _number(counters["global_step"], "step"),
            _number(counters["total_sequential_epochs"], "layer"),
            _number(counters["calibration_epochs"], "calibration epoch"),
        ]
    )


def _counted(event: str, count: int, nanoseconds: int) -> str:
    lasted = f" {_duration(nanoseconds)}{' in all' if count > 1 else ''}" if nanoseconds else ""
    return f"{_names([event])} {count}x{lasted}"


def _duration(nanoseconds: int) -> str:
    # A little less than the unit would be shown as one of it.
    size, unit = next((size, unit) for size, unit in _UNITS if nanoseconds >= 0.9995 * size)
    return f"{nanoseconds / size:.3g} {unit}"


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _names(events: Sequence[str]) -> str:
    """The names of events; their members have one, and others are what they are called."""
    return ", ".join(str(getattr(event, "name", event)) for event in events)
