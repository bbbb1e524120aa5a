"""What the test modules share: events by their letters, ways to drive a run, and protocols made at random."""

from __future__ import annotations

import enum
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import acceptor
from hypothesis import strategies as st

from lifecycle import EventType, Lifecycle, LifecycleError, Progress, Protocol, Transition, protocols

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EVENT = {letter: EventType(value) for letter, value in acceptor.EVENTS.items()}
LETTER = {event: letter for letter, event in EVENT.items()}


def events(word: str) -> list[EventType]:
    return [EVENT[letter] for letter in word]


def letters(found: Iterable[EventType]) -> str:
    return "".join(LETTER[event] for event in found)


def variant(name: str, *, repeat: bool) -> Protocol:
    protocol = protocols.get(name)
    return protocol.repeat_steps() if repeat else protocol


PROGRESS = [field.name for field in fields(Progress) if field.name not in {"rejected", "ignored"}]


def all_counters(counted: Any) -> dict[str, Any]:
    """Every counter that an accepted event may move, of a lifecycle or of the model of a machine."""
    event, progress = counted.event, counted.progress
    found = {name: getattr(progress, name) for name in PROGRESS}
    return {"global_batch": event.global_batch, "global_step": event.global_step, **found}


def replay(lifecycle: Lifecycle, word: str) -> None:
    """Run a legal word from the beginning."""
    lifecycle.reset()
    for letter in word:
        lifecycle.fire(EVENT[letter], loss=0.5)


def takes(lifecycle: Lifecycle, event: str, payload: dict[str, Any]) -> bool:
    """Whether a lifecycle accepts an event."""
    try:
        lifecycle.fire(event, **payload)
    except LifecycleError:
        return False
    return True


class Draw(int):
    """One event of a long run, chosen when it is known what is allowed then."""

    def choose(self, lifecycle: Lifecycle, vocabulary: Sequence[Any] = tuple(EventType)) -> tuple[Any, dict[str, Any]]:
        """An event and its payload: mostly legal, seldom the end of the run, now and then without loss or skipped."""
        pick, options = divmod(self, 64)
        going_on = [event for event in lifecycle.allowed if event is not EventType.FINALIZE]
        candidates = going_on if options % 8 != 7 and going_on else vocabulary
        event = candidates[pick % len(candidates)]
        odd = options // 8 == 7
        payload: dict[str, Any] = {}
        if event is EventType.LOSS_CALCULATED:
            payload["loss"] = None if odd else 0.5
        elif event is EventType.OPTIM_POST_STEP:
            payload["skipped"] = odd
        return event, payload


def long_runs(longest: int = 120) -> st.SearchStrategy[list[Draw]]:
    draw = st.integers(0, 4095).map(Draw)
    # Lists of any length are short most of the time.
    return st.integers(0, longest).flatmap(lambda length: st.lists(draw, min_size=length, max_size=length))


def lifecycles() -> st.SearchStrategy[Lifecycle]:
    """Engines of the built-in protocols, with every size of steps, and with expectations that are sometimes met."""
    few = st.integers(1, 3)
    expectable = st.sampled_from(["sequential_epochs", "batches", "calibration_epochs", "steps"])
    options = {
        "batches_per_step": st.none() | few,
        "expect": st.just({}) | st.dictionaries(expectable, st.integers(0, 2), max_size=2),
    }
    return st.builds(Lifecycle, st.sampled_from(acceptor.NAMES), **options) | st.builds(
        Lifecycle, st.sampled_from(acceptor.STEPPING), invocations_per_step=few, **options
    )


class Own(str, enum.Enum):
    """Events of a user's own."""

    CHECKPOINT = "checkpoint"
    EVALUATED = "evaluated"


NAMES = [group + name for group in ("", "g.", "h.", "g.h.", "h.g.") for name in "abc"]
"""State names that only differ in the groups that they are in."""


@st.composite
def random_protocols(draw: st.DrawFn) -> Protocol:
    """Valid protocols: every state but the first is entered from one before it, and one after it follows the others."""
    states = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True))
    first_final = draw(st.integers(max(1, len(states) - 2), len(states) - 1))
    vocabulary = [*EventType, *Own]
    moves: dict[tuple[str, Any], str] = {}

    def move(source: int, target: int) -> None:
        free = [event for event in vocabulary if (states[source], event) not in moves]
        moves[states[source], draw(st.sampled_from(free))] = states[target]

    for target in range(1, len(states)):
        move(draw(st.integers(0, min(target, first_final) - 1)), target)
    for source in range(first_final):
        move(source, draw(st.integers(source + 1, len(states) - 1)))
    for _ in range(draw(st.integers(0, 4))):
        move(draw(st.integers(0, first_final - 1)), draw(st.integers(0, len(states) - 1)))
    return Protocol(
        "random",
        states=draw(st.permutations(states)),
        transitions=[
            Transition(source, event, target) for (source, event), target in draw(st.permutations([*moves.items()]))
        ],
        initial=states[0],
        final=states[first_final:],
        vocabularies=[EventType, Own],
    )
