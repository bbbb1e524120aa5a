"""One method for each event, and the brackets: what an engine, a session and the callbacks have in common."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lifecycle.events import EventType

if TYPE_CHECKING:
    from collections.abc import Generator

    from lifecycle.events import Event

__all__ = ["EventMethods"]

_INITIALIZE = EventType.INITIALIZE
_CALIBRATION_EPOCH_START = EventType.CALIBRATION_EPOCH_START
_BATCH_START = EventType.BATCH_START
_LOSS_CALCULATED = EventType.LOSS_CALCULATED
_OPTIM_PRE_STEP = EventType.OPTIM_PRE_STEP
_OPTIM_POST_STEP = EventType.OPTIM_POST_STEP
_BATCH_END = EventType.BATCH_END
_SEQUENTIAL_EPOCH_END = EventType.SEQUENTIAL_EPOCH_END
_CALIBRATION_EPOCH_END = EventType.CALIBRATION_EPOCH_END
_FINALIZE = EventType.FINALIZE


class EventMethods:
    """A method for each event, for what takes events with `_fire`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _fire(self, event: str, /, **payload: Any) -> Event: ...

    def initialize(self, /, **payload: Any) -> Event:
        """Fire INITIALIZE."""
        return self._fire(_INITIALIZE, **payload)

    def calibration_epoch_start(self, /, **payload: Any) -> Event:
        """Fire CALIBRATION_EPOCH_START."""
        return self._fire(_CALIBRATION_EPOCH_START, **payload)

    def batch_start(self, /, **payload: Any) -> Event:
        """Fire BATCH_START."""
        return self._fire(_BATCH_START, **payload)

    def loss_calculated(self, /, **payload: Any) -> Event:
        """Fire LOSS_CALCULATED, which needs a `loss`."""
        return self._fire(_LOSS_CALCULATED, **payload)

    def optim_pre_step(self, /, **payload: Any) -> Event:
        """Fire OPTIM_PRE_STEP."""
        return self._fire(_OPTIM_PRE_STEP, **payload)

    def optim_post_step(self, /, **payload: Any) -> Event:
        """Fire OPTIM_POST_STEP, which counts nothing if `skipped` is true."""
        return self._fire(_OPTIM_POST_STEP, **payload)

    def batch_end(self, /, **payload: Any) -> Event:
        """Fire BATCH_END."""
        return self._fire(_BATCH_END, **payload)

    def sequential_epoch_end(self, /, **payload: Any) -> Event:
        """Fire SEQUENTIAL_EPOCH_END."""
        return self._fire(_SEQUENTIAL_EPOCH_END, **payload)

    def calibration_epoch_end(self, /, **payload: Any) -> Event:
        """Fire CALIBRATION_EPOCH_END."""
        return self._fire(_CALIBRATION_EPOCH_END, **payload)

    def finalize(self, /, **payload: Any) -> Event:
        """Fire FINALIZE."""
        return self._fire(_FINALIZE, **payload)

    @contextmanager
    def calibration_epoch(self, /, **payload: Any) -> Generator[Event, None, None]:
        """Fire CALIBRATION_EPOCH_START, run the block, fire CALIBRATION_EPOCH_END unless the block raises.

        Args:
            **payload: What comes with CALIBRATION_EPOCH_START.
        """
        yield self._fire(_CALIBRATION_EPOCH_START, **payload)
        self._fire(_CALIBRATION_EPOCH_END)

    @contextmanager
    def batch(self, /, **payload: Any) -> Generator[Event, None, None]:
        """Fire BATCH_START, run the block, fire BATCH_END unless the block raises.

        Args:
            **payload: What comes with BATCH_START.
        """
        yield self._fire(_BATCH_START, **payload)
        self._fire(_BATCH_END)
