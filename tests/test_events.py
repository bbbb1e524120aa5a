import copy
import enum
import inspect
import json
import math
import pickle
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifecycle.events import Event, EventType, check_count, nearest, spellings

COUNTS = "steps_per_epoch", "batches_per_step", "invocations_per_step", "global_step", "global_batch"
SIZES = COUNTS[:3]
PICKLE_PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
NOT_INTEGERS = [True, False, 1.0, 2.5, math.nan, math.inf, "1", Fraction(1), [1]]
NOT_NUMBERS = [True, False, "1", b"1", [1], 1j, Fraction(1)]
NOT_EPOCH_BASED = "the event is not epoch based: steps_per_epoch is None"

# Below this many steps, a float always tells one step from the next, whatever the size of the epoch.
ALWAYS_DISTINCT = 2**51

sizes = st.integers(1, 10**4) | st.integers(1, 2**60)


class Saving(str, enum.Enum):
    CHECKPOINT = "checkpoint"
    UPLOAD = "send away"
    STORE = CHECKPOINT


class Plain(enum.Enum):
    BATCH_END = "batch_end"


# EventType


def test_the_vocabulary_is_ten_events_whose_values_are_their_lower_case_names():
    assert {event.name: event.value for event in EventType} == {
        "INITIALIZE": "initialize",
        "FINALIZE": "finalize",
        "BATCH_START": "batch_start",
        "LOSS_CALCULATED": "loss_calculated",
        "BATCH_END": "batch_end",
        "CALIBRATION_EPOCH_START": "calibration_epoch_start",
        "SEQUENTIAL_EPOCH_END": "sequential_epoch_end",
        "CALIBRATION_EPOCH_END": "calibration_epoch_end",
        "OPTIM_PRE_STEP": "optim_pre_step",
        "OPTIM_POST_STEP": "optim_post_step",
    }


def test_the_aliases_are_the_names_that_llm_compressor_gave_later():
    aliases = {name: member for name, member in EventType.__members__.items() if name != member.name}
    assert aliases == {
        "CALIBRATION_START": EventType.CALIBRATION_EPOCH_START,
        "CALIBRATION_END": EventType.CALIBRATION_EPOCH_END,
    }


@pytest.mark.parametrize("name", EventType.__members__)
@pytest.mark.parametrize("spell", [str, str.lower, "EventType.{}".format], ids=["NAME", "name", "EventType.NAME"])
def test_every_spelling_of_an_event_or_alias_gives_the_member(name, spell):
    assert EventType(spell(name)) is EventType[name]


@pytest.mark.parametrize("event", EventType)
def test_a_member_is_a_spelling_of_itself(event):
    assert EventType(event) is event


@pytest.mark.parametrize(
    ("text", "nearest_member"),
    [
        ("batch_strat", "batch_start"),
        ("BATCH_STRAT", "batch_start"),
        ("EventType.BATCH_STRAT", "batch_start"),
        ("Batch_Start", "batch_start"),
        ("batch_end ", "batch_end"),
        ("eventtype.batch_end", "batch_end"),
        ("calibration_strat", "calibration_epoch_start"),
        ("optim_post", "optim_post_step"),
        ("finalise", "finalize"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_member(text, nearest_member):
    with pytest.raises(ValueError, match="is not an EventType") as caught:
        EventType(text)
    assert str(caught.value) == f"{text!r} is not an EventType; did you mean {nearest_member!r}?"


@pytest.mark.parametrize("text", ["", "?", "zzz"])
def test_an_unknown_name_that_is_near_to_none_is_refused_with_all_members(text):
    with pytest.raises(ValueError, match="is not an EventType") as caught:
        EventType(text)
    known = ", ".join(repr(event.value) for event in EventType)
    assert str(caught.value) == f"{text!r} is not an EventType; known: {known}"


@pytest.mark.parametrize("value", [None, 3, True, b"initialize", ["initialize"], Plain.BATCH_END])
def test_what_is_not_text_is_no_event(value):
    with pytest.raises(ValueError, match="is not a valid EventType"):
        EventType(value)


@pytest.mark.parametrize(
    "text",
    [str, "{}".format, "{0:s}".format, lambda event: f"{event}", lambda event: "%s" % event, "".join],  # noqa: UP031
    ids=["str", "format", "format s", "f-string", "percent", "join"],
)
@pytest.mark.parametrize("event", EventType)
def test_the_text_of_an_event_is_its_value_on_every_python(event, text):
    assert text(event) == event.value
    assert type(text(event)) is str


def test_the_text_of_an_event_can_be_aligned():
    assert f"{EventType.BATCH_END:>12}|{EventType.BATCH_END:*<12}" == "   batch_end|batch_end***"


def test_the_repr_of_an_event_names_it():
    assert repr(EventType.BATCH_END) == "<EventType.BATCH_END: 'batch_end'>"


def test_an_event_in_json_is_its_value():
    assert json.dumps({EventType.BATCH_END: EventType.BATCH_START}) == '{"batch_end": "batch_start"}'


@pytest.mark.parametrize("event", EventType)
def test_an_event_and_its_value_are_the_same_key(event):
    assert {event.value: 1}[event] == 1
    assert {event: 1}[event.value] == 1


def test_an_event_equals_its_value_and_nothing_else():
    equal = [text for text in ("batch_end", "BATCH_END", "EventType.BATCH_END", None, 0) if text == EventType.BATCH_END]
    assert equal == ["batch_end"]


def test_an_event_hashes_as_text_does_and_not_in_python_code():
    assert EventType.__hash__ is str.__hash__


@pytest.mark.parametrize("protocol", PICKLE_PROTOCOLS)
@pytest.mark.parametrize("event", EventType)
def test_a_pickled_event_is_the_same_member(event, protocol):
    assert pickle.loads(pickle.dumps(event, protocol)) is event  # noqa: S301 # made here


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("event", EventType)
def test_a_copied_event_is_the_same_member(event, duplicate):
    assert duplicate(event) is event


# Spellings, and what is near


def test_the_spellings_of_a_vocabulary_are_values_names_and_qualified_names_with_the_aliases():
    assert spellings(Saving) == {
        "checkpoint": Saving.CHECKPOINT,
        "CHECKPOINT": Saving.CHECKPOINT,
        "Saving.CHECKPOINT": Saving.CHECKPOINT,
        "STORE": Saving.CHECKPOINT,
        "store": Saving.CHECKPOINT,
        "Saving.STORE": Saving.CHECKPOINT,
        "send away": Saving.UPLOAD,
        "UPLOAD": Saving.UPLOAD,
        "upload": Saving.UPLOAD,
        "Saving.UPLOAD": Saving.UPLOAD,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainin", "did you mean 'training'?"),
        ("TRAINING", "did you mean 'training'?"),
        ("baisc", "did you mean 'basic'?"),
        ("zzz", "known: 'training', 'basic'"),
    ],
)
def test_the_nearest_name_is_suggested_if_one_is_near_and_else_all(text, said):
    assert nearest(text, iter(["training", "basic"])) == said


# Making an Event


def test_the_constructor_has_exactly_the_designed_arguments():
    parameters = inspect.signature(Event).parameters.values()
    assert [(parameter.name, parameter.default) for parameter in parameters] == [
        ("type_", None),
        ("steps_per_epoch", None),
        ("batches_per_step", None),
        ("invocations_per_step", 1),
        ("global_step", 0),
        ("global_batch", 0),
    ]
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_arguments_can_be_given_by_position():
    event = Event(EventType.BATCH_END, 10, 2, 3, 4, 5)
    assert event == Event(
        type_=EventType.BATCH_END,
        steps_per_epoch=10,
        batches_per_step=2,
        invocations_per_step=3,
        global_step=4,
        global_batch=5,
    )


@pytest.mark.parametrize("text", ["calibration_start", "CALIBRATION_START", "EventType.CALIBRATION_EPOCH_START"])
def test_a_type_given_as_text_becomes_the_member(text):
    assert Event(text).type_ is EventType.CALIBRATION_EPOCH_START


@pytest.mark.parametrize("type_", [None, *EventType, *Saving])
def test_a_type_that_is_none_or_a_member_is_kept(type_):
    assert Event(type_).type_ is type_


def test_an_unknown_type_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="'batch_edn' is not an EventType; did you mean 'batch_end'"):
        Event("batch_edn")


@pytest.mark.parametrize("type_", [3, True, b"batch_end", Plain.BATCH_END, EventType])
def test_a_type_that_is_no_event_is_refused(type_):
    with pytest.raises(TypeError) as caught:
        Event(type_)
    assert str(caught.value) == f"type_ must be an EventType or None, got {type_!r}"


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
@pytest.mark.parametrize("name", COUNTS)
def test_a_count_that_is_no_integer_is_refused(name, value):
    with pytest.raises(TypeError) as caught:
        Event(**{name: value})
    assert str(caught.value) == f"{name} must be an int, got {value!r}"


@pytest.mark.parametrize("name", ["invocations_per_step", "global_step", "global_batch"])
def test_a_count_that_must_be_known_is_not_none(name):
    with pytest.raises(TypeError) as caught:
        Event(**{name: None})
    assert str(caught.value) == f"{name} must be an int, got None"


@pytest.mark.parametrize("value", [0, -1, -(10**400)], ids=["0", "-1", "huge"])
@pytest.mark.parametrize("name", SIZES)
def test_a_size_below_one_is_refused(name, value):
    with pytest.raises(ValueError, match="must be at least") as caught:
        Event(**{name: value})
    assert str(caught.value) == f"{name} must be at least 1, got {value}"


@pytest.mark.parametrize("value", [-1, -(10**400)], ids=["-1", "huge"])
@pytest.mark.parametrize("name", ["global_step", "global_batch"])
def test_a_negative_count_is_refused(name, value):
    with pytest.raises(ValueError, match="must be at least") as caught:
        Event(**{name: value})
    assert str(caught.value) == f"{name} must be at least 0, got {value}"


@pytest.mark.parametrize("value", [1, 2**64, 10**400], ids=["1", "2**64", "huge"])
@pytest.mark.parametrize("name", COUNTS)
def test_a_count_may_be_of_any_size(name, value):
    assert getattr(Event(**{name: value}), name) == value


@pytest.mark.parametrize("name", ["global_step", "global_batch"])
def test_a_counter_may_be_zero(name):
    assert getattr(Event(**{name: 0}), name) == 0


def test_an_event_has_no_fields_but_its_own():
    with pytest.raises(AttributeError):
        Event().typo = 1


def test_a_count_is_checked_against_its_own_least():
    check_count("every", 3, least=3)
    with pytest.raises(ValueError, match=r"^every must be at least 3, got 2$"):
        check_count("every", 2, least=3)


# Epochs


def test_an_event_is_epoch_based_if_it_knows_the_steps_of_an_epoch():
    assert (Event().epoch_based, Event(steps_per_epoch=1).epoch_based) == (False, True)


@pytest.mark.parametrize("name", ["epoch", "epoch_full", "epoch_step", "epoch_batch"])
def test_there_are_no_epochs_in_an_event_that_is_not_epoch_based(name):
    with pytest.raises(ValueError, match="not epoch based") as caught:
        getattr(Event(batches_per_step=2, global_step=3, global_batch=6), name)
    assert str(caught.value) == NOT_EPOCH_BASED


@given(step=st.integers(0, 2**70), size=sizes, batch=st.integers(0, 2**70))
def test_epochs_are_exact_and_follow_from_the_step_alone(step, size, batch):
    event = Event(steps_per_epoch=size, global_step=step, global_batch=batch)
    assert (event.epoch, event.epoch_step) == divmod(step, size)
    assert event.epoch_full == float(Fraction(step, size))


def test_epochs_are_integers_and_floats_as_designed():
    event = Event(steps_per_epoch=10, global_step=20)
    assert [type(value) for value in (event.epoch, event.epoch_step, event.epoch_full)] == [int, int, float]


@given(
    step=st.integers(0, 2**70),
    size=sizes,
    batch=st.integers(0, 2**70),
    batches=st.none() | st.integers(1, 100),
    invocations=st.integers(1, 9),
)
def test_the_batch_of_an_epoch_follows_from_the_batch_alone(step, size, batch, batches, invocations):
    event = Event(None, size, batches, invocations, step, batch)
    assert event.epoch_batch == batch % (size if batches is None else size * batches)


def test_an_epoch_is_not_divided_by_the_accumulation():
    # An older LLM Compressor divided the steps of an epoch by it, and so was in epoch 4.0 after one.
    event = Event(steps_per_epoch=6, batches_per_step=4, global_step=6, global_batch=24)
    assert (event.epoch_full, event.epoch_batch) == (1.0, 0)


# The current index


@pytest.mark.parametrize("step", [0, 7, 2**53 + 1, 10**400], ids=["0", "7", "2**53+1", "huge"])
def test_the_index_of_an_event_that_is_not_epoch_based_is_its_step(step):
    assert Event(global_step=step, global_batch=3).current_index == step


@given(step=st.integers(0, ALWAYS_DISTINCT), size=sizes, batch=st.integers(0, 2**70))
def test_the_index_of_an_epoch_based_event_is_its_epoch_with_the_fraction(step, size, batch):
    event = Event(steps_per_epoch=size, global_step=step, global_batch=batch)
    assert event.current_index == event.epoch_full


@given(step=st.integers(0, ALWAYS_DISTINCT), size=st.none() | sizes, batches=st.none() | st.integers(1, 9))
def test_setting_the_index_of_a_step_goes_to_that_step(step, size, batches):
    event = Event(steps_per_epoch=size, batches_per_step=batches, global_step=step + 1)
    event.current_index = step / (size or 1)
    assert (event.global_step, event.global_batch) == (step, step * (batches or 1))


@given(
    step=st.integers(0, 10**6) | st.integers(2**50, 2**54),
    size=st.none() | sizes,
    batches=st.none() | st.integers(1, 9),
    batch=st.integers(0, 2**60),
)
@example(step=2**53 - 1, size=1, batches=None, batch=5)
@example(step=2**52 + 1, size=3, batches=2, batch=5)
def test_setting_the_index_to_what_it_is_moves_nothing(step, size, batches, batch):
    event = Event(EventType.BATCH_END, size, batches, 1, step, batch)
    try:
        index = event.current_index
    except ValueError:
        assert step > ALWAYS_DISTINCT
        return
    before = event.new_instance()
    event.current_index = index
    assert event == before


@given(step=st.integers(0, 10**9), size=st.integers(1, 10**6), off=st.integers(-3, 3))
def test_setting_the_index_tolerates_rounding(step, size, off):
    index = step / size
    for _ in range(abs(off)):
        index = max(0.0, math.nextafter(index, math.copysign(math.inf, off)))
    event = Event(steps_per_epoch=size, global_step=step + 1)
    event.current_index = index
    assert event.global_step == step


def test_setting_the_index_does_not_truncate():
    event = Event(steps_per_epoch=100, batches_per_step=2)
    event.current_index = 0.29
    assert (event.global_step, event.global_batch) == (29, 58)


@pytest.mark.parametrize(
    ("size", "index", "step"),
    [
        (None, 2.4, 2),
        (None, 2.6, 3),
        (10, 0.24, 2),
        (10, 0.26, 3),
        (10, 0.249999, 2),
        (None, 0.5, 0),
        (None, 1.5, 1),
        (None, 2.5, 2),
        (None, 3.5, 3),
        (4, 0.125, 0),
        (4, 0.375, 1),
        (4, 0.625, 2),
        (None, 7, 7),
        (4, 2, 8),
        (None, -0.0, 0),
        (None, 2**53 + 1, 2**53 + 1),
    ],
)
def test_setting_the_index_goes_to_the_nearest_step_and_of_two_to_the_earlier(size, index, step):
    event = Event(steps_per_epoch=size, global_step=99)
    event.current_index = index
    assert event.global_step == step


def test_setting_the_index_within_the_step_keeps_the_batch():
    event = Event(steps_per_epoch=10, batches_per_step=4, global_step=3, global_batch=14)
    event.current_index = 0.32
    assert (event.global_step, event.global_batch) == (3, 14)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (-0.1, "must not be negative"),
        (-1, "must not be negative"),
        (-5e-324, "must not be negative"),
        (math.nan, "must be a finite number"),
        (math.inf, "must be a finite number"),
        (-math.inf, "must be a finite number"),
    ],
)
@pytest.mark.parametrize("size", [None, 10])
def test_an_index_out_of_range_is_refused_and_moves_nothing(size, value, problem):
    event = Event(steps_per_epoch=size, global_step=3, global_batch=7)
    with pytest.raises(ValueError, match="current_index") as caught:
        event.current_index = value
    assert str(caught.value) == f"current_index {problem}, got {value!r}"
    assert (event.global_step, event.global_batch) == (3, 7)


@pytest.mark.parametrize("value", [*NOT_NUMBERS, None], ids=repr)
def test_an_index_that_is_no_number_is_refused_and_moves_nothing(value):
    event = Event(steps_per_epoch=10, global_step=3, global_batch=7)
    with pytest.raises(TypeError) as caught:
        event.current_index = value
    assert str(caught.value) == f"current_index must be a number, got {value!r}"
    assert (event.global_step, event.global_batch) == (3, 7)


@pytest.mark.parametrize(
    ("step", "size"),
    [(2**53, 1), (2**53 + 1, 2**54), (10**18, 10**17), (10**400, 1), (0, 10**400), (1, 10**400)],
    ids=["first", "half", "epoch ten", "overflow", "underflow at 0", "underflow"],
)
def test_an_index_that_a_float_cannot_tell_from_the_next_is_refused(step, size):
    with pytest.raises(ValueError, match="too many steps per epoch") as caught:
        _ = Event(steps_per_epoch=size, global_step=step).current_index
    assert str(caught.value) == (
        f"too many steps per epoch: at step {step} with steps_per_epoch={size} "
        "a float cannot tell one step from the next"
    )


@pytest.mark.parametrize(("step", "size"), [(2**53 - 1, 1), (0, 10**300), (10**15, 10**17)])
def test_an_index_that_a_float_just_tells_from_the_next_is_given(step, size):
    assert Event(steps_per_epoch=size, global_step=step).current_index == step / size


@pytest.mark.parametrize("value", [2.0**53, 1e300])
def test_setting_an_index_that_a_float_cannot_tell_from_the_next_moves_nothing(value):
    event = Event(steps_per_epoch=1, global_step=3, global_batch=7)
    with pytest.raises(ValueError, match="too many steps per epoch"):
        event.current_index = value
    assert (event.global_step, event.global_batch) == (3, 7)


# Schedules


def due(event, last, *schedule):
    """The steps, from 0 to `last`, on which a schedule is due."""
    return [step for step in range(last + 1) if event.new_instance(global_step=step).should_update(*schedule)]


def test_an_interval_of_a_tenth_of_an_epoch_of_ten_steps_is_due_at_every_step():
    assert due(Event(steps_per_epoch=10), 30, 0, None, 0.1) == list(range(31))


@pytest.mark.parametrize("size", range(1, 25))
def test_an_interval_of_k_steps_is_due_on_exactly_the_multiples_of_k(size):
    event = Event(steps_per_epoch=size)
    last = 2 * size + 5
    assert {k: due(event, last, None, None, k / size) for k in range(1, 2 * size + 1)} == {
        k: list(range(0, last + 1, k)) for k in range(1, 2 * size + 1)
    }


@given(
    k=st.integers(1, 2000) | st.integers(1, 2**50),
    size=st.none() | sizes,
    times=st.integers(0, 10**4) | st.integers(0, 2**60),
    off=st.integers(-3, 3),
)
@example(k=3, size=10, times=1, off=0)
@example(k=7, size=10**15 + 37, times=10**15, off=0)
@example(k=7, size=10**15 + 37, times=10**15, off=1)
@example(k=2**50 - 1, size=2**60, times=2**60, off=-1)
def test_an_interval_of_k_steps_is_due_on_exactly_the_multiples_of_k_at_any_size(k, size, times, off):
    step = max(0, k * times + off)
    event = Event(steps_per_epoch=size, global_step=step)
    assert event.should_update(update=k / (size or 1)) == (step % k == 0)


@given(interval=st.fractions(Fraction(1, 50), 50, max_denominator=50), size=st.none() | st.integers(1, 1000))
def test_an_interval_that_is_no_whole_number_of_steps_is_due_where_its_multiples_are(interval, size):
    event = Event(steps_per_epoch=size)
    expected = [step for step in range(201) if (step / interval).denominator == 1]
    assert due(event, 200, None, None, float(interval / (size or 1))) == expected


def test_an_interval_is_measured_from_zero_and_not_from_the_start():
    assert due(Event(steps_per_epoch=10), 20, 0.5, None, 0.3) == [6, 9, 12, 15, 18]


@pytest.mark.parametrize("update", [None, 0, 0.0, -0.0])
@pytest.mark.parametrize("size", [None, 10])
def test_no_interval_is_due_at_every_step(size, update):
    assert due(Event(steps_per_epoch=size), 20, None, None, update) == list(range(21))


@given(
    start=st.none() | st.integers(0, 10**6) | st.integers(0, 2**52),
    end=st.none() | st.integers(0, 10**6) | st.integers(0, 2**52),
    size=st.none() | sizes,
    near=st.sampled_from(["start", "end"]),
    off=st.integers(-3, 3),
)
def test_start_and_end_are_inclusive_to_the_step(start, end, size, near, off):
    step = max(0, ({"start": start, "end": end}[near] or 0) + off)
    event = Event(steps_per_epoch=size, global_step=step)
    begins, ends = start is None or step >= start, end is None or step <= end
    indices = [None if bound is None else bound / (size or 1) for bound in (start, end)]
    assert event.should_update(*indices) == (begins and ends)


@given(step=st.integers(0, 10**9), size=st.integers(1, 10**6), ulps=st.integers(-3, 3))
def test_start_and_end_tolerate_rounding(step, size, ulps):
    index = step / size
    for _ in range(abs(ulps)):
        index = math.nextafter(index, math.copysign(math.inf, ulps))
    assert Event(steps_per_epoch=size, global_step=step).should_update(index, index) == (step > 0 or ulps == 0)


def test_start_and_end_tolerate_the_rounding_of_a_sum():
    assert due(Event(steps_per_epoch=10), 10, 0.1 + 0.2, 0.1 + 0.2) == [3]


def test_start_and_end_between_two_steps_are_no_step():
    event = Event(steps_per_epoch=10)
    assert due(event, 10, 0.35) == [4, 5, 6, 7, 8, 9, 10]
    assert due(event, 10, None, 0.35) == [0, 1, 2, 3]
    assert due(event, 10, 0.300001, 0.399999) == []


def test_a_schedule_in_epochs_starts_and_ends():
    assert due(Event(steps_per_epoch=2), 12, 2, 4) == [4, 5, 6, 7, 8]


def test_a_schedule_in_steps_starts_and_ends():
    assert due(Event(), 12, 2, 8, 3) == [3, 6]


def test_start_and_end_may_be_infinite_or_negative():
    event = Event(steps_per_epoch=10)
    assert due(event, 3, -math.inf, math.inf) == [0, 1, 2, 3]
    assert due(event, 3, -1, None) == [0, 1, 2, 3]
    assert due(event, 3, math.inf, None) == []
    assert due(event, 3, None, -math.inf) == []
    assert due(event, 3, None, -1) == []


def test_a_schedule_is_due_whatever_the_batch():
    assert Event(steps_per_epoch=10, global_step=5, global_batch=3).should_update(0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("start", math.nan, "must be a finite number"),
        ("end", math.nan, "must be a finite number"),
        ("update", math.nan, "must be a finite number"),
        ("update", math.inf, "must be a finite number"),
        ("update", -math.inf, "must be a finite number"),
        ("update", -0.1, "must not be negative"),
        ("update", -1, "must not be negative"),
        ("update", -5e-324, "must not be negative"),
    ],
)
@pytest.mark.parametrize("size", [None, 10])
def test_a_schedule_out_of_range_is_refused(size, name, value, problem):
    with pytest.raises(ValueError, match=name) as caught:
        Event(steps_per_epoch=size).should_update(**{name: value})
    assert str(caught.value) == f"{name} {problem}, got {value!r}"


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["start", "end", "update"])
def test_a_schedule_that_is_no_number_is_refused(name, value):
    with pytest.raises(TypeError) as caught:
        Event().should_update(**{name: value})
    assert str(caught.value) == f"{name} must be a number, got {value!r}"


@pytest.mark.parametrize("bad", [{"end": math.nan}, {"update": math.nan}])
def test_a_bad_schedule_is_found_before_it_starts(bad):
    with pytest.raises(ValueError, match="must be a finite number"):
        Event().should_update(**{"start": 5, "end": -1, **bad})


# Copies


def test_a_new_instance_is_equal_and_independent():
    event = Event(EventType.BATCH_END, 10, 2, 3, 4, 8)
    kept = event.new_instance()
    event.global_step += 1
    assert kept == Event(EventType.BATCH_END, 10, 2, 3, 4, 8)


def test_a_new_instance_has_the_changes_and_the_event_has_not():
    event = Event(EventType.BATCH_END, global_step=4)
    changed = event.new_instance(type_="batch_start", global_step=5, steps_per_epoch=10)
    assert changed == Event(EventType.BATCH_START, 10, global_step=5)
    assert event == Event(EventType.BATCH_END, global_step=4)


@pytest.mark.parametrize("name", ["typo", "epoch", "current_index", "type"])
def test_a_new_instance_takes_no_unknown_field(name):
    with pytest.raises(TypeError, match=name):
        Event(steps_per_epoch=10).new_instance(**{name: 1})


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"global_step": -1}, ValueError),
        ({"steps_per_epoch": 0}, ValueError),
        ({"type_": "batch_edn"}, ValueError),
        ({"global_batch": 1.0}, TypeError),
        ({"type_": 3}, TypeError),
    ],
)
def test_a_new_instance_takes_no_bad_value(changes, error):
    with pytest.raises(error):
        Event().new_instance(**changes)


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda event: pickle.loads(pickle.dumps(event))],  # noqa: S301 # made here
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copied_event_is_equal_and_independent(duplicate):
    event = Event(EventType.BATCH_END, 10, 2, 3, 4, 8)
    kept = duplicate(event)
    event.global_batch = 9
    assert kept == Event(EventType.BATCH_END, 10, 2, 3, 4, 8)


def test_more_epochs_than_a_float_can_hold_are_refused():
    with pytest.raises(ValueError, match="too many steps per epoch"):
        _ = Event(steps_per_epoch=1, global_step=10**400).epoch_full
