"""The vocabulary of a compression session, and its arithmetic.

[`EventType`][lifecycle.EventType] names what can happen; [`Event`][lifecycle.Event] says where in the run it happened.
Steps, batches and epochs are integers here, and every comparison with a float is made on exact integer ratios, so that
a schedule is due on the step that its author meant.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Event", "EventType"]

Vocabulary = TypeVar("Vocabulary", bound=enum.Enum)

RELATIVE_TOLERANCE = (1, 10**12)
"""How far a float may lie from what was meant, as a ratio: a few thousand roundings of a double."""


class EventType(str, enum.Enum):
    """What can happen in a compression session.

    The values are the lower-case names. LLM Compressor 0.13 renamed two of the events; its names are aliases here.

    Examples:
        >>> EventType("batch_start")
        <EventType.BATCH_START: 'batch_start'>
        >>> EventType.CALIBRATION_START is EventType.CALIBRATION_EPOCH_START
        True
        >>> EventType("EventType.CALIBRATION_END").name
        'CALIBRATION_EPOCH_END'
        >>> EventType("batch_strat")
        Traceback (most recent call last):
        ...
        ValueError: 'batch_strat' is not an EventType; did you mean 'batch_start'?
    """

    INITIALIZE = "initialize"
    CALIBRATION_EPOCH_START = "calibration_epoch_start"
    BATCH_START = "batch_start"
    LOSS_CALCULATED = "loss_calculated"
    OPTIM_PRE_STEP = "optim_pre_step"
    OPTIM_POST_STEP = "optim_post_step"
    BATCH_END = "batch_end"
    SEQUENTIAL_EPOCH_END = "sequential_epoch_end"
    CALIBRATION_EPOCH_END = "calibration_epoch_end"
    FINALIZE = "finalize"
    CALIBRATION_START = CALIBRATION_EPOCH_START
    CALIBRATION_END = CALIBRATION_EPOCH_END

    # One text for str(), format() and f-strings; what Enum does by itself differs between Python 3.11 and 3.12.
    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, format_spec: str) -> str:
        return format(str(self.value), format_spec)

    @classmethod
    def _missing_(cls, value: object) -> EventType | None:
        if not isinstance(value, str):
            return None
        member = spellings(cls).get(value)
        if member is None:
            raise ValueError(f"{value!r} is not an EventType; {nearest(value, [m.value for m in cls])}")
        return member


def spellings(vocabulary: type[Vocabulary]) -> dict[str, Vocabulary]:
    """Every way to write the members of an enumeration with text values, aliases included.

    Args:
        vocabulary: An enumeration whose members are strings.

    Returns:
        The member for each of its value, its name, its name in lower case and ``Class.NAME``.
    """
    known: dict[str, Vocabulary] = {}
    for name, member in vocabulary.__members__.items():
        known.update(dict.fromkeys((str(member.value), name, name.lower(), f"{vocabulary.__name__}.{name}"), member))
    return known


def nearest(text: str, known: Iterable[str]) -> str:
    """What to say after "X is unknown": the nearest known name if one is near, else all of them.

    Examples:
        >>> nearest("TRANING", ["training", "basic"])
        "did you mean 'training'?"
        >>> nearest("zzz", ["training", "basic"])
        "known: 'training', 'basic'"
    """
    import difflib  # noqa: PLC0415 # dear to import, and needed for errors only

    names = list(known)
    close = difflib.get_close_matches(text.lower(), names, n=1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(map(repr, names))


@dataclass(slots=True)
class Event:
    """Where a run stands: the event that came last, and the counters.

    `epoch`, `epoch_step`, `epoch_full` and `current_index` follow from `global_step` alone, `epoch_batch` from
    `global_batch` alone. All of them count from zero.

    Args:
        type_: The event, a member of an enumeration of strings (a string is turned into an `EventType`); None before
            the first one.
        steps_per_epoch: Optimizer steps in an epoch; None if the run is not measured in epochs.
        batches_per_step: Batches in one optimizer step (gradient accumulation); None is 1.
        invocations_per_step: Calls of the optimizer that make one step.
        global_step: Steps taken since the run began.
        global_batch: Batches completed since the run began, so also the index of the batch that is open.

    Raises:
        TypeError: A count is not an `int`, or `type_` is not an event.
        ValueError: A count is negative (or zero, for the three sizes), or `type_` is an unknown name.

    Examples:
        >>> event = Event(steps_per_epoch=10, global_step=25)
        >>> event.epoch, event.epoch_step, event.epoch_full
        (2, 5, 2.5)
        >>> event.should_update(start=1, end=3, update=0.5)
        True
    """

    type_: Any = None  # A member, or None. Its enumeration is the protocol's to choose, so no narrower type is right.
    steps_per_epoch: int | None = None
    batches_per_step: int | None = None
    invocations_per_step: int = 1
    global_step: int = 0
    global_batch: int = 0

    def __post_init__(self) -> None:
        if self.type_ is not None:
            if not isinstance(self.type_, str):
                raise TypeError(f"type_ must be an EventType or None, got {self.type_!r}")
            if not isinstance(self.type_, enum.Enum):
                self.type_ = EventType(self.type_)
        if self.steps_per_epoch is not None:
            check_count("steps_per_epoch", self.steps_per_epoch, least=1)
        if self.batches_per_step is not None:
            check_count("batches_per_step", self.batches_per_step, least=1)
        check_count("invocations_per_step", self.invocations_per_step, least=1)
        check_count("global_step", self.global_step)
        check_count("global_batch", self.global_batch)

    @property
    def epoch_based(self) -> bool:
        """Whether the run is measured in epochs: `steps_per_epoch` is known."""
        return self.steps_per_epoch is not None

    @property
    def epoch(self) -> int:
        """Completed epochs.

        Raises:
            ValueError: The event is not epoch based.
        """
        return self.global_step // self._epoch_size()

    @property
    def epoch_full(self) -> float:
        """Epochs with the fraction of the open one that is done.

        Raises:
            ValueError: The event is not epoch based, or there are more epochs than a float can hold.
        """
        try:
            return self.global_step / self._epoch_size()
        except OverflowError:
            raise ValueError(
                f"too many steps per epoch: {self.global_step} steps are more than a float can hold"
            ) from None

    @property
    def epoch_step(self) -> int:
        """Steps completed in the open epoch.

        Raises:
            ValueError: The event is not epoch based.
        """
        return self.global_step % self._epoch_size()

    @property
    def epoch_batch(self) -> int:
        """Batches completed in the open epoch, which has ``steps_per_epoch * (batches_per_step or 1)`` of them.

        Raises:
            ValueError: The event is not epoch based.
        """
        return self.global_batch % (self._epoch_size() * (self.batches_per_step or 1))

    @property
    def current_index(self) -> float:
        """The position that schedules are written in: `epoch_full` if epoch based, else `global_step`.

        Setting it goes to the nearest step (the earlier one of two that are equally near) and sets `global_step` and
        `global_batch`, unless that step is the current one: then nothing moves.

        Raises:
            TypeError: Set to something that is not a number.
            ValueError: Set to a negative number, NaN or infinity, or there are too many steps for a float to tell one
                from the next.

        Examples:
            >>> event = Event(steps_per_epoch=100, batches_per_step=2)
            >>> event.current_index = 0.29
            >>> event.global_step, event.global_batch
            (29, 58)
        """
        if self.steps_per_epoch is None:
            return self.global_step
        return _distinct_index(self.global_step, self.steps_per_epoch)

    @current_index.setter
    def current_index(self, value: float) -> None:
        numerator, denominator = _ratio("current_index", value)
        if numerator < 0:
            raise ValueError(f"current_index must not be negative, got {value!r}")
        if self.steps_per_epoch is not None:
            numerator *= self.steps_per_epoch
        step = -((denominator - 2 * numerator) // (2 * denominator))
        if self.steps_per_epoch is not None:
            _distinct_index(step, self.steps_per_epoch)
        if step != self.global_step:
            self.global_step = step
            self.global_batch = step * (self.batches_per_step or 1)

    def should_update(self, start: float | None = None, end: float | None = None, update: float | None = None) -> bool:
        """Whether a schedule is due at `current_index`.

        Args:
            start: First index at which it is due, inclusive; None is from the beginning.
            end: Last index at which it is due, inclusive; None is for ever.
            update: Interval, measured from index 0; None and 0 are at every step. ``k / steps_per_epoch`` is due on
                exactly the multiples of ``k`` steps.

        Returns:
            Whether all three hold. Indices are in epochs if the event is epoch based, else in steps; they are compared
            in steps, and a float that is off by rounding counts as what it was rounded from.

        Raises:
            TypeError: An argument is not a number.
            ValueError: An argument is NaN, or the interval is negative or infinite.

        Examples:
            >>> event = Event(steps_per_epoch=10)
            >>> due = []
            >>> for event.global_step in range(11):
            ...     if event.should_update(0, None, 0.1):
            ...         due.append(event.current_index)
            >>> due
            [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
        """
        # All three are checked before any of them decides, so that a bad one is found at the first call.
        begins = start is None or self._compare("start", start) >= 0
        ends = end is None or self._compare("end", end) <= 0
        due = update is None or self._is_multiple(update)
        return begins and ends and due

    def new_instance(self, **changes: Any) -> Event:
        """An independent copy with some fields changed.

        Args:
            **changes: New values by field name.

        Raises:
            TypeError: There is no such field, or its value has the wrong type.
            ValueError: A value is out of range.

        Examples:
            >>> Event(global_step=3).new_instance(type_="batch_end").type_.name
            'BATCH_END'
        """
        return replace(self, **changes)

    def _epoch_size(self) -> int:
        if self.steps_per_epoch is None:
            raise ValueError("the event is not epoch based: steps_per_epoch is None")
        return self.steps_per_epoch

    def _compare(self, name: str, index: float) -> int:
        """The sign of `global_step` minus the step of an index."""
        if isinstance(index, float) and math.isinf(index):
            return -1 if index > 0 else 1
        numerator, denominator = self._in_steps(name, index)
        difference = self.global_step * denominator - numerator
        return (difference > 0) - (difference < 0)

    def _is_multiple(self, update: float) -> bool:
        numerator, denominator = self._in_steps("update", update)
        if numerator < 0:
            raise ValueError(f"update must not be negative, got {update!r}")
        if numerator == 0:
            return True
        scaled = self.global_step * denominator
        multiple = _round(scaled, numerator) * numerator
        return multiple == scaled or (denominator != 1 and _is_near(multiple, scaled))

    def _in_steps(self, name: str, index: float) -> tuple[int, int]:
        """An index as an exact ratio of steps; a whole number of steps if it is one but for rounding."""
        numerator, denominator = _ratio(name, index)
        numerator *= self.steps_per_epoch or 1
        whole = _round(numerator, denominator)
        if _is_near(whole * denominator, numerator):
            return whole, 1
        return numerator, denominator


def check_count(name: str, value: object, *, least: int = 0, error: type[ValueError] = ValueError) -> None:
    """Refuse what is not a whole number of at least `least`.

    Raises:
        TypeError: `value` is not an `int`; a `bool` is not one here.
        ValueError: `value` is too small; `error` says which kind to raise.
    """
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise error(f"{name} must be at least {least}, got {value!r}")


def _ratio(name: str, value: object) -> tuple[int, int]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return value.as_integer_ratio()


def _round(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def _is_near(value: int, target: int) -> bool:
    numerator, denominator = RELATIVE_TOLERANCE
    return abs(value - target) * denominator <= abs(target) * numerator


def _distinct_index(step: int, steps_per_epoch: int) -> float:
    """The index of a step, if the steps before and after it have other indices."""
    try:
        before, index, after = ((step + offset) / steps_per_epoch for offset in (-1, 0, 1))
    except OverflowError:
        before = index = after = math.inf
    if not before < index < after:
        raise ValueError(
            f"too many steps per epoch: at step {step} with steps_per_epoch={steps_per_epoch} "
            "a float cannot tell one step from the next"
        )
    return index
