"""What an event that is not legal most likely was: the cheapest repair of the run, with a look at what comes after it.

Events are missing before it, it is itself superfluous, or two events have changed places. Of these, the one is taken
that leaves the fewest violations within the next events; then the one that inserts or drops the fewest events (a swap
does neither); then the one that is nearest to where the violation shows; then insertion before a swap before dropping;
then table order.

A mistake may show late: where CALIBRATION_EPOCH_START is missing, the batch that follows is a training batch until it
ends without a loss. So the repair may also be made a few events earlier, if that makes all events since then legal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lifecycle.engine.repair import insertions
from lifecycle.errors import missing_before

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lifecycle.engine.repair import Step
    from lifecycle.protocol import Protocol

__all__ = ["LOOK_AHEAD", "LOOK_BACK", "Cause", "Causes", "described"]

LOOK_AHEAD = 8
"""Events after a violation that decide between its explanations."""

LOOK_BACK = 8
"""Events before a violation among which the mistake may lie."""

ALTERNATIVES = 3
"""Other explanations of the same cost that are kept."""

REMEMBERED = 4096
"""Violations whose explanation is remembered: a mistake in a loop comes again and again."""

Kind = Literal["missing", "swapped", "superfluous"]
_ORDER: tuple[Kind, ...] = ("missing", "swapped", "superfluous")


class Cause(NamedTuple):
    """One explanation of a violation.

    Attributes:
        kind: Events are missing, an event is superfluous, or an event and the one after it have changed places.
        back: How many events before the violation that is; -1 if the illegal event and the one after it are swapped.
        missing: The events that are missing there.
    """

    kind: Kind
    back: int
    missing: tuple[Any, ...] = ()

    @property
    def edits(self) -> int:
        """Events to insert or to drop; a swap does neither."""
        return {"missing": len(self.missing), "swapped": 0, "superfluous": 1}[self.kind]


class Causes:
    """Finds the causes of violations of a protocol.

    Args:
        protocol: The order that the runs should obey.
    """

    __slots__ = ("_known", "_moves", "_paths", "_targets")

    def __init__(self, protocol: Protocol) -> None:
        self._moves: dict[str, dict[Any, str]] = {state: {} for state in protocol.states}
        for transition in protocol.transitions:
            self._moves[transition.source][transition.event] = transition.target
        self._paths = {state: list(protocol.walk(state))[1:] for state in protocol.states}
        self._targets: dict[Step, frozenset[str]] = {}
        self._known: dict[Any, tuple[Cause, ...]] = {}

    def find(self, past: Sequence[Step], state: str, event: Any, future: Sequence[Any]) -> tuple[Cause, ...]:
        """The cheapest causes of a violation.

        Args:
            past: The events before it that were legal, the last one last; `LOOK_BACK` at most.
            state: Where the run stands.
            event: The event that is not legal there.
            future: The events that come after it, `LOOK_AHEAD` at most.

        Returns:
            The cause, and after it up to `ALTERNATIVES` others that cost as much.

        Examples:
            >>> from lifecycle import EventType, protocols
            >>> causes = Causes(protocols.TRAINING)
            >>> causes.find([], "session.batch.loss", EventType.OPTIM_POST_STEP, [EventType.BATCH_END])[0]
            Cause(kind='missing', back=0, missing=(<EventType.OPTIM_PRE_STEP: 'optim_pre_step'>,))
        """
        key = (tuple(past), state, event, tuple(future))
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._find(*key)
        return found

    def _find(self, past: tuple[Step, ...], state: str, event: Any, future: tuple[Any, ...]) -> tuple[Cause, ...]:
        fewest = self._fewest_violations(future)
        steps = [*past, (state, event)]
        ranked: list[tuple[int, int, int, int, int]] = []
        causes: list[Cause] = []
        known: set[tuple[Any, ...]] = set()
        for cause, origin, events in self._candidates(steps, future):
            reached = self._run(origin, events)
            # A swap with the next event has taken that too.
            ahead = 1 if cause.back < 0 else 0
            # Of two events that are alike, it does not matter which one is left out.
            repaired = (*(came for _, came in steps[: len(steps) - 1 - max(cause.back, 0)]), *events, *future[ahead:])
            if reached is not None and repaired not in known:
                known.add(repaired)
                rank = (fewest[ahead][reached], cause.edits, abs(cause.back), _ORDER.index(cause.kind), len(causes))
                ranked.append(rank)
                causes.append(cause)
        ranked.sort()
        return tuple(causes[rank[-1]] for rank in ranked[: 1 + ALTERNATIVES] if rank[:2] == ranked[0][:2])

    def _candidates(self, steps: list[Step], future: tuple[Any, ...]) -> Iterator[tuple[Cause, str, tuple[Any, ...]]]:
        """Every repair, with the state from which the events go on and what they are then; the nearest first."""
        for back, path, origin, events in insertions(self._paths.__getitem__, steps):
            yield Cause("missing", back, path), origin, events
        since: tuple[Any, ...] = ()
        for back, (origin, event) in enumerate(reversed(steps)):
            if since:
                yield Cause("swapped", back), origin, (since[0], event, *since[1:])
            elif future:
                yield Cause("swapped", -1), origin, (future[0], event)
            yield Cause("superfluous", back), origin, since
            since = (event, *since)

    def _fewest_violations(self, future: tuple[Any, ...]) -> list[dict[str, int]]:
        """For each of the next events, and each state before it, the fewest violations from there on."""
        fewest = [dict.fromkeys(self._moves, 0)]
        for event in reversed(future):
            after = fewest[-1]
            fewest.append({state: self._fewest(state, event, after) for state in self._moves})
        fewest.reverse()
        return fewest

    def _fewest(self, state: str, event: Any, after: dict[str, int]) -> int:
        legal = self._moves[state].get(event)
        if legal is not None:
            return after[legal]
        return 1 + min(after[reached] for reached in self._reached(state, event))

    def _reached(self, state: str, event: Any) -> frozenset[str]:
        """The states in which an illegal event can leave a run: dropped, or taken after what is missing before it."""
        key = (state, event)
        if key not in self._targets:
            entered = {self._moves[source].get(event) for _, source in self._paths[state]}
            self._targets[key] = frozenset({state} | {target for target in entered if target is not None})
        return self._targets[key]

    def _run(self, state: str, events: Sequence[Any]) -> str | None:
        reached: str | None = state
        for event in events:
            if reached is None:
                return None
            reached = self._moves[reached].get(event)
        return reached


def described(cause: Cause, places: Sequence[tuple[Any, int]], at: int) -> str:
    """A cause in words.

    Args:
        cause: The cause.
        places: Events with their lines, among them those that the cause is about.
        at: Which of them is the illegal one.

    Examples:
        >>> from lifecycle import EventType
        >>> places = [(EventType.BATCH_START, 4), (EventType.LOSS_CALCULATED, 5)]
        >>> described(Cause("swapped", 1), places, 1)
        'it and BATCH_START in line 4 have changed places'
    """

    def place(index: int) -> str:
        event, line = places[index]
        return "it" if index == at else f"{event.name} in line {line}"

    first = at - max(cause.back, 0)
    if cause.kind == "swapped":
        one, other = sorted((first, first + 1), key=lambda index: index != at)
        return f"{place(one)} and {place(other)} have changed places"
    if cause.kind == "superfluous":
        return f"{place(first)} is superfluous"
    return missing_before(place(first), cause.missing)
