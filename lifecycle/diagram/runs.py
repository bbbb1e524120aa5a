"""Overlays of runs: of a trace that was checked, and of a live lifecycle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lifecycle.diagram.overlay import Overlay, Rejection, Tally
from lifecycle.engine.listeners import Tap
from lifecycle.errors import UnknownEventError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lifecycle.engine import Lifecycle
    from lifecycle.engine.listeners import Control, LifecycleView
    from lifecycle.protocol import Protocol
    from lifecycle.protocol.rules import Payload
    from lifecycle.trace.formats.source import Source
    from lifecycle.trace.report import Report, Run

__all__ = ["Watch", "overlay_of_lifecycle", "overlay_of_report", "overlay_of_trace"]

NANO = 1e-9
"""Seconds in a nanosecond."""


def overlay_of_trace(source: Source, protocol: Protocol) -> Overlay:
    """Check a trace, and show its run.

    Args:
        source: A file, or what is open for reading one.
        protocol: What the run should obey.

    Raises:
        OSError: It cannot be read.
        TraceFormatError: It is not a trace.

    Examples:
        >>> import io
        >>> from lifecycle import protocols
        >>> overlay_of_trace(io.BytesIO(b'{"event": "INITIALIZE"}'), protocols.TRAINING).current
        'session.ready'
    """
    from lifecycle import trace  # noqa: PLC0415 # a picture without a run does not need it

    return overlay_of_report(trace.check(source, protocol), protocol)


def overlay_of_report(report: Report, protocol: Protocol) -> Overlay:
    """Show a run of a trace that was checked: that of `run_to_show`.

    Args:
        report: What the checker found.
        protocol: The protocol that it was checked against.

    Examples:
        >>> import io
        >>> from lifecycle import protocols, trace
        >>> report = trace.check(io.BytesIO(b'{"event": "INITIALIZE"}'), "training")
        >>> print(overlay_of_report(report, protocols.TRAINING).tally("created", "INITIALIZE"))
        1x
    """
    if not report.runs:
        return Overlay(report.name, "no run", "", {}, frozenset())
    run = run_to_show(report)
    tallies = {
        (count.source, _name(protocol, count.event)): Tally(count.count, count.duration * NANO)
        for count in run.transitions
    }
    rejected = ((each.state, _name(protocol, each.event), each.position) for each in run.violations)
    return Overlay(
        name=report.name if report.run_count == 1 else f"{report.name}, run {run.number} of {report.run_count}",
        verdict=_verdict(run),
        current=run.state,
        tallies=tallies,
        visited=frozenset(run.visited),
        rejections=_gather(rejected),
        failures={(run.failed.state, _name(protocol, run.failed.event)): run.failed.error} if run.failed else {},
    )


def run_to_show(report: Report) -> Run:
    """The first run that is not fine, else the last."""
    return next((run for run in report.runs if not run.ok), report.runs[-1])


def overlay_of_lifecycle(lifecycle: Lifecycle) -> Overlay:
    """Show where a live run stands, with the violations that it kept. For counts, attach a `Watch` as it begins.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> lc = Lifecycle("training")
        >>> _ = lc.initialize()
        >>> overlay_of_lifecycle(lc).verdict
        '1 events, open'
    """
    progress = lifecycle.progress
    parts = [f"{progress.accepted:,} events", lifecycle.status]
    if progress.rejected:
        parts.insert(1, f"{progress.rejected:,} rejected")
    rejected = ((error.state, error.event.name, error.position) for error in lifecycle.violations)
    return Overlay("live run", ", ".join(parts), lifecycle.state, rejections=_gather(rejected))


class Watch(Tap):
    """Counts what a live run does, for pictures of it.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> from lifecycle.diagram import Watch, picture
        >>> lc = Lifecycle("training")
        >>> watch = Watch()
        >>> handle = lc.attach(watch)
        >>> with lc.session():
        ...     pass
        >>> picture(lc.protocol, watch.overlay(lc)).subtitles[1:]
        ('live run: 2 events, finalized', 'coverage: 3 of 7 states, 2 of 8 transitions')
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._accepted = 0
        self._state = ""
        self._tallies: dict[tuple[str, str], list[int]] = {}
        self._visited: dict[str, None] = {}
        self._rejected: list[tuple[str, str, int]] = []
        self._failures: dict[tuple[str, str], str] = {}

    def after_notify(
        self, lifecycle: LifecycleView, payload: Payload, duration: int, error: BaseException | None
    ) -> None:
        """Count an event that was taken."""
        event: Any = lifecycle.event.type_
        protocol = lifecycle.protocol
        source, state = self._state, lifecycle.state
        self._state = state
        accepted = lifecycle.progress.accepted
        if accepted == self._accepted:
            return
        self._accepted = accepted
        if not source or protocol.target(source, event) != state:
            # The watch has just been attached, or events were missing before this one.
            source = next(t.source for t in protocol.transitions if (t.event, t.target) == (event, state))
        self._visited.update(dict.fromkeys((source, state)))
        tally = self._tallies.setdefault((source, event.name), [0, 0])
        tally[0] += 1
        tally[1] += duration
        if error is not None:
            self._failures[source, event.name] = f"{type(error).__name__}: {error}"

    def rejected(self, lifecycle: LifecycleView, event: object, error: Exception) -> None:
        """Keep an event that was rejected."""
        position = getattr(error, "position", None)
        if position is not None:
            self._rejected.append((lifecycle.state, _name(lifecycle.protocol, str(event)), position))

    def control(self, lifecycle: LifecycleView, action: Control, detail: object) -> None:
        """Begin again with a new run, or go on from where a saved one stood."""
        if action == "reset" or (action == "load" and self._state in lifecycle.protocol.final):
            self._clear()
        if action == "load":
            self._state, self._accepted = lifecycle.state, lifecycle.progress.accepted
            self._visited[self._state] = None

    def overlay(self, lifecycle: Lifecycle) -> Overlay:
        """The run of the lifecycle that this is attached to."""
        standing = overlay_of_lifecycle(lifecycle)
        return Overlay(
            name=standing.name,
            verdict=standing.verdict,
            current=standing.current,
            tallies={move: Tally(count, duration * NANO) for move, (count, duration) in self._tallies.items()},
            visited=frozenset(self._visited),
            rejections=_gather(self._rejected),
            failures=self._failures.copy(),
        )


def _verdict(run: Run) -> str:
    parts = [f"{run.events:,} events"]
    if run.violation_count:
        parts.append(f"{run.violation_count:,} violation{'s' * (run.violation_count > 1)}")
    parts.append(f"{run.status} in {run.state}")
    return ", ".join(parts)


def _gather(rejected: Iterable[tuple[str, str, int]]) -> tuple[Rejection, ...]:
    positions: dict[tuple[str, str], list[int]] = {}
    for state, event, position in rejected:
        positions.setdefault((state, event), []).append(position)
    return tuple(Rejection(state, event, tuple(where)) for (state, event), where in positions.items())


def _name(protocol: Protocol, event: str) -> str:
    try:
        name: str = protocol.event(event).name
    except UnknownEventError:
        return event
    return name
