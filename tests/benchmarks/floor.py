"""The floor: the least that a hand-written dictionary machine for the `compression` protocol costs.

It takes the payload, checks the loss, keeps every counter of `Progress` and returns the event. It has no history, no
check against re-entrancy, no observers, one spelling and no error worth reading.
"""

from __future__ import annotations

from typing import Any

from workload import B, C, E, F, I, K, L, O, P, S

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

# Each event leads straight to the next dictionary: one look-up an event, and the dictionary is the state.
ROWS: dict[str, dict[Any, Any]] = {state: {"state": state} for state in TABLE}
for source, moves in TABLE.items():
    ROWS[source].update({event: ROWS[target] for event, target in moves.items()})


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
        "row",
        "sequential_epochs",
        "total_sequential_epochs",
    )

    def __init__(self) -> None:
        self.row = ROWS["created"]
        self.event = FloorEvent()
        self.accepted = self.rejected = self.ignored = 0
        self.calibration_epochs = self.sequential_epochs = self.total_sequential_epochs = 0
        self.batches = self.batches_without_optimizer = self.invocations = 0
        self.calibrating = self.optimizer_called = False

    def fire(self, event: Any, **payload: Any) -> FloorEvent:  # noqa: C901, PLR0912 # calls would make it slower
        row = self.row.get(event)
        if row is None or (event is L and payload.get("loss") is None):
            self.rejected += 1
            raise ValueError(f"{event} is not allowed in {self.row['state']}")
        self.row = row
        self.accepted += 1
        current = self.event
        current.type_ = event
        if event is B or event is L:
            return current
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
