"""The `transitions` machine and the engine, side by side: one table, two ways to run it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import acceptor
import pytest
import sequences
from hypothesis import given
from hypothesis import strategies as st
from sequences import EVENT, Own
from transitions import MachineError
from transitions.extensions.nesting import HierarchicalMachine, NestedState

import lifecycle.protocol.machine
from lifecycle import Event, EventType, Guard, Lifecycle, Progress, Protocol, Transition, Update, protocols

VARIANTS = pytest.mark.parametrize(("name", "repeat"), acceptor.VARIANTS)


class Side:
    """A machine with the configuration of a lifecycle."""

    def __init__(self, lc):
        self.model = SimpleNamespace(event=lc.event.new_instance(), expect=dict(lc.expect))
        self.machine = lc.protocol.machine(self.model)

    def takes(self, event, payload):
        if event.value not in self.machine.events:
            return False
        try:
            return self.model.trigger(event.value, **payload)
        except MachineError:
            return False

    def standing(self):
        return self.model.state, self.model.event.type_, sequences.all_counters(self.model)

    def save(self):
        return self.model.state, replace(self.model.event), replace(self.model.progress)

    def load(self, saved):
        state, event, progress = saved
        self.machine.set_state(state, self.model)
        self.model.event, self.model.progress = replace(event), replace(progress)


def standing(lc):
    return lc.state, lc.event.type_, sequences.all_counters(lc)


ATTEMPTS = [(event, {"loss": 0.5} if event is EventType.LOSS_CALCULATED else {}) for event in EventType]
ATTEMPTS += [(EventType.LOSS_CALCULATED, {}), (EventType.OPTIM_POST_STEP, {"skipped": True})]


@VARIANTS
def test_machine_and_engine_never_differ_to_depth_six_or_five_with_repeated_steps(name, repeat):
    lc = Lifecycle(sequences.variant(name, repeat=repeat), batches_per_step=2)
    side = Side(lc)
    level = [(lc.state_dict(), side.save())]
    for _ in range(5 if repeat else 6):
        reached = []
        for engine_saved, side_saved in level:
            lc.load_state_dict(engine_saved)
            side.load(side_saved)
            for event, payload in ATTEMPTS:
                taken = sequences.takes(lc, event, payload)
                assert side.takes(event, payload) == taken
                assert side.standing() == standing(lc)
                if taken:
                    reached.append((lc.state_dict(), side.save()))
                    lc.load_state_dict(engine_saved)
                    side.load(side_saved)
        level = reached
    assert level


@given(lc=sequences.lifecycles(), run=sequences.long_runs())
def test_machine_and_engine_never_differ_over_long_runs(lc, run):
    side = Side(lc)
    for draw in run:
        event, payload = draw.choose(lc)
        assert side.takes(event, payload) == sequences.takes(lc, event, payload)
        assert side.standing() == standing(lc)


@given(protocol=sequences.random_protocols(), run=sequences.long_runs(40))
def test_machine_and_engine_never_differ_on_random_protocols(protocol, run):
    lc = Lifecycle(protocol)
    side = Side(lc)
    for draw in run:
        event, payload = draw.choose(lc, [*EventType, *Own])
        assert side.takes(event, payload) == sequences.takes(lc, event, payload)
        assert side.standing() == standing(lc)


def test_the_machine_is_a_hierarchical_machine_of_transitions():
    assert isinstance(protocols.TRAINING.machine(), HierarchicalMachine)


def test_the_machine_has_the_states_and_triggers_of_the_protocol():
    machine = protocols.COMPRESSION.machine()
    names = machine.get_nested_state_names()
    assert {name for name in names if not machine.get_state(name).states} == {*protocols.COMPRESSION.states}
    assert set(machine.events) == {event.value for event in protocols.COMPRESSION.events}


def test_the_machine_starts_in_the_initial_state():
    assert protocols.COMPRESSION.machine().model.state == "created"


def test_the_machine_knows_groups_of_states():
    machine = protocols.TRAINING.machine()
    for trigger in "initialize", "batch_start":
        machine.model.trigger(trigger)
    assert machine.is_state("session.batch", machine.model, allow_substates=True)
    assert not machine.is_state("session.batch", machine.model)


def test_the_machine_is_bound_to_the_callers_model():
    class Mine:
        pass

    mine = Mine()
    machine = protocols.TRAINING.machine(mine)
    assert machine.model is mine
    assert mine.initialize()
    assert mine.state == "session.ready"


def test_the_machine_makes_the_counters_that_a_model_lacks():
    model = SimpleNamespace()
    protocols.TRAINING.machine(model)
    assert (model.event, model.progress, model.expect) == (Event(), Progress(), {})


def test_the_machine_keeps_the_counters_that_a_model_has():
    event, progress, expect = Event(global_step=3), Progress(batches=2), {"steps": 4}
    model = SimpleNamespace(event=event, progress=progress, expect=expect)
    protocols.TRAINING.machine(model)
    assert model.event is event
    assert model.progress is progress
    assert model.expect is expect


def test_the_conditions_of_the_machine_see_what_the_model_expects():
    model = SimpleNamespace(expect={"steps": 1})
    protocols.TRAINING.machine(model)
    assert model.initialize()
    assert not model.finalize()
    assert model.state == "session.ready"


def test_the_separator_of_transitions_itself_is_untouched():
    assert protocols.COMPRESSION.machine().state_cls.separator == "."
    assert NestedState.separator == "_"


def test_two_machines_of_a_protocol_share_no_state():
    first, second = protocols.TRAINING.machine().model, protocols.TRAINING.machine().model
    for trigger in "initialize", "batch_start":
        first.trigger(trigger)
    first.loss_calculated(loss=0.5)
    first.batch_end()
    assert (second.state, second.event, second.progress) == ("created", Event(), Progress())


def test_changing_a_machine_does_not_change_the_protocol():
    protocol = protocols.TRAINING
    before = protocol.transitions
    rows = {state: dict(row) for state, row in protocol.rows.items()}
    machine = protocol.machine()
    machine.add_states("extra")
    machine.add_transition("batch_start", "created", "extra")
    machine.remove_transition("initialize")
    machine.events["batch_end"].transitions.clear()
    assert protocol.transitions == before
    assert {state: dict(row) for state, row in protocol.rows.items()} == rows
    assert protocol.machine().model.initialize()
    assert Lifecycle(protocol).initialize()


@pytest.fixture
def built(monkeypatch):
    """The machines that are built."""
    machines = []

    class Counting(lifecycle.protocol.machine.ProtocolMachine):
        def __init__(self, *args, **options):
            machines.append(self)
            super().__init__(*args, **options)

    monkeypatch.setattr(lifecycle.protocol.machine, "ProtocolMachine", Counting)
    return machines


def test_one_machine_is_built_for_all_engines_of_a_protocol(built):
    fresh = protocols.TRAINING.extend("fresh")
    engines = [Lifecycle(fresh) for _ in range(3)]
    for lc in engines:
        lc.initialize()
    assert len(built) == 1


def test_no_engine_builds_a_machine_for_repeated_steps_that_another_has_built(built):
    fresh = protocols.TRAINING.extend("fresh")
    for _ in range(3):
        Lifecycle(fresh, invocations_per_step=2)
    assert len(built) == 1
    assert fresh.repeat_steps().rows
    assert len(built) == 1


def guarded(check):
    return Protocol(
        "guarded",
        states=["created", "done"],
        transitions=[Transition("created", "finalize", "done", guard=Guard("given", check))],
        initial="created",
        final=["done"],
    )


@pytest.mark.parametrize("answer", [True, False, 1, 0, None, "yes", "", [0], []])
def test_whatever_a_guard_answers_machine_and_engine_take_it_alike(answer):
    lc = Lifecycle(guarded(lambda counted, payload: answer))
    side = Side(lc)
    assert side.takes(EventType.FINALIZE, {}) == sequences.takes(lc, EventType.FINALIZE, {}) == bool(answer)


def test_guards_and_updates_of_a_users_own_work_in_machine_and_engine():
    def count(event, progress, payload):
        event.global_step += payload["steps"]

    protocol = protocols.TRAINING.extend(
        "checkpointed",
        vocabularies=[Own],
        transitions=[
            Transition(
                "session.ready",
                Own.CHECKPOINT,
                "session.ready",
                guard=Guard("steps given", lambda counted, payload: "steps" in payload),
                update=Update("global_step += steps", count),
            )
        ],
    )
    lc = Lifecycle(protocol)
    side = Side(lc)
    taken = []
    for event, payload in [
        (EventType.INITIALIZE, {}),
        (Own.CHECKPOINT, {}),
        (Own.CHECKPOINT, {"steps": 3}),
        (EventType.FINALIZE, {}),
    ]:
        taken.append(sequences.takes(lc, event, payload))
        assert side.takes(event, payload) == taken[-1]
        assert side.standing() == standing(lc)
    assert taken == [True, False, True, True]
    assert lc.event.global_step == side.model.event.global_step == 3


@given(data=st.data())
def test_triggers_by_name_and_by_method_are_the_same(data):
    word = data.draw(st.sampled_from([*acceptor.words(acceptor.acceptor("compression"), 6)]))
    by_name, by_method = protocols.COMPRESSION.machine().model, protocols.COMPRESSION.machine().model
    for letter in word:
        by_name.trigger(EVENT[letter].value, loss=0.5)
        getattr(by_method, EVENT[letter].value)(loss=0.5)
    assert by_name.state == by_method.state
    assert sequences.all_counters(by_name) == sequences.all_counters(by_method)
