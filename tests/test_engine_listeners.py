"""Observers and taps: who is told what, in which order, and what they may not do."""

from __future__ import annotations

import json
import weakref

import pytest
import sequences
from runs import fire, seen

from lifecycle import (
    EventType,
    Guard,
    IllegalEventError,
    Lifecycle,
    LifecycleError,
    MissingPayloadError,
    Protocol,
    ReentrantEventError,
    Tap,
    Transition,
    UnknownEventError,
)

BATCHES = "I" + "BLE" * 6


class Stop(BaseException):
    """Like KeyboardInterrupt: no Exception."""


class Log(Tap):
    """Writes down all that it is told, into a list that others may write into as well."""

    def __init__(self, told, name="tap"):
        self.told = told
        self.name = name

    def before_notify(self, lifecycle, payload):
        self.told.append((self.name, "before", lifecycle.event.type_, payload))

    def after_notify(self, lifecycle, payload, duration, error):
        self.told.append((self.name, "after", lifecycle.event.type_, payload, error))

    def rejected(self, lifecycle, event, error):
        self.told.append((self.name, "rejected", event, error))

    def control(self, lifecycle, action, detail):
        self.told.append((self.name, action, detail))


class Raising(Tap):
    """Raises in one of its methods."""

    def __init__(self, where, error):
        def hook(*args):
            raise error

        setattr(self, where, hook)


class Trying(Tap):
    """Calls a function with the lifecycle in one of its methods."""

    def __init__(self, where, act):
        setattr(self, where, lambda lifecycle, *args: act(lifecycle))


def training(word="", **options):
    return fire(Lifecycle("training", **options), word)


def raiser(error):
    def observer(event, payload):
        raise error

    return observer


def batches_seen(word=BATCHES, **options):
    """At which batches an observer of BATCH_END is called."""
    lc = training()
    calls = []
    lc.on("batch_end", lambda event, payload: calls.append(event.global_batch), **options)
    fire(lc, word)
    return calls


# Observers


def test_an_observer_gets_the_live_event_and_the_payload():
    lc = training("I")
    calls = []
    lc.on("batch_start", lambda event, payload: calls.append((event, payload)))
    lc.batch_start(batch=[1], device="cpu")
    assert calls == [(lc.event, {"batch": [1], "device": "cpu"})]
    assert calls[0][0] is lc.event


def test_an_observer_sees_the_counts_after_the_event():
    lc = Lifecycle()
    counts = []
    lc.on(EventType, lambda event, payload: counts.append((event.type_.name, event.global_batch, event.global_step)))
    fire(lc, "IBLPOEF")
    assert counts == [
        ("INITIALIZE", 0, 0),
        ("BATCH_START", 0, 0),
        ("LOSS_CALCULATED", 0, 0),
        ("OPTIM_PRE_STEP", 0, 0),
        ("OPTIM_POST_STEP", 0, 1),
        ("BATCH_END", 1, 1),
        ("FINALIZE", 1, 1),
    ]


def test_an_observer_sees_the_state_after_the_event():
    lc = training("I")
    states = []
    lc.on("batch_start", lambda event, payload: states.append((lc.state, lc.allowed, lc.history[-1])))
    lc.batch_start()
    assert states == [("session.batch.started", (EventType.LOSS_CALCULATED,), EventType.BATCH_START)]


@pytest.mark.parametrize("fired", ["batch_end", "EventType.BATCH_END"])
def test_observers_run_in_order_of_registration_whatever_they_were_registered_for(fired):
    lc = training("IBL")
    calls = []
    lc.on(EventType, lambda event, payload: calls.append("first"))
    lc.on("batch_end", lambda event, payload: calls.append("second"), every=1, once=True)
    lc.on(["loss_calculated", "batch_end"], lambda event, payload: calls.append("third"))
    lc.on(EventType.BATCH_END, lambda event, payload: calls.append("fourth"))
    lc.fire(fired)
    assert calls == ["first", "second", "third", "fourth"]


def test_an_observer_is_called_for_its_own_events_only():
    lc = training()
    calls = []
    lc.on(["loss_calculated", "BATCH_END"], lambda event, payload: calls.append(event.type_))
    fire(lc, "IBLPOEF")
    assert calls == sequences.events("LE")


def test_all_of_a_vocabulary_is_every_event():
    lc = Lifecycle()
    calls = []
    lc.on(EventType, lambda event, payload: calls.append(event.type_))
    fire(lc, "ICBLPOESKF")
    assert calls == sequences.events("ICBLPOESKF")


def test_an_event_that_is_named_twice_calls_once():
    lc = training()
    calls = []
    lc.on(["initialize", EventType.INITIALIZE], lambda event, payload: calls.append(event.type_))
    fire(lc, "I")
    assert len(calls) == 1


def test_one_callback_registered_twice_is_called_twice():
    lc = training()
    calls = []

    def observer(event, payload):
        calls.append(event.type_)

    lc.on("initialize", observer)
    handle = lc.on("initialize", observer)
    fire(lc, "I")
    assert len(calls) == 2
    handle.remove()
    lc.reset()
    fire(lc, "I")
    assert len(calls) == 3


def test_an_event_that_the_protocol_lacks_may_be_observed():
    assert Lifecycle("data_free").on("batch_end", print)


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"every": 1}, [1, 2, 3, 4, 5, 6]),
        ({"every": 2}, [2, 4, 6]),
        ({"every": 7}, []),
        ({"once": True}, [1]),
        ({"every": 4, "once": True}, [4]),
        ({"when": lambda event, payload: event.global_batch > 4}, [5, 6]),
        ({"when": lambda event, payload: event.global_batch % 2, "every": 2}, [3]),
        ({"when": lambda event, payload: event.global_batch > 2, "once": True}, [3]),
        ({"when": lambda event, payload: payload["loss"] == 0.5}, [1, 2, 3, 4, 5, 6]),
        ({"when": lambda event, payload: None}, []),
    ],
)
def test_filters_choose_the_events(options, batches):
    assert batches_seen(**options) == batches


def test_a_filter_of_several_events_counts_them_together():
    lc = training()
    calls = []
    lc.on(EventType, lambda event, payload: calls.append(event.type_), every=3)
    fire(lc, "IBLPOEF")
    assert calls == sequences.events("LE")


def test_every_begins_again_with_a_new_run():
    lc = training()
    calls = []
    lc.on("batch_end", lambda event, payload: calls.append(event.global_batch), every=2)
    fire(lc, "IBLE")
    lc.reset()
    fire(lc, "IBLEBLE")
    assert calls == [2]


def test_every_begins_again_with_a_loaded_run():
    lc = training()
    calls = []
    lc.on("batch_end", lambda event, payload: calls.append(event.global_batch), every=2)
    fire(lc, "IBLE")
    lc.load_state_dict(lc.state_dict())
    fire(lc, "BLEBLE")
    assert calls == [3]


def test_once_is_once_for_all_runs():
    lc = training()
    calls = []
    lc.on("initialize", lambda event, payload: calls.append(event.type_), once=True)
    fire(lc, "I")
    lc.reset()
    fire(lc, "I")
    assert len(calls) == 1


def test_an_observer_that_is_called_once_and_raises_is_not_called_again():
    lc = training()
    lc.on(EventType, raiser(RuntimeError()), once=True)
    with pytest.raises(RuntimeError):
        lc.initialize()
    fire(lc, "BLE")
    assert lc.state == "session.ready"


def test_a_predicate_that_raises_is_an_observer_that_raises():
    lc = training("IBL")
    error = ZeroDivisionError()
    calls = []

    def when(event, payload):
        if event.global_batch == 1:
            raise error
        return True

    lc.on("batch_end", lambda event, payload: calls.append(event.global_batch), every=2, when=when)
    with pytest.raises(ZeroDivisionError) as caught:
        lc.batch_end()
    assert caught.value is error
    fire(lc, "BLEBLE")
    assert calls == [3]


def test_a_rejected_event_does_not_count_for_every():
    lc = training()
    calls = []
    lc.on("batch_start", lambda event, payload: calls.append(lc.progress.accepted), every=2)
    fire(lc, "IB")
    with pytest.raises(IllegalEventError):
        lc.batch_start()
    fire(lc, "LEB")
    assert calls == [5]


def test_an_ignored_event_does_not_count_for_every():
    lc = training("I")
    calls = []
    lc.on("batch_start", lambda event, payload: calls.append(lc.progress.accepted), every=2)
    with lc.suspended("evaluation"):
        fire(lc, "BB")
    fire(lc, "BLEB")
    assert calls == [5]


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("batch_begin", print), UnknownEventError, "'batch_begin' is not an event of protocol 'training'"),
        ((["batch_end", "batch_begin"], print), UnknownEventError, "'batch_begin' is not an event"),
        (([], print), LifecycleError, r"on\(\) needs at least one event, got none"),
        ((["batch_end", 3], print), TypeError, "an event must be an EventType or a string, got 3"),
        ((None, print), TypeError, "events must be an event or several, got None"),
        ((3, print), TypeError, "events must be an event or several, got 3"),
        (("batch_end", None), TypeError, "callback must be callable, got None"),
        (("batch_end", "print"), TypeError, "callback must be callable, got 'print'"),
    ],
)
def test_a_bad_observer_is_refused_when_it_is_registered(arguments, error, message):
    lc = training()
    with pytest.raises(error, match=message):
        lc.on(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, LifecycleError, "every must be at least 1, got 0"),
        ({"every": -1}, LifecycleError, "every must be at least 1, got -1"),
        ({"every": 2.0}, TypeError, "every must be an int, got 2.0"),
        ({"every": True}, TypeError, "every must be an int, got True"),
        ({"when": "always"}, TypeError, "when must be callable, got 'always'"),
        ({"when": 0}, TypeError, "when must be callable, got 0"),
    ],
)
def test_a_bad_filter_is_refused_when_it_is_registered(options, error, message):
    lc = training()
    calls = []
    with pytest.raises(error, match=message):
        lc.on("initialize", lambda event, payload: calls.append(event), **options)
    fire(lc, "I")
    assert calls == []


@pytest.mark.parametrize("tap", [None, print, Tap])
def test_what_is_no_tap_is_not_attached(tap):
    with pytest.raises(TypeError, match="tap must be a Tap, got"):
        training().attach(tap)


# Handles


def test_a_removed_observer_is_not_called_again():
    lc = training()
    calls = []
    handle = lc.on(EventType, lambda event, payload: calls.append(event.type_))
    fire(lc, "I")
    handle.remove()
    fire(lc, "B")
    assert calls == sequences.events("I")


def test_removing_twice_does_nothing():
    lc = training()
    calls = []
    first = lc.on(EventType, lambda event, payload: calls.append("first"))
    lc.on(EventType, lambda event, payload: calls.append("second"))
    first.remove()
    first.remove()
    fire(lc, "I")
    assert calls == ["second"]


def test_a_removed_tap_is_told_nothing():
    lc = training()
    told = []
    handle = lc.attach(Log(told))
    handle.remove()
    fire(lc, "I")
    lc.reset()
    assert told == []


def test_a_handle_keeps_no_lifecycle_alive_and_may_outlive_it():
    lc = training()
    handles = [lc.on(EventType, print), lc.on(EventType, print, once=True), lc.attach(Tap())]
    reference = weakref.ref(lc)
    del lc
    assert reference() is None
    for handle in handles:
        handle.remove()


def test_an_observer_removed_while_observers_run_is_still_called_for_this_event():
    lc = training()
    calls = []

    def first(event, payload):
        calls.append("first")
        second.remove()

    lc.on(EventType, first)
    second = lc.on(EventType, lambda event, payload: calls.append("second"))
    fire(lc, "IB")
    assert calls == ["first", "second", "first"]


def test_an_observer_registered_while_observers_run_is_called_from_the_next_event_on():
    lc = training()
    calls = []

    def first(event, payload):
        calls.append("first")
        if len(calls) == 1:
            lc.on(EventType, lambda event, payload: calls.append("second"))

    lc.on(EventType, first)
    fire(lc, "IB")
    assert calls == ["first", "first", "second"]


def test_an_observer_may_remove_itself():
    lc = training()
    calls = []

    def observer(event, payload):
        calls.append(event.type_)
        handle.remove()

    handle = lc.on(EventType, observer)
    fire(lc, "IB")
    assert calls == sequences.events("I")


def test_a_tap_attached_while_observers_run_is_told_of_the_next_event():
    lc = training()
    told = []
    lc.on("initialize", lambda event, payload: lc.attach(Log(told)))
    fire(lc, "I")
    lc.batch_start()
    assert told == [
        ("tap", "before", EventType.BATCH_START, {}),
        ("tap", "after", EventType.BATCH_START, {}, None),
    ]


# Observers that raise


@pytest.mark.parametrize("error", [RuntimeError("crash"), IllegalEventError, KeyboardInterrupt(), Stop()])
@pytest.mark.parametrize("options", [{}, {"thread_safe": True}, {"on_violation": "record"}])
def test_if_an_observer_raises_the_event_stands_and_later_ones_are_not_called(error, options):
    if error is IllegalEventError:
        with pytest.raises(IllegalEventError) as refusal:
            training().finalize()
        error = refusal.value
    lc, calm = training("IBL", **options), training("IBL", **options)
    calls = []
    lc.on("batch_end", lambda event, payload: calls.append("earlier"))
    handle = lc.on("batch_end", raiser(error))
    lc.on("batch_end", lambda event, payload: calls.append("later"))
    with pytest.raises(type(error)) as caught:
        lc.batch_end()
    assert caught.value is error
    assert calls == ["earlier"]
    calm.batch_end()
    assert lc.state_dict() == calm.state_dict()
    handle.remove()
    fire(lc, "BLE")
    assert calls == ["earlier", "earlier", "later"]


def test_an_observer_that_raises_a_refusal_of_its_own_is_not_taken_for_a_rejected_event():
    lc, other = training(), training()
    told = []
    lc.attach(Log(told))
    lc.on("initialize", lambda event, payload: other.batch_end())
    with pytest.raises(IllegalEventError) as caught:
        lc.fire("INITIALIZE")
    assert lc.progress.rejected == 0
    assert told == [
        ("tap", "before", EventType.INITIALIZE, {}),
        ("tap", "after", EventType.INITIALIZE, {}, caught.value),
    ]


# What observers may do


def test_an_observer_may_fire_on_another_lifecycle():
    lc, other = training(), training()
    lc.on(EventType, lambda event, payload: other.fire(event.type_, **payload))
    fire(lc, "IBLEF")
    assert other.state_dict() == lc.state_dict()


def test_an_observer_may_save_the_run():
    lc = training("IB")
    saved = []
    lc.on("loss_calculated", lambda event, payload: saved.append(lc.state_dict()))
    fire(lc, "L")
    assert saved == [lc.state_dict()]


def test_an_observer_may_abort_the_run():
    lc = training()
    calls = []
    lc.on("batch_start", lambda event, payload: lc.abort("diverged"))
    lc.on("batch_start", lambda event, payload: calls.append(lc.status))
    fire(lc, "IB")
    assert calls == ["aborted"]
    assert (lc.state, lc.status) == ("session.batch.started", "aborted")
    with pytest.raises(IllegalEventError, match="the run was aborted"):
        lc.loss_calculated(loss=1)


def test_an_observer_of_initialize_may_abort_the_run():
    lc = training()
    lc.on("initialize", lambda event, payload: lc.abort())
    fire(lc, "I")
    assert lc.status == "aborted"


def test_the_end_of_a_run_cannot_be_aborted_any_more():
    lc = training()
    lc.on("finalize", lambda event, payload: lc.abort())
    assert fire(lc, "IF").status == "finalized"


@pytest.mark.parametrize("options", [{}, {"thread_safe": True}])
def test_an_observer_may_run_an_evaluation_whose_events_are_ignored(options):
    lc = training("IBLPO", **options)

    def evaluate(event, payload):
        with lc.suspended("evaluation"), lc.batch():
            lc.loss_calculated(loss=0.1)

    lc.on("batch_end", evaluate)
    fire(lc, "E")
    assert lc.progress.ignored == 3
    assert lc.history == tuple(sequences.events("IBLPOE"))
    fire(lc, "BLE")
    assert (lc.state, lc.event.global_batch) == ("session.ready", 2)


# What observers and taps may not do


ACTS = {
    "fire": lambda lc: lc.fire("loss_calculated", loss=1),
    "fire by name": lambda lc: lc.fire("LOSS_CALCULATED", loss=1),
    "fire what is illegal": lambda lc: lc.fire("finalize"),
    "method": lambda lc: lc.loss_calculated(loss=1),
    "session": lambda lc: lc.session().__enter__(),
    "reset": lambda lc: lc.reset(),
    "load_state_dict": lambda lc: lc.load_state_dict(Lifecycle("training").state_dict()),
}
OPTIONS = {"default": {}, "thread safe": {"thread_safe": True}, "record": {"on_violation": "record"}}


def attempt(act, outcomes):
    """Try an act once, and keep what came of it and whether it changed anything that can be seen."""

    def attempted(lifecycle):
        if outcomes:
            return
        outcomes.append("under way")
        before = seen(lifecycle)
        try:
            act(lifecycle)
        except LifecycleError as error:
            outcome = error
        else:
            outcome = None
        outcomes[:] = [(type(outcome), str(outcome), seen(lifecycle) == before)]

    return attempted


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(
    ("act", "what"),
    [
        ("fire", "LOSS_CALCULATED was fired"),
        ("fire by name", "LOSS_CALCULATED was fired"),
        ("fire what is illegal", "FINALIZE was fired"),
        ("method", "LOSS_CALCULATED was fired"),
        ("session", "INITIALIZE was fired"),
        ("reset", "reset() was called"),
        ("load_state_dict", "load_state_dict() was called"),
    ],
)
def test_an_observer_may_not_move_the_run(act, what, options):
    lc = training("I", **options)
    outcomes = []
    attempted = attempt(ACTS[act], outcomes)
    lc.on("batch_start", lambda event, payload: attempted(lc))
    lc.batch_start()
    message = f"{what} by an observer of BATCH_START; fire it after the observers have returned"
    assert outcomes == [(ReentrantEventError, message, True)]
    assert lc.history == tuple(sequences.events("IB"))
    fire(lc, "LE")
    assert lc.state == "session.ready"


@pytest.mark.parametrize("where", ["before_notify", "after_notify"])
@pytest.mark.parametrize("act", ACTS)
def test_a_tap_may_not_move_the_run_while_it_is_told_of_an_event(act, where):
    lc = training("I")
    outcomes = []
    handle = lc.attach(Trying(where, attempt(ACTS[act], outcomes)))
    lc.batch_start()
    handle.remove()
    ((error, _, unchanged),) = outcomes
    assert (error, unchanged) == (ReentrantEventError, True)
    fire(lc, "LE")
    assert lc.state == "session.ready"


@pytest.mark.parametrize("act", ACTS)
def test_a_tap_may_not_move_the_run_while_it_is_told_of_a_rejected_event(act):
    lc = training("IB")
    outcomes = []
    lc.attach(Trying("rejected", attempt(ACTS[act], outcomes)))
    with pytest.raises(IllegalEventError):
        lc.batch_end()
    ((error, _, unchanged),) = outcomes
    assert (error, unchanged) == (ReentrantEventError, True)


@pytest.mark.parametrize("control", ["abort", "reset", "suspend"])
@pytest.mark.parametrize("act", ["fire what is illegal", "session", "reset", "load_state_dict"])
def test_a_tap_may_not_move_the_run_while_it_is_told_of_a_control(act, control):
    lc = training("I")
    outcomes = []
    lc.attach(Trying("control", attempt(ACTS[act], outcomes)))
    if control == "suspend":
        with lc.suspended("evaluation"):
            pass
    else:
        getattr(lc, control)()
    ((error, _, unchanged),) = outcomes
    assert (error, unchanged) == (ReentrantEventError, True)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("act", ACTS)
def test_an_observer_that_has_suspended_the_run_may_not_move_it_either(act, options):
    lc = training("I", **options)
    outcomes = []

    def evaluate(event, payload):
        with lc.suspended("evaluation"):
            pass
        attempt(ACTS[act], outcomes)(lc)

    lc.on("batch_start", evaluate)
    lc.batch_start()
    ((error, _, unchanged),) = outcomes
    assert (error, unchanged) == (ReentrantEventError, True)
    assert lc.history == tuple(sequences.events("IB"))
    assert lc.state == "session.batch.started"


def test_a_tap_that_fires_at_every_rejected_event_is_refused_once_for_each():
    lc = training("I")
    lc.attach(Trying("rejected", lambda lifecycle: lifecycle.batch_start()))
    with pytest.raises(ReentrantEventError) as caught:
        lc.batch_end()
    assert isinstance(caught.value.__context__, IllegalEventError)
    assert (lc.progress.rejected, lc.history) == (2, (EventType.INITIALIZE,))


def test_an_observer_is_refused_again_after_a_tap_was_told_that_it_was_refused():
    lc = training("I")
    outcomes = []
    lc.attach(Log([]))

    def observer(event, payload):
        for _ in range(2):
            with pytest.raises(ReentrantEventError) as caught:
                lc.loss_calculated(loss=1)
            outcomes.append(str(caught.value))

    lc.on("batch_start", observer)
    lc.batch_start()
    message = "LOSS_CALCULATED was fired by an observer of BATCH_START; fire it after the observers have returned"
    assert outcomes == [message] * 2
    assert fire(lc, "LE").state == "session.ready"


def test_a_reentrant_event_is_a_rejected_event():
    lc = training()
    told = []
    lc.attach(Log(told))
    lc.on("initialize", lambda event, payload: lc.batch_start())
    with pytest.raises(ReentrantEventError) as caught:
        lc.initialize()
    assert lc.progress.rejected == 1
    assert told == [
        ("tap", "before", EventType.INITIALIZE, {}),
        ("tap", "rejected", EventType.BATCH_START, caught.value),
        ("tap", "after", EventType.INITIALIZE, {}, caught.value),
    ]


def test_what_is_no_event_is_refused_as_such_inside_an_observer():
    lc = training()
    lc.on("initialize", lambda event, payload: lc.fire("batch_begin"))
    with pytest.raises(UnknownEventError):
        lc.initialize()


def test_an_uncaught_reentrant_call_lets_the_event_stand():
    lc = training()
    handle = lc.on("initialize", lambda event, payload: lc.reset())
    with pytest.raises(ReentrantEventError, match=r"reset\(\) was called by an observer of INITIALIZE"):
        lc.initialize()
    handle.remove()
    assert fire(lc, "BLEF").status == "finalized"


# Taps


def test_a_tap_is_told_before_and_after_the_observers():
    lc = training()
    told = []
    lc.on(EventType, lambda event, payload: told.append(("observer", event.type_)))
    lc.attach(Log(told, "first"))
    lc.attach(Log(told, "second"))
    payload = {"recipe": "w4a16"}
    lc.initialize(**payload)
    event = EventType.INITIALIZE
    assert told == [
        ("first", "before", event, payload),
        ("second", "before", event, payload),
        ("observer", event),
        ("first", "after", event, payload, None),
        ("second", "after", event, payload, None),
    ]


def test_a_tap_sees_the_counts_after_the_event():
    lc = training("IBL")
    counts = []
    lc.attach(Trying("before_notify", lambda lifecycle: counts.append(lifecycle.event.global_batch)))
    lc.batch_end()
    assert counts == [1]


def test_a_tap_is_told_how_long_the_observers_took(monkeypatch):
    clock = [1000]
    durations = []

    def pass_time(event, payload):
        clock[0] += 234

    class Durations(Tap):
        def before_notify(self, lifecycle, payload):
            clock[0] += 5000

        def after_notify(self, lifecycle, payload, duration, error):
            durations.append(duration)

    monkeypatch.setattr("lifecycle.engine.notifying.perf_counter_ns", lambda: clock[0])
    lc = training()
    lc.attach(Durations())
    lc.on("initialize", pass_time)
    lc.initialize()
    assert durations == [234]


@pytest.mark.parametrize("error", [RuntimeError(), Stop()])
def test_a_tap_is_told_what_an_observer_raised(error):
    lc = training()
    told = []
    lc.attach(Log(told))
    lc.on("initialize", raiser(error))
    with pytest.raises(type(error)):
        lc.initialize()
    assert [entry[1] for entry in told] == ["before", "after"]
    assert told[1][-1] is error


def test_a_tap_is_told_of_events_that_nobody_observes():
    lc = training()
    told = []
    lc.attach(Log(told))
    fire(lc, "IBLEF")
    assert [entry[2] for entry in told if entry[1] == "after"] == sequences.events("IBLEF")


@pytest.mark.parametrize("event", ["batch_begin", "BATCH_END", EventType.BATCH_END, None, 3])
def test_a_tap_is_told_of_a_rejected_event_as_the_caller_wrote_it(event):
    lc = training("I")
    told = []
    lc.attach(Log(told))
    with pytest.raises((IllegalEventError, UnknownEventError, TypeError)) as caught:
        lc.fire(event)
    assert told == [("tap", "rejected", event, caught.value)]
    assert told[0][2] is event


def test_a_tap_is_told_of_a_missing_payload():
    lc = training("IB")
    told = []
    lc.attach(Log(told))
    with pytest.raises(MissingPayloadError) as caught:
        lc.loss_calculated()
    assert told == [("tap", "rejected", EventType.LOSS_CALCULATED, caught.value)]


def test_a_tap_is_not_told_of_ignored_events():
    lc = training("I")
    told = []
    with lc.suspended("evaluation"):
        lc.attach(Log(told))
        fire(lc, "B")
        assert told == []


def test_in_record_mode_a_tap_is_told_of_the_violation_and_then_of_the_event():
    lc = training("IBLP", on_violation="record")
    told = []
    lc.attach(Log(told))
    lc.fire("BATCH_END")
    event = EventType.BATCH_END
    assert told == [
        ("tap", "rejected", "BATCH_END", lc.violations[0]),
        ("tap", "before", event, {}),
        ("tap", "after", event, {}, None),
    ]


def test_a_tap_is_told_of_every_control_with_its_detail():
    lc = training("I")
    told = []
    lc.attach(Log(told))
    error = RuntimeError("out of memory")
    with lc.suspended("evaluation"), lc.suspended("sanity check"):
        pass
    lc.abort(error)
    lc.reset()
    lc.reset()
    assert told == [
        ("tap", "suspend", "evaluation"),
        ("tap", "suspend", "sanity check"),
        ("tap", "resume", "sanity check"),
        ("tap", "resume", "evaluation"),
        ("tap", "abort", error),
        ("tap", "reset", "aborted"),
        ("tap", "reset", "created"),
    ]


@pytest.mark.parametrize(("word", "outcome"), [("", "created"), ("IB", "abandoned"), ("IF", "finalized")])
def test_a_tap_is_told_how_the_run_had_ended_that_a_reset_replaces(word, outcome):
    lc = training(word)
    told = []
    lc.attach(Log(told))
    lc.reset()
    assert told == [("tap", "reset", outcome)]


def test_a_tap_sees_the_new_run_when_it_is_told_of_a_reset():
    lc = training("IB")
    states = []
    lc.attach(Trying("control", lambda lifecycle: states.append((lifecycle.state, lifecycle.progress.accepted))))
    lc.reset()
    assert states == [("created", 0)]


def test_a_tap_is_not_told_of_an_abort_that_does_nothing():
    lc = training()
    told = []
    lc.attach(Log(told))
    lc.abort("nothing runs")
    assert told == []


def test_a_tap_is_told_of_the_exception_that_went_through_a_session():
    lc = training()
    told = []
    error = Stop()
    lc.on("initialize", lambda event, payload: lc.attach(Log(told)))
    with pytest.raises(Stop), lc.session():
        raise error
    assert told == [("tap", "abort", error)]


def test_a_tap_is_told_of_a_resume_when_the_block_raises():
    lc = training("I")
    told = []
    lc.attach(Log(told))
    with pytest.raises(RuntimeError), lc.suspended("evaluation"):
        raise RuntimeError
    assert told == [("tap", "suspend", "evaluation"), ("tap", "resume", "evaluation")]


def test_a_tap_that_does_nothing_may_be_attached():
    lc, calm = training("I"), training("I")
    lc.attach(Tap())
    for each in lc, calm:
        with pytest.raises(IllegalEventError):
            each.batch_end()
        with each.suspended("evaluation"):
            fire(each, "BLE")
        fire(each, "BLE")
    assert lc.state_dict() == calm.state_dict()


# Taps that raise


def test_a_tap_that_raises_before_keeps_the_event_from_the_observers_and_the_event_stands():
    lc = training()
    error = OSError("disk full")
    told = []
    lc.attach(Raising("before_notify", error))
    lc.attach(Log(told))
    lc.on(EventType, lambda event, payload: told.append("observer"))
    with pytest.raises(OSError, match="disk full") as caught:
        lc.initialize()
    assert caught.value is error
    assert "observer" not in told
    assert lc.history == (EventType.INITIALIZE,)


def test_a_tap_whose_fellow_raises_before_is_told_after_with_the_error_and_no_duration():
    lc = training()
    error = OSError("disk full")
    ends = []

    class Ends(Tap):
        def after_notify(self, lifecycle, payload, duration, error):
            ends.append((duration, error))

    lc.attach(Ends())
    lc.attach(Raising("before_notify", error))
    with pytest.raises(OSError, match="disk full"):
        lc.initialize()
    assert ends == [(0, error)]


def test_a_tap_that_raises_after_does_not_undo_the_event():
    lc = training()
    calls = []
    handle = lc.attach(Raising("after_notify", OSError("disk full")))
    lc.on(EventType, lambda event, payload: calls.append(event.type_))
    with pytest.raises(OSError, match="disk full"):
        lc.initialize()
    handle.remove()
    fire(lc, "B")
    assert calls == sequences.events("IB")


def test_a_tap_that_raises_at_a_rejected_event_leaves_the_run_as_it_was():
    lc = training("I")
    before = seen(lc)
    lc.attach(Raising("rejected", OSError("disk full")))
    with pytest.raises(OSError, match="disk full") as caught:
        lc.batch_end()
    assert isinstance(caught.value.__context__, IllegalEventError)
    assert (seen(lc), lc.progress.rejected) == (before, 1)


def test_a_tap_that_raises_at_a_reset_leaves_a_new_run():
    lc = training("IB")
    lc.attach(Raising("control", OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        lc.reset()
    assert seen(lc) == seen(training())


def test_a_tap_that_raises_at_an_abort_leaves_the_run_aborted():
    lc = training("IB")
    lc.attach(Raising("control", OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        lc.abort()
    assert lc.status == "aborted"


def test_a_tap_that_raises_at_a_resume_does_not_leave_the_run_suspended():
    lc = training("I")
    with pytest.raises(OSError, match="disk full"), lc.suspended("evaluation"):
        handle = lc.attach(Raising("control", OSError("disk full")))
    handle.remove()
    assert fire(lc, "B").state == "session.batch.started"


# Payloads


def test_history_and_saved_state_keep_no_payload():
    class Tensor:
        pass

    lc = training("IB")
    lc.on(EventType, print, when=lambda event, payload: False)
    lc.attach(Tap())
    tensor = Tensor()
    lc.loss_calculated(loss=tensor, batch=[tensor])
    assert json.loads(json.dumps(lc.state_dict())) == lc.state_dict()
    assert lc.history == tuple(sequences.events("IBL"))


def test_an_error_keeps_no_payload():
    lc = training("I")
    payload = {"batch": object()}
    with pytest.raises(IllegalEventError) as caught:
        lc.batch_end(**payload)
    assert payload["batch"] not in vars(caught.value).values()


def test_a_guard_gets_the_lifecycle_and_the_payload():
    asked = []

    def check(lifecycle, payload):
        asked.append((lifecycle, payload))
        return True

    lc = Lifecycle(Protocol("one", ["a", "b"], [Transition("a", "finalize", "b", guard=Guard("", check))], "a", ["b"]))
    lc.finalize(report="short")
    assert asked == [(lc, {"report": "short"})]
