import copy
import math
import pickle
from collections import OrderedDict
from dataclasses import FrozenInstanceError, asdict
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle import (
    Event,
    EventType,
    ExpectationError,
    Guard,
    IllegalEventError,
    Lifecycle,
    MissingPayloadError,
    Progress,
    Protocol,
    Transition,
    Update,
)
from lifecycle.protocol.rules import GUARDS, UPDATES, check_expect

RULES = [*GUARDS.values(), *UPDATES.values()]
CONTEXT = {
    "event": EventType.FINALIZE,
    "state": "session.ready",
    "allowed": (EventType.FINALIZE,),
    "position": 3,
    "history": (EventType.INITIALIZE,),
    "counters": {"global_batch": 0, "global_step": 0, "sequential_epochs": 0},
}


class Counted:
    """What guards look at."""

    def __init__(self, expect=(), *, steps=0, **progress):
        self.event = Event(global_step=steps)
        self.progress = Progress(**progress)
        self.expect = dict(expect)


class Tensor:
    """A value that has no truth and compares with nothing."""

    __hash__ = None

    def __repr__(self):
        return "a tensor"

    def __bool__(self):
        raise RuntimeError("more than one value")

    def __eq__(self, other):
        raise RuntimeError("more than one value")


def holds(event, counted, **payload):
    return GUARDS[event].check(counted, payload)


def refusal(event, counted):
    guard = GUARDS[event]
    return guard.error(guard, counted, **CONTEXT)


def counted(event_type, event=None, progress=None, **payload):
    """What an update changes, of the event and the progress."""
    event, progress = event or Event(), progress or Progress()
    before = {**asdict(event), **asdict(progress)}
    UPDATES[event_type].apply(event, progress, payload)
    after = {**asdict(event), **asdict(progress)}
    return {name: value for name, value in after.items() if value != before[name]}


# Progress


def test_all_progress_begins_at_zero():
    assert asdict(Progress()) == {
        "accepted": 0,
        "rejected": 0,
        "ignored": 0,
        "calibration_epochs": 0,
        "sequential_epochs": 0,
        "total_sequential_epochs": 0,
        "batches": 0,
        "batches_without_optimizer": 0,
        "invocations": 0,
        "calibrating": False,
        "optimizer_called": False,
    }


# Guards and updates as values


def test_the_events_that_have_a_guard_are_these():
    assert {event: guard.name for event, guard in GUARDS.items()} == {
        EventType.LOSS_CALCULATED: "loss given",
        EventType.CALIBRATION_EPOCH_END: "counts as expected",
        EventType.FINALIZE: "counts as expected",
    }


def test_the_events_that_have_an_update_are_these():
    assert {event: update.text for event, update in UPDATES.items()} == {
        EventType.CALIBRATION_EPOCH_START: "sequential_epochs = 0",
        EventType.OPTIM_PRE_STEP: "",
        EventType.OPTIM_POST_STEP: "global_step += 1",
        EventType.BATCH_END: "global_batch += 1",
        EventType.SEQUENTIAL_EPOCH_END: "sequential_epochs += 1",
        EventType.CALIBRATION_EPOCH_END: "calibration_epochs += 1",
    }


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, *(lambda rule, n=n: pickle.loads(pickle.dumps(rule, n)) for n in range(2, 6))],  # noqa: S301 # made here
    ids=["deepcopy", *(f"pickle {n}" for n in range(2, 6))],
)
@pytest.mark.parametrize("rule", RULES, ids=[getattr(rule, "name", None) or rule.text for rule in RULES])
def test_a_copied_rule_is_equal(rule, duplicate):
    assert duplicate(rule) == rule


@pytest.mark.parametrize(("rule", "name"), [(Guard("x", holds), "name"), (Update("x", counted), "text")])
def test_a_rule_is_frozen(rule, name):
    with pytest.raises(FrozenInstanceError):
        setattr(rule, name, "y")


def test_a_guard_without_an_error_of_its_own_says_its_name():
    guard = Guard("path given", lambda lifecycle, payload: "path" in payload)
    error = guard.error(guard, Counted(), **CONTEXT)
    assert type(error) is IllegalEventError
    assert error.hint == "its guard [path given] does not hold"
    assert error.state == "session.ready"


def test_a_guard_is_asked_with_the_lifecycle_and_the_payload():
    asked = []
    guard = Guard("asks", lambda lifecycle, payload: asked.append((lifecycle, payload)) or True)
    protocol = Protocol("one", ["a", "b"], [Transition("a", "initialize", "b", guard)], "a", ["b"])
    lifecycle = Lifecycle(protocol)
    lifecycle.initialize(model=3)
    assert asked == [(lifecycle, {"model": 3})]


def test_an_update_is_given_the_live_event_the_progress_and_the_payload():
    given = []
    update = Update("", lambda *arguments: given.append(arguments))
    protocol = Protocol("one", ["a", "b"], [Transition("a", "initialize", "b", update=update)], "a", ["b"])
    lifecycle = Lifecycle(protocol)
    lifecycle.initialize(model=3)
    assert given == [(lifecycle.event, lifecycle.progress, {"model": 3})]
    assert given[0][0] is lifecycle.event


# The loss


@pytest.mark.parametrize("payload", [{}, {"loss": None}, {"losses": 1}])
def test_a_loss_that_is_missing_or_none_is_refused(payload):
    assert not holds(EventType.LOSS_CALCULATED, Counted(), **payload)


@pytest.mark.parametrize("loss", [0, 0.0, -1.0, math.nan, math.inf, False, "", [], Tensor()], ids=repr)
def test_a_loss_of_any_value_passes(loss):
    assert holds(EventType.LOSS_CALCULATED, Counted(), loss=loss)


def test_the_refusal_of_a_loss_says_what_to_pass():
    error = refusal(EventType.LOSS_CALCULATED, Counted())
    assert type(error) is MissingPayloadError
    assert error.hint == "pass loss=..., and not None"


# Expected counts


@pytest.mark.parametrize("event", [EventType.CALIBRATION_EPOCH_END, EventType.FINALIZE])
def test_nothing_expected_is_never_missed(event):
    assert holds(event, Counted(steps=3, batches=4, sequential_epochs=5, calibration_epochs=6))


@pytest.mark.parametrize(("count", "passes"), [(3, False), (4, True), (5, False)])
@pytest.mark.parametrize("name", ["batches", "sequential_epochs"])
def test_the_counts_of_a_calibration_epoch_are_due_at_its_end(name, count, passes):
    assert holds(EventType.CALIBRATION_EPOCH_END, Counted({name: 4}, **{name: count})) == passes


@pytest.mark.parametrize("name", ["steps", "calibration_epochs"])
def test_the_counts_of_the_run_are_not_due_at_the_end_of_a_calibration_epoch(name):
    assert holds(EventType.CALIBRATION_EPOCH_END, Counted({name: 4}, calibration_epochs=1, steps=1))


@pytest.mark.parametrize(("count", "passes"), [(3, False), (4, True), (5, False)])
@pytest.mark.parametrize("name", ["steps", "calibration_epochs"])
def test_the_counts_of_the_run_are_due_at_its_end(name, count, passes):
    assert holds(EventType.FINALIZE, Counted({name: 4}, **{name: count})) == passes


@pytest.mark.parametrize(("count", "passes"), [(3, False), (4, True), (5, False)])
@pytest.mark.parametrize("name", ["batches", "sequential_epochs"])
def test_the_counts_of_an_epoch_are_due_at_the_end_of_a_run_without_one(name, count, passes):
    assert holds(EventType.FINALIZE, Counted({name: 4}, **{name: count})) == passes


@pytest.mark.parametrize("name", ["batches", "sequential_epochs"])
def test_the_counts_of_an_epoch_are_not_due_again_at_the_end_of_a_run_with_one(name):
    assert holds(EventType.FINALIZE, Counted({name: 4}, calibration_epochs=1, **{name: 9}))


def test_zero_can_be_expected():
    assert holds(EventType.FINALIZE, Counted({"steps": 0}))
    assert not holds(EventType.FINALIZE, Counted({"steps": 0}, steps=1))


def test_one_miss_of_several_counts_is_a_miss():
    assert not holds(EventType.CALIBRATION_EPOCH_END, Counted({"batches": 4, "sequential_epochs": 2}, batches=4))


def test_the_refusal_of_a_calibration_epoch_names_every_count_of_it_that_is_off():
    expect = {"steps": 9, "sequential_epochs": 2, "batches": 4}
    error = refusal(EventType.CALIBRATION_EPOCH_END, Counted(expect, batches=3, sequential_epochs=1))
    assert type(error) is ExpectationError
    assert error.misses == {"sequential_epochs": (2, 1), "batches": (4, 3)}
    assert error.hint == "sequential_epochs: expected 2, counted 1; batches: expected 4, counted 3"


def test_the_refusal_of_a_run_names_every_count_of_it_that_is_off_and_no_other():
    expect = {"calibration_epochs": 2, "batches": 4, "steps": 9}
    error = refusal(EventType.FINALIZE, Counted(expect, calibration_epochs=2, batches=3, steps=8))
    assert error.misses == {"steps": (9, 8)}
    assert error.hint == "steps: expected 9, counted 8"


def test_the_refusal_of_a_run_without_epochs_names_the_counts_of_an_epoch_too():
    error = refusal(EventType.FINALIZE, Counted({"batches": 4, "steps": 9, "calibration_epochs": 0}, batches=3))
    assert error.misses == {"batches": (4, 3), "steps": (9, 0)}


@pytest.mark.parametrize("kind", [dict, OrderedDict, MappingProxyType])
def test_expected_counts_are_copied(kind):
    given = kind({"sequential_epochs": 33, "batches": 512, "calibration_epochs": 1, "steps": 0})
    kept = check_expect(given)
    assert type(kept) is dict
    assert kept == {"sequential_epochs": 33, "batches": 512, "calibration_epochs": 1, "steps": 0}
    assert kept is not given


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("batch", "did you mean 'batches'?"),
        ("sequential_epoch", "did you mean 'sequential_epochs'?"),
        ("layers", "known: 'sequential_epochs', 'batches', 'calibration_epochs', 'steps'"),
        (3, "known: 'sequential_epochs', 'batches', 'calibration_epochs', 'steps'"),
    ],
)
def test_an_unknown_count_cannot_be_expected(name, said):
    with pytest.raises(ValueError, match="is not a count") as caught:
        check_expect({name: 1})
    assert str(caught.value) == f"expect: {name!r} is not a count; {said}"


def test_a_negative_count_cannot_be_expected():
    with pytest.raises(ValueError, match="must be at least") as caught:
        check_expect({"batches": -1})
    assert str(caught.value) == "expect['batches'] must be at least 0, got -1"


@pytest.mark.parametrize("count", [True, 1.0, math.nan, "1", None])
def test_a_count_that_is_no_integer_cannot_be_expected(count):
    with pytest.raises(TypeError) as caught:
        check_expect({"batches": count})
    assert str(caught.value) == f"expect['batches'] must be an int, got {count!r}"


@pytest.mark.parametrize("expect", [None, [("batches", 1)], "batches", 3])
def test_expected_counts_must_be_a_mapping(expect):
    with pytest.raises(TypeError) as caught:
        check_expect(expect)
    assert str(caught.value) == f"expect must be a mapping of counts, got {expect!r}"


# Updates


def test_a_calibration_epoch_begins_its_counts_anew():
    progress = Progress(
        calibration_epochs=1,
        sequential_epochs=2,
        total_sequential_epochs=3,
        batches=4,
        batches_without_optimizer=5,
        invocations=6,
    )
    assert counted(EventType.CALIBRATION_EPOCH_START, Event(global_step=7, global_batch=8), progress) == {
        "sequential_epochs": 0,
        "batches": 0,
        "batches_without_optimizer": 0,
        "calibrating": True,
    }


def test_the_end_of_a_layer_counts_in_the_epoch_and_in_all():
    progress = Progress(sequential_epochs=2, total_sequential_epochs=5)
    assert counted(EventType.SEQUENTIAL_EPOCH_END, progress=progress) == {
        "sequential_epochs": 3,
        "total_sequential_epochs": 6,
    }


def test_the_end_of_a_calibration_epoch_counts_it_and_keeps_the_counts_of_it():
    progress = Progress(calibration_epochs=1, sequential_epochs=2, batches=3, calibrating=True)
    assert counted(EventType.CALIBRATION_EPOCH_END, progress=progress) == {
        "calibration_epochs": 2,
        "calibrating": False,
    }


def test_the_begin_of_a_step_counts_nothing_but_is_noted():
    assert counted(EventType.OPTIM_PRE_STEP) == {"optimizer_called": True}


def test_a_step_counts_and_ends_the_count_of_batches_without_one():
    progress = Progress(batches_without_optimizer=3, optimizer_called=True)
    assert counted(EventType.OPTIM_POST_STEP, progress=progress) == {"global_step": 1, "batches_without_optimizer": 0}


def test_an_optimizer_call_without_a_begin_is_noted():
    assert counted(EventType.OPTIM_POST_STEP) == {"global_step": 1, "optimizer_called": True}


def test_a_step_of_several_calls_counts_at_the_last_of_them():
    event, progress = Event(invocations_per_step=3), Progress(batches_without_optimizer=2, optimizer_called=True)
    assert [counted(EventType.OPTIM_POST_STEP, event, progress) for _ in range(4)] == [
        {"invocations": 1},
        {"invocations": 2},
        {"global_step": 1, "invocations": 0, "batches_without_optimizer": 0},
        {"invocations": 1},
    ]


@pytest.mark.parametrize("skipped", [True, 1, "yes"])
def test_a_skipped_step_counts_no_step_and_no_invocation(skipped):
    event, progress = Event(invocations_per_step=2), Progress(invocations=1, batches_without_optimizer=3)
    assert counted(EventType.OPTIM_POST_STEP, event, progress, skipped=skipped) == {"optimizer_called": True}


@pytest.mark.parametrize("skipped", [False, 0, None])
def test_a_step_that_was_not_skipped_counts(skipped):
    progress = Progress(optimizer_called=True)
    assert counted(EventType.OPTIM_POST_STEP, progress=progress, skipped=skipped) == {"global_step": 1}


def test_a_skip_that_has_no_truth_leaves_nothing_behind():
    event, progress = Event(), Progress()
    with pytest.raises(RuntimeError, match="more than one value"):
        UPDATES[EventType.OPTIM_POST_STEP].apply(event, progress, {"skipped": Tensor()})
    assert (event, progress) == (Event(), Progress())


@given(skips=st.lists(st.booleans(), max_size=30), invocations=st.integers(1, 5))
def test_steps_are_the_whole_groups_of_calls_that_were_not_skipped(skips, invocations):
    event, progress = Event(invocations_per_step=invocations), Progress()
    for skipped in skips:
        UPDATES[EventType.OPTIM_POST_STEP].apply(event, progress, {"skipped": skipped})
    assert (event.global_step, progress.invocations) == divmod(skips.count(False), invocations)


def test_a_batch_of_training_counts_no_step_whatever_the_accumulation():
    event = Event(batches_per_step=2)
    progress = Progress()
    assert [counted(EventType.BATCH_END, event, progress) for _ in range(3)] == [
        {"global_batch": n, "batches": n, "batches_without_optimizer": n} for n in (1, 2, 3)
    ]


def test_a_batch_of_calibration_is_a_step():
    event, progress = Event(global_step=5, global_batch=7), Progress(batches=3, calibrating=True)
    assert counted(EventType.BATCH_END, event, progress) == {"global_batch": 8, "batches": 4, "global_step": 6}


def test_batches_per_step_of_calibration_are_a_step():
    event, progress = Event(batches_per_step=3), Progress(calibrating=True)
    assert [counted(EventType.BATCH_END, event, progress) for _ in range(4)] == [
        {"global_batch": 1, "batches": 1, "batches_without_optimizer": 1},
        {"global_batch": 2, "batches": 2, "batches_without_optimizer": 2},
        {"global_batch": 3, "batches": 3, "batches_without_optimizer": 0, "global_step": 1},
        {"global_batch": 4, "batches": 4, "batches_without_optimizer": 1},
    ]


@pytest.mark.parametrize("calibrating", [False, True])
def test_a_batch_with_an_optimizer_event_counts_as_a_batch_only(calibrating):
    progress = Progress(optimizer_called=True, batches_without_optimizer=1, calibrating=calibrating)
    assert counted(EventType.BATCH_END, Event(batches_per_step=2), progress) == {
        "global_batch": 1,
        "batches": 1,
        "optimizer_called": False,
    }
