"""One session of the real LLM Compressor under the engine, event by event."""

import asyncio
import copy
import dataclasses
import enum
import gc
import io
import threading
import warnings
import weakref

import pytest
import torch
from llmcompressor.core import (
    CompressionLifecycle,
    CompressionSession,
    Event,
    EventType,
    LifecycleCallbacks,
    active_session,
    create_session,
)
from llmcompressor.core import State as TheirState
from llmcompressor.modifiers import Modifier
from loguru import logger
from pydantic import Field

import lifecycle
from lifecycle import (
    IllegalEventError,
    Lifecycle,
    LifecycleError,
    LifecycleWarning,
    MissingPayloadError,
    protocols,
    trace,
)
from lifecycle.integrations.llmcompressor import CountedEvent, guard

logger.disable("llmcompressor")

LETTERS = {
    "C": "calibration_start",
    "B": "batch_start",
    "L": "loss_calculated",
    "P": "optim_pre_step",
    "O": "optim_post_step",
    "E": "batch_end",
    "S": "sequential_epoch_end",
    "K": "calibration_end",
}
TRAINING_BATCH = "BLPOE"


class Own(str, enum.Enum):
    CHECKPOINT = "checkpoint"


class Spy(Modifier):
    """Notes what it is told, and raises where it is asked to."""

    seen: list = Field(default_factory=list)
    failing: str = ""

    def note(self, what, event=None):
        index = None if event is None else event.current_index
        self.seen.append(what if index is None else (what, index))
        if what == self.failing:
            raise RuntimeError(f"{what} failed")

    def on_initialize(self, state: TheirState, **kwargs) -> bool:
        self.note("initialize")
        return True

    def on_finalize(self, state: TheirState, **kwargs) -> bool:
        self.note("finalize")
        return True

    def on_event(self, state: TheirState, event: Event, **kwargs):
        self.note(event.type_.name)

    def on_start(self, state: TheirState, event: Event, **kwargs):
        self.note("start", event)

    def on_update(self, state: TheirState, event: Event, **kwargs):
        if event.type_ == EventType.BATCH_START:
            self.note("update", event)

    def on_end(self, state: TheirState, event: Event, **kwargs):
        self.note("end", event)

    def hooks(self):
        """The hooks of the schedule that were called, with the index that they saw."""
        return [each for each in self.seen if isinstance(each, tuple)]


class Keeper(Modifier):
    """Keeps the events that it gets, and what comes with them."""

    events: list = Field(default_factory=list)
    payloads: list = Field(default_factory=list)

    def on_initialize(self, state: TheirState, **kwargs) -> bool:
        return True

    def on_event(self, state: TheirState, event: Event, **kwargs):
        self.events.append(event)
        self.payloads.append(kwargs)


@pytest.fixture
def session():
    with create_session() as session:
        yield session


def fire(word):
    """Fire events by their letters, as a hand-written loop does."""
    for letter in word:
        with_it = {"L": {"loss": 1.0}, "S": {"modules": []}}.get(letter, {})
        getattr(LifecycleCallbacks, LETTERS[letter])(**with_it)


def standing(session):
    """All that LLM Compressor's lifecycle knows but for the state and the recipe, which are objects."""
    return {name: value for name, value in vars(session.lifecycle).items() if name.startswith("_") or name in OWN}


OWN = {"initialized_", "finalized", "global_step"}


# Counters and schedules


def test_without_the_guard_a_modifier_never_starts(session):
    spy = Spy(start=2, end=4)
    session.initialize(recipe=[spy])
    fire(TRAINING_BATCH * 6)
    session.finalize()
    assert spy.hooks() == []


def test_under_the_guard_a_modifier_starts_and_ends_at_its_batches(session):
    spy = Spy(start=2, end=4)
    with guard("training"):
        session.initialize(recipe=[spy])
        fire(TRAINING_BATCH * 6)
        session.finalize()
    assert spy.hooks() == [("start", 2), ("update", 2), ("update", 3), ("end", 4)]
    assert [what for what in spy.seen if isinstance(what, str)] == [
        "initialize",
        *["BATCH_START", "LOSS_CALCULATED", "OPTIM_PRE_STEP", "OPTIM_POST_STEP", "BATCH_END"] * 6,
        "finalize",
    ]


def test_schedules_are_in_epochs_if_the_guard_knows_their_size(session):
    spy = Spy(start=0.5, end=1.0)
    with guard("training", steps_per_epoch=4):
        session.initialize(recipe=[spy])
        fire(TRAINING_BATCH * 6)
        session.finalize()
    assert spy.hooks() == [("start", 0.5), ("update", 0.5), ("update", 0.75), ("end", 1.0)]


def test_a_modifier_that_starts_at_zero_starts_once(session):
    spy = Spy(start=0)
    with guard("training"):
        session.initialize(recipe=[spy])
        fire(TRAINING_BATCH)
        session.finalize()
    assert spy.hooks() == [("start", 0), ("update", 0)]


def test_accumulation_counts_real_steps(session):
    keeper = Keeper()
    with guard("training", batches_per_step=2) as lc:
        session.initialize(recipe=[keeper])
        fire("BLE" + TRAINING_BATCH + "BLE")
        counted = [
            (event.global_batch, event.global_step) for event in keeper.events if event.type_.name == "BATCH_END"
        ]
    assert counted == [(1, 0), (2, 1), (3, 1)]
    assert lc.event.global_step == 1


def test_invocations_of_the_optimizer_are_counted_as_steps(session):
    keeper = Keeper()
    with guard("training", invocations_per_step=2):
        session.initialize(recipe=[keeper])
        fire("BLPOPOE")
    assert [event.global_step for event in keeper.events] == [0, 0, 0, 0, 0, 1, 1]
    assert {event.invocations_per_step for event in keeper.events} == {2}


def test_every_event_is_one_of_llm_compressors_with_its_own_type_and_true_counters(session):
    keeper, other = Keeper(), Keeper()
    with guard():
        session.initialize(recipe=[keeper, other])
        fire("C" + "BE" + "S" + "K" + TRAINING_BATCH)
        session.finalize()
    assert all(isinstance(event, Event) and isinstance(event, lifecycle.Event) for event in keeper.events)
    assert [event.type_ for event in keeper.events] == [
        EventType(LETTERS[letter]) for letter in "CBESK" + TRAINING_BATCH
    ]
    assert [(event.global_batch, event.global_step) for event in keeper.events] == [
        *[(0, 0), (0, 0), (1, 1), (1, 1), (1, 1)],
        *[(1, 1), (1, 1), (1, 1), (1, 2), (2, 2)],
    ]
    assert all(one is two for one, two in zip(keeper.events, other.events, strict=True))


def test_without_the_guard_every_event_is_at_zero(session):
    keeper = Keeper()
    session.initialize(recipe=[keeper])
    fire(TRAINING_BATCH * 2)
    assert {(event.global_batch, event.global_step, event.current_index) for event in keeper.events} == {(0, 0, 0)}


def test_the_payload_reaches_the_modifiers_as_it_was_given(session):
    keeper = Keeper()
    loss, modules = torch.tensor(0.0), [torch.nn.Linear(1, 1)]
    with guard():
        session.initialize(recipe=[keeper])
        LifecycleCallbacks.calibration_start(own=1)
        LifecycleCallbacks.batch_start(batch_data="data")
        LifecycleCallbacks.loss_calculated(loss=loss)
        LifecycleCallbacks.batch_end()
        LifecycleCallbacks.sequential_epoch_end(modules)
    assert keeper.payloads == [
        {"batch_data": None, "loss": None, "own": 1},
        {"batch_data": "data", "loss": None},
        {"batch_data": None, "loss": loss},
        {"batch_data": None, "loss": None},
        {"batch_data": None, "loss": None, "modules": modules},
    ]


def test_what_modifiers_return_is_in_the_modified_state(session, monkeypatch):
    with guard("training"):
        assert session.initialize(recipe=[Spy(), Spy()]).modifier_data == []
        monkeypatch.setattr(Spy, "update_event", lambda self, **passed: passed["event"].global_batch)
        assert LifecycleCallbacks.batch_start().modifier_data == [0, 0]
        assert LifecycleCallbacks.loss_calculated(loss=1.0).modifier_data == [0, 0]
        monkeypatch.setattr(Spy, "finalize", lambda self, **passed: "done")
        fire("E")
        assert session.finalize().modifier_data == ["done", "done"]


# The lifecycle's own step


def test_without_the_guard_the_step_of_the_lifecycle_goes_back(session):
    session.initialize()
    for step in 5, 3:
        LifecycleCallbacks.batch_start(global_step=step)
        LifecycleCallbacks.batch_end(global_step=step)
        assert session.lifecycle.global_step == step
    LifecycleCallbacks.batch_start()
    assert session.lifecycle.global_step == 0


def test_under_the_guard_the_step_of_the_lifecycle_is_the_engines(session):
    steps = []
    with guard("training"):
        session.initialize()
        for given in {"global_step": 7}, {"global_step": 3}, {}:
            LifecycleCallbacks.batch_start(**given)
            LifecycleCallbacks.loss_calculated(loss=1.0, **given)
            LifecycleCallbacks.optim_pre_step(**given)
            LifecycleCallbacks.optim_post_step(**given)
            LifecycleCallbacks.batch_end(**given)
            steps.append(session.lifecycle.global_step)
    assert steps == [1, 2, 3]


# Order

# What LLM Compressor takes and should not: everything up to the last event is in order.
WRONG = {
    "training": ["E", TRAINING_BATCH + "E", "BE", "BLL", "BLO", "BLPE", "BLB", "S", "K", "BS"],
    "compression": ["S", "K", "CC", "CKK", "CBS", "CBK"],
}
WRONG_RUNS = [(protocol, word) for protocol, words in WRONG.items() for word in words]


@pytest.mark.parametrize(("protocol", "word"), WRONG_RUNS)
def test_without_the_guard_a_wrong_order_is_taken(session, protocol, word):
    spy = Spy()
    session.initialize(recipe=[spy])
    fire(word)
    assert len([what for what in spy.seen if isinstance(what, str)]) == 1 + len(word)


@pytest.mark.parametrize(("protocol", "word"), WRONG_RUNS)
def test_under_the_guard_a_wrong_order_is_refused_and_moves_nothing(session, protocol, word):
    spy = Spy()
    with guard(protocol) as lc:
        session.initialize(recipe=[spy])
        fire(word[:-1])
        before = standing(session), list(spy.seen), lc.state, lc.event.new_instance(), lc.history
        with pytest.raises(IllegalEventError) as refusal:
            fire(word[-1])
        assert isinstance(refusal.value, ValueError)
        assert (standing(session), spy.seen, lc.state, lc.event, lc.history) == before


@pytest.mark.parametrize("word", ["C", "CB", "B", "BL"])
def test_without_the_guard_a_run_is_finalized_in_the_middle(session, word):
    session.initialize(recipe=[Spy()])
    fire(word)
    session.finalize()
    assert session.lifecycle.finalized


@pytest.mark.parametrize("word", ["C", "CB", "B", "BL"])
def test_under_the_guard_a_run_is_not_finalized_in_the_middle(session, word):
    spy = Spy()
    with guard():
        session.initialize(recipe=[spy])
        fire(word)
        with pytest.raises(IllegalEventError, match="FINALIZE is not allowed"):
            session.finalize()
    assert not session.lifecycle.finalized
    assert "finalize" not in spy.seen


def test_without_the_guard_a_refused_event_moves_the_order(session):
    session.initialize()
    LifecycleCallbacks.batch_start()
    with pytest.raises(ValueError, match="Loss must be provided"):
        LifecycleCallbacks.loss_calculated()
    assert session.lifecycle._last_event_type is EventType.LOSS_CALCULATED


def test_under_the_guard_a_loss_that_is_missing_moves_nothing(session):
    with guard("training") as lc:
        session.initialize()
        LifecycleCallbacks.batch_start()
        with pytest.raises(MissingPayloadError):
            LifecycleCallbacks.loss_calculated()
        assert session.lifecycle._last_event_type is EventType.BATCH_START
        assert lc.state == "session.batch.started"
        fire("LE")


def test_without_the_guard_a_second_initialize_and_one_after_finalize_are_ignored(session):
    session.initialize(recipe=[Spy()])
    session.initialize(recipe=[Spy(), Spy()])
    session.finalize()
    session.initialize(recipe=[Spy(), Spy()])
    assert len(session.lifecycle.recipe.modifiers) == 1
    assert session.lifecycle.finalized


def test_under_the_guard_a_second_initialize_is_refused_and_changes_nothing(session):
    with guard():
        session.initialize(recipe=[Spy()], model="first")
        with pytest.raises(IllegalEventError, match=r"INITIALIZE is not allowed in session\.ready"):
            session.initialize(model="second")
        assert session.state.model == "first"


def test_under_the_guard_initialize_after_finalize_says_that_the_run_is_over(session):
    with guard():
        session.initialize()
        session.finalize()
        with pytest.raises(IllegalEventError, match=r"the run is over; reset\(\) begins a new one"):
            session.initialize()


def test_a_session_that_was_initialized_before_must_be_reset_first(session):
    session.initialize(model="old")
    with guard() as lc:
        with pytest.raises(LifecycleError, match="was initialized before it was guarded"):
            session.initialize(model="new")
        assert (lc.status, session.state.model) == ("created", "old")
        session.reset()
        session.initialize(model="new")
        assert session.state.model == "new"


def test_expected_counts_of_layers_and_batches_are_checked(session):
    with guard("sequential", expect={"sequential_epochs": 2, "batches": 3}):
        session.initialize(recipe=[spy := Spy()])
        fire("CBEBES")
        before = list(spy.seen)
        with pytest.raises(lifecycle.ExpectationError) as refusal:
            fire("K")
        assert refusal.value.misses == {"sequential_epochs": (2, 1), "batches": (3, 2)}
        assert spy.seen == before
        fire("BESK")
        session.finalize()


# Spellings


@pytest.mark.parametrize(
    "spelling",
    [
        "calibration_start",
        "CALIBRATION_EPOCH_START",
        EventType.CALIBRATION_START,
        lifecycle.EventType.CALIBRATION_START,
    ],
)
def test_an_event_may_be_spelled_in_any_way(session, spelling):
    keeper = Keeper()
    with guard():
        session.initialize(recipe=[keeper])
        session.event(spelling)
    assert [event.type_ for event in keeper.events] == [EventType.CALIBRATION_START]


@pytest.mark.parametrize("junk", ["batch_begin", None, 3, []])
def test_without_the_guard_anything_is_an_event(session, junk):
    session.initialize()
    session.event(junk)


@pytest.mark.parametrize(
    ("junk", "error", "message"),
    [
        ("batch_begin", lifecycle.UnknownEventError, "did you mean"),
        (None, TypeError, "an event must be an EventType or a string, got None"),
        (3, TypeError, "got 3"),
        ([], TypeError, r"got \[\]"),
    ],
)
def test_under_the_guard_what_is_not_an_event_is_refused(session, junk, error, message):
    with guard() as lc:
        session.initialize(recipe=[spy := Spy()])
        with pytest.raises(error, match=message):
            session.event(junk)
        assert (lc.progress.accepted, lc.progress.rejected, spy.seen) == (1, 1, ["initialize"])


@pytest.mark.parametrize("event", ["INITIALIZE", "EventType.FINALIZE", EventType.FINALIZE])
def test_initialize_and_finalize_are_not_taken_as_events(session, event):
    with guard() as lc:
        session.initialize()
        with pytest.raises(LifecycleError, match=r"event\(\) does not take \w+: call the session's \w+\(\)"):
            session.event(event)
        assert lc.status == "open"


def test_events_of_a_protocol_of_ones_own_reach_the_modifiers(session):
    protocol = protocols.TRAINING.extend(
        "own",
        transitions=[lifecycle.Transition("session.ready", Own.CHECKPOINT, "session.ready")],
        vocabularies=[Own],
    )
    keeper = Keeper()
    with guard(protocol):
        session.initialize(recipe=[keeper])
        session.event(Own.CHECKPOINT)
    assert [event.type_ for event in keeper.events] == [Own.CHECKPOINT]


# Violations that are let through


@pytest.mark.parametrize(
    ("word", "name"),
    [("E", "BATCH_END"), ("BB", "BATCH_START"), ("BLPOP", "OPTIM_PRE_STEP"), ("S", "SEQUENTIAL_EPOCH_END")],
)
@pytest.mark.parametrize("mode", ["warn", "record"])
def test_a_violation_that_is_let_through_reaches_the_modifiers(session, word, name, mode):
    spy = Spy()
    with guard("training", on_violation=mode) as lc, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session.initialize(recipe=[spy])
        fire(word)
    assert spy.seen[-1] == name
    assert [violation.event.name for violation in lc.violations] == [name]
    assert [each.category for each in caught] == [LifecycleWarning] * (mode == "warn")


def test_a_missing_loss_that_is_let_through_reaches_the_modifiers_as_none(session):
    keeper = Keeper()
    with guard("training", on_violation="record") as lc:
        session.initialize(recipe=[keeper])
        LifecycleCallbacks.batch_start()
        LifecycleCallbacks.loss_calculated()
    assert keeper.payloads[-1] == {"batch_data": None, "loss": None}
    assert [type(violation) for violation in lc.violations] == [MissingPayloadError]


def test_events_before_initialize_and_after_finalize_do_not_kill_a_run_that_is_only_watched(session):
    spy = Spy()
    with guard("training", on_violation="record") as lc:
        fire("B")
        session.initialize(recipe=[spy])
        session.finalize()
        fire("B")
        session.finalize()
        session.initialize(recipe=[Spy()])
    assert spy.seen == ["initialize", "finalize"]
    assert [violation.event.name for violation in lc.violations] == [
        *["BATCH_START", "INITIALIZE", "BATCH_START", "FINALIZE", "INITIALIZE"]
    ]


# Modifiers that raise


def test_when_a_modifier_raises_the_event_stands_and_later_modifiers_are_not_told(session):
    first, second, third = Spy(), Spy(failing="BATCH_START"), Spy()
    told = []
    with guard("training") as lc:
        lc.on("batch_start", lambda event, payload: told.append(event.type_.name))
        session.initialize(recipe=[first, second, third])
        with pytest.raises(RuntimeError, match="BATCH_START failed"):
            fire("B")
        assert (lc.state, lc.status) == ("session.batch.started", "open")
    assert (first.seen[-1], third.seen, told) == ("BATCH_START", ["initialize"], [])


FAILURES = {
    "on_start": ("BLPOE", "B", {"start": 1}),
    "on_update": ("BLPOE", "B", {"start": 1}),
    "on_end": ("BLPO", "E", {"start": 0, "end": 1}),
    "on_calibration_start": ("", "C", {}),
    "on_sequential_epoch_end": ("C", "S", {}),
    "on_calibration_end": ("CS", "K", {}),
}


@pytest.mark.parametrize("hook", FAILURES)
def test_whichever_hook_raises_the_event_stands_and_the_session_can_be_used_again(session, hook):
    def fail(self, state, event, **kwargs):
        raise RuntimeError(hook)

    before, failing, schedule = FAILURES[hook]
    first, second, third = Spy(), type("Failing", (Spy,), {hook: fail})(**schedule), Spy()
    with guard() as lc:
        session.initialize(recipe=[first, second, third])
        fire(before)
        with pytest.raises(RuntimeError, match=f"^{hook}$"):
            fire(failing)
        name = lifecycle.EventType(LETTERS[failing])
        assert (lc.history[-1], lc.status, lc.progress.accepted) == (name, "open", len(before) + 2)
        assert len([seen for seen in first.seen if isinstance(seen, str)]) == len(before) + 2
        assert len([seen for seen in third.seen if isinstance(seen, str)]) == len(before) + 1
        with pytest.warns(LifecycleWarning, match="abandoned an open run"):
            session.reset()
        session.initialize(recipe=[Spy()])
        fire("CSK" + TRAINING_BATCH)
        session.finalize()
        assert (lc.status, lc.event.global_step) == ("finalized", 1)


def test_when_initialize_fails_the_run_is_aborted_and_can_be_reset(session):
    first, second, third = Spy(), Spy(failing="initialize"), Spy()
    with guard() as lc:
        with pytest.raises(RuntimeError, match="initialize failed"):
            session.initialize(recipe=[first, second, third])
        assert (lc.status, lc.history) == ("aborted", (lifecycle.EventType.INITIALIZE,))
        assert third.seen == []
        with pytest.raises(IllegalEventError, match="the run was aborted"):
            fire("C")
        session.reset()
        assert first.seen == ["initialize", "finalize"]
        session.initialize(recipe=[Spy()])
        session.finalize()
    assert lc.status == "finalized"


def test_a_modifier_may_catch_that_it_cannot_initialize_the_session_again(session):
    class Initializing(Spy):
        def on_initialize(self, state: TheirState, **kwargs) -> bool:
            with pytest.raises(lifecycle.ReentrantEventError):
                session.initialize()
            return True

    with guard() as lc:
        session.initialize(recipe=[Initializing()])
        assert lc.status == "open"
        session.finalize()


def test_without_the_guard_a_failing_finalize_leaves_the_rest_open(session):
    spies = [Spy(), Spy(failing="finalize"), Spy()]
    session.initialize(recipe=spies)
    with pytest.raises(RuntimeError, match="finalize failed"):
        session.finalize()
    assert [spy.finalized for spy in spies] == [True, False, False]
    assert not session.lifecycle.finalized


def test_under_the_guard_finalize_attempts_every_modifier_and_raises_what_failed_as_one(session):
    spies = [Spy(failing="finalize"), Spy(), Spy(failing="finalize"), Spy()]
    with guard() as lc:
        session.initialize(recipe=spies)
        with pytest.raises(Exception, match="2 of 4 modifiers failed") as raised:
            session.finalize()
    assert [str(error) for error in raised.value.exceptions] == ["finalize failed", "finalize failed"]
    assert [spy.finalized for spy in spies] == [False, True, False, True]
    assert (lc.status, session.lifecycle.finalized) == ("finalized", True)


def test_a_modifier_that_fires_is_refused_and_the_session_goes_on(session):
    class Firing(Keeper):
        def on_event(self, state: TheirState, event: Event, **kwargs):
            super().on_event(state, event, **kwargs)
            if event.type_ == EventType.BATCH_START:
                LifecycleCallbacks.batch_end()

    firing = Firing()
    with guard("training"):
        session.initialize(recipe=[firing])
        with pytest.raises(lifecycle.ReentrantEventError):
            fire("B")
        fire("LE")
    assert [event.type_.name for event in firing.events] == ["BATCH_START", "LOSS_CALCULATED", "BATCH_END"]


# Resets


def test_a_reset_of_an_open_run_says_where_it_stood(session):
    spy = Spy()
    with guard() as lc:
        session.initialize(recipe=[spy])
        fire("CBESB")
        with pytest.warns(LifecycleWarning) as caught:
            session.reset()
        assert lc.status == "created"
        assert spy.finalized
        assert session.lifecycle == CompressionLifecycle()
        session.initialize(recipe=[Spy()])
        session.finalize()
    (warning,) = caught
    assert str(warning.message) == (
        "reset() has abandoned an open run, which stood in session.calibration.batch.started: "
        "global_batch=1, global_step=1, sequential epoch 1"
    )
    assert warning.filename == __file__


def test_a_modifier_cannot_reset_the_session_that_tells_it(session):
    class Resetting(Spy):
        def on_event(self, state: TheirState, event: Event, **kwargs):
            active_session().reset()

    resetting = Resetting()
    with guard() as lc:
        session.initialize(recipe=[resetting])
        with pytest.raises(lifecycle.ReentrantEventError):
            fire("C")
        assert session.lifecycle.initialized_
        assert (lc.state, resetting.finalized) == ("session.calibration.open", False)


def test_a_reset_between_runs_says_nothing(session):
    with guard() as lc:
        for _ in range(2):
            session.reset()
            session.initialize(recipe=[Spy()])
            session.finalize()
            session.reset()
    assert lc.status == "created"


def test_without_the_guard_the_order_survives_a_reset_of_the_stage(session):
    session.initialize()
    fire("B")
    session.reset_stage()
    session.initialize()
    with pytest.raises(ValueError, match="must appear following order"):
        fire("B")


def test_under_the_guard_a_reset_of_the_stage_begins_a_new_run_with_the_same_model(session):
    first, second = Spy(), Spy(start=1)
    with guard("training") as lc:
        session.initialize(recipe=[first], model="model")
        fire(TRAINING_BATCH * 3)
        session.finalize()
        session.reset_stage()
        assert (lc.status, session.state.model) == ("created", "model")
        assert standing(session) == standing(CompressionSession())
        session.initialize(recipe=[second])
        fire(TRAINING_BATCH * 2)
        session.finalize()
    assert second.hooks() == [("start", 1), ("update", 1)]


def test_a_reset_of_the_stage_in_an_open_run_says_so_and_leaves_nothing_of_it(session):
    with guard("training"):
        session.initialize()
        fire("B")
        with pytest.warns(LifecycleWarning, match=r"reset_stage\(\) has abandoned an open run") as caught:
            session.reset_stage()
        session.initialize()
        fire("B")
    assert caught[0].filename == __file__


# Entering and leaving


def test_leaving_the_guard_leaves_the_session_as_it_was(session):
    before = set(vars(session.lifecycle)), set(vars(session))
    classes = dict(vars(CompressionLifecycle)), dict(vars(CompressionSession)), dict(vars(LifecycleCallbacks))
    with guard():
        session.reset()
        session.initialize()
        fire("C")
        assert dict(vars(CompressionLifecycle)) == classes[0]
        fire("K")
        session.finalize()
        session.reset()
    assert (set(vars(session.lifecycle)), set(vars(session))) == before
    assert session.lifecycle == CompressionLifecycle()
    assert (
        dict(vars(CompressionLifecycle)),
        dict(vars(CompressionSession)),
        dict(vars(LifecycleCallbacks)),
    ) == classes
    session.initialize()
    fire("EE")


def test_an_exception_in_the_block_aborts_the_run_and_restores_the_session(session):
    before = set(vars(session.lifecycle)), set(vars(session))
    with pytest.raises(KeyboardInterrupt), guard() as lc:  # noqa: PT012 # what was run before it matters
        session.initialize()
        fire("CBE")
        raise KeyboardInterrupt
    assert (set(vars(session.lifecycle)), set(vars(session))) == before
    assert (lc.status, lc.state) == ("aborted", "session.calibration.open")


def test_what_is_fired_on_the_engine_itself_reaches_no_modifier(session):
    spy = Spy()
    with guard() as lc:
        session.initialize(recipe=[spy])
        lc.fire("calibration_epoch_start")
    lc.fire("calibration_epoch_end")
    assert spy.seen == ["initialize"]


def test_the_engine_does_not_keep_the_session_after_the_block():
    session = CompressionSession()
    with guard(session=session) as lc:
        session.initialize()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    assert lc.status == "open"


def test_a_block_to_which_no_event_came_says_so(session):
    with pytest.warns(LifecycleWarning, match="no event came to the guarded session") as caught, guard():
        session.reset()
    assert caught[0].filename == __file__


def test_a_block_that_raises_does_not_say_that_no_event_came(session):
    with pytest.raises(ZeroDivisionError), guard():
        _ = 1 / 0


def test_a_session_is_guarded_once_at_a_time(session):
    with guard():
        with pytest.raises(LifecycleError, match="the session is guarded already"), guard():
            pass
        session.initialize()
        with create_session() as other, guard("training") as inner:
            other.initialize()
        assert inner.status == "open"
    with guard(session=session):
        session.reset()
        session.initialize()


def test_bad_options_leave_the_session_alone(session):
    with pytest.raises(lifecycle.ProtocolError, match="did you mean 'training'"), guard("trianing"):
        pass
    assert set(vars(session.lifecycle)) == set(vars(CompressionLifecycle()))


@pytest.mark.parametrize("junk", ["session", 3])
def test_what_is_not_a_session_is_refused(junk):
    with pytest.raises(TypeError, match="session must be a CompressionSession of LLM Compressor"), guard(session=junk):
        pass


def test_where_no_session_is_active_the_guard_says_so():
    raised = []

    def work():
        # LLM Compressor forgets its global session in a thread that has used `create_session`.
        with create_session():
            pass
        try:
            with guard():
                pass
        except LifecycleError as error:
            raised.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert raised == ["LLM Compressor has no active session in this thread; pass one, as session=..."]


def test_other_sessions_stay_as_lenient_as_they_are(session):
    with guard():
        session.initialize()
        with create_session() as other:
            other.initialize()
            fire("EESK")
        fire("C")


def test_suspended_events_reach_nobody(session):
    spy = Spy()
    with guard("training") as lc:
        session.initialize(recipe=[spy])
        with lc.suspended("evaluation"):
            assert LifecycleCallbacks.batch_start().modifier_data == []
        assert lc.progress.ignored == 1
    assert spy.seen == ["initialize"]


# Threads


def test_two_threads_with_guards_of_their_own_see_their_own_events_only():
    barrier = threading.Barrier(2)
    found = {}

    def work(name, word):
        keeper = Keeper()
        with create_session() as session, guard("training", session=session) as lc:
            session.initialize(recipe=[keeper])
            for letter in word:
                barrier.wait(timeout=10)
                fire(letter)
            session.finalize()
            found[name] = (lc.status, lc.event.global_step, [event.type_ for event in keeper.events])

    words = {"one": "BLPOE" * 4, "two": "BLE" * 5 + "BLPOE"}
    threads = [threading.Thread(target=work, args=item) for item in words.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {
        name: ("finalized", word.count("O"), [EventType(LETTERS[letter]) for letter in word])
        for name, word in words.items()
    }


def test_two_tasks_with_guarded_sessions_of_their_own_see_their_own_events_only():
    words = {"one": "BLPOE" * 3, "two": "BLE" * 5}

    async def work(word):
        session, keeper = CompressionSession(), Keeper()
        with guard("training", session=session) as lc:
            session.initialize(recipe=[keeper])
            for letter in word:
                await asyncio.sleep(0)
                session.event(LETTERS[letter], loss=1.0)
            session.finalize()
        return lc.status, lc.event.global_step, [event.type_ for event in keeper.events]

    async def both():
        return await asyncio.gather(*map(work, words.values()))

    assert asyncio.run(both()) == [
        ("finalized", word.count("O"), [EventType(LETTERS[letter]) for letter in word]) for word in words.values()
    ]


# The log


def logged(word, *, guarded):
    """What LLM Compressor logs in a run, and the log."""
    messages, log = [], io.StringIO()
    logger.enable("llmcompressor")
    sinks = [
        logger.add(lambda message: messages.append(message.record["message"]), level="DEBUG", format="{message}"),
        logger.add(log, level="DEBUG"),
    ]
    try:
        with create_session() as session:
            if guarded:
                with guard(session=session):
                    run(session, word)
            else:
                run(session, word)
    finally:
        logger.disable("llmcompressor")
        for sink in sinks:
            logger.remove(sink)
    return messages, io.BytesIO(log.getvalue().encode())


def run(session, word):
    session.reset()
    session.initialize(recipe=[Silent(), Silent()])
    fire(word)
    session.finalize()


class Silent(Modifier):
    def on_initialize(self, state: TheirState, **kwargs) -> bool:
        return True


def test_under_the_guard_llm_compressor_logs_what_it_logs_without():
    messages, log = logged("CBESK", guarded=True)
    assert messages == logged("CBESK", guarded=False)[0]
    assert "Handling event: EventType.SEQUENTIAL_EPOCH_END" in messages
    assert trace.check(log, "sequential").ok


# Labels


def label_of(session, model, modules):
    with guard() as lc:
        session.reset()
        session.initialize(model=model)
        labels = []
        lc.on("sequential_epoch_end", lambda event, payload: labels.append(payload["label"]))
        fire("C")
        LifecycleCallbacks.sequential_epoch_end(modules)
        fire("K")
        session.finalize()
    return labels[0]


def test_a_layer_is_labelled_with_the_names_of_its_outermost_modules(session):
    model = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU()), torch.nn.Linear(1, 1))
    inner, last = model
    assert label_of(session, model, [*inner.modules(), last]) == ["0", "1"]
    assert label_of(session, model, [inner[1]]) == ["0.1"]
    assert label_of(session, model, list(model.modules())) == ["Sequential"]
    assert label_of(session, model, inner) == ["0"]


def test_modules_that_the_model_does_not_have_are_labelled_with_what_they_are(session):
    assert label_of(session, None, [torch.nn.ReLU()]) == ["ReLU"]
    assert label_of(session, "no module itself", [torch.nn.ReLU()]) == ["ReLU"]
    assert label_of(session, torch.nn.Linear(1, 1), [torch.nn.ReLU(), torch.nn.Linear(1, 1)]) == ["ReLU", "Linear"]


def test_the_journal_shows_the_layer_and_how_long_the_modifiers_worked_on_it(session, tmp_path):
    class Failing(Silent):
        def on_sequential_epoch_end(self, state: TheirState, event: Event, **kwargs):
            raise RuntimeError("no memory left")

    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    path = tmp_path / "run.jsonl"
    with guard() as lc, trace.Journal(path) as journal:
        lc.attach(journal)
        session.initialize(model=model, recipe=[Failing()])
        fire("C")
        with pytest.raises(RuntimeError):
            LifecycleCallbacks.sequential_epoch_end([model[0]])
    *_, layer = trace.read(path)
    assert (layer.event, layer.label, layer.error) == (
        "sequential_epoch_end",
        ("0",),
        "RuntimeError: no memory left",
    )
    assert layer.duration > 0


# The events themselves


def test_an_event_has_the_exact_arithmetic():
    theirs = Event(EventType.BATCH_START, steps_per_epoch=10)
    ours = CountedEvent(EventType.BATCH_START, steps_per_epoch=10)
    missed = []
    for step in range(11):
        theirs.global_step = ours.global_step = step
        assert ours.should_update(0, None, 0.1)
        if not theirs.should_update(0, None, 0.1):
            missed.append(step)
    assert missed == [3, 5, 6, 7, 9, 10]


def test_setting_the_index_of_an_event_goes_to_the_nearest_step():
    theirs, ours = (kind(EventType.BATCH_START, steps_per_epoch=100) for kind in (Event, CountedEvent))
    theirs.current_index = ours.current_index = 0.29
    assert (theirs.global_step, ours.global_step) == (28, 29)


def test_an_event_refuses_what_llm_compressors_takes():
    Event(steps_per_epoch=0)
    Event().new_instance(typo=1)
    with pytest.raises(ValueError, match="steps_per_epoch must be at least 1"):
        CountedEvent(steps_per_epoch=0)
    with pytest.raises(TypeError, match="typo"):
        CountedEvent().new_instance(typo=1)


def test_an_event_has_an_index_only_where_one_step_differs_from_the_next():
    counts = {"steps_per_epoch": 2**53, "global_step": 2**53 + 1}
    assert Event(**counts).current_index == Event(**{**counts, "global_step": 2**53}).current_index
    with pytest.raises(ValueError, match="too many steps per epoch"):
        _ = CountedEvent(**counts).current_index


def test_an_event_can_be_copied():
    event = CountedEvent(EventType.BATCH_END, steps_per_epoch=2, global_step=3)
    for copied in event.new_instance(), copy.deepcopy(event), dataclasses.replace(event):
        assert type(copied) is CountedEvent
        assert copied == event
        assert copied is not event
        assert copied.type_ is EventType.BATCH_END
    assert event.new_instance(type_=EventType.BATCH_START).type_ is EventType.BATCH_START


def test_the_default_session_is_the_one_that_is_active():
    with guard("training") as lc:
        active_session().reset()
        active_session().initialize()
    active_session().reset()
    assert isinstance(lc, Lifecycle)
    assert lc.status == "open"
