"""Saving a run as plain data, and going on from it; whatever is wrong with it, nothing changes."""

from __future__ import annotations

import copy
import enum
import json
from collections import UserDict
from types import MappingProxyType

import pytest
import sequences
from hypothesis import given
from hypothesis import strategies as st
from runs import fire, seen, unhurried

from lifecycle import EventType, Lifecycle, LifecycleError, Protocol, Transition, UnknownEventError
from lifecycle.engine.saved import COUNTERS, check_saved

WORD = "ICBLESBES"
SIZES = {"steps_per_epoch": 4, "batches_per_step": 2}


def calibrating(word=WORD, **options):
    return fire(Lifecycle(**SIZES, **options), word)


def in_json(lifecycle):
    return json.loads(json.dumps(lifecycle.state_dict()))


def test_a_saved_run_is_plain_data():
    assert calibrating("ICBLES").state_dict() == {
        "version": 1,
        "protocol": "compression",
        "state": "session.calibration.open",
        "aborted": False,
        "event": {
            "type_": "sequential_epoch_end",
            "steps_per_epoch": 4,
            "batches_per_step": 2,
            "invocations_per_step": 1,
            "global_step": 0,
            "global_batch": 1,
        },
        "progress": {
            "accepted": 6,
            "rejected": 0,
            "ignored": 0,
            "calibration_epochs": 0,
            "sequential_epochs": 1,
            "total_sequential_epochs": 1,
            "batches": 1,
            "batches_without_optimizer": 1,
            "invocations": 0,
            "calibrating": True,
            "optimizer_called": False,
        },
        "history": [
            "initialize",
            "calibration_epoch_start",
            "batch_start",
            "loss_calculated",
            "batch_end",
            "sequential_epoch_end",
        ],
    }


def test_saved_values_are_of_plain_types():
    saved = calibrating().state_dict()
    flat = [*saved.values(), *saved["event"].values(), *saved["progress"].values(), *saved["history"]]
    assert {type(value) for value in flat} == {dict, list, str, int, bool}


def test_a_run_that_has_not_begun_can_be_saved():
    saved = in_json(Lifecycle())
    assert (saved["state"], saved["event"]["type_"], saved["history"]) == ("created", None, [])
    lc = fire(Lifecycle(), "IC")
    lc.load_state_dict(saved)
    assert seen(lc) == seen(Lifecycle())


def test_a_saved_run_does_not_follow_the_run():
    lc = calibrating("IC")
    saved = lc.state_dict()
    before = copy.deepcopy(saved)
    fire(lc, "BES")
    assert saved == before


def test_a_loaded_run_is_independent_of_what_it_was_loaded_from():
    saved = in_json(calibrating("IC"))
    lc = Lifecycle(**SIZES)
    lc.load_state_dict(saved)
    saved["history"].append("finalize")
    saved["progress"]["accepted"] = 9
    saved["event"]["global_step"] = 9
    assert lc.state_dict() == calibrating("IC").state_dict()


@pytest.mark.parametrize("options", [{}, {"thread_safe": True}, {"on_violation": "record"}])
def test_a_loaded_run_goes_on_where_it_was_saved(options):
    lc = Lifecycle(**SIZES, **options)
    lc.load_state_dict(in_json(calibrating()))
    assert seen(lc) == seen(calibrating())
    fire(lc, "BEKBLPOEF")
    assert lc.state_dict() == calibrating(f"{WORD}BEKBLPOEF").state_dict()


def test_the_last_event_is_loaded_as_its_member():
    lc = Lifecycle(**SIZES)
    lc.load_state_dict(in_json(calibrating()))
    assert lc.event.type_ is EventType.SEQUENTIAL_EPOCH_END
    assert lc.history == tuple(sequences.events(WORD))


def test_loading_keeps_the_live_event_and_the_progress():
    lc = Lifecycle(**SIZES)
    live, progress = lc.event, lc.progress
    lc.load_state_dict(in_json(calibrating()))
    assert lc.event is live
    assert lc.progress is progress


def test_loading_replaces_a_run_under_way():
    lc = calibrating("IBLPOEF")
    lc.load_state_dict(in_json(calibrating()))
    assert seen(lc) == seen(calibrating())


def test_loading_tells_no_observer():
    lc = Lifecycle(**SIZES)
    calls = []
    lc.on(EventType, lambda event, payload: calls.append(event.type_))
    lc.load_state_dict(in_json(calibrating()))
    assert calls == []
    fire(lc, "K")
    assert calls == [EventType.CALIBRATION_EPOCH_END]


def test_loading_keeps_what_is_expected():
    lc = Lifecycle(expect={"sequential_epochs": 3}, **SIZES)
    lc.load_state_dict(in_json(calibrating()))
    with pytest.raises(LifecycleError, match="sequential_epochs: expected 3, counted 2"):
        lc.calibration_epoch_end()


def test_an_aborted_run_is_loaded_as_aborted():
    aborted = calibrating()
    aborted.abort()
    lc = Lifecycle(**SIZES)
    lc.load_state_dict(in_json(aborted))
    assert (lc.status, lc.state, lc.allowed) == ("aborted", "session.calibration.open", ())
    with pytest.raises(LifecycleError, match="the run was aborted"):
        lc.batch_start()
    assert lc.reset() == "aborted"
    assert lc.initialize().type_ is EventType.INITIALIZE


def test_an_aborted_run_is_replaced_by_an_open_one():
    lc = calibrating("I")
    lc.abort()
    lc.load_state_dict(in_json(calibrating()))
    assert lc.status == "open"
    assert fire(lc, "KF").status == "finalized"


def test_an_aborted_run_is_replaced_by_an_aborted_one():
    lc, aborted = calibrating("I"), calibrating()
    lc.abort()
    aborted.abort()
    lc.load_state_dict(in_json(aborted))
    assert (lc.status, lc.state) == ("aborted", "session.calibration.open")
    lc.reset()
    assert fire(lc, "IF").status == "finalized"


def test_a_suspension_is_not_saved_and_outlasts_loading():
    other = calibrating("I")
    with other.suspended("evaluation"):
        saved = in_json(other)
    lc = Lifecycle(**SIZES)
    with lc.suspended("evaluation"):
        lc.load_state_dict(saved)
        fire(lc, "B")
        assert (lc.state, lc.progress.ignored) == ("session.ready", 1)
    assert fire(lc, "B").state == "session.batch.started"


def test_violations_are_not_saved_and_go_when_a_run_is_loaded():
    lc = calibrating("IE", on_violation="record")
    saved = in_json(lc)
    lc.load_state_dict(saved)
    assert lc.violations == ()
    assert in_json(lc) == saved
    assert fire(lc, "F").status == "finalized"


@pytest.mark.parametrize("invocations", [1, 2])
def test_the_invocations_of_an_unfinished_step_are_saved(invocations):
    lc = fire(Lifecycle("training", invocations_per_step=2), "IBL" + "PO" * invocations)
    other = Lifecycle("training", invocations_per_step=2)
    other.load_state_dict(in_json(lc))
    fire(other, "PO")
    assert (other.event.global_step, other.progress.invocations) == divmod(invocations + 1, 2)


def test_events_of_a_users_own_are_saved_and_loaded():
    class Own(str, enum.Enum):
        CHECKPOINT = "checkpoint"

    own = Protocol("own", ["a", "b"], [Transition("a", Own.CHECKPOINT, "b")], "a", ["b"], [Own])
    lc, other = Lifecycle(own), Lifecycle(own)
    lc.fire(Own.CHECKPOINT)
    other.load_state_dict(in_json(lc))
    assert other.event.type_ is Own.CHECKPOINT
    assert other.history == (Own.CHECKPOINT,)


@pytest.mark.parametrize("make", [UserDict, MappingProxyType])
def test_any_mapping_can_be_loaded(make):
    saved = in_json(calibrating())
    lc = Lifecycle(**SIZES)
    lc.load_state_dict(make({**saved, "event": make(saved["event"]), "progress": make(saved["progress"])}))
    assert seen(lc) == seen(calibrating())


def test_a_run_that_was_saved_after_its_beginning_is_open_though_it_says_that_no_event_was_accepted():
    lc = Lifecycle(**SIZES)
    lc.load_state_dict(changed("progress", "accepted", to=0))
    assert lc.status == "open"


# What is wrong


def changed(*path, **to):
    """A saved run in which one place is changed, or removed."""
    saved = in_json(calibrating())
    place = saved
    for name in path[:-1]:
        place = place[name]
    if to:
        place[path[-1]] = to["to"]
    else:
        del place[path[-1]]
    return saved


FAULTS = [
    (None, TypeError, "state must be a mapping, got None"),
    ([], TypeError, r"state must be a mapping, got \[\]"),
    ("{}", TypeError, "state must be a mapping, got '{}'"),
    ({}, LifecycleError, "the saved state lacks aborted, event, history, progress, protocol, state, version"),
    (changed("history"), LifecycleError, "the saved state lacks history"),
    (changed("extra", to=1), LifecycleError, "the saved state has unknown 'extra'"),
    (changed(3, to=1), LifecycleError, "the saved state has unknown 3"),
    (changed("version", to=2), LifecycleError, "the saved run has version=2, this lifecycle has 1"),
    (changed("version", to=True), LifecycleError, "the saved run has version=True, this lifecycle has 1"),
    (changed("version", to=1.0), LifecycleError, "the saved run has version=1.0, this lifecycle has 1"),
    (changed("version", to=None), LifecycleError, "the saved run has version=None, this lifecycle has 1"),
    (changed("protocol", to="training"), LifecycleError, "protocol='training', this lifecycle has 'compression'"),
    (changed("protocol", to=None), LifecycleError, "protocol=None, this lifecycle has 'compression'"),
    (changed("state", to="session"), LifecycleError, "'session', which protocol 'compression' does not have"),
    (changed("state", to=None), LifecycleError, "None, which protocol 'compression' does not have"),
    (changed("state", to=[]), LifecycleError, r"\[\], which protocol 'compression' does not have"),
    (changed("aborted", to=None), TypeError, "aborted must be true or false, got None"),
    (changed("aborted", to=0), TypeError, "aborted must be true or false, got 0"),
    (changed("event", to=None), TypeError, "event must be a mapping, got None"),
    (changed("event", to=[]), TypeError, r"event must be a mapping, got \[\]"),
    (changed("event", "type_"), LifecycleError, "the saved event lacks type_"),
    (changed("event", "epoch", to=1), LifecycleError, "the saved event has unknown 'epoch'"),
    (changed("event", "type_", to="batch_begin"), UnknownEventError, "'batch_begin' is not an event"),
    (changed("event", "type_", to=3), TypeError, "an event must be an EventType or a string, got 3"),
    (changed("event", "type_", to=[]), TypeError, r"an event must be an EventType or a string, got \[\]"),
    (changed("event", "steps_per_epoch", to=5), LifecycleError, "steps_per_epoch=5, this lifecycle has 4"),
    (changed("event", "batches_per_step", to=None), LifecycleError, "batches_per_step=None, this lifecycle has 2"),
    (changed("event", "invocations_per_step", to=True), LifecycleError, "invocations_per_step=True"),
    (changed("event", "global_step", to=-1), LifecycleError, "global_step must be at least 0, got -1"),
    (changed("event", "global_step", to=1.0), TypeError, "global_step must be an int, got 1.0"),
    (changed("event", "global_batch", to=-1), LifecycleError, "global_batch must be at least 0, got -1"),
    (changed("event", "global_batch", to="3"), TypeError, "global_batch must be an int, got '3'"),
    (changed("event", "global_batch", to=True), TypeError, "global_batch must be an int, got True"),
    (changed("progress", to=3), TypeError, "progress must be a mapping, got 3"),
    (changed("progress", "batches"), LifecycleError, "the saved progress lacks batches"),
    (changed("progress", "layers", to=1), LifecycleError, "the saved progress has unknown 'layers'"),
    (changed("progress", "accepted", to=-1), LifecycleError, "accepted must be at least 0, got -1"),
    (changed("progress", "accepted", to=None), TypeError, "accepted must be an int, got None"),
    (changed("progress", "rejected", to=False), TypeError, "rejected must be an int, got False"),
    (changed("progress", "calibrating", to=1), TypeError, "calibrating must be true or false, got 1"),
    (changed("history", to="initialize"), TypeError, "history must be a list, got 'initialize'"),
    (changed("history", to=None), TypeError, "history must be a list, got None"),
    (changed("history", to={}), TypeError, "history must be a list, got {}"),
    (changed("history", 0, to="batch_begin"), UnknownEventError, "'batch_begin' is not an event"),
    (changed("history", 0, to=None), TypeError, "an event must be an EventType or a string, got None"),
    (changed("history", to=["initialize"] * 17), LifecycleError, "history has 17 events, and 16 is the most"),
]


@pytest.mark.parametrize("options", [{}, {"thread_safe": True}, {"on_violation": "record"}])
@pytest.mark.parametrize(("saved", "error", "message"), FAULTS)
def test_a_saved_run_with_a_fault_is_refused_and_changes_nothing(saved, error, message, options):
    lc = fire(Lifecycle(**SIZES, **options), "IBL")
    before = lc.state_dict()
    with pytest.raises(error, match=message):
        lc.load_state_dict(saved)
    assert lc.state_dict() == before
    assert fire(lc, "EF").status == "finalized"


def test_a_fault_changes_nothing_in_an_aborted_run():
    lc = calibrating()
    lc.abort()
    before = seen(lc)
    with pytest.raises(LifecycleError):
        lc.load_state_dict({})
    assert seen(lc) == before


def test_a_run_of_another_version_is_refused_as_such_whatever_else_it_has():
    saved = {**in_json(calibrating()), "version": 2, "extra": 1}
    with pytest.raises(LifecycleError, match="the saved run has version=2, this lifecycle has 1"):
        Lifecycle(**SIZES).load_state_dict(saved)


def test_a_run_of_another_protocol_is_refused_as_such():
    saved = fire(Lifecycle("sequential"), "I").state_dict()
    with pytest.raises(LifecycleError, match="protocol='sequential', this lifecycle has 'basic'"):
        Lifecycle("basic").load_state_dict(saved)


def test_a_run_whose_steps_repeat_is_not_one_whose_steps_do_not():
    saved = Lifecycle("training", invocations_per_step=2).state_dict()
    with pytest.raises(LifecycleError):
        Lifecycle("training").load_state_dict(saved)


def test_sixteen_events_of_history_are_loaded():
    lc = Lifecycle(**SIZES)
    saved = in_json(calibrating("I" + "BLE" * 9))
    assert len(saved["history"]) == 16
    lc.load_state_dict(saved)
    assert lc.history == tuple(sequences.events("BLE" * 9))[-16:]


def test_a_checked_run_has_members_and_copies():
    lc = calibrating("ICS")
    saved = in_json(lc)
    run = check_saved(saved, lc.state_dict(), lc.protocol)
    assert run.state == "session.calibration.open"
    assert run.aborted is False
    assert run.type_ is EventType.SEQUENTIAL_EPOCH_END
    assert run.counters == {"global_step": 0, "global_batch": 0} == {name: saved["event"][name] for name in COUNTERS}
    assert run.progress == saved["progress"]
    assert run.progress is not saved["progress"]
    assert run.history == sequences.events("ICS")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 20) | st.floats() | st.text(max_size=5) | st.sampled_from(EventType),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
PLACES = [
    *((name,) for name in in_json(calibrating())),
    *(("event", name) for name in in_json(calibrating())["event"]),
    *(("progress", name) for name in in_json(calibrating())["progress"]),
    *(("history", index) for index in range(3)),
]


@unhurried
@given(place=st.sampled_from(PLACES), value=plain)
def test_a_change_at_any_place_is_loaded_as_it_is_or_refused_and_changes_nothing(place, value):
    saved = changed(*place, to=value)
    lc = fire(Lifecycle(**SIZES), "IBL")
    before = seen(lc)
    try:
        lc.load_state_dict(saved)
    except (LifecycleError, TypeError):
        assert seen(lc) == before
    else:
        assert in_json(lc) == json.loads(json.dumps(saved))
