"""The same protocol as its users would write it with `transitions`: a model with conditions and `after` callbacks.

The callbacks count what the engine counts, but for rejected events, which `transitions` has no cheap place for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transitions import Machine
from transitions.extensions import HierarchicalMachine
from workload import B, C, E, F, I, K, L, O, P, S

from lifecycle import Event, Progress, protocols

if TYPE_CHECKING:
    from lifecycle import EventType

STATES = list(protocols.COMPRESSION.states)


class Run:
    """A model; the machine gives it its state and its triggers."""

    def __init__(self) -> None:
        self.event = Event()
        self.progress = Progress()

    def loss_given(self, loss: object = None, **payload: Any) -> bool:
        return loss is not None

    def accept(self, event: EventType) -> None:
        self.event.type_ = event
        self.progress.accepted += 1

    def after_initialize(self, **payload: Any) -> None:
        self.accept(I)

    def after_batch_start(self, **payload: Any) -> None:
        self.accept(B)

    def after_loss_calculated(self, **payload: Any) -> None:
        self.accept(L)

    def after_finalize(self, **payload: Any) -> None:
        self.accept(F)

    def after_calibration_epoch_start(self, **payload: Any) -> None:
        self.accept(C)
        progress = self.progress
        progress.calibrating = True
        progress.sequential_epochs = progress.batches = progress.batches_without_optimizer = 0

    def after_sequential_epoch_end(self, **payload: Any) -> None:
        self.accept(S)
        self.progress.sequential_epochs += 1
        self.progress.total_sequential_epochs += 1

    def after_calibration_epoch_end(self, **payload: Any) -> None:
        self.accept(K)
        self.progress.calibrating = False
        self.progress.calibration_epochs += 1

    def after_optim_pre_step(self, **payload: Any) -> None:
        self.accept(P)
        self.progress.optimizer_called = True

    def after_optim_post_step(self, *, skipped: bool = False, **payload: Any) -> None:
        self.accept(O)
        progress = self.progress
        progress.optimizer_called = True
        if not skipped:
            progress.invocations += 1
            if progress.invocations >= self.event.invocations_per_step:
                self.event.global_step += 1
                progress.invocations = progress.batches_without_optimizer = 0

    def after_batch_end(self, **payload: Any) -> None:
        self.accept(E)
        progress = self.progress
        self.event.global_batch += 1
        progress.batches += 1
        if progress.optimizer_called:
            progress.optimizer_called = False
            return
        progress.batches_without_optimizer += 1
        if progress.calibrating and progress.batches_without_optimizer >= (self.event.batches_per_step or 1):
            self.event.global_step += 1
            progress.batches_without_optimizer = 0


def _transitions(separator: str) -> list[dict[str, Any]]:
    return [
        {
            "trigger": move.event.value,
            "source": move.source.replace(".", separator),
            "dest": move.target.replace(".", separator),
            "conditions": ["loss_given"] if move.event is L else None,
            "after": f"after_{move.event.value}",
        }
        for move in protocols.COMPRESSION.transitions
    ]


TRANSITIONS = _transitions(".")
NESTED_TRANSITIONS = _transitions("_")
_BATCH = {"name": "batch", "children": ["started", "loss", {"name": "step", "children": ["pending", "taken"]}]}
NESTED_STATES = [
    "created",
    {"name": "session", "children": ["ready", _BATCH, {"name": "calibration", "children": ["open", _BATCH]}]},
    "finalized",
]


def flat(**options: Any) -> Machine:
    """A flat machine; its model is a new `Run`."""
    return Machine(model=Run(), states=STATES, transitions=TRANSITIONS, initial="created", **options)


def hierarchical(**options: Any) -> HierarchicalMachine:
    """A machine with the states nested, named with the separator that `transitions` has by default."""
    return HierarchicalMachine(
        model=Run(), states=NESTED_STATES, transitions=NESTED_TRANSITIONS, initial="created", **options
    )
