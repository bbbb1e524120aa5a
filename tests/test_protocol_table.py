from __future__ import annotations

import copy
import enum
import pickle
from dataclasses import FrozenInstanceError, replace
from itertools import product

import pytest
import sequences
from hypothesis import given
from hypothesis import strategies as st
from sequences import Own

from lifecycle import (
    EventType,
    Guard,
    IllegalEventError,
    Lifecycle,
    Protocol,
    ProtocolError,
    Transition,
    UnknownEventError,
    Update,
    protocols,
)
from lifecycle.protocol import groups

TRAINING = protocols.TRAINING
BEGIN = Transition("created", "initialize", "open")
END = Transition("open", "finalize", "done")


class Save(str, enum.Enum):
    CHECKPOINT = "checkpoint"


class Again(str, enum.Enum):
    BEGUN = "batch_start"


class Alias(str, enum.Enum):
    CALIBRATED = "calibration_end"


class Named(str, enum.Enum):
    OPTIM_PRE_STEP = "before_step"


class Crossed(str, enum.Enum):
    UP = "down"
    DOWN = "up"


class Attribute(str, enum.Enum):
    STATE = "state"


class Plain(enum.Enum):
    BEGUN = "begun"


def small(**changes):
    parts = {
        "name": "small",
        "states": ["created", "open", "done"],
        "transitions": [BEGIN, END],
        "initial": "created",
        "final": ["done"],
    }
    return Protocol(**(parts | changes))


def message(make):
    with pytest.raises(ProtocolError) as caught:
        make()
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"final": []}, "it has no final state"),
        ({"states": ["created", "open", "open", "done"]}, "state 'open' is listed 2 times"),
        ({"states": ["created", "open", "done", "a..b"]}, "state 'a..b' has an empty part in its name"),
        ({"states": ["created", "open", "done", ".a"]}, "state '.a' has an empty part in its name"),
        ({"states": ["created", "open", "done", ""]}, "state '' has an empty part in its name"),
        (
            {"states": ["created", "open", "done", "open.batch"]},
            "'open' is a group of other states and cannot be a state itself",
        ),
        (
            {"states": ["created", "open", "done", "open.batch.loss"]},
            "'open' is a group of other states and cannot be a state itself",
        ),
        ({"initial": "craeted"}, "initial state 'craeted' is not among its states; did you mean 'created'?"),
        ({"initial": "x"}, "initial state 'x' is not among its states; known: 'created', 'open', 'done'"),
        ({"final": ["done", "dome"]}, "final state 'dome' is not among its states; did you mean 'done'?"),
        (
            {"transitions": [BEGIN, END, Transition("oped", "batch_start", "open")]},
            "oped -batch_start-> open: 'oped' is not among its states; did you mean 'open'?",
        ),
        (
            {"transitions": [BEGIN, END, Transition("open", "batch_start", "oped")]},
            "open -batch_start-> oped: 'oped' is not among its states; did you mean 'open'?",
        ),
        (
            {"transitions": [BEGIN, END, Transition("done", "batch_start", "open")]},
            "done -batch_start-> open: 'done' is final, so nothing is legal there",
        ),
        (
            {"transitions": [BEGIN, END, Transition("open", "batch_strat", "open")]},
            "open -batch_strat-> open: 'batch_strat' is not an event of protocol 'small'; did you mean 'batch_start'?",
        ),
        (
            {"transitions": [BEGIN, END, Transition("open", 3, "open")]},
            "open -3-> open: an event must be an EventType or a string, got 3",
        ),
        (
            {
                "transitions": [
                    BEGIN,
                    END,
                    Transition("open", "BATCH_START", "open"),
                    Transition("open", "batch_start", "done"),
                ]
            },
            "BATCH_START is ambiguous: 2 transitions leave 'open' by it",
        ),
        (
            {
                "states": ["created", "open", "done", "lost"],
                "transitions": [BEGIN, END, Transition("lost", "finalize", "done")],
            },
            "state 'lost' cannot be reached from 'created'",
        ),
        (
            {
                "states": ["created", "open", "done", "trap"],
                "transitions": [
                    BEGIN,
                    END,
                    Transition("open", "batch_start", "trap"),
                    Transition("trap", "batch_end", "trap"),
                ],
            },
            "no final state can be reached from 'trap'",
        ),
    ],
)
def test_a_table_with_a_fault_is_refused_with_what_it_is(changes, problem):
    assert message(lambda: small(**changes)) == f"protocol 'small': {problem}"


def test_all_faults_of_states_are_told_at_once():
    assert message(lambda: small(states=["a", "a", "b..c"], initial="x", final=["y", "z"])) == (
        "protocol 'small': state 'a' is listed 2 times; state 'b..c' has an empty part in its name; "
        "initial state 'x' is not among its states; known: 'a', 'a', 'b..c'; "
        "final state 'y' is not among its states; known: 'a', 'a', 'b..c'; "
        "final state 'z' is not among its states; known: 'a', 'a', 'b..c'"
    )


def test_groups_that_are_states_are_told_in_order_of_their_names():
    states = ["created", "done", "e.1", "d.1", "c.1", "b.1", "a.1", "e", "d", "c", "b", "a"]
    assert message(lambda: small(states=states)) == "protocol 'small': " + "; ".join(
        f"{group!r} is a group of other states and cannot be a state itself" for group in "abcde"
    )


def test_faults_of_states_and_of_vocabularies_are_told_together():
    assert message(lambda: small(final=[], vocabularies=[EventType, Again])) == (
        "protocol 'small': it has no final state; 'batch_start' is an event of both EventType and Again"
    )


def test_all_faults_of_transitions_are_told_at_once():
    transitions = [Transition("x", "zzz", "open"), Transition("done", "finalize", "y"), END]
    events = ", ".join(repr(event.value) for event in EventType)
    assert message(lambda: small(transitions=transitions)) == (
        "protocol 'small': x -zzz-> open: 'x' is not among its states; known: 'created', 'open', 'done'; "
        f"x -zzz-> open: 'zzz' is not an event of protocol 'small'; known: {events}; "
        "done -finalize-> y: 'y' is not among its states; known: 'created', 'open', 'done'; "
        "done -finalize-> y: 'done' is final, so nothing is legal there"
    )


def test_ambiguous_moves_and_dead_states_are_told_at_once():
    assert message(
        lambda: small(
            states=["created", "open", "lost", "done"],
            transitions=[BEGIN, END, Transition("open", "finalize", "open"), Transition("lost", "batch_end", "lost")],
        )
    ) == (
        "protocol 'small': FINALIZE is ambiguous: 2 transitions leave 'open' by it; "
        "state 'lost' cannot be reached from 'created'; no final state can be reached from 'lost'"
    )


def test_every_final_state_must_be_reachable():
    assert message(lambda: small(states=["created", "open", "done", "failed"], final=["done", "failed"])) == (
        "protocol 'small': state 'failed' cannot be reached from 'created'"
    )


@pytest.mark.parametrize("name", ["states", "transitions", "final", "vocabularies"])
def test_a_string_in_place_of_a_sequence_is_a_type_error(name):
    with pytest.raises(TypeError) as caught:
        small(**{name: "done"})
    assert str(caught.value) == f"{name} must be a sequence, got the string 'done'"


@pytest.mark.parametrize("vocabulary", [Plain, str, "EventType", EventType.BATCH_START, None])
def test_a_vocabulary_that_is_no_enumeration_of_strings_is_a_type_error(vocabulary):
    with pytest.raises(TypeError) as caught:
        small(vocabularies=[vocabulary])
    assert str(caught.value) == f"a vocabulary must be a class like 'class Mine(str, Enum)', got {vocabulary!r}"


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"name": 3}, "3"),
        ({"states": [3, "done"]}, "3"),
        ({"states": None}, "None"),
        ({"transitions": [("created", "initialize", "done")]}, "('created', 'initialize', 'done')"),
        ({"transitions": [BEGIN, END, Transition(3, "batch_start", "open")]}, "3"),
        ({"transitions": [BEGIN, END, Transition("open", "batch_start", 3)]}, "3"),
        ({"initial": 3}, "3"),
        ({"final": [3]}, "3"),
    ],
)
def test_a_part_of_the_wrong_type_is_a_type_error_that_names_it(changes, value):
    with pytest.raises(TypeError) as caught:
        small(**changes)
    assert str(caught.value).endswith(f", got {value}")


@pytest.mark.parametrize("call", [TRAINING.allowed, lambda state: TRAINING.target(state, "initialize"), protocols.get])
@pytest.mark.parametrize("name", [3, None, ["created"]])
def test_a_name_that_is_no_string_is_a_type_error_that_names_it(call, name):
    with pytest.raises(TypeError) as caught:
        call(name)
    assert str(caught.value).endswith(f" must be a string, got {name!r}")


def test_a_protocol_error_is_a_value_error():
    with pytest.raises(ValueError, match="no final state"):
        small(final=[])


def test_states_that_transitions_reads_as_wildcards_are_states_like_others():
    wild = small(
        states=["created", "*", "=", "done"],
        transitions=[
            Transition("created", "initialize", "*"),
            Transition("*", "batch_start", "="),
            Transition("=", "finalize", "done"),
        ],
    )
    assert {wild.info(row).state: {*row} for row in wild.rows.values()} == {
        state: {*wild.allowed(state)} for state in wild.states
    }
    lc = Lifecycle(wild)
    assert [lc.fire(event) and lc.state for event in ("initialize", "batch_start", "finalize")] == ["*", "=", "done"]


def test_an_event_that_a_machine_cannot_have_as_a_trigger_is_refused():
    assert message(lambda: small(vocabularies=[EventType, Attribute])) == (
        "protocol 'small': Attribute.STATE is 'state', where a machine keeps its state"
    )


def test_the_parts_of_a_protocol_are_kept_in_their_order():
    assert small().states == ("created", "open", "done")
    assert [transition.source for transition in small().transitions] == ["created", "open"]
    assert small().final == ("done",)
    assert small().vocabularies == (EventType,)
    assert small().description == ""


def test_events_of_transitions_become_members():
    spelled = small(
        transitions=[Transition("created", "INITIALIZE", "open"), Transition("open", "EventType.FINALIZE", "done")]
    )
    assert [transition.event for transition in spelled.transitions] == [EventType.INITIALIZE, EventType.FINALIZE]
    assert all(type(transition.event) is EventType for transition in spelled.transitions)


def test_the_events_are_those_it_uses_in_the_order_of_the_vocabularies():
    mixed = small(
        transitions=[
            Transition("open", Own.EVALUATED, "open"),
            Transition("open", "finalize", "done"),
            Transition("open", Own.CHECKPOINT, "open"),
            BEGIN,
        ],
        vocabularies=[EventType, Own],
    )
    assert mixed.events == (EventType.INITIALIZE, EventType.FINALIZE, Own.CHECKPOINT, Own.EVALUATED)


def test_the_repr_tells_name_and_size():
    assert repr(TRAINING) == "<Protocol 'training': 7 states, 8 transitions>"


@pytest.mark.parametrize("member", EventType)
def test_every_spelling_of_an_event_is_known(member):
    for text in (member, member.value, member.name, f"EventType.{member.name}", str(member)):
        assert TRAINING.event(text) is member


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("calibration_start", EventType.CALIBRATION_EPOCH_START),
        ("CALIBRATION_START", EventType.CALIBRATION_EPOCH_START),
        ("EventType.CALIBRATION_START", EventType.CALIBRATION_EPOCH_START),
        ("calibration_end", EventType.CALIBRATION_EPOCH_END),
        ("CALIBRATION_END", EventType.CALIBRATION_EPOCH_END),
        ("EventType.CALIBRATION_END", EventType.CALIBRATION_EPOCH_END),
    ],
)
def test_every_spelling_of_an_alias_is_known(text, member):
    assert TRAINING.event(text) is member


@pytest.mark.parametrize("text", [Save.CHECKPOINT, "checkpoint", "CHECKPOINT", "Save.CHECKPOINT"])
def test_every_spelling_of_a_users_own_event_is_known(text):
    assert TRAINING.extend("own", vocabularies=[Save]).event(text) is Save.CHECKPOINT


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("batch_strat", "batch_start"),
        ("OPTIM_STEP_PRE", "optim_pre_step"),
        ("finalise", "finalize"),
        ("epoch_end", "batch_end"),
    ],
)
def test_an_unknown_event_is_refused_with_the_nearest_one(text, near):
    with pytest.raises(UnknownEventError) as caught:
        TRAINING.event(text)
    assert str(caught.value) == f"{text!r} is not an event of protocol 'training'; did you mean {near!r}?"


def test_the_nearest_event_may_be_a_users_own():
    with pytest.raises(UnknownEventError, match=r"; did you mean 'checkpoint'\?"):
        TRAINING.extend("own", vocabularies=[Save]).event("check_point")


def test_an_event_that_is_near_to_none_is_refused_with_all_of_them():
    with pytest.raises(UnknownEventError) as caught:
        TRAINING.extend("own", vocabularies=[Save]).event("zzz")
    known = ", ".join(repr(member.value) for member in (*EventType, Save.CHECKPOINT))
    assert str(caught.value) == f"'zzz' is not an event of protocol 'own'; known: {known}"


@pytest.mark.parametrize("event", [3, None, b"batch_start", ["batch_start"], Plain.BEGUN, EventType])
def test_an_event_that_is_no_string_is_a_type_error(event):
    with pytest.raises(TypeError) as caught:
        TRAINING.event(event)
    assert str(caught.value) == f"an event must be an EventType or a string, got {event!r}"


def test_allowed_events_are_in_table_order():
    assert TRAINING.allowed("session.batch.loss") == (EventType.OPTIM_PRE_STEP, EventType.BATCH_END)
    swapped = replace(TRAINING, transitions=TRAINING.transitions[::-1])
    assert swapped.allowed("session.batch.loss") == (EventType.BATCH_END, EventType.OPTIM_PRE_STEP)


def test_nothing_is_allowed_in_a_final_state():
    assert TRAINING.allowed("finalized") == ()


@pytest.mark.parametrize("event", ["batch_start", "BATCH_START", EventType.BATCH_START])
def test_the_target_of_an_event_does_not_depend_on_its_spelling(event):
    assert TRAINING.target("session.ready", event) == "session.batch.started"


@pytest.mark.parametrize(
    ("state", "event"), [("session.ready", "batch_end"), ("finalized", "initialize"), ("created", "optim_pre_step")]
)
def test_an_event_that_is_not_legal_has_no_target(state, event):
    assert TRAINING.target(state, event) is None


STATE_QUESTIONS = pytest.mark.parametrize(
    "ask",
    [
        TRAINING.allowed,
        lambda state: TRAINING.target(state, "initialize"),
        lambda state: TRAINING.path(state, "initialize"),
        lambda state: list(TRAINING.walk(state)),
        lambda state: TRAINING.hint(state, EventType.INITIALIZE),
    ],
    ids=["allowed", "target", "path", "walk", "hint"],
)


@STATE_QUESTIONS
def test_an_unknown_state_is_refused_with_the_nearest_one(ask):
    assert message(lambda: ask("session.redy")) == (
        "'session.redy' is not a state of protocol 'training'; did you mean 'session.ready'?"
    )


@STATE_QUESTIONS
def test_a_group_is_no_state(ask):
    assert message(lambda: ask("session")).startswith("'session' is not a state of protocol 'training'; ")


@pytest.mark.parametrize("ask", [TRAINING.target, TRAINING.path])
def test_targets_and_paths_of_unknown_events_are_refused(ask):
    with pytest.raises(UnknownEventError, match=r"did you mean 'batch_start'\?"):
        ask("created", "batch_strat")


@pytest.mark.parametrize("ask", [TRAINING.target, TRAINING.path])
def test_targets_and_paths_of_what_is_no_event_are_a_type_error(ask):
    with pytest.raises(TypeError, match="got 3"):
        ask("created", 3)


@pytest.mark.parametrize(
    ("state", "event", "path"),
    [
        ("created", "initialize", ()),
        ("created", "finalize", (EventType.INITIALIZE,)),
        ("created", "batch_end", (EventType.INITIALIZE, EventType.BATCH_START, EventType.LOSS_CALCULATED)),
        ("session.batch.step.pending", "BATCH_START", (EventType.OPTIM_POST_STEP, EventType.BATCH_END)),
        ("session.ready", "initialize", None),
        ("finalized", "initialize", None),
        ("created", "sequential_epoch_end", None),
    ],
)
def test_the_path_is_what_is_missing_before_an_event(state, event, path):
    assert TRAINING.path(state, event) == path


def test_of_two_shortest_paths_the_first_in_table_order_is_taken():
    def fork(*order):
        return small(
            states=["created", "left", "right", "done"],
            transitions=[
                *(Transition("created", event, target) for event, target in order),
                Transition("left", "finalize", "done"),
                Transition("right", "finalize", "done"),
            ],
        )

    assert fork(("batch_start", "left"), ("batch_end", "right")).path("created", "finalize") == (EventType.BATCH_START,)
    assert fork(("batch_end", "right"), ("batch_start", "left")).path("created", "finalize") == (EventType.BATCH_END,)


def test_an_event_that_is_not_legal_makes_no_move():
    assert TRAINING.move("session.ready", EventType.BATCH_END) is None


def test_a_walk_reaches_every_state_once_and_nearest_first():
    walked = [(sequences.letters(path), state) for path, state in TRAINING.walk("session.ready")]
    assert walked == [
        ("", "session.ready"),
        ("B", "session.batch.started"),
        ("F", "finalized"),
        ("BL", "session.batch.loss"),
        ("BLP", "session.batch.step.pending"),
        ("BLPO", "session.batch.step.taken"),
    ]


@pytest.mark.parametrize("ask", [TRAINING.is_legal, TRAINING.accepts])
def test_an_unknown_event_is_no_sequence_even_after_an_illegal_one(ask):
    with pytest.raises(UnknownEventError, match="'zzz' is not an event"):
        ask(["finalize", "zzz"])


@pytest.mark.parametrize("ask", [TRAINING.is_legal, TRAINING.accepts])
def test_what_is_no_event_is_no_sequence(ask):
    with pytest.raises(TypeError, match="got None"):
        ask(["initialize", None])


def test_the_empty_sequence_is_legal_and_not_complete():
    assert TRAINING.is_legal([])
    assert not TRAINING.accepts([])


def test_sequences_may_be_read_once_only():
    assert TRAINING.accepts(iter(["initialize", "EventType.FINALIZE"]))


def test_payloads_are_left_aside_by_is_legal_and_accepts():
    assert TRAINING.accepts(sequences.events("IBLEF"))


@pytest.mark.parametrize(
    ("state", "event", "hint"),
    [
        ("session.batch.loss", EventType.BATCH_START, "BATCH_END is missing before it"),
        ("session.batch.step.pending", EventType.BATCH_START, "OPTIM_POST_STEP, BATCH_END are missing before it"),
        ("finalized", EventType.BATCH_START, "the run is over; reset() begins a new one"),
        ("session.ready", EventType.SEQUENTIAL_EPOCH_END, "protocol 'training' does not have it"),
        ("session.ready", EventType.INITIALIZE, "it can no longer come in this run"),
    ],
)
def test_the_hint_says_what_most_likely_went_wrong(state, event, hint):
    assert TRAINING.hint(state, event) == hint
    # From memory now.
    assert TRAINING.hint(state, event) == hint


def test_every_row_tells_what_it_stands_for():
    infos = [TRAINING.info(row) for row in TRAINING.rows.values()]
    assert [info.state for info in infos] == list(TRAINING.states)
    assert [info.allowed for info in infos] == [TRAINING.allowed(state) for state in TRAINING.states]
    assert [info.state for info in infos if info.final] == ["finalized"]


def test_engines_of_a_protocol_share_its_rows():
    assert Lifecycle(TRAINING)._row is Lifecycle(TRAINING)._row is TRAINING.rows["created"]


def test_the_groups_of_a_state_are_outermost_first():
    assert groups("session.calibration.batch.loss") == ("session", "session.calibration", "session.calibration.batch")
    assert groups("created") == ()


def test_events_need_and_count_what_they_always_do_unless_told_otherwise():
    guard, update = Guard("mine", lambda counted, payload: True), Update("mine", lambda event, progress, payload: None)
    plain, told = (
        small(transitions=[BEGIN, END, Transition("open", "loss_calculated", "open", guard=given, update=count)])
        for given, count in ((None, None), (guard, update))
    )
    assert plain.move("open", EventType.LOSS_CALCULATED).guard.name == "loss given"
    assert told.move("open", EventType.LOSS_CALCULATED).guard is guard
    assert plain.transitions[2].update is None
    assert told.transitions[2].update is update
    assert plain.move("created", EventType.INITIALIZE).guard is None


@pytest.mark.parametrize(("payload", "taken"), [({}, False), ({"loss": None}, False), ({"loss": 0.0}, True)])
def test_the_usual_guard_of_a_loss_wants_one_that_is_not_none(payload, taken):
    move = TRAINING.move("session.batch.started", EventType.LOSS_CALCULATED)
    assert move.guard.check(None, payload) is taken


def test_a_users_update_takes_the_place_of_the_usual_one():
    def twice(event, progress, payload):
        event.global_batch += 2

    counting = small(
        transitions=[BEGIN, END, Transition("open", "batch_end", "open", update=Update("global_batch += 2", twice))]
    )
    lc = Lifecycle(counting)
    lc.initialize()
    lc.batch_end()
    assert (lc.event.global_batch, lc.progress.batches) == (2, 0)


def test_a_users_guard_refuses_with_its_name():
    guard = Guard("path given", lambda counted, payload: "path" in payload)
    lc = Lifecycle(small(transitions=[BEGIN, Transition("open", "finalize", "done", guard=guard)]))
    lc.initialize()
    with pytest.raises(IllegalEventError) as caught:
        lc.finalize()
    assert caught.value.hint == "its guard [path given] does not hold"
    assert lc.finalize(path="model").type_ is EventType.FINALIZE


def test_a_users_guard_sees_the_counters_and_the_payload():
    seen = []
    guard = Guard("seen", lambda counted, payload: seen.append((counted.event.global_batch, payload)) or True)
    lc = Lifecycle(small(transitions=[BEGIN, Transition("open", "batch_end", "open"), replace(END, guard=guard)]))
    lc.initialize()
    lc.batch_end()
    lc.finalize(loss=0.5)
    assert seen == [(1, {"loss": 0.5})]


@pytest.mark.parametrize("name", ["name", "states", "transitions", "initial", "final", "vocabularies", "description"])
def test_a_field_cannot_be_set(name):
    with pytest.raises(FrozenInstanceError):
        setattr(TRAINING, name, ())


def test_a_transition_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        BEGIN.target = "done"


def test_the_lists_that_a_protocol_was_made_from_are_not_its_own():
    states, transitions, final = ["created", "open", "done"], [BEGIN, END], ["done"]
    made = small(states=states, transitions=transitions, final=final)
    for each in states, transitions, final:
        each.clear()
    assert made == small()


def test_protocols_of_equal_tables_are_equal():
    assert small() == small()
    assert hash(small()) == hash(small())
    assert small() != small(name="other")


def pickled(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301 # its own pickle


COPIES = pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])


@COPIES
@pytest.mark.parametrize("protocol", protocols.BUILT_IN.values(), ids=list(protocols.BUILT_IN))
def test_a_copy_of_a_built_in_protocol_is_equal_and_runs(protocol, duplicate):
    # In use before it is copied, so that all that it keeps for later is there.
    assert Lifecycle(protocol).state == protocol.initial
    assert protocol.hint("created", EventType.FINALIZE)
    twin = duplicate(protocol)
    assert twin == protocol
    lc = Lifecycle(twin)
    lc.initialize()
    assert lc.state == "session.ready"
    assert lc.allowed == protocol.allowed("session.ready")


@COPIES
def test_a_copy_of_a_protocol_that_was_never_used_runs(duplicate):
    lc = Lifecycle(duplicate(small()))
    lc.initialize()
    assert lc.state == "open"


def test_extending_leaves_the_protocol_as_it_is():
    before = replace(TRAINING)
    TRAINING.extend(
        "own", vocabularies=[Save], transitions=[Transition("session.ready", "checkpoint", "session.ready")]
    )
    assert before == TRAINING


def test_an_extension_has_the_states_events_and_moves_of_both():
    own = TRAINING.extend(
        "own",
        states=["session.saving", "failed"],
        transitions=[
            Transition("session.ready", Save.CHECKPOINT, "session.saving"),
            Transition("session.saving", "CHECKPOINT", "session.ready"),
            Transition("session.saving", "finalize", "failed"),
        ],
        vocabularies=[Save],
        final=["failed"],
        description="with checkpoints",
    )
    assert own.name == "own"
    assert own.description == "with checkpoints"
    assert own.states == (*TRAINING.states, "session.saving", "failed")
    assert own.transitions[: len(TRAINING.transitions)] == TRAINING.transitions
    assert own.final == ("finalized", "failed")
    assert own.events == (*TRAINING.events, Save.CHECKPOINT)
    assert own.accepts(["initialize", "checkpoint", "checkpoint", "finalize"])
    assert own.accepts(["initialize", "checkpoint", "finalize"])
    assert own.is_legal([*sequences.events("IBLPOE"), Save.CHECKPOINT])
    assert not own.is_legal([*sequences.events("IBL"), Save.CHECKPOINT])


def test_an_engine_runs_an_extension():
    own = TRAINING.extend(
        "own", vocabularies=[Save], transitions=[Transition("session.ready", "checkpoint", "session.ready")]
    )
    lc = Lifecycle(own)
    lc.initialize()
    assert lc.fire("Save.CHECKPOINT").type_ is Save.CHECKPOINT
    assert lc.history == (EventType.INITIALIZE, Save.CHECKPOINT)


@pytest.mark.parametrize(
    ("vocabulary", "problem"),
    [
        (Again, "'batch_start' is an event of both EventType and Again"),
        (Alias, "'calibration_end' is an event of both EventType and Alias"),
        (
            Named,
            (
                "'OPTIM_PRE_STEP' is an event of both EventType and Named; "
                "'optim_pre_step' is an event of both EventType and Named"
            ),
        ),
    ],
)
def test_an_extension_may_not_use_the_name_of_an_event_again(vocabulary, problem):
    assert message(lambda: TRAINING.extend("own", vocabularies=[vocabulary])) == f"protocol 'own': {problem}"


def test_members_of_a_vocabulary_may_not_be_called_by_each_others_names():
    assert message(lambda: TRAINING.extend("own", vocabularies=[Crossed])) == (
        "protocol 'own': 'down' is Crossed.UP and a name of DOWN too"
    )


def test_an_extension_may_not_repeat_a_state():
    assert message(lambda: TRAINING.extend("own", states=["created"])) == (
        "protocol 'own': state 'created' is listed 2 times"
    )


def test_an_extension_may_not_make_an_event_ambiguous():
    again = [Transition("session.ready", "batch_start", "session.batch.loss")]
    assert message(lambda: TRAINING.extend("own", transitions=again)) == (
        "protocol 'own': BATCH_START is ambiguous: 2 transitions leave 'session.ready' by it"
    )


def test_an_extension_may_not_leave_a_final_state():
    assert message(lambda: TRAINING.extend("own", transitions=[Transition("finalized", "initialize", "created")])) == (
        "protocol 'own': finalized -initialize-> created: 'finalized' is final, so nothing is legal there"
    )


def test_a_fault_at_an_event_of_a_users_own_names_it_by_its_value():
    lost = [Transition("session.ready", Save.CHECKPOINT, "session.redy")]
    assert message(lambda: TRAINING.extend("own", vocabularies=[Save], transitions=lost)) == (
        "protocol 'own': session.ready -checkpoint-> session.redy: 'session.redy' is not among its states; "
        "did you mean 'session.ready'?"
    )


def test_naming_a_vocabulary_again_changes_no_events():
    assert TRAINING.extend("own", vocabularies=[EventType]).events == TRAINING.events


def test_repeating_steps_adds_one_move_for_each_way_back():
    repeated = TRAINING.repeat_steps()
    assert repeated.name == "training+repeat_steps"
    assert repeated.description == TRAINING.description
    assert repeated.states == TRAINING.states
    assert repeated.transitions[:-1] == TRAINING.transitions
    added = repeated.transitions[-1]
    assert (added.source, added.event, added.target) == (
        "session.batch.step.taken",
        EventType.OPTIM_PRE_STEP,
        "session.batch.step.pending",
    )
    assert added.update is TRAINING.transitions[3].update


def test_repeating_steps_is_made_once():
    assert TRAINING.repeat_steps() is TRAINING.repeat_steps()


@pytest.mark.parametrize("name", ["compression", "training", "training_microbatched", "upstream"])
def test_repeating_repeated_steps_changes_nothing(name):
    repeated = protocols.get(name).repeat_steps()
    assert repeated.repeat_steps() == repeated


def test_a_protocol_without_optimizer_events_has_no_steps_to_repeat():
    assert message(small().repeat_steps) == "protocol 'small' has no optimizer events, so it has no steps to repeat"


def test_several_invocations_on_a_protocol_without_optimizer_events_are_a_value_error():
    with pytest.raises(ValueError, match="protocol 'basic' has no optimizer events"):
        Lifecycle("basic", invocations_per_step=2)


def test_an_optimizer_event_that_none_follows_is_not_repeated():
    hanging = small(transitions=[BEGIN, END, Transition("open", "optim_pre_step", "open")])
    assert hanging.repeat_steps().transitions == hanging.transitions


def table(protocol):
    return {(move.source, move.event): move.target for move in protocol.transitions}


def shortest(protocol, state, event):
    """All sequences from a state, in table order and one event longer each time, until one makes `event` legal."""
    moves = table(protocol)
    after = {(source, other): target for (source, other), target in moves.items() if other != event}
    sequences_so_far = [((), state)]
    # A shortest sequence enters no state twice.
    for _ in protocol.states:
        for path, reached in sequences_so_far:
            if (reached, event) in moves:
                return path
        sequences_so_far = [
            ((*path, other), target)
            for path, reached in sequences_so_far
            for (source, other), target in after.items()
            if source == reached
        ]
    return None


@given(sequences.random_protocols())
def test_rows_agree_with_the_table(protocol):
    found = {
        (state, event): protocol.info(row[event][0]).state for state, row in protocol.rows.items() for event in row
    }
    assert found == table(protocol)
    assert list(protocol.rows) == list(protocol.states)


@given(sequences.random_protocols())
def test_rows_carry_the_canonical_member_the_update_and_the_guard(protocol):
    for move in protocol.transitions:
        _, member, update, check = protocol.rows[move.source][move.event]
        assert member is move.event
        assert update is (move.update.apply if move.update else None)
        assert check is (move.guard.check if move.guard else None)


@given(sequences.random_protocols())
def test_an_event_is_allowed_exactly_where_it_has_a_target(protocol):
    for state in protocol.states:
        targets = {event for event in [*EventType, *Own] if protocol.target(state, event) is not None}
        assert set(protocol.allowed(state)) == targets
        assert len(protocol.allowed(state)) == len(targets)


@given(sequences.random_protocols())
def test_targets_are_those_of_the_table(protocol):
    moves = table(protocol)
    for state, event in product(protocol.states, [*EventType, *Own]):
        assert protocol.target(state, event) == moves.get((state, event))


@given(sequences.random_protocols())
def test_a_path_is_the_shortest_there_is(protocol):
    for state, event in product(protocol.states, [*EventType, *Own]):
        assert protocol.path(state, event) == shortest(protocol, state, event), (state, event)


@given(sequences.random_protocols(), sequences.long_runs(30))
def test_what_the_engine_accepts_is_legal_and_what_it_refuses_is_not(protocol, run):
    lc = Lifecycle(protocol)
    accepted = []
    for draw in run:
        event, _ = draw.choose(lc, [*EventType, *Own])
        taken = sequences.takes(lc, event, {"loss": 0.5})
        assert protocol.is_legal([*accepted, event]) == taken
        if taken:
            accepted.append(event)
        assert protocol.accepts(accepted) == (lc.status == "finalized")


@given(sequences.random_protocols(), st.data())
def test_the_order_of_the_table_changes_no_row(protocol, data):
    reordered = replace(protocol, transitions=data.draw(st.permutations(protocol.transitions)))
    assert table(reordered) == table(protocol)
    assert {state: {*row} for state, row in reordered.rows.items()} == {s: {*row} for s, row in protocol.rows.items()}
