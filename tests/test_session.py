"""A session: what its modifiers are told, in which order, and what they share."""

from __future__ import annotations

import copy
import enum
import gc
import pickle
import threading
import weakref

import pytest
from recording import HOOKS, Recorder, fire

from lifecycle import (
    EventType,
    IllegalEventError,
    Lifecycle,
    LifecycleError,
    LifecycleWarning,
    MissingPayloadError,
    Protocol,
    ReentrantEventError,
    Transition,
    protocols,
)
from lifecycle.session import CompressionSession, Modifier, State


def two(protocol="compression", **options):
    """A session of two modifiers, and the one list of their calls."""
    calls = []
    return CompressionSession([Recorder("a", calls), Recorder("b", calls)], protocol, **options), calls


# What the modifiers are told


def test_the_hooks_of_a_run_come_event_by_event_and_modifier_by_modifier():
    calls = []
    session = CompressionSession([Recorder("a", calls, end=1), Recorder("b", calls)])
    fire(session, "ICBLPOESKF")
    assert calls == [
        *("a.on_initialize", "b.on_initialize"),
        *("a.on_event", "a.on_calibration_epoch_start", "b.on_event", "b.on_calibration_epoch_start"),
        *("a.on_event", "a.on_start", "a.on_update", "b.on_event", "b.on_start", "b.on_update"),
        *("a.on_event", "b.on_event"),
        *("a.on_event", "b.on_event"),
        *("a.on_event", "b.on_event"),
        *("a.on_event", "a.on_end", "b.on_event"),
        *("a.on_event", "a.on_sequential_epoch_end", "b.on_event", "b.on_sequential_epoch_end"),
        *("a.on_event", "a.on_calibration_epoch_end", "b.on_event", "b.on_calibration_epoch_end"),
        *("a.on_finalize", "b.on_finalize"),
    ]


def test_a_hook_gets_the_counters_after_the_event_and_what_came_with_it():
    modifier = Recorder(start=1)
    session = CompressionSession([modifier])
    session.initialize(model="a model")
    with session.calibration_epoch(dataset="text"), session.batch(ids=[1]):
        pass
    session.batch_start(ids=[2])
    session.loss_calculated(loss=0.5)
    assert modifier.details == [
        ("on_initialize", 0, 0, {"model": "a model"}),
        ("on_event", 0, 0, {"dataset": "text"}),
        ("on_calibration_epoch_start", 0, 0, {"dataset": "text"}),
        ("on_event", 0, 0, {"ids": [1]}),
        ("on_event", 1, 1, {}),
        ("on_event", 1, 1, {}),
        ("on_calibration_epoch_end", 1, 1, {}),
        ("on_event", 1, 1, {"ids": [2]}),
        ("on_start", 1, 1, {"ids": [2]}),
        ("on_update", 1, 1, {"ids": [2]}),
        ("on_event", 1, 1, {"loss": 0.5}),
    ]


def test_a_hook_gets_the_state_and_the_live_event():
    given = []

    class Keeper(Modifier):
        def on_event(self, state, event, **payload):
            given.append((state, event))

    session = CompressionSession([Keeper()], "training")
    fire(session, "IB")
    assert given == [(session.state, session.lifecycle.event)]
    assert given[0][1] is session.lifecycle.event


def test_a_modifier_without_hooks_of_its_own_does_nothing():
    session = CompressionSession([Modifier(end=1)])
    fire(session, "ICBLPOESKF")
    session.reset()
    fire(session, "I")
    session.abort()
    assert session.lifecycle.status == "aborted"


def test_the_session_hands_on_the_live_event():
    session = CompressionSession(protocol="training")
    assert session.initialize() is session.lifecycle.event
    assert session.event("batch_start") is session.lifecycle.event


def test_observers_come_after_the_modifiers():
    session, calls = two("training")
    session.lifecycle.on("batch_start", lambda event, payload: calls.append("observer"))
    fire(session, "I")
    del calls[:]
    session.batch_start()
    assert (calls[0], calls[-1]) == ("a.on_event", "observer")


def test_events_that_are_fired_on_the_engine_reach_the_modifiers():
    session, calls = two("training")
    with session.lifecycle.session(model="a model"):
        pass
    assert calls == ["a.on_initialize", "b.on_initialize", "a.on_finalize", "b.on_finalize"]
    assert session.state.model == "a model"


def test_the_bracket_of_the_engine_aborts_the_modifiers():
    session, calls = two("training")
    with pytest.raises(ZeroDivisionError), session.lifecycle.session():
        raise ZeroDivisionError
    assert calls[2:] == ["a.on_abort", "b.on_abort"]


def test_under_upstream_modifiers_are_initialized_once():
    session, calls = two("upstream")
    session.initialize(model="a model")
    session.initialize(optimizer="an optimizer")
    assert calls == ["a.on_initialize", "b.on_initialize"]
    assert (session.state.model, session.state.optimizer) == ("a model", "an optimizer")


class Own(str, enum.Enum):
    CHECKPOINT = "checkpoint"


SAVING = protocols.TRAINING.extend(
    "training with checkpoints",
    vocabularies=[Own],
    transitions=[Transition("session.ready", Own.CHECKPOINT, "session.ready")],
)


def test_an_event_of_the_users_own_reaches_on_event():
    modifier = Recorder()
    session = CompressionSession([modifier], SAVING)
    session.initialize()
    session.event(Own.CHECKPOINT, path="model")
    assert modifier.details[1:] == [("on_event", 0, 0, {"path": "model"})]


def test_a_protocol_from_nothing_drives_the_hooks():
    one_layer = Protocol(
        "one layer",
        states=["created", "layer.open", "layer.batch", "done"],
        transitions=[
            Transition("created", "initialize", "layer.open"),
            Transition("layer.open", "batch_start", "layer.batch"),
            Transition("layer.batch", "batch_end", "layer.open"),
            Transition("layer.open", "finalize", "done"),
        ],
        initial="created",
        final=["done"],
    )
    modifier = Recorder()
    session = CompressionSession([modifier], one_layer)
    fire(session, "IBEF")
    assert modifier.calls == [
        "m.on_initialize",
        "m.on_event",
        "m.on_start",
        "m.on_update",
        "m.on_event",
        "m.on_finalize",
    ]
    assert session.lifecycle.state == "done"


# What they are not told


def test_an_illegal_event_reaches_no_modifier():
    session, calls = two("training")
    fire(session, "I")
    del calls[:]
    with pytest.raises(IllegalEventError):
        session.batch_end()
    assert calls == []
    assert session.lifecycle.history == (EventType.INITIALIZE,)


def test_a_refused_first_event_does_not_abort():
    session, calls = two("training")
    with pytest.raises(IllegalEventError):
        session.batch_end()
    assert (calls, session.lifecycle.status) == ([], "created")


def test_a_loss_that_is_none_reaches_no_modifier():
    session, calls = two("training")
    fire(session, "IB")
    del calls[:]
    with pytest.raises(MissingPayloadError):
        session.loss_calculated(loss=None)
    assert calls == []


def test_a_session_that_is_suspended_tells_no_modifier():
    session, calls = two("training")
    fire(session, "I")
    del calls[:]
    with session.lifecycle.suspended("evaluation"):
        fire(session, "BLE")
    assert calls == []
    assert session.lifecycle.progress.ignored == 3


@pytest.mark.parametrize("name", ["self", "state", "event"])
def test_a_payload_may_not_have_the_name_of_an_argument(name):
    session, calls = two("training")
    with pytest.raises(LifecycleError) as caught:
        session.event("initialize", **{name: 1, "model": 2})
    assert str(caught.value) == f"a payload may not be called 'self', 'state' or 'event', got {name!r}"
    assert (calls, session.lifecycle.status, session.state) == ([], "created", State())


@pytest.mark.parametrize("name", ["modifier", "type", "args", "error", "payload", "lifecycle", "hook", "schedule"])
def test_a_payload_may_have_any_other_name(name):
    modifier = Recorder()
    session = CompressionSession([modifier], "training")
    session.initialize(**{name: 1})
    session.batch_start(**{name: 2})
    assert [detail[-1] for detail in modifier.details] == [{name: 1}, *[{name: 2}] * 3]


# Violations that are not raised


def test_a_violation_that_is_recorded_is_delivered():
    session, calls = two("training", on_violation="record")
    fire(session, "IB")
    del calls[:]
    session.batch_end()
    assert calls == ["a.on_event", "b.on_event"]
    assert [type(error) for error in session.lifecycle.violations] == [IllegalEventError]


def test_a_violation_that_is_warned_of_is_delivered():
    session, calls = two("training", on_violation="warn")
    fire(session, "I")
    del calls[:]
    with pytest.warns(LifecycleWarning, match=r"^LOSS_CALCULATED is not allowed in session\.ready"):
        session.loss_calculated(loss=0.5)
    assert calls == ["a.on_event", "b.on_event"]


def test_a_recorded_event_that_the_protocol_does_not_use_is_delivered():
    session, calls = two("training", on_violation="record")
    session.initialize()
    calls.clear()
    session.sequential_epoch_end(modules=[])
    assert calls == ["a.on_event", "a.on_sequential_epoch_end", "b.on_event", "b.on_sequential_epoch_end"]


def test_a_recorded_second_initialize_initializes_nobody_again():
    session, calls = two("training", on_violation="record")
    session.initialize(model="a model")
    session.initialize(model="another")
    assert calls == ["a.on_initialize", "b.on_initialize"]
    assert (session.state.model, session.lifecycle.status) == ("another", "open")


def test_a_recorded_event_after_finalize_reaches_nobody():
    session, calls = two("training", on_violation="record")
    fire(session, "IF")
    calls.clear()
    fire(session, "FIB")
    assert calls == []
    assert len(session.lifecycle.violations) == 3


def test_a_hook_that_raises_at_a_recorded_violation_does_not_abort():
    session = CompressionSession([Recorder(fails={"on_event": KeyError("x")})], "training", on_violation="record")
    with pytest.raises(KeyError):
        session.batch_start()
    assert session.lifecycle.status == "open"


# Hooks do not fire


@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.batch_start(),
        lambda session: session.finalize(),
        lambda session: session.reset(),
        lambda session: session.lifecycle.fire("batch_start"),
    ],
    ids=["event", "finalize", "reset", "the engine"],
)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_fires_or_resets_is_refused_and_changes_nothing(hook, act):
    refused = []

    class Firing(Recorder):
        def called(self, name, *detail):
            super().called(name, *detail)
            if name == hook:
                with pytest.raises(ReentrantEventError):
                    act(session)
                refused.append(name)

    session = CompressionSession([Firing(end=1), other := Recorder(end=1)])
    fire(session, "ICBLPOESKF")
    assert set(refused) == {hook}
    assert session.lifecycle.status == "finalized"
    assert {detail[0] for detail in other.details} == set(HOOKS)


# State


def test_the_state_has_five_names_and_what_else_is_brought():
    session = CompressionSession(protocol="training")
    session.initialize(model=1, optimizer=2, loss=3, data=4, hardware=5, teacher=6)
    assert vars(session.state) == {"model": 1, "optimizer": 2, "loss": 3, "data": 4, "hardware": 5, "teacher": 6}


def test_what_initialize_does_not_bring_is_none():
    assert vars(State()) == dict.fromkeys(["model", "optimizer", "loss", "data", "hardware"])


def test_a_modifier_shares_what_it_adds_to_the_state():
    class Adds(Modifier):
        def on_initialize(self, state, event, **payload):
            state.scales = [1.0]

    class Uses(Modifier):
        def on_finalize(self, state, event, **payload):
            state.scales.append(2.0)

    session = CompressionSession([Adds(), Uses()], "training")
    fire(session, "IF")
    assert session.state.scales == [1.0, 2.0]


def test_a_name_that_nobody_added_to_the_state_is_an_attribute_error():
    with pytest.raises(AttributeError):
        _ = State().teacher


def test_what_comes_with_later_events_is_not_put_into_the_state():
    session = CompressionSession(protocol="training")
    session.initialize()
    session.batch_start(model="not this one")
    assert session.state.model is None


class Thing:
    """Something that can be weakly referred to."""


def test_a_reset_makes_a_new_state_and_lets_the_model_go():
    model = Thing()
    session = CompressionSession([Modifier()], "training")
    session.initialize(model=model)
    reference, old = weakref.ref(model), session.state
    del model
    session.reset()
    assert session.state is not old
    del old
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("how", ["finalized", "failed", "dropped"])
def test_a_session_that_nobody_has_is_collected(how):
    session = CompressionSession([Recorder()], "training")
    model = Thing()
    try:
        with session:
            session.initialize(model=model)
            if how == "failed":
                raise ZeroDivisionError  # noqa: TRY301 # it is what leaves the block
    except ZeroDivisionError:
        pass
    if how == "dropped":
        session.reset()
        session.initialize(model=model)
    references = [weakref.ref(each) for each in (session, session.lifecycle, session.state.model)]
    del session, model
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


# Reset


def test_a_reset_of_an_open_run_tells_the_modifiers_once():
    calls = []
    modifier = Recorder("a", calls)
    session = CompressionSession([modifier], "training")
    fire(session, "IBLPOE")
    del calls[:]
    assert session.reset() == "abandoned"
    assert calls == ["a.on_abort"]
    assert modifier.details[-1] == ("on_abort", 0, 0, None)
    assert session.reset() == "created"
    assert calls == ["a.on_abort"]


def test_at_a_reset_on_abort_still_gets_the_state_of_the_run():
    given = []

    class Cleans(Modifier):
        def on_abort(self, state, event, error):
            given.append(state.model)

    session = CompressionSession([Cleans()], "training")
    session.initialize(model="a model")
    session.reset()
    assert given == ["a model"]
    assert session.state.model is None


@pytest.mark.parametrize(("word", "outcome"), [("", "created"), ("IF", "finalized")])
def test_a_reset_of_a_run_that_is_not_open_tells_nobody(word, outcome):
    session, calls = two("training")
    fire(session, word)
    del calls[:]
    assert session.reset() == outcome
    assert calls == []


def test_a_reset_on_the_engine_resets_the_session():
    session, calls = two("training")
    session.initialize(model="a model")
    session.lifecycle.reset()
    assert calls[2:] == ["a.on_abort", "b.on_abort"]
    assert session.state.model is None
    session.initialize()
    assert calls[4:] == ["a.on_initialize", "b.on_initialize"]


# Abort


def test_an_abort_tells_every_modifier_once():
    session, calls = two("training")
    fire(session, "IBLPOE")
    error = ValueError("out of memory")
    del calls[:]
    session.abort(error)
    session.abort("again")
    assert session.reset() == "aborted"
    assert calls == ["a.on_abort", "b.on_abort"]
    assert session.modifiers[0].details[-1] == ("on_abort", 1, 1, error)


@pytest.mark.parametrize("word", ["", "IF"])
def test_an_abort_of_a_run_that_is_not_open_tells_nobody(word):
    session, calls = two("training")
    fire(session, word)
    del calls[:]
    session.abort("why")
    assert calls == []


def test_an_aborted_run_takes_no_event():
    session, calls = two("training")
    fire(session, "I")
    session.abort()
    del calls[:]
    with pytest.raises(IllegalEventError, match="the run was aborted"):
        session.batch_start()
    assert calls == []


# What a session is made of


def test_the_options_are_those_of_the_engine():
    options = {"steps_per_epoch": 2, "batches_per_step": 3, "invocations_per_step": 4, "expect": {"steps": 5}}
    session = CompressionSession([], "training", on_violation="record", **options)
    own = session.lifecycle
    assert (own.protocol.name, own.on_violation, own.expect) == ("training+repeat_steps", "record", {"steps": 5})
    assert (own.event.steps_per_epoch, own.event.batches_per_step, own.event.invocations_per_step) == (2, 3, 4)


def test_the_protocol_is_compression_if_none_is_given():
    assert CompressionSession().lifecycle.protocol is protocols.COMPRESSION


def test_modifiers_may_come_from_anything_that_has_them():
    modifiers = [Modifier(), Modifier()]
    assert CompressionSession(each for each in modifiers).modifiers == tuple(modifiers)


@pytest.mark.parametrize("modifiers", [Modifier(), None, 3])
def test_what_has_no_modifiers_is_a_type_error(modifiers):
    with pytest.raises(TypeError) as caught:
        CompressionSession(modifiers)
    assert str(caught.value) == f"modifiers must be a list of them, got {modifiers!r}"


@pytest.mark.parametrize("modifier", [None, Modifier, "prune"])
def test_what_is_not_a_modifier_is_a_type_error(modifier):
    with pytest.raises(TypeError) as caught:
        CompressionSession([modifier])
    assert str(caught.value) == f"a modifier must derive from lifecycle.session.Modifier, got {modifier!r}"


def test_a_modifier_that_is_there_twice_is_refused():
    modifier = Modifier()
    with pytest.raises(LifecycleError, match=r"^a modifier is there twice: \("):
        CompressionSession([modifier, Modifier(), modifier])


def test_a_session_names_its_modifiers_and_its_run():
    session = CompressionSession([Recorder(), Modifier()], "training")
    fire(session, "IBLPOE")
    assert repr(session) == (
        "<CompressionSession [Recorder, Modifier] on "
        "<Lifecycle 'training' in session.ready: global_batch=1, global_step=1>>"
    )


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_session_cannot_be_copied(copied):
    message = r"^a CompressionSession cannot be copied or pickled; resume a new one from its state_dict\(\)$"
    with pytest.raises(TypeError, match=message):
        copied(CompressionSession())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])  # noqa: S301 # our own
def test_a_state_can_be_copied(copied):
    state = State(model=[1], teacher=2)
    assert copied(state) == state
    assert copied(state) is not state


# Threads


def test_a_thread_safe_session_lets_one_thread_at_a_time_in():
    inside = []

    class Slow(Modifier):
        def on_sequential_epoch_end(self, state, event, **payload):
            inside.append(payload["thread"])
            inside.append(payload["thread"])

    session = CompressionSession([Slow()], thread_safe=True)
    fire(session, "IC")

    def run(name):
        for _ in range(100):
            session.sequential_epoch_end(thread=name)

    threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.lifecycle.progress.total_sequential_epochs == 300
    assert (len(inside), inside[::2]) == (600, inside[1::2])


def test_a_thread_safe_session_is_saved_between_two_events():
    saved = []

    class Pauses(Modifier):
        def on_start(self, state, event, **payload):
            saving.start()
            saving.join(0.05)
            assert saving.is_alive()

    session = CompressionSession([Pauses()], "training", thread_safe=True)
    saving = threading.Thread(target=lambda: saved.append(session.state_dict()))
    fire(session, "IB")
    saving.join()
    assert saved[0]["modifiers"][0]["started"] is True


def test_a_session_is_an_engine_with_modifiers():
    lifecycle, session = Lifecycle("training"), CompressionSession([Recorder()], "training")
    for event in ("initialize", "batch_start", "loss_calculated", "optim_pre_step", "optim_post_step", "batch_end"):
        lifecycle.fire(event, loss=0.5)
        session.event(event, loss=0.5)
    assert session.lifecycle.state_dict() == lifecycle.state_dict()
