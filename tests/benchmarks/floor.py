"""The floor: the least that a hand-written dictionary machine for the `compression` protocol costs.

It takes the payload, checks the loss, keeps every counter of `Progress` and returns the event. It has no history, no
check against re-entrancy, no observers, one spelling and no error worth reading.
"""

from __future__ import annotations

from typing import Any

from lifecycle import EventType

I, C, B, L, P, O, E, S, K, F = (  # noqa: E741
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

TABLE = {
    "created": {I: "ready"},
    "ready": {B: "started", C: "open", F: "finalized"},
    "started": {L: "loss"},
    "loss": {P: "pending", E: "ready"},
    "pending": {O: "taken"},
    "taken": {E: "ready"},
    "open": {B: "calibration_started", S: "open", K: "ready"},
    "calibration_started": {L: "calibration_loss", E: "open"},
    "calibration_loss": {P: "calibration_pending", E: "open"},
    "calibration_pending": {O: "calibration_taken"},
    "calibration_taken": {E: "open"},
    "finalized": {},
}


class FloorEvent:
    __slots__ = ("batches_per_step", "global_batch", "global_step", "invocations_per_step", "type_")

    def __init__(self) -> None:
        self.type_: Any = None
        self.global_step = 0
        self.global_batch = 0
        self.batches_per_step: int | None = None
        self.invocations_per_step = 1


class Floor:
    __slots__ = (
        "accepted",
        "batches",
        "batches_without_optimizer",
        "calibrating",
        "calibration_epochs",
        "event",
        "ignored",
        "invocations",
        "optimizer_called",
        "rejected",
        "sequential_epochs",
        "state",
        "total_sequential_epochs",
    )

    def __init__(self) -> None:
        self.state = "created"
        self.event = FloorEvent()
        self.accepted = self.rejected = self.ignored = 0
        self.calibration_epochs = self.sequential_epochs = self.total_sequential_epochs = 0
        self.batches = self.batches_without_optimizer = self.invocations = 0
        self.calibrating = self.optimizer_called = False

    def fire(self, event: EventType, **payload: Any) -> FloorEvent:
        target = TABLE[self.state].get(event)
        if target is None or (event is L and payload.get("loss") is None):
            self.rejected += 1
            raise ValueError(f"{event} is not allowed in {self.state}")
        self.state = target
        self.accepted += 1
        current = self.event
        current.type_ = event
        if event is E:
            current.global_batch += 1
            self.batches += 1
            if self.optimizer_called:
                self.optimizer_called = False
            else:
                self.batches_without_optimizer += 1
                if self.calibrating and self.batches_without_optimizer >= (current.batches_per_step or 1):
                    current.global_step += 1
                    self.batches_without_optimizer = 0
        elif event is P:
            self.optimizer_called = True
        elif event is O:
            self.optimizer_called = True
            if not payload.get("skipped"):
                self.invocations += 1
                if self.invocations >= current.invocations_per_step:
                    current.global_step += 1
                    self.invocations = 0
                    self.batches_without_optimizer = 0
        elif event is S:
            self.sequential_epochs += 1
            self.total_sequential_epochs += 1
        elif event is C:
            self.calibrating = True
            self.sequential_epochs = self.batches = self.batches_without_optimizer = 0
        elif event is K:
            self.calibrating = False
            self.calibration_epochs += 1
        return current
