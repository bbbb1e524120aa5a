"""The methods that an engine, a session and the callbacks have in common."""

from __future__ import annotations

import pytest

from lifecycle import EventType, Lifecycle
from lifecycle.engine.methods import EventMethods
from lifecycle.session import CompressionSession, callbacks


class Fired(EventMethods):
    def __init__(self):
        self.events = []

    def _fire(self, event, /, **payload):
        self.events.append((event, payload))
        return event


@pytest.mark.parametrize("event", EventType)
def test_there_is_a_method_for_each_event(event):
    fired = Fired()
    # Any name may come with an event.
    payload = {"event": 1, "self": 2}
    assert getattr(fired, event.value)(**payload) is event
    assert fired.events == [(event, payload)]


@pytest.mark.parametrize(
    ("bracket", "begin", "end"),
    [
        ("batch", EventType.BATCH_START, EventType.BATCH_END),
        ("calibration_epoch", EventType.CALIBRATION_EPOCH_START, EventType.CALIBRATION_EPOCH_END),
    ],
)
def test_a_bracket_fires_before_and_after_its_block(bracket, begin, end):
    fired = Fired()
    with getattr(fired, bracket)(event=1, self=2) as event:
        assert event is begin
        assert fired.events == [(begin, {"event": 1, "self": 2})]
    assert fired.events[1:] == [(end, {})]


@pytest.mark.parametrize("bracket", ["batch", "calibration_epoch"])
def test_a_bracket_that_is_left_by_an_exception_fires_no_end(bracket):
    fired = Fired()
    with pytest.raises(ZeroDivisionError), getattr(fired, bracket)():
        raise ZeroDivisionError
    assert len(fired.events) == 1


@pytest.mark.parametrize(
    "has_them", [Lifecycle(), CompressionSession(), callbacks], ids=["engine", "session", "callbacks"]
)
def test_engine_session_and_callbacks_have_them(has_them):
    assert isinstance(has_them, EventMethods)


def test_the_methods_need_no_dictionary():
    assert EventMethods.__slots__ == ()
    assert not hasattr(Lifecycle(), "__dict__")
