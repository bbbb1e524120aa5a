"""What holds of the engine whatever happens: all spellings, options and listeners, in any order of calls."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict

import acceptor
import pytest
import sequences
from hypothesis import given
from hypothesis import strategies as st
from runs import EVERY, complete_runs, fire, long_lists, seen, unhurried

from lifecycle import (
    EventType,
    ExpectationError,
    IllegalEventError,
    Lifecycle,
    LifecycleError,
    MissingPayloadError,
    ReentrantEventError,
    Tap,
    UnknownEventError,
)

any_protocol = st.sampled_from(EVERY)
few = st.none() | st.integers(1, 3)


@st.composite
def beginnings(draw, protocol):
    """The beginning of a run, of any length."""
    run = draw(complete_runs(protocol))
    return run[: draw(st.integers(0, len(run)))]


def spellings(event):
    return event, event.value, event.name, f"EventType.{event.name}"


# A rejected event changes nothing


def refusal(lifecycle, event, **payload):
    """The error that an event is refused with; that nothing else came of it is asserted."""
    before, rejected = seen(lifecycle), lifecycle.progress.rejected
    try:
        lifecycle.fire(event, **payload)
    except (LifecycleError, TypeError) as error:
        refused = error
    else:
        raise AssertionError(f"{event!r} was accepted")
    assert (seen(lifecycle), lifecycle.progress.rejected) == (before, rejected + 1)
    return refused


@unhurried
@given(protocol=any_protocol, thread_safe=st.booleans(), data=st.data())
def test_a_rejected_event_changes_nothing_but_the_count_of_them(protocol, thread_safe, data):
    lc = Lifecycle(protocol, thread_safe=thread_safe)
    calls = []
    lc.on(EventType, lambda event, payload: calls.append(event.type_))
    lc.on(EventType, lambda event, payload: calls.append("every third"), every=3)
    run = fire(lc, data.draw(beginnings(protocol))).history
    called = list(calls)
    refusals = {type(refusal(lc, event)) for event in ("batch_begin", "", "EventType.batch_start")}
    assert refusals == {UnknownEventError}
    assert {type(refusal(lc, event)) for event in (None, 3, [], EventType, b"batch_start")} == {TypeError}
    for event in EventType:
        for spelling in spellings(event):
            if not lc.can(event):
                assert type(refusal(lc, spelling, loss=1)) is IllegalEventError
            elif event is EventType.LOSS_CALCULATED:
                assert type(refusal(lc, spelling)) is MissingPayloadError
    assert calls == called
    assert lc.history == run


@unhurried
@given(run=st.sampled_from(["ICS", "ICBE", "I", "ICSK", "IBLPOE", "ICBLESBLES"]), spell=st.integers(0, 3))
def test_a_missed_expectation_changes_nothing_but_the_count_of_rejected_events(run, spell):
    lc = Lifecycle()
    calls = []
    lc.on(EventType, lambda event, payload: calls.append(event.type_))
    fire(lc, run)
    lc.expect = {"sequential_epochs": 9, "steps": 9}
    end = next(event for event in sequences.events("KF") if lc.can(event))
    assert type(refusal(lc, spellings(end)[spell])) is ExpectationError
    assert calls == sequences.events(run)


@unhurried
@given(protocol=any_protocol, thread_safe=st.booleans(), data=st.data())
def test_a_reentrant_call_changes_nothing_but_the_count_of_rejected_events(protocol, thread_safe, data):
    lc, calm = Lifecycle(protocol, thread_safe=thread_safe), Lifecycle(protocol)
    run = data.draw(complete_runs(protocol))

    def observer(event, payload):
        for attempt in EventType:
            spelling = data.draw(st.sampled_from(spellings(attempt)))
            assert type(refusal(lc, spelling, loss=1)) is ReentrantEventError
        before = seen(lc)
        with pytest.raises(ReentrantEventError):
            lc.reset()
        with pytest.raises(ReentrantEventError):
            lc.load_state_dict(Lifecycle(protocol).state_dict())
        assert seen(lc) == before

    lc.on(data.draw(st.sampled_from(run)), observer, once=True)
    assert seen(fire(lc, run)) == seen(fire(calm, run))
    assert lc.progress.rejected == len(EventType)


# Operations in any order


class Silent(Tap):
    """Sees everything, does nothing."""


class Crash(Exception):  # noqa: N818 # raised by an observer, to be found again
    """What an observer raises when the payload says so."""


class Runner:
    """A lifecycle on which any operation can be carried out, and what came of it."""

    def __init__(self, spell=0, tapped=False, observed=True, **options):
        self.lifecycle = Lifecycle(**options)
        self.spell = spell
        self.calls = []
        self.suspensions = contextlib.ExitStack()
        if tapped:
            self.lifecycle.attach(Silent())
        if observed:
            self.lifecycle.on(EventType, self.observe)
            self.lifecycle.on(EventType, lambda event, payload: self.calls.append("every third"), every=3)

    def observe(self, event, payload):
        self.calls.append((asdict(event), sorted(payload)))
        if payload.get("crash"):
            raise Crash

    def go(self, operation):
        """Carry out one operation; what came of it."""
        name, *arguments = operation
        try:
            return getattr(self, name)(*arguments)
        except (LifecycleError, TypeError, Crash) as error:
            return type(error), str(error)

    def legal(self, pick, payload):
        """Fire one of the events that are legal now, if there is one."""
        going_on = [event for event in self.lifecycle.allowed if event is not EventType.FINALIZE]
        return self.event(going_on[pick % len(going_on)], payload) if going_on else None

    def event(self, event, payload):
        return self.fire(spellings(event)[self.spell], payload)

    def fire(self, event, payload):
        return asdict(self.lifecycle.fire(event, **payload))

    def reset(self):
        return self.lifecycle.reset()

    def abort(self):
        return self.lifecycle.abort("tried")

    def suspend(self):
        self.suspensions.enter_context(self.lifecycle.suspended("tried"))

    def resume(self):
        self.suspensions.close()

    def reload(self):
        saved = self.lifecycle.state_dict()
        self.lifecycle.load_state_dict(json.loads(json.dumps(saved)))
        return saved


payloads = st.sampled_from(
    [*[{"loss": 0.5}] * 8, {}, {"loss": None}, {"loss": 1, "crash": True}, {"loss": 1, "skipped": True}]
)
operations = long_lists(
    st.one_of(
        *[st.tuples(st.just("legal"), st.integers(0, 5), payloads)] * 5,
        st.tuples(st.just("event"), st.sampled_from(EventType), payloads),
        st.tuples(st.just("fire"), st.sampled_from(["batch_begin", "", None, 3, []]), payloads),
        st.sampled_from([("reset",), ("abort",), ("suspend",), ("resume",), ("reload",), ("reload",)]),
    ),
    40,
)


@st.composite
def configurations(draw):
    protocol = draw(st.sampled_from(["compression", "sequential", "training", "training_microbatched", "upstream"]))
    options = {"protocol": protocol, "batches_per_step": draw(few), "steps_per_epoch": draw(few)}
    if protocol != "sequential":
        options["invocations_per_step"] = draw(st.integers(1, 2))
    options["expect"] = draw(st.sampled_from([None, {"batches": 1}, {"steps": 1}]))
    options["on_violation"] = draw(st.sampled_from(["raise", "record"]))
    return options


@unhurried
@given(options=configurations(), operations=operations)
def test_no_spelling_option_or_listener_makes_a_difference(options, operations):
    plain = Runner(**options)
    same = [
        *(Runner(spell=spell, **options) for spell in (1, 2, 3)),
        Runner(thread_safe=True, **options),
        Runner(tapped=True, **options),
    ]
    unobserved = Runner(observed=False, **options)
    for operation in operations:
        outcome = plain.go(operation)
        assert [other.go(operation) for other in same] == [outcome] * len(same)
        unobserved.go(operation)
        for other in (*same, unobserved):
            assert other.lifecycle.state_dict() == plain.lifecycle.state_dict()
            assert other.lifecycle.allowed == plain.lifecycle.allowed
            assert other.lifecycle.status == plain.lifecycle.status
            assert [*map(str, other.lifecycle.violations)] == [*map(str, plain.lifecycle.violations)]
    assert [other.calls for other in same] == [plain.calls] * len(same)


@unhurried
@given(options=configurations(), operations=operations, spell=st.integers(0, 3))
def test_counters_equal_an_independent_count_of_the_accepted_events(options, operations, spell):
    runner = Runner(spell=spell, **{**options, "on_violation": "raise"})
    lc = runner.lifecycle
    word, skipped, rejected, ignored, suspended = "", set(), 0, 0, False
    for name, *arguments in operations:
        accepted, legal = lc.progress.accepted, lc.allowed
        outcome = runner.go((name, *arguments))
        if name == "reset":
            word, skipped, rejected, ignored = "", set(), 0, 0
        elif name in {"suspend", "resume"}:
            suspended = name == "suspend"
        elif lc.progress.accepted > accepted:
            assert lc.event.type_ in legal
            if arguments[1].get("skipped"):
                skipped.add(len(word))
            word += sequences.LETTER[lc.event.type_]
        elif name in {"legal", "event", "fire"} and outcome is not None:
            rejected += isinstance(outcome, tuple)
            ignored += isinstance(outcome, dict)
            assert suspended or not isinstance(outcome, dict)
        assert (lc.progress.rejected, lc.progress.ignored) == (rejected, ignored)
        sizes = {name: options.get(name) or 1 for name in ("invocations_per_step", "batches_per_step")}
        assert sequences.all_counters(lc) == acceptor.counted(word, skipped, **sizes)
        assert lc.history == tuple(sequences.events(word))[-16:]


@unhurried
@given(options=configurations(), operations=operations)
def test_a_run_saved_at_every_point_goes_on_as_if_it_had_not_been(options, operations):
    options["on_violation"] = "raise"
    plain = Runner(observed=False, **options)
    baton = Runner(observed=False, **options)
    suspended = False
    for operation in operations:
        outcome = plain.go(operation)
        assert baton.go(operation) == outcome
        if operation[0] in {"suspend", "resume"}:
            suspended = operation[0] == "suspend"
        if not suspended:
            saved = json.loads(json.dumps(baton.lifecycle.state_dict()))
            baton = Runner(observed=False, **options)
            baton.lifecycle.load_state_dict(saved)
        assert seen(baton.lifecycle) == seen(plain.lifecycle)


@unhurried
@given(protocol=any_protocol, data=st.data())
def test_from_any_point_of_a_run_the_saved_and_the_unsaved_one_end_alike(protocol, data):
    run = data.draw(complete_runs(protocol))
    at = data.draw(st.integers(0, len(run)))
    lc, resumed = fire(Lifecycle(protocol), run[:at]), Lifecycle(protocol)
    resumed.load_state_dict(json.loads(json.dumps(lc.state_dict())))
    assert seen(resumed) == seen(lc)
    assert seen(fire(resumed, run[at:])) == seen(fire(lc, run[at:]))
    assert resumed.status == "finalized"


@unhurried
@given(protocol=any_protocol, data=st.data())
def test_an_observer_that_raises_anywhere_leaves_the_run_as_it_would_be(protocol, data):
    run = data.draw(complete_runs(protocol))
    lc, calm = Lifecycle(protocol), Lifecycle(protocol)
    broken = data.draw(st.sets(st.sampled_from(run)))

    def crash(event, payload):
        raise KeyboardInterrupt

    lc.on(broken or EventType, crash)
    for event in run:
        with pytest.raises(KeyboardInterrupt) if event in (broken or EventType) else contextlib.nullcontext():
            fire(lc, [event])
        assert seen(lc) == seen(fire(calm, [event]))
