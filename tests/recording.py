"""Modifiers that write down the calls of their hooks, and a way to drive a session by letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sequences

from lifecycle.session import Modifier

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lifecycle.session import CompressionSession

HOOKS = (
    "on_initialize",
    "on_event",
    "on_start",
    "on_update",
    "on_end",
    "on_calibration_epoch_start",
    "on_sequential_epoch_end",
    "on_calibration_epoch_end",
    "on_finalize",
)


class Recorder(Modifier):
    """Writes down each call of a hook as ``name.hook``, and raises what it is told to raise there.

    `calls` may be shared by several, so that their order shows; `details` are its own calls, with what came with them.
    Its own state is the number of its calls.
    """

    def __init__(
        self,
        name: str = "m",
        calls: list[str] | None = None,
        fails: Mapping[str, BaseException] | None = None,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.name = name
        self.calls: list[str] = [] if calls is None else calls
        self.fails = dict(fails or {})
        self.details: list[tuple[Any, ...]] = []
        self.count = 0

    def called(self, hook: str, *detail: Any) -> None:
        self.calls.append(f"{self.name}.{hook}")
        self.details.append((hook, *detail))
        if hook in self.fails:
            raise self.fails[hook]
        self.count += 1

    def on_abort(self, state, event, error):
        self.called("on_abort", event.global_step, event.global_batch, error)

    def state_dict(self):
        if "state_dict" in self.fails:
            raise self.fails["state_dict"]
        return {"count": self.count}

    def load_state_dict(self, state):
        self.called("load_state_dict", dict(state))
        self.count = state["count"]


def _recorded(hook: str) -> Any:
    def record(self, state, event, **payload):
        self.called(hook, event.global_step, event.global_batch, payload)

    return record


for _hook in HOOKS:
    setattr(Recorder, _hook, _recorded(_hook))


def fire(session: CompressionSession, word: str, skipped: Collection[int] = ()) -> None:
    """Fire the events of a word; the optimizer steps at the positions `skipped` are skipped ones."""
    for position, event in enumerate(sequences.events(word)):
        payload: dict[str, Any] = {}
        if event == "loss_calculated":
            payload["loss"] = 0.5
        elif event == "optim_post_step":
            payload["skipped"] = position in skipped
        session.event(event, **payload)


class Notes(Modifier):
    """Writes down what its hooks are told, with the counters: batches, and steps."""

    def __init__(self, **schedule):
        super().__init__(**schedule)
        self.calls = []

    def on_initialize(self, state, event, **payload):
        self.calls.append(("initialize", event.global_batch, event.global_step))

    def on_start(self, state, event, **payload):
        self.calls.append(("start", event.global_batch, event.global_step))

    def on_end(self, state, event, **payload):
        self.calls.append(("end", event.global_batch, event.global_step))

    def on_abort(self, state, event, error):
        self.calls.append(("abort", event.global_batch, event.global_step, error))

    def on_finalize(self, state, event, **payload):
        self.calls.append(("finalize", event.global_batch, event.global_step))
