"""Who is told what happens to a lifecycle: observers, which see accepted events, and taps, which see everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lifecycle.events import Event
from lifecycle.protocol.rules import Payload, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    import lifecycle.protocol
    from lifecycle.errors import IllegalEventError

__all__ = ["Control", "Filter", "Handle", "LifecycleView", "Observer", "Tap"]

Observer = Callable[[Event, Payload], object]
"""Called with the live event and what came with it."""

Control = Literal["reset", "abort", "suspend", "resume", "load"]
"""What can be done to a run besides firing its events."""


class LifecycleView(Protocol):
    """What a tap sees of the lifecycle that it is attached to. A tap reads it and changes nothing.

    Attributes:
        event: The live event, with the counters.
        progress: What the run has done so far.
        protocol: The protocol that the run obeys.
        expect: The counts that the caller knows.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> def where(lifecycle: LifecycleView) -> str:
        ...     return f"{lifecycle.state}, step {lifecycle.event.global_step}"
        >>> where(Lifecycle())
        'created, step 0'
    """

    event: Event
    progress: Progress
    protocol: lifecycle.protocol.Protocol
    expect: Mapping[str, int]

    @property
    def state(self) -> str:
        """The name of the state that the run is in."""
        ...

    @property
    def status(self) -> str:
        """How far the run is: ``"created"``, ``"open"``, ``"finalized"`` or ``"aborted"``."""
        ...

    @property
    def history(self) -> tuple[Any, ...]:
        """The last accepted events, oldest first."""
        ...

    @property
    def violations(self) -> tuple[IllegalEventError, ...]:
        """The violations of this run that were not raised, oldest first."""
        ...


class Tap:
    """Sees everything that happens to a lifecycle, where an observer sees accepted events only.

    Journals, overlays, progress bars and the lockstep of ranks are taps. Derive from it, override what is needed, and
    pass an instance to `Lifecycle.attach`. Taps may not fire events.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> class Timer(Tap):
        ...     def after_notify(self, lifecycle, payload, duration, error):
        ...         print(lifecycle.event.type_.name, duration >= 0, error)
        >>> lc = Lifecycle()
        >>> handle = lc.attach(Timer())
        >>> _ = lc.initialize()
        INITIALIZE True None
    """

    def before_notify(self, lifecycle: LifecycleView, payload: Payload) -> None:
        """An event was accepted, and the counters are those after it. An exception keeps it from the observers."""

    def after_notify(
        self, lifecycle: LifecycleView, payload: Payload, duration: int, error: BaseException | None
    ) -> None:
        """All observers have run, in `duration` nanoseconds, or one of them has raised `error`."""

    def rejected(self, lifecycle: LifecycleView, event: object, error: Exception) -> None:
        """An event, given as the caller wrote it, was refused with `error`, or let through in spite of it."""

    def control(self, lifecycle: LifecycleView, action: Control, detail: object) -> None:
        """What was done to the run. `detail`: how it had ended, the error, the reason, or the state that was loaded."""


class Handle:
    """Takes an observer or a tap off a lifecycle again.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> lc = Lifecycle()
        >>> handle = lc.on("initialize", lambda event, payload: print("never called"))
        >>> handle.remove()
        >>> _ = lc.initialize()
    """

    __slots__ = ("__weakref__", "_forget")

    def __init__(self, forget: Callable[[Handle], None]) -> None:
        self._forget = forget

    def remove(self) -> None:
        """Notify it no more. Once is enough; doing it again does nothing."""
        self._forget(self)


class Filter:
    """An observer that is called for some of its events only."""

    __slots__ = ("callback", "every", "handle", "once", "seen", "when")

    def __init__(
        self,
        callback: Observer,
        handle: Handle,
        *,
        every: int,
        once: bool,
        when: Callable[[Event, Payload], Any] | None,
    ) -> None:
        self.callback = callback
        self.handle = handle
        self.every = every
        self.once = once
        self.when = when
        self.seen = 0

    def __call__(self, event: Event, payload: Payload) -> None:
        """Call the observer if it is due."""
        if self.when is not None and not self.when(event, payload):
            return
        self.seen += 1
        if self.seen % self.every:
            return
        if self.once:
            self.handle.remove()
        self.callback(event, payload)

    def restart(self) -> None:
        """Count from zero, for a new run."""
        self.seen = 0
