"""What can go wrong. Every error derives from [`LifecycleError`][lifecycle.LifecycleError] and can be pickled.

`LifecycleError` is a `ValueError`, since callers of LLM Compressor's lifecycle catch that.
"""

from __future__ import annotations

import builtins
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import enum
    from collections.abc import Mapping, Sequence

__all__ = [
    "ExpectationError",
    "IllegalEventError",
    "LifecycleError",
    "LifecycleWarning",
    "MissingPayloadError",
    "ProtocolError",
    "ReentrantEventError",
    "TraceFormatError",
    "UnknownEventError",
]

EVENTS_SHOWN = 3
"""How many of the last events a message shows."""


class LifecycleError(ValueError):
    """The base of all errors of this library.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> try:
        ...     Lifecycle("sequentail")
        ... except LifecycleError as error:
        ...     print(error)
        'sequentail' is not a built-in protocol; did you mean 'sequential'?
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # The errors below take keyword arguments only, which BaseException cannot pickle by itself.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[LifecycleError], args: tuple[Any, ...], attributes: dict[str, Any]) -> LifecycleError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error


class IllegalEventError(LifecycleError):
    """An event came that the protocol does not allow there. Nothing has changed but the count of rejected events.

    Attributes:
        event: The event that was refused.
        state: The state it was refused in.
        allowed: The events that are allowed in that state, in the order of the protocol.
        position: Which event of the run it is, counted from 1 over all that were offered.
        history: The last accepted events, oldest first, 16 at most.
        counters: `global_batch`, `global_step` and `sequential_epochs` (ended in this calibration epoch).
        hint: What was most likely meant, in words.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> lc = Lifecycle("sequential")
        >>> for event in "initialize", "calibration_epoch_start", "batch_start", "loss_calculated":
        ...     _ = lc.fire(event, loss=0.5)
        >>> lc.fire("sequential_epoch_end")
        Traceback (most recent call last):
        ...
        lifecycle.errors.IllegalEventError: SEQUENTIAL_EPOCH_END is not allowed in session.calibration.batch.loss
          event 5, global_batch=0, global_step=0, sequential epoch 0
          allowed here: BATCH_END
          before it: CALIBRATION_EPOCH_START, BATCH_START, LOSS_CALCULATED
          hint: BATCH_END is missing before it
    """

    problem: ClassVar[str] = "{event} is not allowed in {state}"

    def __init__(
        self,
        *,
        event: enum.Enum,
        state: str,
        allowed: Sequence[enum.Enum],
        position: int,
        history: Sequence[enum.Enum],
        counters: Mapping[str, int],
        hint: str = "",
    ) -> None:
        super().__init__()
        self.event = event
        self.state = state
        self.allowed = tuple(allowed)
        self.position = position
        self.history = tuple(history)
        self.counters = dict(counters)
        self.hint = hint

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self).splitlines()[0]!r})"

    def __str__(self) -> str:
        counters = self.counters
        lines = [
            self.problem.format(event=self.event.name, state=self.state),
            (
                f"event {self.position}, global_batch={counters['global_batch']}, "
                f"global_step={counters['global_step']}, sequential epoch {counters['sequential_epochs']}"
            ),
            f"allowed here: {names(self.allowed) or 'nothing'}",
            f"before it: {names(self.history[-EVENTS_SHOWN:]) or 'nothing'}",
        ]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n  ".join(lines)


class MissingPayloadError(IllegalEventError):
    """An event came without the payload that it needs: LOSS_CALCULATED without a `loss`.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> lc = Lifecycle("training")
        >>> _ = lc.initialize(), lc.batch_start()
        >>> lc.loss_calculated()
        Traceback (most recent call last):
        ...
        lifecycle.errors.MissingPayloadError: LOSS_CALCULATED came without its payload in session.batch.started
          event 3, global_batch=0, global_step=0, sequential epoch 0
          allowed here: LOSS_CALCULATED
          before it: INITIALIZE, BATCH_START
          hint: pass loss=..., and not None
    """

    problem = "{event} came without its payload in {state}"


class ExpectationError(IllegalEventError):
    """A count that the caller knows was missed at the end of a calibration epoch or of the run.

    Attributes:
        misses: For each count that is off, what was expected and what was counted.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> lc = Lifecycle(expect={"sequential_epochs": 2})
        >>> _ = lc.initialize(), lc.calibration_epoch_start(), lc.sequential_epoch_end()
        >>> lc.calibration_epoch_end()
        Traceback (most recent call last):
        ...
        lifecycle.errors.ExpectationError: CALIBRATION_EPOCH_END came in session.calibration.open \
before the counts were as expected
          event 4, global_batch=0, global_step=0, sequential epoch 1
          allowed here: BATCH_START, SEQUENTIAL_EPOCH_END, CALIBRATION_EPOCH_END
          before it: INITIALIZE, CALIBRATION_EPOCH_START, SEQUENTIAL_EPOCH_END
          hint: sequential_epochs: expected 2, counted 1
    """

    problem = "{event} came in {state} before the counts were as expected"

    def __init__(self, *, misses: Mapping[str, tuple[int, int]], **context: Any) -> None:
        super().__init__(**context)
        self.misses = dict(misses)


class UnknownEventError(LifecycleError):
    """A name that no event of the protocol has.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> Lifecycle().fire("batch_begin")
        Traceback (most recent call last):
        ...
        lifecycle.errors.UnknownEventError: 'batch_begin' is not an event of protocol 'compression'; \
did you mean 'batch_end'?
    """


class ReentrantEventError(LifecycleError):
    """An observer fired an event, reset or loaded state on the lifecycle that was notifying it.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> lc = Lifecycle()
        >>> _ = lc.on("initialize", lambda event, payload: lc.finalize())
        >>> lc.initialize()
        Traceback (most recent call last):
        ...
        lifecycle.errors.ReentrantEventError: FINALIZE was fired by an observer of INITIALIZE; fire it after the \
observers have returned
    """


class ProtocolError(LifecycleError):
    """A protocol that cannot be: unknown names, ambiguous transitions, states that lead nowhere.

    Examples:
        >>> from lifecycle import protocols
        >>> protocols.TRAINING.path("session.redy", "finalize")
        Traceback (most recent call last):
        ...
        lifecycle.errors.ProtocolError: 'session.redy' is not a state of protocol 'training'; \
did you mean 'session.ready'?
    """


class TraceFormatError(LifecycleError):
    """A file that is not a trace, or a line of it that is not a record.

    Examples:
        >>> import io
        >>> from lifecycle import trace
        >>> list(trace.read(io.BytesIO(b"not a trace"), name="run.txt"))
        Traceback (most recent call last):
        ...
        lifecycle.errors.TraceFormatError: run.txt, line 1: not a JSON object: 'not a trace'
    """


class LifecycleWarning(UserWarning):
    """Something is wrong with a run that goes on, or that has another error to raise.

    An illegal event was let through (``on_violation="warn"``), or cleaning up after a failed run has failed too.

    Examples:
        >>> import warnings
        >>> from lifecycle import Lifecycle
        >>> lc = Lifecycle("training", on_violation="warn")
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     _ = lc.batch_start()
        >>> str(caught[0].message).splitlines()[0]
        'BATCH_START is not allowed in created'
    """


def names(events: Sequence[enum.Enum]) -> str:
    """The names of some events, for a message."""
    return ", ".join(event.name for event in events)


def missing_before(place: str, events: Sequence[enum.Enum]) -> str:
    """That some events are missing, for a message."""
    return f"{names(events)} {'is' if len(events) == 1 else 'are'} missing before {place}"


def grouped(message: str, errors: Sequence[Exception]) -> Exception:
    """An ``ExceptionGroup``; before Python 3.11 those are in a package of their own."""
    group: Any = getattr(builtins, "ExceptionGroup", None) or import_module("exceptiongroup").ExceptionGroup
    return group(message, errors)  # type: ignore[no-any-return]
