"""Which schedules a modifier may have, and how it is derived from."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from recording import fire

from lifecycle import LifecycleError
from lifecycle.session import CompressionSession, Modifier

infinite, nan = float("inf"), float("nan")


class Prune(Modifier):
    pass


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"start": nan}, "Prune: start must be a finite number, got nan"),
        ({"end": nan}, "Prune: end must be a finite number, got nan"),
        ({"update": nan}, "Prune: update must be a finite number, got nan"),
        ({"update": infinite}, "Prune: update must be a finite number, got inf"),
        ({"update": -1}, "Prune: update must not be negative, got -1"),
        ({"update": -0.5}, "Prune: update must not be negative, got -0.5"),
        ({"start": 2, "end": 1}, "Prune: end must not be before start, got start=2, end=1"),
        ({"start": 0.5, "end": 0.25}, "Prune: end must not be before start, got start=0.5, end=0.25"),
        ({"start": 1, "end": -infinite}, "Prune: end must not be before start, got start=1, end=-inf"),
        ({"start": infinite, "end": 1}, "Prune: end must not be before start, got start=inf, end=1"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused(schedule, message):
    with pytest.raises(LifecycleError) as caught:
        Prune(**schedule)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["start", "end", "update"])
@pytest.mark.parametrize("value", ["1", True, [1], 1j, b"1"])
def test_a_schedule_that_is_not_of_numbers_is_a_type_error(name, value):
    with pytest.raises(TypeError) as caught:
        Prune(**{name: value})
    assert str(caught.value) == f"Prune: {name} must be a number, got {value!r}"


@pytest.mark.parametrize(
    "schedule",
    [
        {},
        {"start": 0, "end": 0, "update": 0},
        {"start": 1, "end": 1.0, "update": 0.1},
        {"start": -infinite, "end": infinite},
        {"start": infinite, "end": infinite},
        {"start": 10**400, "end": 10**400},
        {"start": 0.1 * 3, "end": 0.3},
        {"start": 1, "end": sum([0.1] * 10)},
    ],
)
def test_any_other_schedule_is_kept_as_it_is(schedule):
    modifier = Prune(**schedule)
    assert {name: getattr(modifier, name) for name in schedule} == schedule


@given(start=st.floats(-1e9, 1e9), end=st.floats(-1e9, 1e9))
def test_the_end_is_before_the_start_or_it_is_not(start, end):
    assume(abs(start - end) > 1e-9 * max(abs(start), abs(end)))
    if end < start:
        with pytest.raises(LifecycleError, match="must not be before start"):
            Modifier(start=start, end=end)
    else:
        assert Modifier(start=start, end=end).end == end


def test_a_modifier_has_no_schedule_if_none_is_given():
    assert [getattr(Modifier(), name) for name in ("start", "end", "update")] == [None] * 3


def test_a_modifier_may_have_an_initialization_of_its_own():
    class Own(Modifier):
        def __init__(self):
            self.started = []

        def on_start(self, state, event, **payload):
            self.started.append(event.global_batch)

    modifier = Own()
    fire(CompressionSession([modifier], "training"), "IBLE")
    assert modifier.started == [0]


def test_a_schedule_of_the_class_is_kept():
    class Late(Modifier):
        start = 1
        end = 2

        def __init__(self):
            self.calls = []

        def on_start(self, state, event, **payload):
            self.calls.append(("on_start", event.global_step))

        def on_end(self, state, event, **payload):
            self.calls.append(("on_end", event.global_step))

    modifier = Late()
    fire(CompressionSession([modifier], "training"), "I" + "BLPOE" * 3)
    assert modifier.calls == [("on_start", 1), ("on_end", 2)]


def test_a_schedule_that_was_set_later_is_checked_by_the_session():
    modifier = Prune(start=2)
    modifier.end = 1
    with pytest.raises(LifecycleError, match=r"^Prune: end must not be before start, got start=2, end=1$"):
        CompressionSession([modifier])


def test_a_schedule_is_given_by_name():
    with pytest.raises(TypeError):
        Modifier(1, 2)


@pytest.mark.parametrize(
    "hook", [name for name in vars(Modifier) if name.startswith("on_") and name != "on_abort"], ids=str
)
def test_every_hook_takes_the_state_the_event_and_what_came_with_it(hook):
    parameters = inspect.signature(getattr(Modifier, hook)).parameters
    assert list(parameters) == ["self", "state", "event", "payload"]
    assert parameters["payload"].kind is inspect.Parameter.VAR_KEYWORD


def test_a_modifier_without_a_state_of_its_own_saves_an_empty_one():
    modifier = Modifier()
    assert modifier.state_dict() == {}
    modifier.load_state_dict({})
    assert vars(modifier) == {"start": None, "end": None, "update": None}
