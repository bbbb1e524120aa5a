"""Where a run stands, and whether its fast path is open."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from lifecycle.engine.saved import HISTORY_LENGTH
from lifecycle.protocol.rules import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from lifecycle.errors import IllegalEventError
    from lifecycle.events import Event
    from lifecycle.protocol import Protocol
    from lifecycle.protocol.machine import LegalMoves

__all__ = ["CLOSED", "CurrentRun", "Status"]

Status = Literal["created", "open", "finalized", "aborted"]

CLOSED: LegalMoves = {}
"""What stands in place of the row while the fast path is closed."""

_UNLOCKED = contextlib.nullcontext()
_NO_VIOLATIONS: deque[IllegalEventError] = deque(maxlen=0)


class CurrentRun:
    """A run of a protocol: its state, its counters and its last events."""

    __slots__ = (
        "__weakref__",
        "_aborted",
        "_history",
        "_holds",
        "_lock",
        "_notifying",
        "_place",
        "_row",
        "_violations",
        "event",
        "expect",
        "progress",
        "protocol",
    )

    def __init__(self, protocol: Protocol, event: Event, expect: Mapping[str, int], *, thread_safe: bool) -> None:
        self.protocol = protocol
        self.event = event
        self.progress = Progress()
        self.expect = expect
        # `_row` is the state. While something keeps the fast path of `fire` closed, it is `CLOSED`, which sends every
        # event the general way, and the state is in `_place`. `_holds` counts what keeps it closed.
        self._place = self._row = protocol.rows[protocol.initial]
        self._holds = 0
        self._history: deque[Any] = deque(maxlen=HISTORY_LENGTH)
        self._violations: deque[IllegalEventError] = _NO_VIOLATIONS
        self._aborted = False
        # What is being told to observers or taps just now.
        self._notifying: Any = None
        self._lock: AbstractContextManager[Any] = threading.RLock() if thread_safe else _UNLOCKED
        if thread_safe:
            self._hold()

    @property
    def state(self) -> str:
        """The name of the state that the run is in."""
        return self.protocol.info(self._current_row()).state

    @property
    def allowed(self) -> tuple[Any, ...]:
        """The events that are legal now, in the order of the protocol; none after `abort`."""
        return () if self._aborted else self.protocol.info(self._current_row()).allowed

    @property
    def status(self) -> Status:
        """How far the run is: ``"created"``, ``"open"``, ``"finalized"`` or ``"aborted"``."""
        if self._aborted:
            return "aborted"
        here = self.protocol.info(self._current_row())
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

    def _current_row(self) -> LegalMoves:
        return self._place if self._row is CLOSED else self._row

    def _move(self, row: LegalMoves) -> None:
        """Stand on a row, whether or not the fast path is open."""
        self._place = row
        self._row = CLOSED if self._holds or self._notifying is not None else row

    def _hold(self) -> None:
        self._holds += 1
        self._move(self._current_row())

    def _release(self) -> None:
        self._holds -= 1
        self._move(self._current_row())
