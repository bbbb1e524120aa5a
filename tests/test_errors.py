import copy
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest

from lifecycle import EventType, Lifecycle, errors, protocols
from lifecycle.errors import (
    ExpectationError,
    IllegalEventError,
    LifecycleError,
    LifecycleWarning,
    MissingPayloadError,
    ProtocolError,
    ReentrantEventError,
    TraceFormatError,
    UnknownEventError,
    names,
)

ERRORS = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
WITH_A_MESSAGE = [LifecycleError, UnknownEventError, ReentrantEventError, ProtocolError, TraceFormatError]


def context(**changes):
    return {
        "event": EventType.BATCH_START,
        "state": "session.calibration.batch.step.pending",
        "allowed": [EventType.OPTIM_POST_STEP],
        "position": 17,
        "history": [
            EventType.BATCH_END,
            EventType.BATCH_START,
            EventType.LOSS_CALCULATED,
            EventType.OPTIM_PRE_STEP,
        ],
        "counters": {"global_batch": 3, "global_step": 2, "sequential_epochs": 1},
        "hint": "OPTIM_POST_STEP, BATCH_END are missing before it",
        **changes,
    }


class KeywordError(LifecycleError):
    """An error of a user's own, with arguments that only keywords give."""

    def __init__(self, *, layer):
        super().__init__(f"layer {layer} is not known")
        self.layer = layer


def raised(act):
    with pytest.raises(LifecycleError) as caught:
        act()
    return caught.value


def fire(*events, **options):
    lifecycle = Lifecycle("sequential", **options)
    for event in events:
        lifecycle.fire(event)


def fire_within_an_observer():
    lifecycle = Lifecycle()
    lifecycle.on("initialize", lambda event, payload: lifecycle.finalize())
    lifecycle.initialize()


SAMPLES = {
    "LifecycleError": lambda: LifecycleError("what went wrong", 3),
    "LifecycleError empty": LifecycleError,
    "UnknownEventError": lambda: UnknownEventError("'batch_begin' is not an event"),
    "ReentrantEventError": lambda: ReentrantEventError("FINALIZE was fired by an observer"),
    "ProtocolError": lambda: ProtocolError("protocol 'mine': it has no final state"),
    "TraceFormatError": lambda: TraceFormatError("run.txt, line 1: not a JSON object"),
    "IllegalEventError": lambda: IllegalEventError(**context()),
    "IllegalEventError bare": lambda: IllegalEventError(**context(allowed=(), history=(), hint="")),
    "MissingPayloadError": lambda: MissingPayloadError(**context()),
    "ExpectationError": lambda: ExpectationError(misses={"batches": (4, 3)}, **context()),
    "a user's own": lambda: KeywordError(layer=3),
    "raised IllegalEventError": lambda: raised(lambda: fire("initialize", "batch_end")),
    "raised MissingPayloadError": lambda: raised(
        lambda: fire("initialize", "calibration_start", "batch_start", "loss_calculated")
    ),
    "raised ExpectationError": lambda: raised(
        lambda: fire("initialize", "finalize", expect={"steps": 1, "batches": 2})
    ),
    "raised UnknownEventError": lambda: raised(lambda: fire("initialise")),
    "raised ReentrantEventError": lambda: raised(fire_within_an_observer),
    "raised ProtocolError": lambda: raised(lambda: protocols.get("trainig")),
}

DUPLICATES = {
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 # made here
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "between processes": lambda error: pickle.loads(ForkingPickler.dumps(error)),  # noqa: S301 # made here
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_a_lifecycle_error_and_a_value_error(kind):
    assert issubclass(kind, LifecycleError)
    assert issubclass(kind, ValueError)


def test_the_errors_are_those_of_the_design():
    assert errors.__all__ == [
        "ExpectationError",
        "IllegalEventError",
        "LifecycleError",
        "LifecycleWarning",
        "MissingPayloadError",
        "ProtocolError",
        "ReentrantEventError",
        "TraceFormatError",
        "UnknownEventError",
    ]


@pytest.mark.parametrize("kind", [MissingPayloadError, ExpectationError])
def test_what_refuses_an_event_in_its_place_is_an_illegal_event_too(kind):
    assert issubclass(kind, IllegalEventError)


def test_the_warning_is_a_user_warning_and_no_error():
    assert issubclass(LifecycleWarning, UserWarning)
    assert not issubclass(LifecycleWarning, ValueError)


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES.keys())
@pytest.mark.parametrize("make", SAMPLES.values(), ids=SAMPLES.keys())
def test_a_copied_error_is_the_same(make, duplicate):
    error = make()
    kept = duplicate(error)
    assert type(kept) is type(error)
    assert kept is not error
    assert (kept.args, vars(kept), str(kept)) == (error.args, vars(error), str(error))


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES.keys())
def test_a_copied_error_keeps_what_was_noted_on_it(duplicate):
    error = IllegalEventError(**context())
    error.__notes__ = ["in layer 3"]
    assert duplicate(error).__notes__ == ["in layer 3"]


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES.keys())
def test_a_copied_error_keeps_the_members(duplicate):
    kept = duplicate(IllegalEventError(**context()))
    assert kept.event is EventType.BATCH_START
    assert kept.allowed[0] is EventType.OPTIM_POST_STEP


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES.keys())
def test_a_copied_error_is_independent(duplicate):
    error = IllegalEventError(**context())
    kept = duplicate(error)
    error.hint = "another"
    assert kept.hint == "OPTIM_POST_STEP, BATCH_END are missing before it"


def test_the_samples_cover_every_error():
    assert {type(make()) for make in SAMPLES.values()} == {*ERRORS, KeywordError}


@pytest.mark.parametrize("kind", WITH_A_MESSAGE)
def test_an_error_made_of_a_message_says_it(kind):
    assert str(kind("what went wrong")) == "what went wrong"


def test_an_illegal_event_error_has_the_designed_attributes():
    error = IllegalEventError(**context())
    assert vars(error) == {
        "event": EventType.BATCH_START,
        "state": "session.calibration.batch.step.pending",
        "allowed": (EventType.OPTIM_POST_STEP,),
        "position": 17,
        "history": (
            EventType.BATCH_END,
            EventType.BATCH_START,
            EventType.LOSS_CALCULATED,
            EventType.OPTIM_PRE_STEP,
        ),
        "counters": {"global_batch": 3, "global_step": 2, "sequential_epochs": 1},
        "hint": "OPTIM_POST_STEP, BATCH_END are missing before it",
    }


def test_an_illegal_event_error_keeps_no_hold_on_what_it_was_made_of():
    counters = {"global_batch": 3, "global_step": 2, "sequential_epochs": 1}
    error = IllegalEventError(**context(counters=counters))
    counters["global_step"] = 9
    assert error.counters["global_step"] == 2


def test_an_expectation_error_keeps_no_hold_on_what_it_was_made_of():
    misses = {"batches": (4, 3)}
    error = ExpectationError(misses=misses, **context())
    misses.clear()
    assert error.misses == {"batches": (4, 3)}


def test_the_message_of_an_illegal_event_says_what_and_where_and_what_would_be_right():
    assert str(IllegalEventError(**context())) == (
        "BATCH_START is not allowed in session.calibration.batch.step.pending\n"
        "  event 17, global_batch=3, global_step=2, sequential epoch 1\n"
        "  allowed here: OPTIM_POST_STEP\n"
        "  before it: BATCH_START, LOSS_CALCULATED, OPTIM_PRE_STEP\n"
        "  hint: OPTIM_POST_STEP, BATCH_END are missing before it"
    )


def test_the_message_of_an_illegal_event_says_where_there_is_nothing():
    error = IllegalEventError(**context(allowed=[], history=[], hint=""))
    assert str(error) == (
        "BATCH_START is not allowed in session.calibration.batch.step.pending\n"
        "  event 17, global_batch=3, global_step=2, sequential epoch 1\n"
        "  allowed here: nothing\n"
        "  before it: nothing"
    )


def test_the_hint_may_be_left_out():
    given = context()
    del given["hint"]
    assert IllegalEventError(**given).hint == ""


@pytest.mark.parametrize("state", ["{state}", "{0}", "a{b"])
def test_the_message_takes_a_state_of_any_name(state):
    assert str(IllegalEventError(**context(state=state))).startswith(f"BATCH_START is not allowed in {state}\n")


def test_the_message_of_a_missing_payload_names_the_event_and_the_state():
    first = str(MissingPayloadError(**context())).splitlines()[0]
    assert first == "BATCH_START came without its payload in session.calibration.batch.step.pending"


def test_the_message_of_a_missed_expectation_names_the_event_and_the_state():
    first = str(ExpectationError(misses={}, **context())).splitlines()[0]
    assert first == "BATCH_START came in session.calibration.batch.step.pending before the counts were as expected"


def test_an_illegal_event_of_a_run_is_caught_as_a_value_error_with_all_that_it_says():
    lifecycle = Lifecycle("sequential")
    lifecycle.fire("initialize")
    with pytest.raises(ValueError, match="BATCH_END") as caught:
        lifecycle.fire("batch_end")
    assert vars(caught.value) == {
        "event": EventType.BATCH_END,
        "state": "session.ready",
        "allowed": (EventType.CALIBRATION_EPOCH_START, EventType.FINALIZE),
        "position": 2,
        "history": (EventType.INITIALIZE,),
        "counters": {"global_batch": 0, "global_step": 0, "sequential_epochs": 0},
        "hint": "CALIBRATION_EPOCH_START, BATCH_START are missing before it",
    }


def test_events_are_listed_by_name():
    assert names([EventType.BATCH_START, EventType.CALIBRATION_END]) == "BATCH_START, CALIBRATION_EPOCH_END"
    assert names([]) == ""


def test_the_repr_of_an_error_is_its_first_line():
    with pytest.raises(IllegalEventError) as caught:
        Lifecycle("training").finalize()
    assert repr(caught.value) == "IllegalEventError('FINALIZE is not allowed in created')"
