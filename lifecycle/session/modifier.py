"""What changes a model during a session, and when."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lifecycle.errors import LifecycleError
from lifecycle.events import RELATIVE_TOLERANCE, Event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lifecycle.session.state import State

__all__ = ["Modifier", "check_modifier"]


class Modifier:
    """Changes a model during a session. Derive from it, and override the hooks that are needed; each does nothing here.

    A hook is called as ``hook(state, event, **payload)``: with the session's `State`, the live event with the counters
    (keep ``event.new_instance()``), and what came with the event. It may not fire events; to end the run, it raises.

    ``on_event`` is called at every event between INITIALIZE and FINALIZE, before the hook for that event. With batches,
    the schedule decides: ``on_start`` is called at the first BATCH_START at or after `start`, ``on_update`` at a
    BATCH_START from then on, once in each step that `update` is due at, ``on_end`` at the first BATCH_END at or after
    `end`, and ``on_start`` and ``on_end`` once in a run.

    Args:
        start: When it starts; None is with the first batch. In epochs if the session has `steps_per_epoch`, else in
            steps.
        end: When it ends; None is never.
        update: The interval at which it is updated, measured from 0; None and 0 are at every step.

    Raises:
        LifecycleError: A number is NaN, the interval is negative or infinite, or the end is before the start.
        TypeError: An argument is not a number.

    Examples:
        >>> from lifecycle.session import CompressionSession, Modifier
        >>> class Prune(Modifier):
        ...     def on_start(self, state, event, **payload):
        ...         print("starts in step", event.global_step)
        ...     def on_end(self, state, event, **payload):
        ...         print("has ended after", event.global_step)
        >>> with CompressionSession([Prune(start=2, end=4)], "training") as session:
        ...     _ = session.initialize(model="a model")
        ...     for loss in 0.9, 0.8, 0.7, 0.6, 0.5:
        ...         with session.batch():
        ...             _ = session.loss_calculated(loss=loss)
        ...             _ = session.optim_pre_step()
        ...             _ = session.optim_post_step()
        starts in step 2
        has ended after 4
    """

    # Here too, for those who derive from it with an `__init__` of their own, or none.
    start: float | None = None
    end: float | None = None
    update: float | None = None

    def __init__(self, *, start: float | None = None, end: float | None = None, update: float | None = None) -> None:
        self.start = start
        self.end = end
        self.update = update
        check_modifier(self)

    def on_initialize(self, state: State, event: Event, **payload: Any) -> Any:
        """INITIALIZE: the model and all else that came with it is in the state. Also when a saved run is resumed."""

    def on_start(self, state: State, event: Event, **payload: Any) -> Any:
        """The first BATCH_START at or after `start`."""

    def on_update(self, state: State, event: Event, **payload: Any) -> Any:
        """A BATCH_START in a step that `update` is due at, from `start` on."""

    def on_end(self, state: State, event: Event, **payload: Any) -> Any:
        """The first BATCH_END at or after `end`."""

    def on_event(self, state: State, event: Event, **payload: Any) -> Any:
        """Any event between INITIALIZE and FINALIZE, before the hook for it."""

    def on_calibration_epoch_start(self, state: State, event: Event, **payload: Any) -> Any:
        """CALIBRATION_EPOCH_START."""

    def on_sequential_epoch_end(self, state: State, event: Event, **payload: Any) -> Any:
        """SEQUENTIAL_EPOCH_END: a layer, or a group of modules, is calibrated."""

    def on_calibration_epoch_end(self, state: State, event: Event, **payload: Any) -> Any:
        """CALIBRATION_EPOCH_END."""

    def on_finalize(self, state: State, event: Event, **payload: Any) -> Any:
        """FINALIZE: take hooks and masks off the model. Called whether or not the other modifiers fail here."""

    def on_abort(self, state: State, event: Event, error: BaseException | str | None) -> Any:
        """The run has failed, or was left open: clean up, in whatever state this modifier is.

        Args:
            state: The session's state.
            event: The event that came last.
            error: Why the run has failed; None if it was reset before FINALIZE, when `event` is already reset too.
        """

    def state_dict(self) -> dict[str, Any]:
        """What this modifier needs to go on in another process, as plain data that JSON can hold.

        The session saves by itself whether the modifier has started and ended.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned. When a run is resumed, this comes before `on_initialize`."""


def check_modifier(modifier: object) -> None:
    """Refuse what is not a modifier with a schedule that can be kept."""
    if not isinstance(modifier, Modifier):
        raise TypeError(f"a modifier must derive from lifecycle.session.Modifier, got {modifier!r}")
    name, start, end = type(modifier).__name__, modifier.start, modifier.end
    try:
        Event().should_update(start, end, modifier.update)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else LifecycleError
        raise kind(f"{name}: {error}") from None
    numerator, denominator = RELATIVE_TOLERANCE
    close = numerator / denominator
    if start is not None and end is not None and end < start and not math.isclose(start, end, rel_tol=close):
        raise LifecycleError(f"{name}: end must not be before start, got start={start!r}, end={end!r}")
