"""What a picture of a protocol shows, whatever it is drawn with.

The model says what there is and how it hangs together: states in their boxes, the events between them, which of the
moves are the usual path, and which go back. Sizes, colours and places are the renderers' business.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lifecycle.diagram.overlay import NEVER
from lifecycle.protocol import SEPARATOR, groups

if TYPE_CHECKING:
    from lifecycle.diagram.overlay import Overlay, Rejection, Tally
    from lifecycle.protocol import Protocol, Transition

__all__ = ["Arrow", "Box", "Kind", "Move", "Picture", "State", "picture"]

Kind = Literal["main", "side", "back", "loop"]
"""How an arrow runs: along the usual path, away from it, against it, or from a state to itself."""


@dataclass(frozen=True, slots=True)
class Box:
    """A group of states.

    Attributes:
        key: What the other parts call it.
        name: Its full name.
        label: The last part of the name.
        parent: Key of the box around it; empty if there is none.
        level: 1 for an outermost box, 2 for one inside it, and so on.
        left_below: Whether an arrow leaves it downwards.
    """

    key: str
    name: str
    label: str
    parent: str
    level: int
    left_below: bool


@dataclass(frozen=True, slots=True)
class State:
    """A state.

    Attributes:
        key: What the arrows call it.
        name: Its full name.
        label: The last part of the name.
        box: Key of the box that it is in; empty if it is in none.
        chain: Number of the straight line of states that it is on.
        initial: Whether runs begin here.
        final: Whether runs are complete here.
        current: Whether the run that is shown stands here.
        visited: Whether the run that is shown has been here; true if no run is shown.
    """

    key: str
    name: str
    label: str
    box: str
    chain: int
    initial: bool
    final: bool
    current: bool = False
    visited: bool = True


@dataclass(frozen=True, slots=True)
class Move:
    """A transition.

    Attributes:
        event: Name of the event.
        guard: What must hold; may be empty.
        update: What is counted; may be empty.
        tally: How often and how long in the run that is shown; None if no run is shown.
        failure: What its handler raised in the run that is shown; may be empty.
    """

    event: str
    guard: str
    update: str
    tally: Tally | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """All transitions from one state to another.

    Attributes:
        key: What the renderers call it.
        source: Key of the state that it leaves.
        target: Key of the state that it enters.
        box: Key of the innermost box around both; empty if there is none.
        kind: How it runs.
        span: States of the usual path that it passes by, so that equal events are on one level.
        lane: Its place below the state that is drawn above the other: 0 on the usual path, below 0 to the left of it,
            above 0 to the right; None if any place will do.
        moves: The transitions.
    """

    key: str
    source: str
    target: str
    box: str
    kind: Kind
    span: int
    lane: int | None
    moves: tuple[Move, ...]

    @property
    def upper(self) -> str:
        """Key of the state that is drawn above the other."""
        return self.target if self.kind == "back" else self.source


@dataclass(frozen=True, slots=True)
class Picture:
    """What a picture of a protocol, and of a run on top of it, shows.

    Attributes:
        title: What it is a picture of.
        subtitles: The protocol, and the run where there is one.
        boxes: Groups of states, each after the one that it is in.
        states: The states, in the order of the protocol.
        arrows: The moves, in the order of the protocol.
        tangled: Whether a usual path comes back to a box that it has left.
        overlay: The run; None if none is shown.

    Examples:
        >>> from lifecycle import protocols
        >>> from lifecycle.diagram import picture
        >>> drawn = picture(protocols.BASIC)
        >>> [box.label for box in drawn.boxes], drawn.states[0].name
        (['session', 'calibration', 'batch'], 'created')
    """

    title: str
    subtitles: tuple[str, ...]
    boxes: tuple[Box, ...]
    states: tuple[State, ...]
    arrows: tuple[Arrow, ...]
    tangled: bool
    overlay: Overlay | None = None

    def rejections(self, state: State) -> dict[str, Rejection]:
        """The events that were rejected in a state, by what the renderers call them."""
        rejected = self.overlay.rejections if self.overlay else ()
        here = [rejection for rejection in rejected if rejection.state == state.name]
        return {f"{state.key}r{number}": rejection for number, rejection in enumerate(here)}


def picture(protocol: Protocol, overlay: Overlay | None = None) -> Picture:
    """The picture of a protocol.

    Args:
        protocol: The protocol.
        overlay: A run of it, to be shown on top.

    Examples:
        >>> from lifecycle import protocols
        >>> training = picture(protocols.TRAINING)
        >>> [box.name for box in training.boxes]
        ['session', 'session.batch', 'session.batch.step']
        >>> [move.event for arrow in training.arrows if arrow.kind == "back" for move in arrow.moves]
        ['BATCH_END', 'BATCH_END', 'FINALIZE']
    """
    paths = _Paths(protocol)
    keys = {state: f"s{number}" for number, state in enumerate(protocol.states)}
    names = dict.fromkeys(group for state in protocol.states for group in groups(state))
    boxes = {"": "", **{name: f"b{number}" for number, name in enumerate(names)}}
    bundles: dict[tuple[str, str], list[Transition]] = defaultdict(list)
    for transition in protocol.transitions:
        bundles[transition.source, transition.target].append(transition)
    arrows = tuple(
        Arrow(
            key=f"e{number}",
            source=keys[source],
            target=keys[target],
            box=boxes[_common(source, target)],
            kind=paths.kinds[source, target],
            span=paths.span(source, target),
            lane=paths.lanes.get((source, target)),
            moves=tuple(map(_move, bundle)),
        )
        for number, ((source, target), bundle) in enumerate(bundles.items())
    )
    down = [pair for pair, kind in paths.kinds.items() if kind in ("main", "side")]
    left_below = {name for source, target in down for name in set(groups(source)).difference(groups(target))}
    drawn = Picture(
        title=f"{protocol.name} lifecycle",
        subtitles=(f"protocol {protocol.name}: {protocol.description or _size(protocol)}",),
        boxes=tuple(
            Box(
                key=boxes[name],
                name=name,
                label=_last(name),
                parent=boxes[name.rpartition(SEPARATOR)[0]],
                level=name.count(SEPARATOR) + 1,
                left_below=name in left_below,
            )
            for name in names
        ),
        states=tuple(
            State(
                key=keys[state],
                name=state,
                label=_last(state),
                box=boxes[state.rpartition(SEPARATOR)[0]],
                chain=paths.chains[state],
                initial=state == protocol.initial,
                final=state in protocol.final,
            )
            for state in protocol.states
        ),
        arrows=arrows,
        tangled=paths.tangled,
    )
    return _with_run(drawn, overlay) if overlay else drawn


def describe(source: str, move: Move, target: str) -> str:
    """A transition in one line.

    Examples:
        >>> describe("open", Move("BATCH_END", guard="", update="global_batch += 1"), "ready")
        'open -BATCH_END-> ready / global_batch += 1'
    """
    guard = f" [{move.guard}]" if move.guard else ""
    update = f" / {move.update}" if move.update else ""
    tally = f": {move.tally}" if move.tally else ""
    failure = f", handler failed: {move.failure}" if move.failure else ""
    return f"{source} -{move.event}-> {target}{guard}{update}{tally}{failure}"


def _with_run(drawn: Picture, overlay: Overlay) -> Picture:
    names = {state.key: state.name for state in drawn.states}
    return replace(
        drawn,
        subtitles=(*drawn.subtitles, *_summary(drawn, overlay)),
        states=tuple(
            replace(
                state,
                current=state.name == overlay.current,
                visited=overlay.visited is None or state.name in overlay.visited,
            )
            for state in drawn.states
        ),
        arrows=tuple(
            replace(
                arrow,
                moves=tuple(
                    replace(
                        move,
                        tally=overlay.tally(names[arrow.source], move.event),
                        failure=overlay.failures.get((names[arrow.source], move.event), ""),
                    )
                    for move in arrow.moves
                ),
            )
            for arrow in drawn.arrows
        ),
        overlay=overlay,
    )


def _summary(drawn: Picture, overlay: Overlay) -> list[str]:
    lines = [f"{overlay.name}: {overlay.verdict}"]
    if overlay.tallies is not None and overlay.visited is not None:
        names = {state.key: state.name for state in drawn.states}
        moves = [(names[arrow.source], move.event) for arrow in drawn.arrows for move in arrow.moves]
        taken = sum(overlay.tallies.get(move, NEVER).count > 0 for move in moves)
        visited = sum(state.name in overlay.visited for state in drawn.states)
        lines.append(f"coverage: {visited} of {len(drawn.states)} states, {taken} of {len(moves)} transitions")
    return lines


class _Paths:
    """How the moves of a protocol run, from a walk through it in depth, in table order."""

    def __init__(self, protocol: Protocol) -> None:
        self._next: dict[str, list[str]] = {state: [] for state in protocol.states}
        for transition in protocol.transitions:
            if transition.target not in self._next[transition.source]:
                self._next[transition.source].append(transition.target)
        self.kinds: dict[tuple[str, str], Kind] = {}
        self._children: dict[str, list[str]] = {state: [] for state in protocol.states}
        self._heights: dict[str, int] = {}
        self._walk(protocol.initial)
        self._heirs: dict[str, str] = {}
        for parent, children in self._children.items():
            if children:
                heir = max(children, key=self._heights.__getitem__)
                self._heirs[parent] = heir
                self.kinds[parent, heir] = "main"
        self._raise_ends(protocol)
        self.lanes: dict[tuple[str, str], int] = {}
        self._spread()
        self.chains: dict[str, int] = {}
        heads = [
            child for parent, children in self._children.items() for child in children if child != self._heirs[parent]
        ]
        self.tangled = False
        for number, head in enumerate([protocol.initial, *heads]):
            self._line_up(head, number)
        self._events: dict[tuple[str, str], set[Any]] = {pair: set() for pair in self.kinds}
        for transition in protocol.transitions:
            self._events[transition.source, transition.target].add(transition.event)

    def _line_up(self, head: str, number: int) -> None:
        """Number the straight line from a state on, and see whether it is in and out of a box in turns."""
        inside: set[str] = set()
        left: set[str] = set()
        state: str | None = head
        while state is not None:
            around = set(groups(state))
            left |= inside - around
            self.tangled |= bool(around & left)
            inside = around
            self.chains[state] = number
            state = self._heirs.get(state)

    def _walk(self, initial: str) -> None:
        open_: dict[str, None] = {initial: None}
        stack = [(initial, iter(self._next[initial]))]
        while stack:
            state, targets = stack[-1]
            for target in targets:
                if target == state:
                    self.kinds[state, target] = "loop"
                elif target in open_:
                    self.kinds[state, target] = "back"
                else:
                    self.kinds[state, target] = "side"
                    if target not in self._heights:
                        self._children[state].append(target)
                        open_[target] = None
                        stack.append((target, iter(self._next[target])))
                        break
            else:
                stack.pop()
                del open_[state]
                children = self._children[state]
                self._heights[state] = 1 + max((self._heights[child] for child in children), default=0)

    def _raise_ends(self, protocol: Protocol) -> None:
        """Draw a final state that is beside the usual path above the state from which it is reached.

        A way out of a state that runs return to would else pass by everything that can happen in between.
        """
        for state, children in self._children.items():
            for child in children:
                if child in protocol.final and child != self._heirs[state] and state != protocol.initial:
                    into = [pair for pair in self.kinds if pair[1] == child]
                    self.kinds.update(dict.fromkeys(into, "back"))

    def _spread(self) -> None:
        """Where arrows leave a state beside the usual path, give all below it their places, so that they do not cross.

        A branch that comes back is to the left, its ways back outside of it, and the ways back from the usual path are
        to the right. Where no branch comes back, these are to the left. The longest way back is outermost.
        """
        parents = {child: parent for parent, children in self._children.items() for child in children}
        returns: dict[tuple[str, str], list[tuple[int, tuple[str, str]]]] = defaultdict(list)
        for source, target in self.kinds:
            if self.kinds[source, target] == "back" and target in self._heirs:
                steps, child = 1, source
                while parents[child] != target:
                    steps, child = steps + 1, parents[child]
                returns[target, child].append((-steps, (source, target)))
        for state, heir in self._heirs.items():
            sides = [(state, target) for target in self._next[state] if self.kinds[state, target] == "side"]
            if not sides:
                continue
            back = {pair: [way for _, way in sorted(returns[pair])] for pair in [*sides, (state, heir)]}
            left, right = back[state, heir], sides[::-1]
            if any(back[side] for side in sides):
                left, right = [pair for side in sides for pair in (*back[side], side)], left[::-1]
            self.lanes |= dict(zip(left, range(-len(left), 0), strict=True))
            self.lanes |= dict(zip(right, range(1, len(right) + 1), strict=True))
            self.lanes[state, heir] = 0

    def span(self, source: str, target: str) -> int:
        """How many states of the usual path a side arrow passes by until that has one of its events."""
        if self.kinds[source, target] != "side":
            return 0
        passed, state = 0, source
        while (heir := self._heirs.get(state)) is not None:
            if self._events[state, heir] & self._events[source, target]:
                return passed
            passed, state = passed + 1, heir
        return 0


def _move(transition: Transition) -> Move:
    return Move(
        event=transition.event.name,
        guard=transition.guard.name if transition.guard else "",
        update=transition.update.text if transition.update else "",
    )


def _common(source: str, target: str) -> str:
    """The innermost group around two states."""
    shared = [group for group in groups(source) if group in groups(target)]
    return shared[-1] if shared else ""


def _last(name: str) -> str:
    return name.rpartition(SEPARATOR)[2]


def _size(protocol: Protocol) -> str:
    return f"{len(protocol.states)} states, {len(protocol.transitions)} transitions"
