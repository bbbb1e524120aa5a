"""What each event needs, and what it counts.

A guard decides whether an event that is in order may pass; an update moves the counters when it does. Both belong to
the event, wherever in a protocol it comes. `Protocol` puts them on its transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lifecycle.errors import ExpectationError, IllegalEventError, LifecycleError, MissingPayloadError
from lifecycle.events import Event, EventType, check_count, nearest

__all__ = ["Guard", "Progress", "Update"]

Payload = Mapping[str, Any]


@dataclass(slots=True)
class Progress:
    """What a run has done so far. All counts begin at zero with every run.

    Attributes:
        accepted: Events accepted.
        rejected: Events refused.
        ignored: Events that came while the lifecycle was suspended.
        calibration_epochs: Calibration epochs ended.
        sequential_epochs: Sequential epochs (layers) ended since the last CALIBRATION_EPOCH_START.
        total_sequential_epochs: Sequential epochs ended in the whole run.
        batches: Batches ended since the last CALIBRATION_EPOCH_START, or since the run began.
        batches_without_optimizer: Batches ended without an optimizer event since the last step.
        invocations: Optimizer calls since the last step.
        calibrating: Whether a calibration epoch is open.
        optimizer_called: Whether an optimizer event has come since the last BATCH_END.

    Examples:
        >>> from lifecycle import Lifecycle
        >>> lc = Lifecycle()
        >>> with lc.session(), lc.calibration_epoch(), lc.batch():
        ...     lc.progress.calibrating
        True
        >>> lc.progress.accepted, lc.progress.calibration_epochs
        (6, 1)
    """

    accepted: int = 0
    rejected: int = 0
    ignored: int = 0
    calibration_epochs: int = 0
    sequential_epochs: int = 0
    total_sequential_epochs: int = 0
    batches: int = 0
    batches_without_optimizer: int = 0
    invocations: int = 0
    calibrating: bool = False
    optimizer_called: bool = False


class Counted(Protocol):
    """What guards and updates work on: a `Lifecycle`, or the model of a `transitions` machine."""

    event: Event
    progress: Progress

    @property
    def expect(self) -> Mapping[str, int]:
        """The counts that the caller knows, by name."""
        ...


def _refuse(guard: Guard, counted: Counted, **context: Any) -> IllegalEventError:
    return IllegalEventError(hint=f"its guard [{guard.name}] does not hold", **context)


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on a transition.

    Args:
        name: What must hold, in a few words, as diagrams and messages show it.
        check: Takes the lifecycle and the payload, and says whether it holds. It may be asked more than once.
        error: Builds the error from the guard, the lifecycle and the fields of `IllegalEventError` but `hint`.

    Examples:
        >>> guard = Guard("path given", lambda counted, payload: "path" in payload)
        >>> guard.check(None, {"path": "model"})
        True
    """

    name: str
    check: Callable[[Any, Payload], bool]
    error: Callable[..., IllegalEventError] = field(default=_refuse, repr=False)


@dataclass(frozen=True, slots=True)
class Update:
    """What an accepted event counts.

    Args:
        text: The change as diagrams and tables show it; empty for bookkeeping that they leave out.
        apply: Takes the live event, the progress and the payload, and moves the counters. If it raises, the event is
            refused, so it should raise before it moves anything.

    Examples:
        >>> def count(event, progress, payload):
        ...     event.global_step += payload.get("steps", 1)
        >>> Update("global_step += steps", count).text
        'global_step += steps'
    """

    text: str
    apply: Callable[[Event, Progress, Payload], None]


def _loss_given(counted: Counted, payload: Payload) -> bool:
    return payload.get("loss") is not None


def _loss_missing(guard: Guard, counted: Counted, **context: Any) -> IllegalEventError:
    return MissingPayloadError(hint="pass loss=..., and not None", **context)


_EPOCH_COUNTS: dict[str, Callable[[Event, Progress], int]] = {
    "sequential_epochs": lambda event, progress: progress.sequential_epochs,
    "batches": lambda event, progress: progress.batches,
}
_RUN_COUNTS: dict[str, Callable[[Event, Progress], int]] = {
    "calibration_epochs": lambda event, progress: progress.calibration_epochs,
    "steps": lambda event, progress: event.global_step,
}
SUSPENDABLE = frozenset(
    {
        EventType.BATCH_START,
        EventType.LOSS_CALCULATED,
        EventType.OPTIM_PRE_STEP,
        EventType.OPTIM_POST_STEP,
        EventType.BATCH_END,
    }
)
"""The events that are ignored while a run is suspended."""

EXPECTABLE = (*_EPOCH_COUNTS, *_RUN_COUNTS)
"""The counts that can be expected: two of every calibration epoch, two of the whole run."""


def shown_counters(counted: Counted) -> dict[str, int]:
    """The counters that an error shows."""
    return {
        "global_batch": counted.event.global_batch,
        "global_step": counted.event.global_step,
        "sequential_epochs": counted.progress.sequential_epochs,
    }


def check_expect(expect: Mapping[str, int]) -> dict[str, int]:
    """A checked copy of the counts that a caller expects.

    Raises:
        LifecycleError: A name is unknown or a count is negative.
        TypeError: It is not a mapping, or a count is not an `int`.
    """
    if not isinstance(expect, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] # callers may have no types
        raise TypeError(f"expect must be a mapping of counts, got {expect!r}")
    for name, count in expect.items():
        if name not in EXPECTABLE:
            raise LifecycleError(f"expect: {name!r} is not a count; {nearest(str(name), EXPECTABLE)}")
        check_count(f"expect[{name!r}]", count, error=LifecycleError)
    return dict(expect)


def _misses(counted: Counted, *, at_end: bool) -> dict[str, tuple[int, int]]:
    """The expected counts that are off now, with what was expected and what was counted.

    The counts of an epoch were checked when it ended; at the end of a run they are due only if no epoch was run.
    """
    progress = counted.progress
    due = dict(_RUN_COUNTS) if at_end else {}
    if not at_end or not progress.calibration_epochs:
        due.update(_EPOCH_COUNTS)
    found = {name: count(counted.event, progress) for name, count in due.items()}
    return {
        name: (wanted, found[name])
        for name, wanted in counted.expect.items()
        if name in found and found[name] != wanted
    }


def _epoch_as_expected(counted: Counted, payload: Payload) -> bool:
    return not counted.expect or not _misses(counted, at_end=False)


def _run_as_expected(counted: Counted, payload: Payload) -> bool:
    return not counted.expect or not _misses(counted, at_end=True)


def _missed(misses: Mapping[str, tuple[int, int]], context: Mapping[str, Any]) -> IllegalEventError:
    hint = "; ".join(f"{name}: expected {wanted}, counted {count}" for name, (wanted, count) in misses.items())
    return ExpectationError(misses=misses, hint=hint, **context)


def _epoch_missed(guard: Guard, counted: Counted, **context: Any) -> IllegalEventError:
    return _missed(_misses(counted, at_end=False), context)


def _run_missed(guard: Guard, counted: Counted, **context: Any) -> IllegalEventError:
    return _missed(_misses(counted, at_end=True), context)


def _calibration_epoch_start(event: Event, progress: Progress, payload: Payload) -> None:
    progress.calibrating = True
    progress.sequential_epochs = 0
    progress.batches = 0
    progress.batches_without_optimizer = 0


def _sequential_epoch_end(event: Event, progress: Progress, payload: Payload) -> None:
    progress.sequential_epochs += 1
    progress.total_sequential_epochs += 1


def _calibration_epoch_end(event: Event, progress: Progress, payload: Payload) -> None:
    progress.calibrating = False
    progress.calibration_epochs += 1


def _optim_pre_step(event: Event, progress: Progress, payload: Payload) -> None:
    progress.optimizer_called = True


def _optim_post_step(event: Event, progress: Progress, payload: Payload) -> None:
    # Asked first: a value that has no truth must not leave half an update behind.
    skipped = bool(payload.get("skipped"))
    progress.optimizer_called = True
    if skipped:
        return
    progress.invocations += 1
    if progress.invocations >= event.invocations_per_step:
        event.global_step += 1
        progress.invocations = 0
        progress.batches_without_optimizer = 0


def _batch_end(event: Event, progress: Progress, payload: Payload) -> None:
    event.global_batch += 1
    progress.batches += 1
    if progress.optimizer_called:
        progress.optimizer_called = False
        return
    progress.batches_without_optimizer += 1
    # A calibration epoch may have no optimizer; its steps are then groups of batches.
    if progress.calibrating and progress.batches_without_optimizer >= (event.batches_per_step or 1):
        event.global_step += 1
        progress.batches_without_optimizer = 0


GUARDS: Mapping[Any, Guard] = {
    EventType.LOSS_CALCULATED: Guard("loss given", _loss_given, _loss_missing),
    EventType.CALIBRATION_EPOCH_END: Guard("counts as expected", _epoch_as_expected, _epoch_missed),
    EventType.FINALIZE: Guard("counts as expected", _run_as_expected, _run_missed),
}
"""The guard of each event that has one."""

UPDATES: Mapping[Any, Update] = {
    EventType.CALIBRATION_EPOCH_START: Update("sequential_epochs = 0", _calibration_epoch_start),
    EventType.OPTIM_PRE_STEP: Update("", _optim_pre_step),
    EventType.OPTIM_POST_STEP: Update("global_step += 1", _optim_post_step),
    EventType.BATCH_END: Update("global_batch += 1", _batch_end),
    EventType.SEQUENTIAL_EPOCH_END: Update("sequential_epochs += 1", _sequential_epoch_end),
    EventType.CALIBRATION_EPOCH_END: Update("calibration_epochs += 1", _calibration_epoch_end),
}
"""The update of each event that has one."""
