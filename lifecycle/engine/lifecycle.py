"""The engine: it takes the events of a run, refuses what is out of order, counts, and notifies."""

from __future__ import annotations

import inspect
import warnings
from collections import deque
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

from lifecycle import protocols
from lifecycle.drawable import Drawable
from lifecycle.engine.listeners import Filter
from lifecycle.engine.methods import EventMethods
from lifecycle.engine.notifying import Notifier
from lifecycle.engine.repair import Counters, Repair, Repairs
from lifecycle.engine.saved import COUNTERS, SAVED_VERSION, check_saved
from lifecycle.errors import IllegalEventError, LifecycleError, LifecycleWarning
from lifecycle.events import Event
from lifecycle.protocol import Protocol
from lifecycle.protocol.rules import SUSPENDABLE, Payload, Progress, check_expect, shown_counters

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from lifecycle.protocol.machine import LegalMoves

__all__ = ["Lifecycle", "OnViolation", "Outcome"]

OnViolation = Literal["raise", "warn", "record"]
Outcome = Literal["created", "abandoned", "finalized", "aborted"]

VIOLATIONS_KEPT = 1000
"""Violations that a lifecycle keeps when it does not raise them; the oldest go first."""

_COUNTED = tuple(field.name for field in fields(Progress) if field.name not in {"accepted", "rejected", "ignored"})


class Lifecycle(Notifier, EventMethods, Drawable):
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

    __slots__ = ("_repairs", "_suspensions", "on_violation")

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
            event = Event(None, steps_per_epoch, batches_per_step, invocations_per_step)
        except ValueError as error:
            raise LifecycleError(str(error)) from None
        if invocations_per_step > 1:
            protocol = protocol.repeat_steps()
        super().__init__(protocol, event, {} if expect is None else check_expect(expect), thread_safe=thread_safe)
        self.on_violation = on_violation
        self._suspensions = 0
        self._repairs: Repairs | None = None
        if on_violation != "raise":
            self._repairs = Repairs(protocol)
            self._violations = deque(maxlen=VIOLATIONS_KEPT)
            self._hold()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Lifecycle cannot be copied or pickled; load its state_dict() into a new one")

    def __repr__(self) -> str:
        return (
            f"<Lifecycle {self.protocol.name!r} in {self.state}: "
            f"global_batch={self.event.global_batch}, global_step={self.event.global_step}>"
        )

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
            elif self._repairs is None or self._aborted:
                self._refuse(event, error)
            else:
                self._tolerate(event, member, payload, error, self._repairs)
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
        row = self._current_row()
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
        row, _, update, _ = self._current_row()[member]
        if update is not None:
            update(self.event, self.progress, payload)
        if self._repairs is not None:
            self._repairs.follow(self.state, member, payload)
        self._arrive(row, member)

    def _arrive(self, row: LegalMoves, member: Any) -> None:
        self._move(row)
        self.event.type_ = member
        self.progress.accepted += 1
        self._history.append(member)

    def _tolerate(
        self, event: object, member: Any, payload: Payload, error: IllegalEventError, repairs: Repairs
    ) -> None:
        """Keep a violation, and take the event all the same."""
        if self.on_violation == "warn":
            warnings.warn(str(error), LifecycleWarning, stacklevel=_depth_of_caller())
        if member in self._current_row():
            self._accept(member, payload)
        else:
            chosen = repairs.choose(self.state, Counters(self.event, self.progress), member, payload)
            self._adopt(chosen, member)
        self._violations.append(error)
        self._report(event, error)

    def _adopt(self, chosen: Repair, member: Any) -> None:
        """Go on from a repair of an illegal event."""
        for name in COUNTERS:
            setattr(self.event, name, getattr(chosen.counters.event, name))
        for name in _COUNTED:
            setattr(self.progress, name, getattr(chosen.counters.progress, name))
        row = self.protocol.rows[chosen.state]
        if chosen.last is not None:
            self._arrive(row, member)
        else:
            self._move(row)
            self.event.type_ = member
            self.progress.rejected += 1

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

    def _begin(self, state: str) -> None:
        if self._aborted:
            self._aborted = False
            self._release()
        if self._repairs is not None:
            self._repairs = Repairs(self.protocol)
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


def _values(counts: Event | Progress) -> dict[str, Any]:
    # Ten times as fast as `asdict`, which copies deeply; some save the run after every batch.
    return {name: getattr(counts, name) for name in counts.__slots__}


def _depth_of_caller() -> int:
    """How many frames there are between a warning in this module and the user's line, brackets included."""
    depth, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in {"contextlib", "lifecycle"}:
        depth, frame = depth + 1, frame.f_back
    return depth
