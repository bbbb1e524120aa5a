"""A protocol: the legal order of events as a table of states and transitions.

Everything else is derived from the table: the `transitions` machine, the rows that the engine runs on, the allowed
events, the hints of errors, the diagrams and the tables in the documentation.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from transitions.extensions.nesting import HierarchicalMachine, NestedState

from lifecycle.errors import ProtocolError, UnknownEventError, missing_before
from lifecycle.events import Event, EventType, nearest, spellings
from lifecycle.rules import GUARDS, UPDATES, Guard, Progress, Update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["Protocol", "Transition"]

SEPARATOR = "."
"""What stands between a group of states and a state in it."""

REPEATED = "+repeat_steps"
"""What the name of a protocol has behind it where steps may be repeated."""

STATE_ATTRIBUTE = "state"
"""Where a `transitions` machine keeps the state of its model."""

Row = dict[Any, Any]
"""The transitions of one state: ``row[event] = (next row, event as a member, update or None, check or None)``."""


class ProtocolState(NestedState):
    """A state whose name is separated by dots. The separator of `NestedState` itself is shared by all its users."""

    separator = SEPARATOR


class ProtocolMachine(HierarchicalMachine):
    """A hierarchical `transitions` machine over dotted state names."""

    state_cls = ProtocolState
    # States may be called anything; these no state can be called, since each of its parts must have a name.
    wildcard_all = SEPARATOR
    wildcard_same = SEPARATOR * 2


@dataclass(frozen=True, slots=True)
class Transition:
    """One legal move.

    Args:
        source: The state it leaves.
        event: The event that makes it, as a member or in any of its spellings.
        target: The state it enters; may be `source`.
        guard: What must hold besides, instead of what the event always needs.
        update: What it counts, instead of what the event always counts.

    Examples:
        >>> Transition("session.ready", "finalize", "finalized").target
        'finalized'
    """

    source: str
    event: Any
    target: str
    guard: Guard | None = None
    update: Update | None = None


class RowInfo(NamedTuple):
    """What a row stands for."""

    state: str
    allowed: tuple[Any, ...]
    final: bool


@dataclass(frozen=True, repr=False)
class Protocol:
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
        self._check_types()
        for kind in (
            (self._bad_states, self._bad_vocabularies),
            (self._bad_transitions,),
            (self._ambiguities, self._dead_states),
        ):
            found = "; ".join(problem for find in kind for problem in find())
            if found:
                raise ProtocolError(f"protocol {self.name!r}: {found}")

    def __reduce__(self) -> tuple[Any, ...]:
        # What is derived from the table is derived anew: rows are told apart by identity, which a copy has not.
        return Protocol, tuple(getattr(self, field.name) for field in fields(self))

    def __repr__(self) -> str:
        return f"<Protocol {self.name!r}: {len(self.states)} states, {len(self.transitions)} transitions>"

    def __format__(self, spec: str) -> str:
        from lifecycle.diagram.shown import formatted  # noqa: PLC0415 # it draws itself

        return formatted(self, spec)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from lifecycle.diagram.shown import mimebundle  # noqa: PLC0415 # it draws itself

        return mimebundle(self)

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
            >>> from lifecycle import protocols
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
        model = Model() if model is None else model
        for name, make in {"event": Event, "progress": Progress, "expect": dict[str, int]}.items():
            if not hasattr(model, name):
                setattr(model, name, make())
        return self._build(model)

    def _build(self, model: object) -> HierarchicalMachine:
        machine = ProtocolMachine(
            model=model, states=_nested(self.states), initial=self.initial, auto_transitions=False, send_event=True
        )
        for transition in self.transitions:
            machine.add_transition(
                transition.event.value,
                transition.source,
                transition.target,
                conditions=[_Condition(transition.guard.check)] if transition.guard else None,
                after=[_Count(transition.event, transition.update.apply if transition.update else None)],
            )
        return machine

    @cached_property
    def rows(self) -> Mapping[str, Row]:
        """For each state its row, read off the machine's own events. All engines of the protocol share them."""
        rows: dict[str, Row] = {state: {} for state in self.states}
        for name, event in self._build([]).events.items():
            member = self.event(name)
            for source, (transition,) in event.transitions.items():
                # The callbacks are those that `_build` put there; for `transitions` they may be anything.
                conditions: Any = [condition.func for condition in transition.conditions]
                counts: Any = transition.after
                check = next((condition.check for condition in conditions), None)
                rows[source][member] = (rows[str(transition.dest)], member, counts[0].apply, check)
        return rows

    def info(self, row: Row) -> RowInfo:
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
    def _infos(self) -> dict[int, RowInfo]:
        return {id(row): RowInfo(state, self.allowed(state), state in self.final) for state, row in self.rows.items()}

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

    def _check_types(self) -> None:
        for vocabulary in self.vocabularies:
            if not {str, enum.Enum} <= set(getattr(vocabulary, "__mro__", ())):
                raise TypeError(f"a vocabulary must be a class like 'class Mine(str, Enum)', got {vocabulary!r}")
        for transition in self.transitions:
            if not isinstance(transition, Transition):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
                raise TypeError(f"transitions must be made of Transition, got {transition!r}")
        ends = (end for transition in self.transitions for end in (transition.source, transition.target))
        for name in (self.name, *self.states, self.initial, *self.final, *ends):
            if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] # callers may have no types
                raise TypeError(f"names of protocols and states must be strings, got {name!r}")

    def _bad_states(self) -> Iterator[str]:
        if not self.final:
            yield "it has no final state"
        for state, count in Counter(self.states).items():
            if count > 1:
                yield f"state {state!r} is listed {count} times"
            if not all(state.split(SEPARATOR)):
                yield f"state {state!r} has an empty part in its name"
        for group in sorted({parent for state in self.states for parent in groups(state)} & set(self.states)):
            yield f"{group!r} is a group of other states and cannot be a state itself"
        for role, listed in ("initial", [self.initial]), ("final", self.final):
            for state in listed:
                if state not in self.states:
                    yield f"{role} state {state!r} is not among its states; {nearest(state, self.states)}"

    def _bad_vocabularies(self) -> Iterator[str]:
        owners: dict[str, type[enum.Enum]] = {}
        for vocabulary in self.vocabularies:
            known = spellings(vocabulary)
            for text in known:
                if owners.setdefault(text, vocabulary) is not vocabulary:
                    yield f"{text!r} is an event of both {owners[text].__name__} and {vocabulary.__name__}"
            for member in vocabulary:
                other = known[member.value]
                if other is not member:
                    yield f"{member.value!r} is {vocabulary.__name__}.{member.name} and a name of {other.name} too"
                if member.value == STATE_ATTRIBUTE:
                    yield f"{vocabulary.__name__}.{member.name} is {member.value!r}, where a machine keeps its state"

    def _bad_transitions(self) -> Iterator[str]:
        for transition in self.transitions:
            for state in (transition.source, transition.target):
                if state not in self.states:
                    yield f"{_arrow(transition)}: {state!r} is not among its states; {nearest(state, self.states)}"
            if transition.source in self.final:
                yield f"{_arrow(transition)}: {transition.source!r} is final, so nothing is legal there"
            try:
                self.event(transition.event)
            except (UnknownEventError, TypeError) as error:
                yield f"{_arrow(transition)}: {error}"

    def _ambiguities(self) -> Iterator[str]:
        object.__setattr__(self, "transitions", tuple(map(self._complete, self.transitions)))
        for (source, event), count in Counter((t.source, t.event) for t in self.transitions).items():
            if count > 1:
                yield f"{event.name} is ambiguous: {count} transitions leave {source!r} by it"

    def _complete(self, transition: Transition) -> Transition:
        event = self.event(transition.event)
        return replace(
            transition,
            event=event,
            guard=transition.guard or GUARDS.get(event),
            update=transition.update or UPDATES.get(event),
        )

    def _dead_states(self) -> Iterator[str]:
        ways = [(transition.source, transition.target) for transition in self.transitions]
        reached = _closure([self.initial], ways)
        ending = _closure(self.final, [(target, source) for source, target in ways])
        for state in self.states:
            if state not in reached:
                yield f"state {state!r} cannot be reached from {self.initial!r}"
            if state not in ending:
                yield f"no final state can be reached from {state!r}"


class Model:
    """A plain object for a `transitions` machine to keep its state on."""


class _Condition:
    """A guard as a condition of a `transitions` machine."""

    __slots__ = ("check",)

    def __init__(self, check: Callable[[Any, Any], bool]) -> None:
        self.check = check

    def __call__(self, data: Any) -> bool:
        # `transitions` compares the answer with True.
        return bool(self.check(data.model, data.kwargs))


class _Count:
    """What an accepted event counts, as an `after` callback of a `transitions` machine."""

    __slots__ = ("apply", "event")

    def __init__(self, event: Any, apply: Callable[[Event, Progress, Any], None] | None) -> None:
        self.event = event
        self.apply = apply

    def __call__(self, data: Any) -> None:
        model = data.model
        if self.apply is not None:
            self.apply(model.event, model.progress, data.kwargs)
        model.event.type_ = self.event
        model.progress.accepted += 1


def _closure(start: Iterable[str], ways: Iterable[tuple[str, str]]) -> set[str]:
    """The states that some ways lead to, the start included."""
    onwards: dict[str, list[str]] = {}
    for source, target in ways:
        onwards.setdefault(source, []).append(target)
    reached = set(start)
    queue = list(reached)
    while queue:
        for target in onwards.get(queue.pop(), ()):
            if target not in reached:
                reached.add(target)
                queue.append(target)
    return reached


@lru_cache(maxsize=4096)
def groups(state: str) -> tuple[str, ...]:
    """The groups that a state is in, outermost first.

    Examples:
        >>> groups("session.batch.started")
        ('session', 'session.batch')
    """
    parts = state.split(SEPARATOR)
    return tuple(SEPARATOR.join(parts[:end]) for end in range(1, len(parts)))


def _nested(states: Iterable[str]) -> list[Any]:
    """Dotted names as the nested dictionaries that `transitions` takes."""
    tree: dict[str, Any] = {}
    for state in states:
        branch = tree
        for part in state.split(SEPARATOR):
            branch = branch.setdefault(part, {})

    def children(branch: dict[str, Any]) -> list[Any]:
        return [{"name": name, "children": children(below)} if below else name for name, below in branch.items()]

    return children(tree)


def _arrow(transition: Transition) -> str:
    event = transition.event
    return f"{transition.source} -{event.value if isinstance(event, enum.Enum) else event}-> {transition.target}"
