"""What every contender is put through: one calibration epoch, then a stretch of training.

The run begins and ends between two batches, so that it can be repeated without end after INITIALIZE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lifecycle import EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LETTERS = (
    EventType.INITIALIZE,
    EventType.CALIBRATION_EPOCH_START,
    EventType.BATCH_START,
    EventType.LOSS_CALCULATED,
    EventType.OPTIM_PRE_STEP,
    EventType.OPTIM_POST_STEP,
    EventType.BATCH_END,
    EventType.SEQUENTIAL_EPOCH_END,
    EventType.CALIBRATION_EPOCH_END,
    EventType.FINALIZE,
)
I, C, B, L, P, O, E, S, K, F = LETTERS  # noqa: E741

LAYERS = 4
LAYER_BATCHES = 4
TRAINING_BATCHES = 16
LOSS = 0.5

EVENTS = 1 + LAYERS * (3 * LAYER_BATCHES + 1) + 1 + 5 * TRAINING_BATCHES
"""Events in one pass."""


def by_fire(fire: Callable[..., object], letters: tuple[Any, ...] = LETTERS) -> None:
    """One pass through a function that takes the event, as a member of the contender's own vocabulary."""
    _, start, batch, loss, before, after, end, layer, stop, _ = letters
    fire(start)
    for _ in range(LAYERS):
        for _ in range(LAYER_BATCHES):
            fire(batch)
            fire(loss, loss=LOSS)
            fire(end)
        fire(layer)
    fire(stop)
    for _ in range(TRAINING_BATCHES):
        fire(batch)
        fire(loss, loss=LOSS)
        fire(before)
        fire(after)
        fire(end)


def by_methods(target: Any) -> None:
    """The same pass through one method for each event."""
    target.calibration_epoch_start()
    for _ in range(LAYERS):
        for _ in range(LAYER_BATCHES):
            target.batch_start()
            target.loss_calculated(loss=LOSS)
            target.batch_end()
        target.sequential_epoch_end()
    target.calibration_epoch_end()
    for _ in range(TRAINING_BATCHES):
        target.batch_start()
        target.loss_calculated(loss=LOSS)
        target.optim_pre_step()
        target.optim_post_step()
        target.batch_end()


def refusals() -> Iterator[tuple[tuple[EventType, ...], EventType]]:
    """Places in a run, as the events that lead there, each with an event that is refused there."""
    yield (I,), E
    yield (I, B), B
    yield (I, B, L, P), E
    yield (I, C, B), S
