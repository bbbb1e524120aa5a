"""Where a modifier stands in a run, and what an event means for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lifecycle.engine.saved import check_keys, check_like, check_same
from lifecycle.errors import LifecycleError
from lifecycle.events import Event, EventType, check_count

if TYPE_CHECKING:
    from lifecycle.protocol.rules import Payload
    from lifecycle.session.modifier import Modifier
    from lifecycle.session.state import State

__all__ = ["Schedule"]

_HOOKS = {
    EventType.CALIBRATION_EPOCH_START: "on_calibration_epoch_start",
    EventType.SEQUENTIAL_EPOCH_END: "on_sequential_epoch_end",
    EventType.CALIBRATION_EPOCH_END: "on_calibration_epoch_end",
}
_FLAGS = ("initialized", "started", "ended")
_SAVED: dict[str, Any] = dict.fromkeys(("modifier", *_FLAGS, "updated", "state"))
_BATCH_START = EventType.BATCH_START
_BATCH_END = EventType.BATCH_END


@dataclass(slots=True)
class Schedule:
    """Where a modifier stands in a run. A hook that raises does not count as called.

    Args:
        modifier: The modifier.
        initialized: Whether ``on_initialize`` was called.
        started: Whether ``on_start`` was.
        ended: Whether ``on_end`` was.
        updated: The step that ``on_update`` was called in last.
    """

    modifier: Modifier
    initialized: bool = False
    started: bool = False
    ended: bool = False
    updated: int | None = None

    @classmethod
    def load(cls, modifier: Modifier, saved: object) -> Schedule:
        """Where a modifier stood, from what `state_dict` returned.

        Raises:
            LifecycleError: It is another modifier's, or a part is missing, unknown or out of range.
            TypeError: A part has the wrong type.
        """
        check_keys("modifier", saved, _SAVED)
        found = cast("dict[str, Any]", saved)
        check_same("modifier", found["modifier"], type(modifier).__name__)
        for name in _FLAGS:
            check_like(name, found[name], own=False)
        if found["updated"] is not None:
            check_count("updated", found["updated"], error=LifecycleError)
        _check_mapping("the saved state", modifier, found["state"])
        return cls(modifier, found["initialized"], found["started"], found["ended"], found["updated"])

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain data, with the modifier's own state.

        Raises:
            TypeError: That is not a mapping.
        """
        own = self.modifier.state_dict()
        _check_mapping("what state_dict() returned", self.modifier, own)
        return {
            "modifier": type(self.modifier).__name__,
            "initialized": self.initialized,
            "started": self.started,
            "ended": self.ended,
            "updated": self.updated,
            "state": own,
        }

    def initialize(self, state: State, event: Event, payload: Payload) -> None:
        """Take INITIALIZE, the first time that it comes."""
        if not self.initialized:
            self.modifier.on_initialize(state, event, **payload)
            self.initialized = True

    def take(self, state: State, event: Event, payload: Payload) -> None:
        """Take an event between INITIALIZE and FINALIZE."""
        modifier, type_ = self.modifier, event.type_
        modifier.on_event(state, event, **payload)
        if type_ == _BATCH_START:
            if not self.started and event.should_update(modifier.start):
                modifier.on_start(state, event, **payload)
                self.started = True
            if self._is_due(event):
                modifier.on_update(state, event, **payload)
                self.updated = event.global_step
        elif type_ == _BATCH_END:
            if self._is_over(event):
                modifier.on_end(state, event, **payload)
                self.ended = True
        elif type_ in _HOOKS:
            getattr(modifier, _HOOKS[type_])(state, event, **payload)

    def _is_due(self, event: Event) -> bool:
        modifier = self.modifier
        is_first = not self.ended and event.global_step != self.updated
        # Where the start has come, the modifier has just been started if it was not.
        return is_first and event.should_update(modifier.start, modifier.end, modifier.update)

    def _is_over(self, event: Event) -> bool:
        end = self.modifier.end
        return self.started and not self.ended and end is not None and event.should_update(end)


def _check_mapping(what: str, modifier: Modifier, state: object) -> None:
    if not isinstance(state, Mapping):
        raise TypeError(f"{what} of {type(modifier).__name__} must be a mapping, got {state!r}")
