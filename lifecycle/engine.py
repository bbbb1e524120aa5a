"""The engine: it takes the events of a run, refuses what is out of order, counts, and notifies."""

from __future__ import annotations

import contextlib
import inspect
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

from lifecycle import protocols
from lifecycle.errors import IllegalEventError, LifecycleError, LifecycleWarning, ReentrantEventError
from lifecycle.events import Event, check_count
from lifecycle.listeners import Control, Filter, Handle, Observer, Tap
from lifecycle.methods import EventMethods
from lifecycle.protocol import Protocol, Row
from lifecycle.repair import Counts, Explanation, Explanations
from lifecycle.rules import SUSPENDABLE, Payload, Progress, check_expect, shown_counters
from lifecycle.saved import COUNTERS, HISTORY_LENGTH, SAVED_VERSION, check_saved

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

__all__ = ["Lifecycle"]

OnViolation = Literal["raise", "warn", "record"]
Status = Literal["created", "open", "finalized", "aborted"]
Listeners = dict[Handle, Tap | tuple[tuple[Any, ...], Observer]]
Outcome = Literal["created", "abandoned", "finalized", "aborted"]

VIOLATIONS_KEPT = 1000
"""Violations that a lifecycle keeps when it does not raise them; the oldest go first."""

_COUNTED = tuple(field.name for field in fields(Progress) if field.name not in {"accepted", "rejected", "ignored"})
_REJECTION = "a rejection"
_CLOSED: Row = {}
_UNLOCKED = contextlib.nullcontext()
_NO_VIOLATIONS: deque[IllegalEventError] = deque(maxlen=0)


class Lifecycle(EventMethods):
    """A run of a protocol: takes its events one by one, and lets none pass that is out of order.

    Args:
        protocol: A protocol, or the name of a built-in one.
        steps_per_epoch: Optimizer steps in an epoch; makes `event` epoch based.
        batches_per_step: Batches in one optimizer step; None is 1.
        invocations_per_step: Calls of the optimizer that make one step. If it is more than 1, the run obeys
            ``protocol.repeat_steps()``.
        expect: Counts that the caller knows. ``sequential_epochs`` and ``batches`` are those of every calibration epoch
            (of the whole run if it has none), ``calibration_epochs`` and ``steps`` those of the run. They are checked
            at CALIBRATION_EPOCH_END and at FINALIZE.
        on_violation: What to do with an event that is out of order: ``"raise"`` refuses it. ``"warn"`` and
            ``"record"`` keep it in `violations`, go on as if what is missing had come (or as if the event had not,
            where that is likelier), and notify the observers of it.
        thread_safe: Let one thread at a time in.

    Attributes:
        event: The live event, with the counters.
        progress: What the run has done so far.
        protocol: The protocol that the run obeys.
        expect: The counts that the caller knows.
        on_violation: What is done with an event that is out of order.

    Raises:
        LifecycleError: There is no such protocol, it has no optimizer events for `invocations_per_step` to count, or an
            argument is out of range.
        TypeError: An argument has the wrong type.

    Examples:
        >>> lc = Lifecycle("training", steps_per_epoch=2)
        >>> with lc.session():
        ...     for loss in 0.9, 0.8, 0.7:
        ...         with lc.batch():
        ...             _ = lc.loss_calculated(loss=loss)
        ...             _ = lc.optim_pre_step()
        ...             _ = lc.optim_post_step()
        >>> lc.state, lc.event.global_step, lc.event.epoch_full
        ('finalized', 3, 1.5)
    """

    __slots__ = (
        "__weakref__",
        "_aborted",
        "_explanations",
        "_history",
        "_holds",
        "_listeners",
        "_lock",
        "_notifying",
        "_observers",
        "_place",
        "_row",
        "_suspensions",
        "_taps",
        "_violations",
        "event",
        "expect",
        "on_violation",
        "progress",
        "protocol",
    )

    def __init__(
        self,
        protocol: Protocol | str = protocols.COMPRESSION,
        *,
        steps_per_epoch: int | None = None,
        batches_per_step: int | None = None,
        invocations_per_step: int = 1,
        expect: Mapping[str, int] | None = None,
        on_violation: OnViolation = "raise",
        thread_safe: bool = False,
    ) -> None:
        if isinstance(protocol, str):
            protocol = protocols.get(protocol)
        elif not isinstance(protocol, Protocol):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
            raise TypeError(f"protocol must be a Protocol or the name of one, got {protocol!r}")
        if on_violation not in get_args(OnViolation):
            raise LifecycleError(f"on_violation must be 'raise', 'warn' or 'record', got {on_violation!r}")
        try:
            self.event = Event(None, steps_per_epoch, batches_per_step, invocations_per_step)
        except ValueError as error:
            raise LifecycleError(str(error)) from None
        self.protocol = protocol if invocations_per_step == 1 else protocol.repeat_steps()
        self.progress = Progress()
        self.expect: Mapping[str, int] = {} if expect is None else check_expect(expect)
        self.on_violation = on_violation

        # `_row` is the state. While something keeps the fast path of `fire` closed, it is `_CLOSED`, which sends every
        # event to `_admit`, and the state is in `_place`. `_holds` counts what keeps it closed.
        self._place = self._row = self.protocol.rows[self.protocol.initial]
        self._holds = 0
        self._history: deque[Any] = deque(maxlen=HISTORY_LENGTH)
        self._listeners: Listeners = {}
        self._observers: dict[Any, tuple[Observer, ...]] = {}
        self._taps: tuple[Tap, ...] = ()
        self._notifying: Any = None
        self._suspensions = 0
        self._aborted = False
        self._explanations: Explanations | None = None
        self._violations: deque[IllegalEventError] = _NO_VIOLATIONS
        self._lock: AbstractContextManager[Any] = threading.RLock() if thread_safe else _UNLOCKED
        if thread_safe:
            self._hold()
        if on_violation != "raise":
            self._explanations = Explanations(self.protocol)
            self._violations = deque(maxlen=VIOLATIONS_KEPT)
            self._hold()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Lifecycle cannot be copied or pickled; load its state_dict() into a new one")

    def __repr__(self) -> str:
        return (
            f"<Lifecycle {self.protocol.name!r} in {self.state}: "
            f"global_batch={self.event.global_batch}, global_step={self.event.global_step}>"
        )

    def __format__(self, spec: str) -> str:
        from lifecycle.diagram.shown import formatted  # noqa: PLC0415 # it draws itself

        return formatted(self, spec)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from lifecycle.diagram.shown import mimebundle  # noqa: PLC0415 # it draws itself

        return mimebundle(self)

    @property
    def state(self) -> str:
        """The name of the state that the run is in."""
        return self.protocol.info(self._standing()).state

    @property
    def allowed(self) -> tuple[Any, ...]:
        """The events that are legal now, in the order of the protocol; none after `abort`."""
        return () if self._aborted else self.protocol.info(self._standing()).allowed

    @property
    def status(self) -> Status:
        """How far the run is: ``"created"``, ``"open"``, ``"finalized"`` or ``"aborted"``."""
        if self._aborted:
            return "aborted"
        here = self.protocol.info(self._standing())
        if here.final:
            return "finalized"
        return "open" if self.progress.accepted or here.state != self.protocol.initial else "created"

    @property
    def history(self) -> tuple[Any, ...]:
        """The last accepted events, oldest first, 16 at most; never their payloads."""
        return tuple(self._history)

    @property
    def violations(self) -> tuple[IllegalEventError, ...]:
        """The violations of this run that were not raised, oldest first; the last 1000."""
        return tuple(self._violations)

    def can(self, event: str) -> bool:
        """Whether an event is legal now, its payload and the expected counts left aside.

        Raises:
            TypeError: `event` is not a string.
            UnknownEventError: There is no such event.
        """
        return self.protocol.event(event) in self.allowed

    def fire(self, event: str, /, **payload: Any) -> Event:
        """Take one event: move, count, notify.

        Args:
            event: The event, as a member or in any of its spellings.
            **payload: What comes with it; the observers get it. ``loss`` is needed by LOSS_CALCULATED; a true
                ``skipped`` tells OPTIM_POST_STEP that the optimizer left the weights as they were.

        Returns:
            The live event. It changes with the next one: keep ``event.new_instance()``.

        Raises:
            IllegalEventError: The event is out of order (or one of its kinds: its payload is missing, expected counts
                are missed).
            ReentrantEventError: An observer of this lifecycle fired it.
            TypeError: `event` is not a string.
            UnknownEventError: There is no such event.
            Exception: What an observer raised; the event stands, and later observers are not called.

        Examples:
            >>> lc = Lifecycle()
            >>> lc.fire("initialize").type_
            <EventType.INITIALIZE: 'initialize'>
        """
        try:
            row, member, update, check = self._row[event]
        except (KeyError, TypeError):
            row = member = update = check = None
        if row is None or (check is not None and not check(self, payload)):
            return self._admit(event, payload)
        current = self.event
        progress = self.progress
        # First, so that an update that fails has left nothing behind.
        if update is not None:
            update(current, progress, payload)
        self._row = row
        current.type_ = member
        progress.accepted += 1
        self._history.append(member)
        if self._listeners:
            self._notify(member, payload)
        return current

    _fire = fire

    @contextmanager
    def session(self, /, **payload: Any) -> Generator[Event, None, None]:
        """Fire INITIALIZE, run the block, fire FINALIZE. If the block raises, the run is aborted instead.

        A run that the block itself has aborted is not finalized. Where FINALIZE is refused, the run stays open.

        Args:
            **payload: What comes with INITIALIZE.
        """
        before = self.progress.accepted
        try:
            yield self.initialize(**payload)
        except BaseException as error:
            # Where INITIALIZE itself was refused, the run that is open is not this block's to abort.
            if self.progress.accepted > before:
                self.abort(error)
            raise
        if not self._aborted:
            self.finalize()

    @contextmanager
    def suspended(self, reason: str) -> Generator[None, None, None]:
        """Ignore batch, loss and optimizer events inside the block: they are not checked and reach nobody.

        For evaluation and the like, whose batches are not the run's. Blocks nest. A suspension is not part of the saved
        state.

        Args:
            reason: Why, for the journal.

        Examples:
            >>> lc = Lifecycle("training")
            >>> _ = lc.initialize()
            >>> with lc.suspended("evaluation"):
            ...     _ = lc.batch_end()
            >>> lc.state, lc.progress.ignored
            ('session.ready', 1)
        """
        with self._lock:
            self._suspensions += 1
            self._hold()
        try:
            with self._lock:
                self._tell("suspend", reason)
            yield
        finally:
            with self._lock:
                self._suspensions -= 1
                self._release()
                self._tell("resume", reason)

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

    def abort(self, error: BaseException | str | None = None) -> None:
        """End an open run as failed: nothing is legal any more but `reset`. On a run that is not open, do nothing.

        Args:
            error: Why, for the journal.
        """
        with self._lock:
            if self.status == "open":
                self._aborted = True
                self._hold()
                self._tell("abort", error)

    def reset(self) -> Outcome:
        """Begin a new run. Counters, history and violations go; observers and configuration stay.

        Returns:
            How the last run had ended: ``"finalized"``, ``"aborted"``, ``"abandoned"`` if it was left open, or
            ``"created"`` if it had not begun.

        Raises:
            ReentrantEventError: An observer of this lifecycle called it.
        """
        with self._lock:
            self._refuse_reentry("reset() was called")
            status = self.status
            outcome: Outcome = "abandoned" if status == "open" else status
            self._begin(self.protocol.initial)
            self._restore(None, dict.fromkeys(COUNTERS, 0), _values(Progress()), ())
            self._tell("reset", outcome)
        return outcome

    def state_dict(self) -> dict[str, Any]:
        """The whole run as plain data that JSON can hold. Observers, expectations and violations are not in it.

        Examples:
            >>> import json
            >>> lc = Lifecycle("training")
            >>> _ = lc.initialize(), lc.batch_start()
            >>> saved = json.dumps(lc.state_dict())
            >>> resumed = Lifecycle("training")
            >>> resumed.load_state_dict(json.loads(saved))
            >>> resumed.state
            'session.batch.started'
        """
        with self._lock:
            event = _values(self.event)
            type_ = event.pop("type_")
            return {
                "version": SAVED_VERSION,
                "protocol": self.protocol.name,
                "state": self.state,
                "aborted": self._aborted,
                "event": {"type_": None if type_ is None else type_.value, **event},
                "progress": _values(self.progress),
                "history": [event.value for event in self._history],
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved run. All of it is checked before anything changes.

        Args:
            state: What `state_dict` returned, for the same protocol and sizes of epochs, steps and invocations.

        Raises:
            LifecycleError: It is another protocol's or configuration's, or a part is missing, unknown or out of range.
            ReentrantEventError: An observer of this lifecycle called it.
            TypeError: It is not a mapping, or a part has the wrong type.
        """
        with self._lock:
            self._refuse_reentry("load_state_dict() was called")
            run = check_saved(state, self.state_dict(), self.protocol)
            self._begin(run.state)
            self._restore(run.type_, run.counters, run.progress, run.history)
            if run.aborted:
                self._aborted = True
                self._hold()
            self._tell("load", run.state)

    def _standing(self) -> Row:
        return self._place if self._row is _CLOSED else self._row

    def _move(self, row: Row) -> None:
        """Stand on a row, whether or not the fast path is open."""
        self._place = row
        self._row = _CLOSED if self._holds or self._notifying is not None else row

    def _hold(self) -> None:
        self._holds += 1
        self._move(self._standing())

    def _release(self) -> None:
        self._holds -= 1
        self._move(self._standing())

    def _begin(self, state: str) -> None:
        if self._aborted:
            self._aborted = False
            self._release()
        if self._explanations is not None:
            self._explanations = Explanations(self.protocol)
        self._violations.clear()
        self._move(self.protocol.rows[state])
        for observers in self._observers.values():
            for observer in observers:
                if isinstance(observer, Filter):
                    observer.restart()

    def _restore(
        self, type_: Any, counters: Mapping[str, int], progress: Mapping[str, int], history: Iterable[Any]
    ) -> None:
        self.event.type_ = type_
        for name, value in counters.items():
            setattr(self.event, name, value)
        for name, value in progress.items():
            setattr(self.progress, name, value)
        self._history.clear()
        self._history.extend(history)

    def _refuse_reentry(self, act: str) -> None:
        if self._notifying is not None:
            told = getattr(self._notifying, "name", self._notifying)
            raise ReentrantEventError(f"{act} by an observer of {told}; fire it after the observers have returned")

    def _admit(self, event: str, payload: Payload) -> Event:
        """Take an event on the general path: every spelling, every mode, every way to go wrong."""
        with self._lock:
            try:
                member = self.protocol.event(event)
                ignored = self._suspensions and member in SUSPENDABLE
                if not ignored:
                    self._refuse_reentry(f"{member.name} was fired")
            except (LifecycleError, TypeError) as refusal:
                self._refuse(event, refusal)
            if ignored:
                self.progress.ignored += 1
                return self.event
            error = self._fault(member, payload)
            if error is None:
                self._accept(member, payload)
            elif self._explanations is None or self._aborted:
                self._refuse(event, error)
            else:
                self._tolerate(event, member, payload, error, self._explanations)
            if self._listeners:
                self._notify(member, payload)
            return self.event

    def _refuse(self, event: object, error: Exception) -> NoReturn:
        self.progress.rejected += 1
        try:
            raise error
        finally:
            self._report(event, error)

    def _fault(self, member: Any, payload: Payload) -> IllegalEventError | None:
        """Why an event may not pass now, if it may not."""
        row = self._standing()
        if member in row and not self._aborted:
            check = row[member][-1]
            if check is None or check(self, payload):
                return None
        state = self.protocol.info(row).state
        progress = self.progress
        context: dict[str, Any] = {
            "event": member,
            "state": state,
            "allowed": self.allowed,
            "position": progress.accepted + progress.rejected + progress.ignored + 1,
            "history": self._history,
            "counters": shown_counters(self),
        }
        if self._aborted:
            return IllegalEventError(hint="the run was aborted; reset() begins a new one", **context)
        move = self.protocol.move(state, member)
        if move is None or move.guard is None:
            again = bool(self._history) and self._history[-1] is member
            return IllegalEventError(hint=self.protocol.hint(state, member, again=again), **context)
        return move.guard.error(move.guard, self, **context)

    def _accept(self, member: Any, payload: Payload) -> None:
        row, _, update, _ = self._standing()[member]
        if update is not None:
            update(self.event, self.progress, payload)
        if self._explanations is not None:
            self._explanations.follow(self.state, member, payload)
        self._arrive(row, member)

    def _arrive(self, row: Row, member: Any) -> None:
        self._move(row)
        self.event.type_ = member
        self.progress.accepted += 1
        self._history.append(member)

    def _tolerate(
        self, event: object, member: Any, payload: Payload, error: IllegalEventError, explanations: Explanations
    ) -> None:
        """Keep a violation, and take the event all the same."""
        if self.on_violation == "warn":
            warnings.warn(str(error), LifecycleWarning, stacklevel=_depth_of_caller())
        if member in self._standing():
            self._accept(member, payload)
        else:
            chosen = explanations.repair(self.state, Counts(self.event, self.progress), member, payload)
            self._adopt(chosen, member)
        self._violations.append(error)
        self._report(event, error)

    def _adopt(self, chosen: Explanation, member: Any) -> None:
        """Go on from an explanation of an illegal event."""
        for name in COUNTERS:
            setattr(self.event, name, getattr(chosen.counts.event, name))
        for name in _COUNTED:
            setattr(self.progress, name, getattr(chosen.counts.progress, name))
        row = self.protocol.rows[chosen.state]
        if chosen.last is not None:
            self._arrive(row, member)
        else:
            self._move(row)
            self.event.type_ = member
            self.progress.rejected += 1

    def _notify(self, member: Any, payload: Payload) -> None:
        """Call the observers of an event, with the fast path closed so that none of them can fire."""
        taps = self._taps
        # `_standing` and `_move`, written out: calling them is dear here.
        row = self._row
        if row is not _CLOSED:
            self._place = row
        error: BaseException | None = None
        started = 0
        try:
            self._notifying = member
            self._row = _CLOSED
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
            self._move(self._standing())
            yield
        finally:
            self._notifying = outer
            self._move(self._standing())

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


def _values(counts: Event | Progress) -> dict[str, Any]:
    # Ten times as fast as `asdict`, which copies deeply; some save the run after every batch.
    return {name: getattr(counts, name) for name in counts.__slots__}


def _depth_of_caller() -> int:
    """How many frames there are between a warning in this module and the user's line, brackets included."""
    depth, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in {"contextlib", "lifecycle"}:
        depth, frame = depth + 1, frame.f_back
    return depth
