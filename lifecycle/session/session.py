"""A compression session: an engine, the modifiers that work in its events, and the state they share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from lifecycle import protocols
from lifecycle.engine import Lifecycle
from lifecycle.engine.listeners import Tap
from lifecycle.engine.methods import EventMethods
from lifecycle.engine.saved import check_keys, check_same
from lifecycle.errors import LifecycleError, LifecycleWarning, grouped
from lifecycle.events import Event, EventType
from lifecycle.session.modifier import Modifier, check_modifier
from lifecycle.session.schedule import Schedule
from lifecycle.session.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from lifecycle.engine.lifecycle import Outcome
    from lifecycle.engine.listeners import Control, LifecycleView
    from lifecycle.protocol import Protocol
    from lifecycle.protocol.rules import Payload

__all__ = ["CompressionSession", "entered"]

entered: ContextVar[tuple[tuple[CompressionSession, bool], ...]] = ContextVar("lifecycle sessions", default=())
"""The sessions that are active in this context, outermost first, and whether each is so by a ``with`` block."""

_INITIALIZE = EventType.INITIALIZE
_FINALIZE = EventType.FINALIZE
_RESERVED = frozenset({"self", "state", "event"})
_SAVED = {"lifecycle": None, "modifiers": None}


class CompressionSession(EventMethods):
    """Runs modifiers in the events of a lifecycle, each at its time.

    A ``with`` block makes it the active session. Leaving the block fires FINALIZE if the run is open; leaving it by an
    exception aborts the run instead, which calls ``on_abort`` on every modifier. Where FINALIZE is refused, the run
    stays open.

    When a hook raises, the event stands, the modifiers after it are not told of the event, and the exception goes to
    the caller as it is. At INITIALIZE the run is aborted as well, since some modifiers were never initialized. FINALIZE
    attempts every modifier, and raises what failed as one group.

    Args:
        modifiers: What changes the model, in the order in which it is to be called.
        protocol: A protocol, or the name of a built-in one.
        **options: Those of [`Lifecycle`][lifecycle.Lifecycle].

    Attributes:
        lifecycle: The engine: the run's state, counters and observers. Observers added to it come after the modifiers.
            Fire, save and resume through the session, which knows where the modifiers are.
        state: What the modifiers share; a new one after `reset`.
        modifiers: What changes the model.

    Raises:
        LifecycleError: A modifier's schedule cannot be kept, one is there twice, or what `Lifecycle` raises.
        TypeError: A modifier is none, or an option has the wrong type.

    Examples:
        >>> from lifecycle.session import CompressionSession, Modifier
        >>> class Observe(Modifier):
        ...     def on_sequential_epoch_end(self, state, event, modules, **payload):
        ...         print("calibrated", modules, "after batch", event.global_batch)
        >>> with CompressionSession([Observe()], "sequential", expect={"sequential_epochs": 2}) as session:
        ...     _ = session.initialize(model="a model")
        ...     with session.calibration_epoch():
        ...         for layer in "layer 0", "layer 1":
        ...             for _ in range(3):
        ...                 with session.batch():
        ...                     pass
        ...             _ = session.sequential_epoch_end(modules=layer)
        calibrated layer 0 after batch 3
        calibrated layer 1 after batch 6
        >>> session.lifecycle.state
        'finalized'
    """

    def __init__(
        self,
        modifiers: Iterable[Modifier] = (),
        protocol: Protocol | str = protocols.COMPRESSION,
        **options: Any,
    ) -> None:
        if not isinstance(modifiers, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
            raise TypeError(f"modifiers must be a list of them, got {modifiers!r}")
        self.modifiers = tuple(modifiers)
        for modifier in self.modifiers:
            check_modifier(modifier)
        if len(set(map(id, self.modifiers))) < len(self.modifiers):
            raise LifecycleError(f"a modifier is there twice: {self.modifiers!r}")
        self.lifecycle = Lifecycle(protocol, **options)
        self._begin()
        # Also at events that the protocol does not use: those may be let through.
        self.lifecycle.on(self.lifecycle.protocol.spellings.values(), self._deliver)
        self.lifecycle.attach(_ControlTap(self._control))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a CompressionSession cannot be copied or pickled; resume a new one from its state_dict()")

    def __repr__(self) -> str:
        names = ", ".join(type(modifier).__name__ for modifier in self.modifiers)
        return f"<CompressionSession [{names}] on {self.lifecycle!r}>"

    def event(self, event: str, /, **payload: Any) -> Event:
        """Take one event: the engine moves and counts, then the modifiers are called.

        Args:
            event: The event, as a member or in any of its spellings.
            **payload: What comes with it; the hooks get it as keyword arguments. What comes with INITIALIZE is put into
                the state.

        Returns:
            The live event.

        Raises:
            LifecycleError: A payload is called "self", "state" or "event", as the hooks' own arguments are.
            IllegalEventError: The event is out of order; no modifier was told. See `Lifecycle.fire` for its kinds.
            ExceptionGroup: Modifiers failed at FINALIZE.
            Exception: What a modifier raised.

        Examples:
            >>> session = CompressionSession()
            >>> session.event("initialize", model="a model").type_.name, session.state.model
            ('INITIALIZE', 'a model')
        """
        _check_names(payload)
        before = self.lifecycle.progress.accepted
        try:
            return self.lifecycle.fire(event, **payload)
        except BaseException as error:
            # Not when a hook of INITIALIZE has fired what was refused; that may be caught yet.
            if self._failed_to_initialize and self.lifecycle.progress.accepted > before:
                self.lifecycle.abort(error)
            raise

    _fire = event

    def activate(self) -> None:
        """Make it the active session of this thread or task, until its next ``with`` block ends."""
        sessions = entered.get()
        if not sessions or sessions[-1][0] is not self:
            entered.set((*sessions, (self, False)))

    def abort(self, error: BaseException | str | None = None) -> None:
        """End an open run as failed, and call ``on_abort`` on every modifier. On a run that is not open, do nothing.

        A modifier that fails in it is reported by a `LifecycleWarning`, since there is an error to deal with already.

        Args:
            error: Why.
        """
        self.lifecycle.abort(error)

    def reset(self) -> Outcome:
        """Begin a new run, with a new state. The modifiers of a run that was left open get ``on_abort``.

        Returns:
            How the last run had ended: ``"finalized"``, ``"aborted"``, ``"abandoned"`` if it was left open, or
            ``"created"`` if it had not begun.

        Raises:
            ReentrantEventError: A modifier of this session called it.
        """
        return self.lifecycle.reset()

    def state_dict(self) -> dict[str, Any]:
        """The run, and how far each modifier is, as plain data that JSON can hold; see `resume`.

        Raises:
            TypeError: What a modifier returned is not a mapping.
        """
        # Between two events of other threads, so that the parts belong together.
        with self.lifecycle._lock:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            return {
                "lifecycle": self.lifecycle.state_dict(),
                "modifiers": [schedule.state_dict() for schedule in self._schedules],
            }

    def resume(self, saved: Mapping[str, Any], **payload: Any) -> Event:
        """Go on with a saved run, in a session that has none. All of it is checked before anything changes.

        The counters, the schedules and the modifiers' own states are those of the saved run. No event is fired:
        INITIALIZE was. But a new process has a new model, so ``on_initialize`` is called on every modifier, with the
        counters of the saved run.

        Args:
            saved: What `state_dict` returned, for the same protocol, sizes of epochs and kinds of modifiers.
            **payload: What would come with INITIALIZE, such as the model.

        Returns:
            The live event.

        Raises:
            LifecycleError: This session's run has begun, what was saved is not this session's, or a payload has a name
                that `event` refuses.
            TypeError: A part of it has the wrong type.
            Exception: What a modifier raised; the run is aborted then, if it was open.

        Examples:
            >>> first = CompressionSession(protocol="training")
            >>> _ = first.initialize(), first.batch_start(), first.loss_calculated(loss=1.0), first.batch_end()
            >>> second = CompressionSession(protocol="training")
            >>> second.resume(first.state_dict(), model="a model").global_batch
            1
        """
        status = self.lifecycle.status
        if status != "created":
            raise LifecycleError(f"resume() needs a new run, and this one is {status}; reset() it first")
        _check_names(payload)
        check_keys("session", saved, _SAVED)
        found = saved["modifiers"]
        if not isinstance(found, list):
            raise TypeError(f"the saved modifiers must be a list, got {found!r}")
        modifiers: list[Any] = found  # pyright: ignore[reportUnknownVariableType] # it is from anywhere
        check_same("number of modifiers", len(modifiers), len(self.modifiers))
        schedules = [Schedule.load(*pair) for pair in zip(self.modifiers, modifiers, strict=True)]
        self.lifecycle.load_state_dict(saved["lifecycle"])
        self._schedules = schedules
        self.state = State(**payload)
        event = self.lifecycle.event
        try:
            # As at INITIALIZE, the hooks may not fire.
            with self.lifecycle._telling("resume()"):  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                for schedule, own in zip(schedules, modifiers, strict=True):
                    schedule.modifier.load_state_dict(own["state"])
                    if schedule.initialized and self.lifecycle.status == "open":
                        schedule.modifier.on_initialize(self.state, event, **payload)
        except BaseException as error:
            self.lifecycle.abort(error)
            raise
        return event

    def __enter__(self) -> Self:
        sessions = entered.get()
        # If it was activated just now, this block is where that ends.
        outer = sessions[:-1] if sessions[-1:] == ((self, False),) else sessions
        entered.set((*outer, (self, True)))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if exc_value is not None:
                self.abort(exc_value)
            elif self.lifecycle.status == "open":
                self.finalize()
        finally:
            sessions = entered.get()
            # The innermost of several; none if the block is left in another context than it was entered in.
            own = (place for place, entry in enumerate(sessions) if entry == (self, True))
            place = max(own, default=len(sessions))
            entered.set(sessions[:place] + sessions[place + 1 :])

    @property
    def _failed_to_initialize(self) -> bool:
        last = self.lifecycle.event.type_
        return last == _INITIALIZE and not all(schedule.initialized for schedule in self._schedules)

    def _begin(self) -> None:
        self.state = State()
        self._over = False
        self._schedules = [Schedule(modifier) for modifier in self.modifiers]

    def _deliver(self, event: Event, payload: Payload) -> None:
        """Call the modifiers, unless the run is over: an event that is let through may come after FINALIZE."""
        if self._over:
            return
        if event.type_ == _FINALIZE:
            self._over = True
            self._finalize(event, payload)
            return
        tell = Schedule.take
        if event.type_ == _INITIALIZE:
            self.state.__dict__.update(payload)
            tell = Schedule.initialize
        for schedule in self._schedules:
            tell(schedule, self.state, event, payload)
            if self._over:
                return  # This modifier has aborted the run, and the others have been told so.

    def _finalize(self, event: Event, payload: Payload) -> None:
        failures: list[Exception] = []
        failed: list[str] = []
        for modifier in self.modifiers:
            try:
                modifier.on_finalize(self.state, event, **payload)
            except Exception as error:  # noqa: BLE001, PERF203 # all are attempted, and raised as one
                failures.append(error)
                failed.append(type(modifier).__name__)
        if failures:
            count = f"{len(failures)} of {len(self.modifiers)} modifiers"
            raise grouped(f"{count} failed to finalize: {', '.join(failed)}", failures)

    def _control(self, action: Control, detail: Any) -> None:
        """Take what is done to the run besides firing its events."""
        if action == "abort":
            self._over = True
            self._clean_up(detail)
        elif action == "reset":
            try:
                if detail == "abandoned":
                    self._clean_up(None)
            finally:
                self._begin()

    def _clean_up(self, error: BaseException | str | None) -> None:
        failed: list[str] = []
        for modifier in self.modifiers:
            try:
                modifier.on_abort(self.state, self.lifecycle.event, error)
            except Exception as failure:  # noqa: BLE001, PERF203 # all are attempted
                failed.append(f"{type(modifier).__name__}.on_abort raised {failure!r}")
        if failed:
            warnings.warn("; ".join(failed), LifecycleWarning, stacklevel=2)


def _check_names(payload: Payload) -> None:
    """Refuse a payload with the name of an argument that every hook has."""
    if not _RESERVED.isdisjoint(payload):
        names = ", ".join(map(repr, sorted(_RESERVED.intersection(payload))))
        raise LifecycleError(f"a payload may not be called 'self', 'state' or 'event', got {names}")


class _ControlTap(Tap):
    def __init__(self, hear: Callable[[Control, Any], None]) -> None:
        self.hear = hear

    def control(self, lifecycle: LifecycleView, action: Control, detail: object) -> None:
        self.hear(action, detail)
