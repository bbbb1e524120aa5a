"""A protocol: the legal order of events as a table of states and transitions.

Everything else is derived from the table: the `transitions` machine, the rows that the engine runs on, the allowed
events, the hints of errors, the diagrams and the tables in the documentation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from lifecycle.drawable import Drawable
from lifecycle.errors import ProtocolError, UnknownEventError, missing_before
from lifecycle.events import Event, EventType, nearest, spellings
from lifecycle.protocol.faults import (
    ambiguities,
    bad_states,
    bad_transitions,
    bad_vocabularies,
    check_types,
    dead_states,
)
from lifecycle.protocol.machine import LegalMoves, MachineModel, build_machine, read_rows
from lifecycle.protocol.rules import GUARDS, UPDATES, Progress

if TYPE_CHECKING:
    import enum
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from transitions.extensions.nesting import HierarchicalMachine

    from lifecycle.protocol.transition import Transition

__all__ = ["REPEATED", "Protocol", "StateInfo"]

REPEATED = "+repeat_steps"
"""What the name of a protocol has behind it where steps may be repeated."""


class StateInfo(NamedTuple):
    """What a row stands for."""

    state: str
    allowed: tuple[Any, ...]
    final: bool


@dataclass(frozen=True, repr=False)
class Protocol(Drawable):
    """The legal sequences of events, as data.

    Args:
        name: What it is called in messages, traces and saved state.
        states: Names of the states, in the order in which tables and diagrams show them. A dot nests:
            ``session.batch.started`` is in the group ``session.batch``, which is in ``session``.
        transitions: The legal moves. A state has one for an event at most.
        initial: The state in which every run begins.
        final: The states in which a run is complete; nothing is legal there.
        vocabularies: The enumerations that the events come from. Their members must be strings.
        description: What it is for, in one line.

    Raises:
        ProtocolError: The table has faults: duplicate or unknown names, ambiguous transitions, states that cannot be
            reached or from which no final state can be. The message names all of the first kind that there is.
        TypeError: A part has the wrong type, or a vocabulary is not an enumeration of strings.

    Examples:
        >>> from lifecycle import Protocol, Transition
        >>> one_batch = Protocol(
        ...     "one batch",
        ...     states=["created", "open", "done"],
        ...     transitions=[Transition("created", "batch_start", "open"), Transition("open", "batch_end", "done")],
        ...     initial="created",
        ...     final=["done"],
        ... )
        >>> one_batch.accepts(["batch_start", "batch_end"])
        True
    """

    name: str
    states: Sequence[str]
    transitions: Sequence[Transition]
    initial: str
    final: Sequence[str]
    vocabularies: Sequence[type[enum.Enum]] = (EventType,)
    description: str = ""

    def __post_init__(self) -> None:
        for name in "states", "transitions", "final", "vocabularies":
            parts: Any = getattr(self, name)
            if isinstance(parts, str):
                raise TypeError(f"{name} must be a sequence, got the string {parts!r}")
            if not hasattr(parts, "__iter__"):
                raise TypeError(f"{name} must be a sequence, got {parts!r}")
            # A vocabulary may be named again, as by extending an extension with the same one.
            object.__setattr__(self, name, tuple(dict.fromkeys(parts) if name == "vocabularies" else parts))
        check_types(self)
        self._refuse(*bad_states(self), *bad_vocabularies(self))
        self._refuse(*bad_transitions(self))
        object.__setattr__(self, "transitions", tuple(map(self._complete, self.transitions)))
        self._refuse(*ambiguities(self), *dead_states(self))

    def _refuse(self, *faults: str) -> None:
        if faults:
            raise ProtocolError(f"protocol {self.name!r}: {'; '.join(faults)}")

    def __reduce__(self) -> tuple[Any, ...]:
        # What is derived from the table is derived anew: rows are told apart by identity, which a copy has not.
        return Protocol, tuple(getattr(self, field.name) for field in fields(self))

    def __repr__(self) -> str:
        return f"<Protocol {self.name!r}: {len(self.states)} states, {len(self.transitions)} transitions>"

    @cached_property
    def events(self) -> tuple[Any, ...]:
        """The events that it uses, in the order of their vocabularies."""
        used = {transition.event for transition in self.transitions}
        return tuple(member for vocabulary in self.vocabularies for member in vocabulary if member in used)

    @cached_property
    def spellings(self) -> Mapping[str, Any]:
        """The member for every way to write an event of its vocabularies."""
        return {text: member for each in self.vocabularies for text, member in spellings(each).items()}

    def event(self, event: str) -> Any:
        """The member for any spelling of an event.

        Args:
            event: A member, its value, its name or ``Class.NAME``; aliases too.

        Raises:
            TypeError: `event` is not a string.
            UnknownEventError: No event of the vocabularies is called that.
        """
        if not isinstance(event, str):  # pyright: ignore[reportUnnecessaryIsInstance] # callers may have no types
            raise TypeError(f"an event must be an EventType or a string, got {event!r}")
        member = self.spellings.get(event)
        if member is None:
            known = [member.value for vocabulary in self.vocabularies for member in vocabulary]
            raise UnknownEventError(
                f"{str(event)!r} is not an event of protocol {self.name!r}; {nearest(event, known)}"
            )
        return member

    def allowed(self, state: str) -> tuple[Any, ...]:
        """The events that are legal in a state, in table order.

        Raises:
            ProtocolError: There is no such state.

        Examples:
            >>> from lifecycle import protocols
            >>> [event.name for event in protocols.TRAINING.allowed("session.ready")]
            ['BATCH_START', 'FINALIZE']
        """
        return tuple(self._moves[self._known(state)])

    def target(self, state: str, event: str) -> str | None:
        """The state that an event leads to, or None where it is not legal.

        Raises:
            ProtocolError: There is no such state.
            TypeError: `event` is not a string.
            UnknownEventError: There is no such event.
        """
        move = self.move(self._known(state), self.event(event))
        return None if move is None else move.target

    def path(self, state: str, event: str) -> tuple[Any, ...] | None:
        """The shortest sequence of events after which an event is legal; of several, the first in table order.

        Args:
            state: Where to begin.
            event: The event that is to become legal.

        Returns:
            The sequence, without `event` itself: empty if it is legal at once, None if it never will be.

        Raises:
            ProtocolError: There is no such state.
            TypeError: `event` is not a string.
            UnknownEventError: There is no such event.

        Examples:
            >>> from lifecycle import protocols
            >>> path = protocols.TRAINING.path("session.batch.step.pending", "batch_start")
            >>> [event.name for event in path]
            ['OPTIM_POST_STEP', 'BATCH_END']
        """
        wanted = self.event(event)
        return next((path for path, reached in self.walk(state) if wanted in self._moves[reached]), None)

    def walk(self, state: str) -> Iterator[tuple[tuple[Any, ...], str]]:
        """Every state that can be reached, nearest first, each with the shortest sequence that leads to it.

        Raises:
            ProtocolError: There is no such state.
        """
        seen = {self._known(state)}
        queue: deque[tuple[tuple[Any, ...], str]] = deque([((), state)])
        while queue:
            path, reached = queue.popleft()
            yield path, reached
            for event, move in self._moves[reached].items():
                if move.target not in seen:
                    seen.add(move.target)
                    queue.append(((*path, event), move.target))

    def is_legal(self, events: Iterable[str]) -> bool:
        """Whether a sequence of events is the beginning of a run, payloads left aside.

        Raises:
            TypeError: Something in `events` is not a string.
            UnknownEventError: Something in `events` is not an event.
        """
        return self._run(events) is not None

    def accepts(self, events: Iterable[str]) -> bool:
        """Whether a sequence of events is a complete run, payloads left aside.

        Raises:
            TypeError: Something in `events` is not a string.
            UnknownEventError: Something in `events` is not an event.

        Examples:
            >>> from lifecycle import protocols
            >>> protocols.TRAINING.accepts(["initialize", "finalize"])
            True
            >>> protocols.TRAINING.accepts(["initialize"])
            False
        """
        return self._run(events) in self.final

    def extend(
        self,
        name: str,
        *,
        states: Iterable[str] = (),
        transitions: Iterable[Transition] = (),
        vocabularies: Iterable[type[enum.Enum]] = (),
        final: Iterable[str] = (),
        description: str = "",
    ) -> Protocol:
        """A new protocol with more states, events and transitions; this one stays as it is.

        Args:
            name: The name of the new protocol.
            states: States to add.
            transitions: Moves to add.
            vocabularies: Enumerations of strings that the new events come from.
            final: States to add in which a run is complete.
            description: What the new protocol is for.

        Raises:
            ProtocolError: The new table has faults; see `Protocol`.
            TypeError: A vocabulary is not an enumeration of strings.

        Examples:
            >>> import enum
            >>> from lifecycle import Transition, protocols
            >>> class Saving(str, enum.Enum):
            ...     CHECKPOINT = "checkpoint"
            >>> saving = protocols.TRAINING.extend(
            ...     "training with checkpoints",
            ...     vocabularies=[Saving],
            ...     transitions=[Transition("session.ready", Saving.CHECKPOINT, "session.ready")],
            ... )
            >>> saving.accepts(["initialize", "checkpoint", "finalize"])
            True
        """
        return Protocol(
            name,
            states=(*self.states, *states),
            transitions=(*self.transitions, *transitions),
            initial=self.initial,
            final=(*self.final, *final),
            vocabularies=(*self.vocabularies, *vocabularies),
            description=description,
        )

    def repeat_steps(self) -> Protocol:
        """The protocol in which the optimizer may be called several times for one step.

        OPTIM_PRE_STEP is legal again where OPTIM_POST_STEP has led.

        Raises:
            ProtocolError: The protocol has no optimizer events.

        Examples:
            >>> from lifecycle import protocols
            >>> run = ["initialize", "batch_start", "loss_calculated"]
            >>> run += ["optim_pre_step", "optim_post_step"] * 2
            >>> protocols.TRAINING.is_legal(run), protocols.TRAINING.repeat_steps().is_legal(run)
            (False, True)
        """
        return self._repeated

    @cached_property
    def _repeated(self) -> Protocol:
        before, after = EventType.OPTIM_PRE_STEP, EventType.OPTIM_POST_STEP
        begins = [transition for transition in self.transitions if transition.event is before]
        if not begins:
            raise ProtocolError(f"protocol {self.name!r} has no optimizer events, so it has no steps to repeat")
        # Keyed by where they leave, since two ways into a step would add the same move twice.
        added: dict[str, Transition] = {}
        for begin in begins:
            end = self.move(begin.target, after)
            if end is not None and self.move(end.target, before) is None:
                added[end.target] = replace(begin, source=end.target)
        if not added:
            return self
        return self.extend(self.name + REPEATED, transitions=added.values(), description=self.description)

    def machine(self, model: Any = None) -> HierarchicalMachine:
        """A `transitions` machine of this protocol.

        Events are its triggers, by their values; guards are conditions, and updates run after a transition. They work
        on ``model.event``, ``model.progress`` and ``model.expect``, which are made if the model has none.

        Args:
            model: The object that has the state; by default a plain one, found as ``machine.model``.

        Returns:
            A new machine, so that the protocol stays as it is whatever is done to it.

        Examples:
            >>> from lifecycle import protocols
            >>> model = protocols.TRAINING.machine().model
            >>> model.initialize() and model.batch_start() and model.loss_calculated(loss=0.5) and model.batch_end()
            True
            >>> model.state, model.event.global_batch
            ('session.ready', 1)
        """
        model = MachineModel() if model is None else model
        for name, make in {"event": Event, "progress": Progress, "expect": dict[str, int]}.items():
            if not hasattr(model, name):
                setattr(model, name, make())
        return build_machine(self.states, self.transitions, self.initial, model)

    @cached_property
    def rows(self) -> Mapping[str, LegalMoves]:
        """For each state its row, read off the machine's own events. All engines of the protocol share them."""
        machine = build_machine(self.states, self.transitions, self.initial, [])
        return read_rows(machine, self.states, self.spellings)

    def info(self, row: LegalMoves) -> StateInfo:
        """What one of the `rows` stands for."""
        return self._infos[id(row)]

    def move(self, state: str, event: Any) -> Transition | None:
        """The transition that a member makes in a state, if it is legal there."""
        return self._moves[state].get(event)

    def moves(self, state: str, events: Iterable[Any]) -> tuple[Transition, ...]:
        """The transitions that some members make from a state on, up to the first that is not legal."""
        moves: list[Transition] = []
        for event in events:
            move = self.move(state, event)
            if move is None:
                break
            moves.append(move)
            state = move.target
        return tuple(moves)

    def hint(self, state: str, event: Any, *, again: bool = False) -> str:
        """What most likely went wrong where an event is not legal, in words.

        Args:
            state: The state.
            event: The event, a member.
            again: Whether it was the last event, too.
        """
        key = (state, event, again)
        if key not in self._hints:
            self._hints[key] = self._make_hint(*key)
        return self._hints[key]

    def _make_hint(self, state: str, event: Any, again: bool) -> str:
        path = self.path(state, event)
        if path:
            return missing_before("it", path) + (", or it came twice" if again else "")
        if state in self.final:
            return "the run is over; reset() begins a new one"
        if event not in self.events:
            return f"protocol {self.name!r} does not have it"
        return "it can no longer come in this run"

    @cached_property
    def _hints(self) -> dict[tuple[str, Any, bool], str]:
        return {}

    @cached_property
    def _infos(self) -> dict[int, StateInfo]:
        return {id(row): StateInfo(state, self.allowed(state), state in self.final) for state, row in self.rows.items()}

    @cached_property
    def _moves(self) -> dict[str, dict[Any, Transition]]:
        moves: dict[str, dict[Any, Transition]] = {state: {} for state in self.states}
        for transition in self.transitions:
            moves[transition.source][transition.event] = transition
        return moves

    def _run(self, events: Iterable[str]) -> str | None:
        members = [self.event(event) for event in events]
        moves = self.moves(self.initial, members)
        if len(moves) < len(members):
            return None
        return moves[-1].target if moves else self.initial

    def _known(self, state: str) -> str:
        if not isinstance(state, str):  # pyright: ignore[reportUnnecessaryIsInstance] # callers may have no types
            raise TypeError(f"a state must be a string, got {state!r}")
        if state not in self.states:
            raise ProtocolError(f"{state!r} is not a state of protocol {self.name!r}; {nearest(state, self.states)}")
        return state

    def _complete(self, transition: Transition) -> Transition:
        event = self.event(transition.event)
        return replace(
            transition,
            event=event,
            guard=transition.guard or GUARDS.get(event),
            update=transition.update or UPDATES.get(event),
        )
