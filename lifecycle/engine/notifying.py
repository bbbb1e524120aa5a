"""Tells observers and taps what happens to a run."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from lifecycle.engine.listeners import Control, Filter, Handle, Observer, Tap
from lifecycle.engine.run import CLOSED, CurrentRun
from lifecycle.errors import LifecycleError, ReentrantEventError
from lifecycle.events import Event, check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from lifecycle.protocol import Protocol
    from lifecycle.protocol.rules import Payload

__all__ = ["Notifier"]

Listeners = dict[Handle, Tap | tuple[tuple[Any, ...], Observer]]

_REJECTION = "a rejection"


class Notifier(CurrentRun):
    """A run with its observers and taps."""

    __slots__ = ("_listeners", "_observers", "_taps")

    def __init__(self, protocol: Protocol, event: Event, expect: Mapping[str, int], *, thread_safe: bool) -> None:
        super().__init__(protocol, event, expect, thread_safe=thread_safe)
        self._listeners: Listeners = {}
        self._observers: dict[Any, tuple[Observer, ...]] = {}
        self._taps: tuple[Tap, ...] = ()

    def on(
        self,
        events: str | Iterable[str],
        callback: Observer,
        *,
        every: int = 1,
        once: bool = False,
        when: Callable[[Event, Payload], Any] | None = None,
    ) -> Handle:
        """Call an observer at some events. Observers run in the order in which they were registered.

        Args:
            events: An event, or several; ``EventType`` itself is all of them.
            callback: Called as ``callback(event, payload)``, with the live event and a mapping of what came with it.
                The counters are those after the event. It may not fire, reset or load state.
            every: Call it at each `every`-th of its events, counted from the beginning of the run or from the loading
                of its state.
            once: Call it the first time only.
            when: Asked as ``when(event, payload)`` before anything else; events it says no to do not count.

        Returns:
            A handle whose ``remove()`` takes the observer back.

        Raises:
            LifecycleError: `every` is not at least 1, or there are no events.
            TypeError: An argument has the wrong type.
            UnknownEventError: There is no such event.

        Examples:
            >>> from lifecycle import Lifecycle
            >>> lc = Lifecycle("training")
            >>> handle = lc.on("batch_end", lambda event, payload: print("batch", event.global_batch), every=2)
            >>> with lc.session():
            ...     for loss in 4, 3, 2, 1:
            ...         with lc.batch():
            ...             _ = lc.loss_calculated(loss=loss)
            batch 2
            batch 4
            >>> handle.remove()
        """
        if not isinstance(events, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
            raise TypeError(f"events must be an event or several, got {events!r}")
        wanted = [events] if isinstance(events, str) else events
        members = tuple(dict.fromkeys(self.protocol.event(event) for event in wanted))
        if not members:
            raise LifecycleError("on() needs at least one event, got none")
        if not callable(callback):
            raise TypeError(f"callback must be callable, got {callback!r}")
        if when is not None and not callable(when):
            raise TypeError(f"when must be callable, got {when!r}")
        check_count("every", every, least=1, error=LifecycleError)
        handle = self._handle()
        plain = every == 1 and not once and when is None
        observer = callback if plain else Filter(callback, handle, every=every, once=once, when=when)
        with self._lock:
            self._listen({**self._listeners, handle: (members, observer)})
        return handle

    def attach(self, tap: Tap) -> Handle:
        """Let a tap see everything that happens from now on.

        Returns:
            A handle whose ``remove()`` takes the tap off.

        Raises:
            TypeError: `tap` is not a `Tap`.
        """
        if not isinstance(tap, Tap):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
            raise TypeError(f"tap must be a Tap, got {tap!r}")
        handle = self._handle()
        with self._lock:
            self._listen({**self._listeners, handle: tap})
        return handle

    def _refuse_reentry(self, act: str) -> None:
        if self._notifying is not None:
            told = getattr(self._notifying, "name", self._notifying)
            raise ReentrantEventError(f"{act} by an observer of {told}; fire it after the observers have returned")

    def _notify(self, member: Any, payload: Payload) -> None:
        """Call the observers of an event, with the fast path closed so that none of them can fire."""
        taps = self._taps
        # `_current_row` and `_move`, written out: calling them is dear here.
        row = self._row
        if row is not CLOSED:
            self._place = row
        error: BaseException | None = None
        started = 0
        try:
            self._notifying = member
            self._row = CLOSED
            if taps:
                for tap in taps:
                    tap.before_notify(self, payload)
                started = perf_counter_ns()
            event = self.event
            for observer in self._observers.get(member, ()):
                observer(event, payload)
        except BaseException as caught:
            error = caught
            raise
        finally:
            try:
                if taps:
                    duration = perf_counter_ns() - started if started else 0
                    for tap in taps:
                        tap.after_notify(self, payload, duration, error)
            finally:
                self._notifying = None
                if not self._holds:
                    self._row = self._place

    def _report(self, event: object, error: Exception) -> None:
        # A tap that fires when it is told of a rejection is refused, and that is not told again.
        if self._taps and self._notifying is not _REJECTION:
            with self._telling(_REJECTION):
                for tap in self._taps:
                    tap.rejected(self, event, error)

    def _tell(self, action: Control, detail: object) -> None:
        with self._telling(f"a {action}"):
            for tap in self._taps:
                tap.control(self, action, detail)

    @contextmanager
    def _telling(self, what: str) -> Generator[None, None, None]:
        """Keep the taps, inside, from doing anything to the run."""
        outer = self._notifying
        try:
            self._notifying = what
            self._move(self._current_row())
            yield
        finally:
            self._notifying = outer
            self._move(self._current_row())

    def _listen(self, listeners: Listeners) -> None:
        observers: dict[Any, tuple[Observer, ...]] = {}
        taps: list[Tap] = []
        for listener in listeners.values():
            if isinstance(listener, Tap):
                taps.append(listener)
                continue
            events, observer = listener
            for event in events:
                observers[event] = (*observers.get(event, ()), observer)
        self._listeners, self._observers, self._taps = listeners, observers, tuple(taps)

    def _handle(self) -> Handle:
        # The handle must not keep the lifecycle, nor what its observers hold, in memory.
        reference = weakref.ref(self)

        def forget(handle: Handle) -> None:
            lifecycle = reference()
            if lifecycle is not None:
                lifecycle._forget(handle)  # noqa: SLF001 # it is `self`

        return Handle(forget)

    def _forget(self, handle: Handle) -> None:
        with self._lock:
            self._listen({kept: listener for kept, listener in self._listeners.items() if kept is not handle})
