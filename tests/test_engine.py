"""The engine: firing, brackets, suspension, abort and reset, expectations, violations."""

from __future__ import annotations

import copy
import enum
import pickle
import warnings
import weakref

import pytest
import sequences
from runs import fire, seen

from lifecycle import (
    Event,
    EventType,
    ExpectationError,
    Guard,
    IllegalEventError,
    Lifecycle,
    LifecycleError,
    LifecycleWarning,
    MissingPayloadError,
    Progress,
    Protocol,
    ProtocolError,
    Tap,
    Transition,
    UnknownEventError,
    Update,
    protocols,
)

READY = "session.ready"
METHODS = [event.value for event in EventType]
PATHS = {"fast path": {}, "general path": {"thread_safe": True}}


class Stop(BaseException):
    """Like KeyboardInterrupt: no Exception."""


class Saving(str, enum.Enum):
    """A user's own events."""

    CHECKPOINT = "checkpoint"
    RESTORED = "restored"


def _add_steps(event, progress, payload):
    event.global_step += payload["steps"]


def _path_given(lifecycle, payload):
    return len(payload["path"]) > 0


SAVING = protocols.TRAINING.extend(
    "saving",
    states=["session.saved"],
    vocabularies=[Saving],
    transitions=[
        Transition(READY, Saving.CHECKPOINT, "session.saved", guard=Guard("path given", _path_given)),
        Transition("session.saved", Saving.RESTORED, READY, update=Update("global_step += steps", _add_steps)),
    ],
)


@pytest.fixture(params=PATHS.values(), ids=PATHS)
def options(request):
    """Options that send events through the fast path of the engine, or through its general one."""
    return request.param


def training(word="", **options):
    return fire(Lifecycle("training", **options), word)


def calibrating(word="", **options):
    return fire(Lifecycle("compression", **options), word)


# Making one


def test_a_new_lifecycle_is_at_the_start_of_its_protocol():
    lc = Lifecycle()
    assert (lc.state, lc.status, lc.allowed) == ("created", "created", (EventType.INITIALIZE,))
    assert (lc.event, lc.progress, lc.history, lc.violations) == (Event(), Progress(), (), ())


def test_the_protocol_may_be_given_by_name_or_as_it_is():
    assert Lifecycle("training").protocol is protocols.TRAINING
    assert Lifecycle(protocols.TRAINING).protocol is protocols.TRAINING


def test_the_sizes_go_to_the_event():
    lc = Lifecycle(steps_per_epoch=5, batches_per_step=2, invocations_per_step=3)
    assert lc.event == Event(None, 5, 2, 3)


def test_several_invocations_in_a_step_make_the_steps_of_the_protocol_repeat():
    assert Lifecycle("training", invocations_per_step=2).protocol is protocols.TRAINING.repeat_steps()
    assert Lifecycle("training", invocations_per_step=1).protocol is protocols.TRAINING


def test_several_invocations_need_a_protocol_with_an_optimizer():
    with pytest.raises(ProtocolError, match="'data_free' has no optimizer events"):
        Lifecycle("data_free", invocations_per_step=2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"protocol": "traning"}, ProtocolError, "'traning' is not a built-in protocol; did you mean 'training'"),
        ({"protocol": None}, TypeError, "protocol must be a Protocol or the name of one, got None"),
        ({"steps_per_epoch": 0}, LifecycleError, "steps_per_epoch must be at least 1, got 0"),
        ({"steps_per_epoch": 2.0}, TypeError, "steps_per_epoch must be an int, got 2.0"),
        ({"batches_per_step": 0}, LifecycleError, "batches_per_step must be at least 1, got 0"),
        ({"invocations_per_step": 0}, LifecycleError, "invocations_per_step must be at least 1, got 0"),
        ({"invocations_per_step": True}, TypeError, "invocations_per_step must be an int, got True"),
        ({"invocations_per_step": 1.0}, TypeError, "invocations_per_step must be an int, got 1.0"),
        ({"on_violation": "ignore"}, LifecycleError, "on_violation must be 'raise', 'warn' or 'record', got 'ignore'"),
        ({"on_violation": None}, LifecycleError, "on_violation must be 'raise', 'warn' or 'record', got None"),
        ({"expect": {"layers": 3}}, LifecycleError, "expect: 'layers' is not a count"),
        ({"expect": {1: 3}}, LifecycleError, "expect: 1 is not a count"),
        ({"expect": {"steps": -1}}, LifecycleError, r"expect\['steps'\] must be at least 0, got -1"),
        ({"expect": {"steps": 1.0}}, TypeError, r"expect\['steps'\] must be an int, got 1.0"),
        ({"expect": [("steps", 1)]}, TypeError, "expect must be a mapping of counts, got"),
        ({"expect": []}, TypeError, r"expect must be a mapping of counts, got \[\]"),
        ({"expect": 0}, TypeError, "expect must be a mapping of counts, got 0"),
    ],
)
def test_a_bad_argument_is_refused_with_its_name_and_value(arguments, error, message):
    with pytest.raises(error, match=message):
        Lifecycle(**arguments)


def test_what_is_expected_is_copied():
    expect = {"steps": 1}
    lc = Lifecycle(expect=expect)
    expect["steps"] = 2
    assert lc.expect == {"steps": 1}


def test_the_text_of_a_lifecycle_says_where_it_is():
    assert repr(training("IBLPOE")) == "<Lifecycle 'training' in session.ready: global_batch=1, global_step=1>"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_lifecycle_is_not_copied(duplicate):
    with pytest.raises(TypeError, match=r"cannot be copied or pickled; load its state_dict\(\) into a new one"):
        duplicate(training("I"))


def test_a_lifecycle_can_be_referred_to_weakly_and_has_no_room_for_other_attributes():
    lc = Lifecycle()
    assert weakref.ref(lc)() is lc
    with pytest.raises(AttributeError):
        lc.stage = 1


# Firing


@pytest.mark.parametrize("event", EventType)
@pytest.mark.parametrize(
    "spell",
    [
        lambda event: event,
        lambda event: event.value,
        lambda event: event.name,
        lambda event: f"EventType.{event.name}",
    ],
    ids=["member", "value", "name", "class and name"],
)
def test_fire_takes_every_spelling_and_keeps_the_member(event, spell, options):
    lc = Lifecycle(**options)
    fire(lc, lc.protocol.path("created", event))
    assert lc.fire(spell(event), loss=0.5).type_ is event
    assert lc.history[-1] is event


@pytest.mark.parametrize(
    "alias",
    ["calibration_start", "CALIBRATION_START", "EventType.CALIBRATION_START", EventType.CALIBRATION_START],
)
def test_fire_takes_the_names_that_llm_compressor_gave_later(alias, options):
    assert calibrating("I", **options).fire(alias).type_ is EventType.CALIBRATION_EPOCH_START


def test_fire_returns_the_live_event(options):
    lc = training(**options)
    assert lc.fire("initialize") is lc.event
    assert lc.fire("BATCH_START") is lc.event


@pytest.mark.parametrize("name", METHODS)
def test_each_method_fires_its_event(name, options):
    lc = Lifecycle(**options)
    fire(lc, lc.protocol.path("created", name))
    event = getattr(lc, name)(loss=0.5)
    assert event is lc.event
    assert event.type_ is EventType(name)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_passes_the_payload(name):
    lc = Lifecycle()
    fire(lc, lc.protocol.path("created", name))
    payloads = []
    lc.on(name, lambda event, payload: payloads.append(payload))
    getattr(lc, name)(loss=0.5, batch=[1])
    assert payloads == [{"loss": 0.5, "batch": [1]}]


def test_a_payload_may_be_called_anything(options):
    lc = training(**options)
    payloads = []
    lc.on("initialize", lambda event, payload: payloads.append(payload))
    lc.fire("initialize", self=1, event=2, payload=3)
    assert payloads == [{"self": 1, "event": 2, "payload": 3}]


def test_a_method_takes_any_payload_that_fire_takes():
    lc = training()
    payloads = []
    lc.on("initialize", lambda event, payload: payloads.append(payload))
    lc.initialize(self=1, event=2, payload=3)
    assert payloads == [{"self": 1, "event": 2, "payload": 3}]


def test_the_states_and_the_allowed_events_along_a_run(options):
    lc = Lifecycle("sequential", **options)
    trail = []
    for event in sequences.events("ICBLESKF"):
        fire(lc, [event])
        trail.append((lc.state, [event.value for event in lc.allowed]))
    assert trail == [
        (READY, ["calibration_epoch_start", "finalize"]),
        ("session.calibration.open", ["batch_start", "sequential_epoch_end"]),
        ("session.calibration.batch.started", ["loss_calculated", "batch_end"]),
        ("session.calibration.batch.loss", ["batch_end"]),
        ("session.calibration.open", ["batch_start", "sequential_epoch_end"]),
        ("session.calibration.layer_ended", ["batch_start", "sequential_epoch_end", "calibration_epoch_end"]),
        (READY, ["calibration_epoch_start", "finalize"]),
        ("finalized", []),
    ]


@pytest.mark.parametrize("event", [EventType.BATCH_START, "batch_start", "BATCH_START", "EventType.BATCH_START"])
def test_can_says_whether_an_event_is_legal_in_any_spelling(event):
    assert training("I").can(event)
    assert not training("IB").can(event)


def test_can_changes_nothing():
    lc = training("IB")
    before = lc.state_dict()
    lc.can("batch_start")
    assert lc.state_dict() == before


def test_can_leaves_the_payload_and_the_expected_counts_aside():
    assert training("IB").can("loss_calculated")
    assert training("I", expect={"steps": 1}).can("finalize")


def test_can_refuses_what_is_no_event():
    with pytest.raises(UnknownEventError, match="'batch_begin' is not an event of protocol 'training'"):
        training().can("batch_begin")
    with pytest.raises(TypeError, match="an event must be an EventType or a string, got 3"):
        training().can(3)


def test_history_has_the_last_sixteen_events():
    lc = training("I" + "BLPOE" * 4)
    assert lc.history == tuple(sequences.events("I" + "BLPOE" * 4)[-16:])


def test_history_has_all_events_of_a_short_run(options):
    lc = training("IBLE", **options)
    assert lc.history == tuple(sequences.events("IBLE"))


def test_a_view_of_the_history_does_not_follow_the_run():
    lc = training("I")
    history = lc.history
    fire(lc, "B")
    assert history == (EventType.INITIALIZE,)


def test_only_the_given_counts_move(options):
    lc = calibrating("ICBESBLPOESK", **options)
    assert lc.progress == Progress(
        accepted=12, calibration_epochs=1, sequential_epochs=2, total_sequential_epochs=2, batches=2
    )
    assert (lc.event.global_batch, lc.event.global_step) == (2, 2)


@pytest.mark.parametrize("skipped", [False, 0, None])
def test_an_optimizer_step_that_was_not_skipped_counts(skipped, options):
    lc = training("IBLP", **options)
    assert lc.optim_post_step(skipped=skipped).global_step == 1


@pytest.mark.parametrize("skipped", [True, 1, "by the scaler"])
def test_a_skipped_optimizer_step_is_legal_and_counts_nothing(skipped, options):
    lc = training("IBLP", **options)
    assert lc.optim_post_step(skipped=skipped).global_step == 0
    assert (lc.state, lc.progress.invocations) == ("session.batch.step.taken", 0)


# Refusing


ILLEGAL = """\
BATCH_START is not allowed in session.batch.step.pending
  event 6, global_batch=0, global_step=0, sequential epoch 0
  allowed here: OPTIM_POST_STEP
  before it: BATCH_START, LOSS_CALCULATED, OPTIM_PRE_STEP
  hint: OPTIM_POST_STEP, BATCH_END are missing before it"""


@pytest.mark.parametrize("spelling", ["batch_start", "EventType.BATCH_START"])
def test_the_error_of_an_illegal_event_says_all(spelling, options):
    lc = training("IBLP", **options)
    with lc.suspended("evaluation"):
        lc.batch_end()
    with pytest.raises(IllegalEventError) as caught:
        lc.fire(spelling, loss=1)
    error = caught.value
    assert type(error) is IllegalEventError
    assert error.event is EventType.BATCH_START
    assert error.state == "session.batch.step.pending"
    assert error.allowed == (EventType.OPTIM_POST_STEP,)
    assert error.position == 6
    assert error.history == tuple(sequences.events("IBLP"))
    assert error.counters == {"global_batch": 0, "global_step": 0, "sequential_epochs": 0}
    assert error.hint == "OPTIM_POST_STEP, BATCH_END are missing before it"
    assert str(error) == ILLEGAL


def test_the_counters_of_an_error_are_those_of_the_run(options):
    lc = calibrating("ICBESBES", **options)
    with pytest.raises(IllegalEventError) as caught:
        lc.finalize()
    assert caught.value.counters == {"global_batch": 2, "global_step": 2, "sequential_epochs": 2}


def test_the_error_keeps_what_was_when_the_run_goes_on():
    lc = training("IB")
    with pytest.raises(IllegalEventError) as caught:
        lc.batch_end()
    fire(lc, "LE")
    assert caught.value.history == tuple(sequences.events("IB"))
    assert caught.value.counters["global_batch"] == 0


def test_the_position_counts_accepted_rejected_and_ignored_events(options):
    lc = training("I", **options)
    positions = []
    for _ in range(3):
        with pytest.raises(IllegalEventError) as caught:
            lc.batch_end()
        positions.append(caught.value.position)
    assert positions == [2, 3, 4]


def test_the_history_of_an_error_has_sixteen_events_at_most():
    lc = training("I" + "BLE" * 6)
    with pytest.raises(IllegalEventError) as caught:
        lc.batch_end()
    assert caught.value.history == tuple(sequences.events("BLE" * 6)[-16:])


@pytest.mark.parametrize(
    ("protocol", "word", "event", "hint"),
    [
        ("training", "", "finalize", "INITIALIZE is missing before it"),
        ("training", "IF", "batch_start", "the run is over; reset() begins a new one"),
        ("training", "I", "initialize", "it can no longer come in this run"),
        ("training", "I", "sequential_epoch_end", "protocol 'training' does not have it"),
        ("training", "IBL", "loss_calculated", "BATCH_END, BATCH_START are missing before it, or it came twice"),
    ],
)
def test_the_hint_says_what_most_likely_went_wrong(protocol, word, event, hint):
    lc = fire(Lifecycle(protocol), word)
    with pytest.raises(IllegalEventError) as caught:
        lc.fire(event)
    assert caught.value.hint == hint


@pytest.mark.parametrize("payload", [{}, {"loss": None}, {"losses": 0.5}])
@pytest.mark.parametrize("spelling", ["loss_calculated", "LOSS_CALCULATED"])
def test_a_missing_loss_is_refused(payload, spelling, options):
    lc = training("IB", **options)
    before = seen(lc)
    with pytest.raises(MissingPayloadError, match=r"hint: pass loss=\.\.\., and not None") as caught:
        lc.fire(spelling, **payload)
    assert (caught.value.event, caught.value.position) == (EventType.LOSS_CALCULATED, 3)
    assert seen(lc) == before
    assert lc.progress.rejected == 1


def test_a_missing_loss_can_be_given_afterwards(options):
    lc = training("IB", **options)
    with pytest.raises(MissingPayloadError):
        lc.loss_calculated()
    assert lc.loss_calculated(loss=0.0).type_ is EventType.LOSS_CALCULATED


def test_an_event_out_of_order_is_illegal_whether_or_not_it_has_its_payload():
    with pytest.raises(IllegalEventError) as caught:
        training("I").loss_calculated()
    assert type(caught.value) is IllegalEventError


@pytest.mark.parametrize("name", ["batch_begin", "", "Batch_start", "EventType.batch_start", " batch_start"])
def test_an_unknown_event_is_refused(name, options):
    lc = training("I", **options)
    before = seen(lc)
    with pytest.raises(UnknownEventError, match="is not an event of protocol 'training'"):
        lc.fire(name)
    assert seen(lc) == before
    assert lc.progress.rejected == 1


@pytest.mark.parametrize("event", [None, 3, b"initialize", [], {}, EventType, object()])
def test_what_is_not_text_is_refused(event, options):
    lc = training(**options)
    before = seen(lc)
    with pytest.raises(TypeError, match="an event must be an EventType or a string, got"):
        lc.fire(event)
    assert seen(lc) == before
    assert lc.progress.rejected == 1


# Guards and updates of users


def test_events_of_a_users_own_are_fired_in_every_spelling(options):
    lc = fire(Lifecycle(SAVING, **options), "I")
    assert lc.fire("Saving.CHECKPOINT", path="model").type_ is Saving.CHECKPOINT
    assert lc.fire("restored", steps=3).global_step == 3
    assert lc.fire("CHECKPOINT", path="model").type_ is Saving.CHECKPOINT
    assert lc.history[1:] == (Saving.CHECKPOINT, Saving.RESTORED, Saving.CHECKPOINT)


def test_a_guard_of_a_users_own_refuses(options):
    lc = fire(Lifecycle(SAVING, **options), "I")
    before = seen(lc)
    with pytest.raises(IllegalEventError, match=r"hint: its guard \[path given\] does not hold") as caught:
        lc.fire("checkpoint", path="")
    assert caught.value.event is Saving.CHECKPOINT
    assert seen(lc) == before
    assert lc.progress.rejected == 1


@pytest.mark.parametrize("problem", [TypeError, KeyError, LifecycleError, Stop])
def test_a_guard_that_raises_changes_nothing_that_can_be_seen(problem, options):
    def check(lifecycle, payload):
        raise problem("asked in vain")

    guarded = Protocol("guarded", ["a", "b"], [Transition("a", "finalize", "b", guard=Guard("", check))], "a", ["b"])
    lc = Lifecycle(guarded, **options)
    before = seen(lc)
    with pytest.raises(problem, match="asked in vain"):
        lc.finalize()
    assert seen(lc) == before


@pytest.mark.parametrize("problem", [TypeError, KeyError, LifecycleError, Stop])
def test_a_guard_that_raises_counts_alike_on_both_paths(problem):
    def check(lifecycle, payload):
        raise problem("asked in vain")

    guarded = Protocol("guarded", ["a", "b"], [Transition("a", "finalize", "b", guard=Guard("", check))], "a", ["b"])
    rejected = []
    for options in PATHS.values():
        lc = Lifecycle(guarded, **options)
        with pytest.raises(problem):
            lc.finalize()
        rejected.append(lc.progress.rejected)
    assert rejected[0] == rejected[1]


@pytest.mark.parametrize("problem", [TypeError, KeyError, LifecycleError, Stop])
def test_an_update_that_raises_changes_nothing(problem, options):
    def apply(event, progress, payload):
        raise problem("counted in vain")

    failing = Protocol("failing", ["a", "b"], [Transition("a", "finalize", "b", update=Update("", apply))], "a", ["b"])
    lc = Lifecycle(failing, **options)
    calls = []
    lc.on(EventType, lambda event, payload: calls.append(event.type_))
    before = lc.state_dict()
    with pytest.raises(problem, match="counted in vain"):
        lc.finalize()
    assert lc.state_dict() == before
    assert calls == []


def test_a_payload_without_a_truth_value_changes_nothing(options):
    class Undecided:
        def __bool__(self):
            raise ValueError("neither true nor false")

    lc = training("IBLP", **options)
    before = lc.state_dict()
    with pytest.raises(ValueError, match="neither true nor false"):
        lc.optim_post_step(skipped=Undecided())
    assert lc.state_dict() == before


# Brackets


def test_the_brackets_fire_the_exact_sequence(options):
    lc = calibrating(**options)
    events = []
    lc.on(EventType, lambda event, payload: events.append(event.type_))
    with lc.session(), lc.calibration_epoch():
        for _ in range(2):
            with lc.batch():
                lc.loss_calculated(loss=1)
        lc.sequential_epoch_end()
    assert events == sequences.events("ICBLEBLESKF")


@pytest.mark.parametrize(("bracket", "word"), [("session", ""), ("calibration_epoch", "I"), ("batch", "IC")])
def test_a_bracket_gives_the_live_event_and_passes_the_payload_to_its_first_event(bracket, word):
    lc = calibrating(word)
    payloads = []
    lc.on(EventType, lambda event, payload: payloads.append(payload))
    with getattr(lc, bracket)(name="first") as event:
        assert event is lc.event
    assert payloads == [{"name": "first"}, {}]


@pytest.mark.parametrize(("bracket", "word"), [("session", ""), ("calibration_epoch", "I"), ("batch", "IC")])
@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_after_an_exception_a_bracket_fires_nothing_and_passes_it_on(bracket, word, problem):
    lc = calibrating(word)
    events = []
    lc.on(EventType, lambda event, payload: events.append(event.type_))
    error = problem("crash")
    with pytest.raises(problem) as caught, getattr(lc, bracket)():
        raise error
    assert caught.value is error
    assert len(events) == 1


@pytest.mark.parametrize(("bracket", "word"), [("session", "I"), ("calibration_epoch", "IC"), ("batch", "ICB")])
def test_a_bracket_that_is_out_of_order_is_refused_and_its_block_not_run(bracket, word):
    lc = calibrating(word)
    before = seen(lc)
    entered = []
    with pytest.raises(IllegalEventError), getattr(lc, bracket)():
        entered.append(bracket)
    assert entered == []
    assert seen(lc) == before
    assert lc.status == "open"


def test_an_exception_through_all_brackets_leaves_the_run_where_it_was():
    lc = calibrating()
    with pytest.raises(RuntimeError), lc.session(), lc.calibration_epoch(), lc.batch():
        raise RuntimeError
    assert lc.history == tuple(sequences.events("ICB"))
    assert (lc.state, lc.status) == ("session.calibration.batch.started", "aborted")


def test_an_exception_through_a_batch_that_is_caught_in_the_session_leaves_the_run_open():
    lc = calibrating()
    with lc.session():
        with pytest.raises(RuntimeError), lc.batch():
            raise RuntimeError
        assert lc.status == "open"
        fire(lc, "LE")


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, Stop])
def test_an_exception_through_a_session_aborts_the_run(problem):
    lc = training()
    with pytest.raises(problem), lc.session():
        raise problem
    assert lc.status == "aborted"
    assert lc.reset() == "aborted"


def test_an_observer_of_initialize_that_raises_aborts_the_session():
    lc = training()

    def crash(event, payload):
        raise RuntimeError

    lc.on("initialize", crash)
    with pytest.raises(RuntimeError), lc.session():
        pass
    assert lc.status == "aborted"


def test_a_session_inside_a_session_is_refused_without_aborting_the_outer_one():
    lc = training()
    with lc.session():
        with pytest.raises(IllegalEventError, match="INITIALIZE is not allowed"), lc.session():
            pass
        assert lc.status == "open"
    assert lc.status == "finalized"


def test_a_session_after_the_end_is_refused_without_aborting_the_finished_run():
    lc = training("IF")
    with pytest.raises(IllegalEventError), lc.session():
        pass
    assert lc.status == "finalized"


def test_a_session_whose_end_is_refused_can_still_be_ended():
    lc = training()
    with pytest.raises(IllegalEventError, match="FINALIZE is not allowed"), lc.session():
        lc.batch_start()
    assert lc.status == "open"
    assert fire(lc, "LEF").status == "finalized"


def test_a_session_that_was_aborted_inside_is_left_without_an_error_and_not_finalized():
    lc = training()
    with lc.session():
        lc.abort("out of time")
    assert (lc.status, lc.history, lc.progress.rejected) == ("aborted", (EventType.INITIALIZE,), 0)


# Suspension


@pytest.mark.parametrize(
    "event", ["batch_start", "loss_calculated", "optim_pre_step", "optim_post_step", "batch_end", "BATCH_END"]
)
def test_events_of_batches_are_ignored_while_suspended(event, options):
    lc = training("I", **options)
    before = lc.state_dict()
    calls = []
    lc.on(EventType, lambda event, payload: calls.append(event.type_))
    with lc.suspended("evaluation"):
        assert lc.fire(event) is lc.event
    before["progress"]["ignored"] = 1
    assert lc.state_dict() == before
    assert calls == []


def test_other_events_are_taken_while_suspended(options):
    lc = calibrating("I", **options)
    with lc.suspended("evaluation"):
        fire(lc, "CSK")
    assert lc.history == tuple(sequences.events("ICSK"))


@pytest.mark.parametrize("event", ["initialize", "sequential_epoch_end", "calibration_epoch_end"])
def test_other_events_are_checked_while_suspended(event, options):
    lc = calibrating("I", **options)
    with lc.suspended("evaluation"), pytest.raises(IllegalEventError):
        lc.fire(event)
    assert lc.progress.rejected == 1


def test_unknown_events_are_refused_while_suspended():
    lc = training("I")
    with lc.suspended("evaluation"), pytest.raises(UnknownEventError):
        lc.fire("batch_begin")


def test_events_of_a_users_own_are_not_ignored_while_suspended():
    lc = fire(Lifecycle(SAVING), "I")
    with lc.suspended("evaluation"):
        lc.fire(Saving.CHECKPOINT, path="model")
    assert lc.state == "session.saved"


def test_suspensions_nest(options):
    lc = training("I", **options)
    with lc.suspended("evaluation"):
        with lc.suspended("sanity check"):
            lc.batch_start()
        lc.batch_start()
    lc.batch_start()
    assert (lc.progress.ignored, lc.progress.accepted) == (2, 2)


def test_an_exception_ends_the_suspension(options):
    lc = training("I", **options)
    with pytest.raises(RuntimeError), lc.suspended("evaluation"):
        raise RuntimeError
    lc.batch_start()
    assert (lc.state, lc.progress.ignored) == ("session.batch.started", 0)


def test_a_bracket_that_is_ignored_leaves_the_run_alone():
    lc = training("IBLP")
    with lc.suspended("evaluation"), lc.batch():
        lc.loss_calculated(loss=1)
    assert lc.state == "session.batch.step.pending"
    assert lc.progress.ignored == 3


def test_a_tap_that_raises_when_told_of_a_suspension_does_not_leave_the_run_suspended():
    class Full(Tap):
        def control(self, lifecycle, action, detail):
            raise OSError("disk full")

    lc = training("I")
    handle = lc.attach(Full())
    with pytest.raises(OSError, match="disk full"), lc.suspended("evaluation"):
        pass
    handle.remove()
    lc.batch_start()
    assert lc.state == "session.batch.started"


def test_a_suspension_survives_a_reset():
    lc = training("I")
    with lc.suspended("evaluation"):
        lc.reset()
        lc.batch_start()
        assert (lc.state, lc.progress.ignored) == ("created", 1)
    with pytest.raises(IllegalEventError):
        lc.batch_start()


# Abort, reset, status


@pytest.mark.parametrize(
    ("word", "status"), [("", "created"), ("I", "open"), ("IBL", "open"), ("IBLE", "open"), ("IF", "finalized")]
)
def test_the_status_says_how_far_a_run_is(word, status, options):
    assert training(word, **options).status == status


@pytest.mark.parametrize("event", EventType)
def test_after_abort_nothing_is_legal(event, options):
    lc = training("IB", **options)
    lc.abort(RuntimeError("out of memory"))
    assert (lc.status, lc.state, lc.allowed, lc.can(event)) == ("aborted", "session.batch.started", (), False)
    before = seen(lc)
    with pytest.raises(IllegalEventError) as caught:
        lc.fire(event, loss=1)
    assert (caught.value.allowed, caught.value.hint) == ((), "the run was aborted; reset() begins a new one")
    assert seen(lc) == before


@pytest.mark.parametrize("mode", ["warn", "record"])
def test_after_abort_an_event_is_refused_in_every_mode(mode):
    lc = training("IB", on_violation=mode)
    lc.abort()
    with pytest.raises(IllegalEventError, match="the run was aborted"):
        lc.loss_calculated(loss=1)
    assert lc.violations == ()


@pytest.mark.parametrize("word", ["", "IF"])
def test_abort_does_nothing_to_a_run_that_is_not_open(word):
    lc = training(word)
    before = seen(lc)
    lc.abort()
    assert seen(lc) == before


def test_a_run_that_inserted_events_began_is_open():
    lc = Lifecycle("training", on_violation="record")
    lc.batch_start()
    assert lc.status == "open"
    lc.abort()
    assert lc.status == "aborted"


def test_a_run_that_is_back_where_it_began_is_open():
    loop = protocols.TRAINING.extend("loop", transitions=[Transition(READY, "calibration_epoch_end", "created")])
    assert fire(Lifecycle(loop), "IK").status == "open"


def test_a_run_of_superfluous_events_has_not_begun():
    lc = Lifecycle("training", on_violation="record")
    lc.sequential_epoch_end()
    assert (lc.status, lc.state) == ("created", "created")


@pytest.mark.parametrize(
    ("word", "aborted", "outcome"),
    [
        ("", False, "created"),
        ("I", False, "abandoned"),
        ("IB", False, "abandoned"),
        ("IF", False, "finalized"),
        ("I", True, "aborted"),
        ("IF", True, "finalized"),
    ],
)
def test_reset_says_how_the_run_had_ended(word, aborted, outcome, options):
    lc = training(word, **options)
    if aborted:
        lc.abort()
    assert lc.reset() == outcome


@pytest.mark.parametrize("aborted", [False, True])
def test_reset_begins_a_new_run_and_keeps_configuration_and_observers(aborted, options):
    arguments = {"steps_per_epoch": 3, "batches_per_step": 2, "invocations_per_step": 2, "expect": {"steps": 0}}
    lc = Lifecycle("training", on_violation="record", **arguments, **options)
    live, progress = lc.event, lc.progress
    calls = []
    lc.on("initialize", lambda event, payload: calls.append(event.type_))
    fire(lc, "IBLPOPOEKB")
    with lc.suspended("evaluation"):
        lc.batch_end()
    if aborted:
        lc.abort()
    lc.reset()
    fresh = Lifecycle("training", on_violation="record", **arguments)
    assert seen(lc) == seen(fresh)
    assert (lc.progress, lc.expect, lc.on_violation) == (Progress(), {"steps": 0}, "record")
    assert lc.event is live
    assert lc.progress is progress
    fire(lc, "IBLPOPOEF")
    assert lc.violations[0].misses == {"steps": (0, 1)}
    assert calls == [EventType.INITIALIZE] * 2


# Expectations


@pytest.mark.parametrize(
    ("expect", "word", "end", "misses"),
    [
        ({"sequential_epochs": 2}, "ICS", "K", {"sequential_epochs": (2, 1)}),
        ({"batches": 0}, "ICBE", "K", {"batches": (0, 1)}),
        ({"batches": 3, "sequential_epochs": 0}, "ICBES", "K", {"batches": (3, 1), "sequential_epochs": (0, 1)}),
        ({"batches": 1, "sequential_epochs": 2}, "ICBES", "K", {"sequential_epochs": (2, 1)}),
        ({"calibration_epochs": 2}, "ICK", "F", {"calibration_epochs": (2, 1)}),
        ({"steps": 1}, "I", "F", {"steps": (1, 0)}),
        ({"steps": 0}, "IBLPOE", "F", {"steps": (0, 1)}),
        ({"batches": 2}, "IBLE", "F", {"batches": (2, 1)}),
        ({"sequential_epochs": 1}, "IBLE", "F", {"sequential_epochs": (1, 0)}),
        ({"calibration_epochs": 1}, "I", "F", {"calibration_epochs": (1, 0)}),
    ],
)
def test_a_missed_expectation_is_refused_with_what_was_missed(expect, word, end, misses, options):
    lc = calibrating(word, expect=expect, **options)
    before = seen(lc)
    with pytest.raises(ExpectationError) as caught:
        lc.fire(sequences.EVENT[end])
    assert caught.value.misses == misses
    assert seen(lc) == before
    assert lc.progress.rejected == 1


def test_the_error_of_a_missed_expectation_says_all():
    lc = calibrating("ICBES", expect={"sequential_epochs": 2, "batches": 3})
    with pytest.raises(ExpectationError) as caught:
        lc.calibration_epoch_end()
    assert str(caught.value) == (
        "CALIBRATION_EPOCH_END came in session.calibration.open before the counts were as expected\n"
        "  event 6, global_batch=1, global_step=1, sequential epoch 1\n"
        "  allowed here: BATCH_START, SEQUENTIAL_EPOCH_END, CALIBRATION_EPOCH_END\n"
        "  before it: BATCH_START, BATCH_END, SEQUENTIAL_EPOCH_END\n"
        "  hint: sequential_epochs: expected 2, counted 1; batches: expected 3, counted 1"
    )


@pytest.mark.parametrize(
    ("expect", "word"),
    [
        ({"sequential_epochs": 2, "batches": 2}, "ICBESBESKF"),
        ({"sequential_epochs": 1, "batches": 1}, "ICBESKCBESKF"),
        ({"sequential_epochs": 1, "batches": 1}, "ICBESKBLEBLEF"),
        ({"calibration_epochs": 2}, "ICKCKF"),
        ({"calibration_epochs": 0, "batches": 2, "steps": 1}, "IBLEBLPOEF"),
        ({"steps": 2}, "ICBEKBLPOEF"),
        ({"sequential_epochs": 0}, "IF"),
    ],
)
def test_counts_that_are_as_expected_pass(expect, word, options):
    assert calibrating(word, expect=expect, **options).status == "finalized"


def test_counts_of_an_epoch_are_those_of_every_epoch():
    lc = calibrating("ICSSKCS", expect={"sequential_epochs": 2})
    with pytest.raises(ExpectationError):
        lc.calibration_epoch_end()


def test_counts_of_the_run_are_not_checked_at_the_end_of_an_epoch():
    lc = calibrating("ICBEK", expect={"steps": 9, "calibration_epochs": 9})
    assert lc.state == READY


def test_an_end_that_was_refused_can_be_fired_again_once_the_count_is_right(options):
    lc = calibrating("ICS", expect={"sequential_epochs": 2, "calibration_epochs": 2}, **options)
    with pytest.raises(ExpectationError):
        lc.calibration_epoch_end()
    fire(lc, "SK")
    with pytest.raises(ExpectationError):
        lc.finalize()
    fire(lc, "CSSKF")
    assert (lc.status, lc.progress.rejected) == ("finalized", 2)


def test_an_end_out_of_order_is_illegal_whatever_was_expected():
    with pytest.raises(IllegalEventError) as caught:
        calibrating("ICB", expect={"batches": 9}).calibration_epoch_end()
    assert type(caught.value) is IllegalEventError


def test_expectations_of_a_protocol_without_such_events_are_checked_at_its_end():
    lc = training("IBLE", expect={"batches": 2})
    with pytest.raises(ExpectationError):
        lc.finalize()
    assert fire(lc, "BLEF").status == "finalized"


# Violations that are not raised


class Witness(Tap):
    """Keeps what it is told of rejected events."""

    def __init__(self):
        self.rejections = []

    def rejected(self, lifecycle, event, error):
        self.rejections.append((event, error))


def witnessed(word, mode="record", protocol="training", **options):
    """A lifecycle in which violations are let through, what its observers see, and what a tap is told."""
    lc = Lifecycle(protocol, on_violation=mode, **options)
    fire(lc, word)
    calls, witness = [], Witness()
    lc.on(EventType, lambda event, payload: calls.append((event.type_, payload)))
    lc.attach(witness)
    return lc, calls, witness


def test_a_legal_run_has_no_violations():
    assert training("IBLPOEF", on_violation="record").violations == ()


@pytest.mark.parametrize("spelling", ["batch_end", "BATCH_END"])
def test_an_event_before_which_others_are_missing_is_taken_as_if_they_had_come(spelling, options):
    lc, calls, witness = witnessed("IBLP", **options)
    assert lc.fire(spelling, note="late") is lc.event
    assert lc.state == READY
    assert (lc.event.global_batch, lc.event.global_step) == (1, 1)
    assert (lc.progress.accepted, lc.progress.rejected) == (5, 0)
    assert lc.history == tuple(sequences.events("IBLPE"))
    assert calls == [(EventType.BATCH_END, {"note": "late"})]
    (violation,) = lc.violations
    assert (violation.event, violation.state, violation.position) == (
        EventType.BATCH_END,
        "session.batch.step.pending",
        5,
    )
    assert violation.hint == "OPTIM_POST_STEP is missing before it"
    assert witness.rejections == [(spelling, violation)]


def test_an_event_that_is_superfluous_moves_nothing_and_is_still_delivered(options):
    lc, calls, witness = witnessed("IB", **options)
    assert lc.initialize(again=True) is lc.event
    assert lc.state == "session.batch.started"
    assert lc.event == Event(EventType.INITIALIZE)
    assert (lc.progress.accepted, lc.progress.rejected) == (2, 1)
    assert lc.history == tuple(sequences.events("IB"))
    assert calls == [(EventType.INITIALIZE, {"again": True})]
    assert witness.rejections == [("initialize", lc.violations[0])]


def test_an_event_that_the_protocol_lacks_is_superfluous():
    lc, calls, _ = witnessed("I")
    lc.sequential_epoch_end()
    assert (lc.state, lc.progress.total_sequential_epochs, lc.progress.rejected) == (READY, 0, 1)
    assert calls == [(EventType.SEQUENTIAL_EPOCH_END, {})]


@pytest.mark.parametrize("spelling", ["loss_calculated", "LOSS_CALCULATED"])
def test_an_event_without_its_payload_is_recorded_and_taken(spelling, options):
    lc, calls, witness = witnessed("IB", **options)
    lc.fire(spelling)
    assert lc.state == "session.batch.loss"
    assert (lc.progress.accepted, lc.progress.rejected) == (3, 0)
    assert calls == [(EventType.LOSS_CALCULATED, {})]
    assert [type(violation) for violation in lc.violations] == [MissingPayloadError]
    assert witness.rejections == [(spelling, lc.violations[0])]


def test_a_missed_expectation_is_recorded_and_the_end_is_taken(options):
    lc, calls, _ = witnessed("ICS", protocol="compression", expect={"sequential_epochs": 2, "steps": 1}, **options)
    lc.calibration_epoch_end()
    lc.finalize()
    assert lc.status == "finalized"
    assert [violation.misses for violation in lc.violations] == [{"sequential_epochs": (2, 1)}, {"steps": (1, 0)}]
    assert [event for event, _ in calls] == sequences.events("KF")


def test_an_expectation_that_inserted_events_miss_is_not_a_second_violation():
    lc = calibrating("IC", on_violation="record", expect={"sequential_epochs": 2})
    lc.finalize()
    assert [type(violation) for violation in lc.violations] == [IllegalEventError]


@pytest.mark.parametrize("event", ["batch_begin", None])
def test_what_is_no_event_is_refused_in_every_mode(event):
    lc, calls, witness = witnessed("I")
    before = seen(lc)
    with pytest.raises((UnknownEventError, TypeError)) as caught:
        lc.fire(event)
    assert (seen(lc), lc.progress.rejected) == (before, 1)
    assert calls == []
    assert witness.rejections == [(event, caught.value)]


def test_a_run_that_is_recorded_goes_on_as_it_should():
    lc = training("IBLPO", on_violation="record")
    fire(lc, "BLPOEF")
    assert (lc.status, lc.event.global_batch, lc.event.global_step) == ("finalized", 2, 2)
    assert len(lc.violations) == 1


def test_a_second_violation_can_change_the_explanation_of_the_first():
    # The end of the run is believed until the next event shows that it was itself the mistake.
    lc = calibrating("ICSF", on_violation="record")
    assert lc.status == "finalized"
    fire(lc, "S")
    assert lc.state == "session.calibration.open"
    fire(lc, "SKF")
    assert lc.status == "finalized"
    assert [violation.event for violation in lc.violations] == sequences.events("FS")


def test_a_dropped_start_of_an_epoch_counts_no_batch_that_never_was():
    lc = calibrating("IBEBEKF", on_violation="record")
    assert lc.event.global_batch == 2


def test_an_epoch_that_is_not_open_any_more_counts_no_steps():
    # Late, INITIALIZE shows that the epoch before it was the mistake.
    lc = calibrating("CI", on_violation="record")
    assert lc.state == READY
    assert not lc.progress.calibrating
    assert fire(lc, "BLE").event.global_step == 0


def test_an_update_that_needs_a_payload_is_no_obstacle_to_a_repair():
    lc = fire(Lifecycle(SAVING, on_violation="record"), "I")
    lc.fire("checkpoint", path="model")
    lc.batch_start()
    assert (lc.state, lc.progress.accepted) == ("session.batch.started", 3)


def test_a_repair_that_fails_leaves_the_run_as_it_was():
    def apply(event, progress, payload):
        raise RuntimeError("counted in vain")

    failing = protocols.TRAINING.extend(
        "failing", transitions=[Transition(READY, "sequential_epoch_end", READY, update=Update("", apply))]
    )
    lc = fire(Lifecycle(failing, on_violation="record"), "IBLP")
    before = lc.state_dict()
    with pytest.raises(RuntimeError, match="counted in vain"):
        lc.sequential_epoch_end()
    assert lc.state_dict() == before


def test_the_last_thousand_violations_are_kept():
    lc = training("I", on_violation="record")
    for _ in range(1001):
        lc.initialize()
    assert len(lc.violations) == 1000
    assert (lc.violations[0].position, lc.violations[-1].position) == (3, 1002)


def test_reset_forgets_violations():
    lc = training("IE", on_violation="record")
    lc.reset()
    assert lc.violations == ()


def test_warn_warns_and_does_what_record_does():
    lc, calls, witness = witnessed("IBLP", mode="warn")
    with pytest.warns(LifecycleWarning) as caught:
        lc.batch_end()
    assert [str(warning.message) for warning in caught] == [str(lc.violations[0])]
    recorded, recorded_calls, _ = witnessed("IBLP")
    recorded.batch_end()
    assert lc.state_dict() == recorded.state_dict()
    assert calls == recorded_calls
    assert witness.rejections == [("batch_end", lc.violations[0])]


def test_record_does_not_warn():
    lc = training("I", on_violation="record")
    with warnings.catch_warnings(record=True) as caught:
        lc.batch_end()
    assert caught == []


@pytest.mark.parametrize(
    "act",
    [
        lambda lc: lc.fire("batch_end"),
        lambda lc: lc.fire("BATCH_END"),
        lambda lc: lc.batch_end(),
        lambda lc: lc.batch().__enter__(),
    ],
    ids=["fire", "fire by name", "method", "bracket"],
)
def test_a_warning_points_at_the_line_that_fired(act):
    lc = Lifecycle("training", on_violation="warn")
    with pytest.warns(LifecycleWarning) as caught:
        act(lc)
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, act.__code__.co_firstlineno)]


def test_a_warning_that_is_made_an_error_leaves_the_run_as_it_was():
    lc = training("I", on_violation="warn")
    before = seen(lc)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LifecycleWarning):
            lc.batch_end()
    assert seen(lc) == before


def test_in_warn_mode_a_legal_run_does_not_warn():
    assert training("IBLPOEF", on_violation="warn").violations == ()


# The fast path


def evaluate(lifecycle):
    with lifecycle.suspended("evaluation"):
        lifecycle.batch_start()


def be_refused(lifecycle):
    with pytest.raises(IllegalEventError):
        lifecycle.batch_end()


def abort_and_begin_again(lifecycle):
    lifecycle.abort()
    lifecycle.reset()


def abort_and_load(lifecycle):
    saved = lifecycle.state_dict()
    lifecycle.abort()
    lifecycle.load_state_dict(saved)


def be_observed(lifecycle):
    lifecycle.on("batch_start", lambda event, payload: evaluate(lifecycle))
    lifecycle.attach(Tap())
    lifecycle.batch_start()


@pytest.mark.parametrize("act", [evaluate, be_refused, abort_and_begin_again, abort_and_load, be_observed])
def test_nothing_keeps_the_fast_path_closed_when_it_is_over(act):
    lc = training("I")
    act(lc)
    assert lc._row is lc.protocol.rows[lc.state]
