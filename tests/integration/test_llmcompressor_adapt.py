"""LLM Compressor's own modifiers in our session."""

import json

import pytest
import torch
from integration import tiny
from llmcompressor import oneshot
from llmcompressor.core import Event, EventType
from llmcompressor.core import State as TheirState
from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.pruning import ConstantPruningModifier, MagnitudePruningModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.recipe import Recipe
from loguru import logger
from pydantic import Field

from lifecycle import LifecycleError, LifecycleWarning
from lifecycle.integrations.llmcompressor import CountedEvent, adapt
from lifecycle.session import CompressionSession

logger.disable("llmcompressor")

STEPS = 6


class Spy(Modifier):
    """Notes what it is told, with the index that it sees, and fails where it is asked to."""

    seen: list = Field(default_factory=list)
    states: list = Field(default_factory=list)
    failing: str = ""
    ready: bool = True

    def note(self, what, event=None):
        self.seen.append(what if event is None else (what, event.current_index))
        if what == self.failing:
            raise RuntimeError(f"{what} failed")

    def on_initialize(self, state: TheirState, **kwargs) -> bool:
        self.states.append(state)
        self.note("initialize")
        return self.ready

    def on_finalize(self, state: TheirState, **kwargs) -> bool:
        self.note("finalize")
        return True

    def on_event(self, state: TheirState, event: Event, **kwargs):
        assert type(event) is CountedEvent
        assert isinstance(event.type_, EventType)

    def on_start(self, state: TheirState, event: Event, **kwargs):
        assert event.type_ is EventType.BATCH_START
        self.note("start", event)

    def on_end(self, state: TheirState, event: Event, **kwargs):
        self.note("end", event)

    def on_calibration_start(self, state: TheirState, event: Event, **kwargs):
        self.note("calibration_start")

    def on_sequential_epoch_end(self, state: TheirState, event: Event, modules, **kwargs):
        self.note(("sequential_epoch_end", modules))

    def on_calibration_end(self, state: TheirState, event: Event, **kwargs):
        self.note("calibration_end")


def build():
    """A model half of whose weights are zero, its optimizer, and the data of each step."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.randn(STEPS, 4, 8)


def train(session, model, optimizer, data):
    for batch in data:
        with session.batch():
            loss = model(batch).square().mean()
            session.loss_calculated(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            session.optim_pre_step()
            optimizer.step()
            session.optim_post_step()


def sparsity(model):
    return (model[0].weight == 0).float().mean().item()


def session_of(*modifiers, protocol="training", **options):
    return CompressionSession(adapt(list(modifiers)), protocol, **options)


# Schedules in a loop


def test_without_it_a_pruned_model_loses_its_zeros():
    model, optimizer, data = build()
    with session_of() as session:
        session.initialize(model=model, optimizer=optimizer)
        train(session, model, optimizer, data)
    assert sparsity(model) == 0


@pytest.mark.parametrize("start", [0, 0.0, -1])
def test_a_pruned_model_keeps_its_zeros_to_the_last_step(start):
    model, optimizer, data = build()
    kept = []
    with session_of(ConstantPruningModifier(targets=["Linear"], start=start)) as session:
        session.lifecycle.on("batch_end", lambda event, payload: kept.append(sparsity(model)))
        session.initialize(model=model, optimizer=optimizer)
        train(session, model, optimizer, data)
    assert kept == [0.5] * STEPS
    assert not hasattr(model[0], "mask")


def test_a_pruned_model_keeps_its_zeros_while_the_modifier_is_on():
    model, optimizer, data = build()
    kept = []
    with session_of(ConstantPruningModifier(targets=["Linear"], start=0, end=2)) as session:
        session.lifecycle.on("batch_end", lambda event, payload: kept.append(sparsity(model)))
        session.initialize(model=model, optimizer=optimizer)
        train(session, model, optimizer, data)
    assert kept == [0.5, 0.5, 0, 0, 0, 0]


def test_magnitude_pruning_follows_its_schedule():
    model, optimizer, data = build()
    modifier = MagnitudePruningModifier(
        targets=["re:0"], start=1, end=4, init_sparsity=0.5, final_sparsity=0.75, update_scheduler="linear"
    )
    reached = []
    with session_of(modifier) as session:
        session.lifecycle.on("batch_end", lambda event, payload: reached.append(sparsity(model)))
        session.initialize(model=model, optimizer=optimizer)
        train(session, model, optimizer, data)
    assert reached[:4] == pytest.approx([0, 0.5, 0.5 + 0.25 / 3, 0.5 + 0.5 / 3], abs=1 / 64)


@pytest.mark.parametrize(
    ("schedule", "hooks"),
    [
        ({"start": 0}, [("start", 0)]),
        ({"start": 2, "end": 4}, [("start", 2), ("end", 4)]),
        ({"start": 9}, []),
        ({}, []),
    ],
)
def test_a_modifier_starts_and_ends_once_at_its_steps(schedule, hooks):
    model, optimizer, data = build()
    spy = Spy(**schedule)
    with session_of(spy) as session:
        session.initialize(model=model, optimizer=optimizer)
        train(session, model, optimizer, data)
    assert spy.seen == ["initialize", *hooks, "finalize"]


def test_schedules_are_in_epochs_if_the_session_knows_their_size():
    model, optimizer, data = build()
    spy = Spy(start=0.5, end=1.0)
    with session_of(spy, steps_per_epoch=4) as session:
        session.initialize(model=model, optimizer=optimizer)
        train(session, model, optimizer, data)
    assert spy.seen[1:-1] == [("start", 0.5), ("end", 1.0)]


# Calibration


def test_the_events_of_a_calibration_reach_the_modifier():
    spy = Spy()
    with session_of(spy, protocol="sequential") as session:
        session.initialize()
        with session.calibration_epoch():
            session.sequential_epoch_end(modules="layer")
    assert spy.seen == [
        "initialize",
        "calibration_start",
        ("sequential_epoch_end", "layer"),
        "calibration_end",
        "finalize",
    ]


def test_a_quantization_gives_the_same_weights_as_oneshot(tmp_path):
    def modifier():
        return QuantizationModifier(targets="Linear", ignore=["lm_head"], scheme="FP8_DYNAMIC")

    whole = tiny.llama(tmp_path, layers=1)
    oneshot(model=whole, recipe=modifier())
    own = tiny.llama(tmp_path, layers=1)
    with session_of(modifier(), protocol="data_free") as session:
        session.initialize(model=own)
        with session.calibration_epoch():
            session.sequential_epoch_end(modules=list(own.modules()))
    wanted, found = whole.state_dict(), own.state_dict()
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(wanted[name].float(), found[name].float())] == []


# The state


def test_the_modifiers_of_a_session_share_a_state_with_what_initialize_brings():
    model, optimizer, _ = build()
    one, two, other = Spy(), Spy(), Spy()
    data = [1]
    with session_of(one, two) as session:
        session.initialize(model=model, optimizer=optimizer, train_data=data)
        theirs = session.state.llmcompressor
    with session_of(other) as session:
        session.initialize()
    assert one.states == two.states == [theirs]
    assert other.states[0] is not theirs
    assert type(theirs) is TheirState
    assert (theirs.model, theirs.optimizer) == (model, optimizer)
    assert theirs.data.train is data


# Failures


def test_an_abort_takes_the_masks_off():
    model, optimizer, data = build()
    session = session_of(ConstantPruningModifier(targets=["Linear"], start=0))
    with pytest.raises(ZeroDivisionError), session:  # noqa: PT012 # what was run before it matters
        session.initialize(model=model, optimizer=optimizer)
        train(session, model, optimizer, data[:1])
        assert hasattr(model[0], "mask")
        raise ZeroDivisionError
    assert not hasattr(model[0], "mask")


def test_a_modifier_that_cannot_be_cleaned_up_is_reported():
    spies = [Spy(failing="finalize"), Spy()]
    session = session_of(*spies)
    session.initialize()
    with pytest.warns(LifecycleWarning, match="finalize failed"):
        session.abort("enough")
    assert [spy.finalized for spy in spies] == [False, True]


def test_an_abort_leaves_what_was_never_initialized_or_is_finalized():
    spies = [Spy(), Spy(failing="initialize"), Spy()]
    session = session_of(*spies)
    with pytest.raises(RuntimeError, match="initialize failed"):
        session.initialize()
    assert [spy.seen for spy in spies] == [["initialize", "finalize"], ["initialize"], []]


def test_what_fails_at_the_end_is_raised_as_one():
    spies = [Spy(failing="finalize"), Spy(), Spy(failing="finalize")]
    session = session_of(*spies)
    session.initialize()
    with pytest.raises(Exception, match="2 of 3 modifiers failed to finalize"):
        session.finalize()
    assert [spy.finalized for spy in spies] == [False, True, False]


def test_events_before_initialize_and_after_finalize_do_not_kill_a_run_that_is_only_watched():
    spy = Spy(start=0)
    session = session_of(spy, on_violation="record")
    session.batch_start()
    session.initialize()
    session.finalize()
    _ = session.batch_start(), session.finalize()
    assert spy.seen == ["initialize", ("start", 0), "finalize"]
    assert len(session.lifecycle.violations) == 4


def test_a_finalize_without_initialize_does_not_kill_a_run_that_is_only_watched():
    spy = Spy()
    session = session_of(spy, on_violation="record")
    session.finalize()
    assert (spy.seen, session.lifecycle.state) == ([], "finalized")


def test_a_modifier_serves_one_run():
    spy = Spy()
    session = session_of(spy)
    _ = session.initialize(), session.finalize(), session.reset()
    with pytest.raises(LifecycleError, match="this Spy has had its run"):
        session.initialize()
    assert spy.seen == ["initialize", "finalize"]


# Resuming


def pruning(**schedule):
    return ConstantPruningModifier(targets=["Linear"], **schedule)


def magnitude(**schedule):
    return MagnitudePruningModifier(
        targets=["re:0"], init_sparsity=0.5, final_sparsity=0.75, update_scheduler="linear", **schedule
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: pruning(start=0),
        lambda: pruning(start=2),
        lambda: pruning(start=0, end=2),
        lambda: pruning(start=4),
        lambda: magnitude(start=1, end=5),
    ],
    ids=["started at 0", "started later", "ended", "not started", "magnitude"],
)
def test_a_resumed_run_gives_the_weights_of_one_that_was_not_interrupted(make):
    model, optimizer, data = build()
    with session_of(make()) as session:
        session.initialize(model=model, optimizer=optimizer)
        train(session, model, optimizer, data)

    first, first_optimizer, _ = build()
    session = session_of(make())
    session.initialize(model=first, optimizer=first_optimizer)
    train(session, first, first_optimizer, data[:3])
    saved = json.loads(json.dumps(session.state_dict()))
    weights = {name: tensor for name, tensor in first.state_dict().items() if not name.endswith("mask")}

    second, second_optimizer, _ = build()
    second.load_state_dict(weights)
    second_optimizer.load_state_dict(first_optimizer.state_dict())
    with session_of(make()) as resumed:
        resumed.resume(saved, model=second, optimizer=second_optimizer)
        train(resumed, second, second_optimizer, data[3:])
    assert all(map(torch.equal, second.parameters(), model.parameters()))


@pytest.mark.parametrize(
    ("schedule", "hooks"),
    [
        ({"start": 0}, [("start", 3)]),
        ({"start": 0, "end": 2}, []),
        ({"start": 2, "end": 4}, [("start", 3), ("end", 4)]),
        ({"start": 4}, [("start", 4)]),
    ],
)
def test_a_resumed_modifier_starts_again_where_it_is_if_it_had_started_and_not_ended(schedule, hooks):
    model, optimizer, data = build()
    session = session_of(Spy(**schedule))
    session.initialize(model=model)
    train(session, model, optimizer, data[:3])
    spy = Spy(**schedule)
    with session_of(spy) as resumed:
        resumed.resume(session.state_dict(), model=model)
        train(resumed, model, optimizer, data[3:])
    assert spy.seen == ["initialize", *hooks, "finalize"]


def test_a_run_that_was_saved_before_its_first_batch_starts_as_any():
    session = session_of(Spy(start=0))
    session.initialize()
    spy = Spy(start=0)
    session_of(spy).resume(session.state_dict())
    assert spy.seen == ["initialize", ("start", 0)]


def test_a_run_that_was_saved_before_it_began_begins():
    spy = Spy(start=0)
    session = session_of(spy)
    session.resume(session_of(Spy(start=0)).state_dict())
    session.initialize()
    assert spy.seen == ["initialize", ("start", 0)]


def test_a_resumed_run_that_is_reset_begins_as_any():
    model, optimizer, data = build()
    session = session_of(Spy(start=0))
    with session:
        session.initialize()
        train(session, model, optimizer, data)
    spy = Spy(start=0)
    over = session_of(spy)
    over.resume(session.state_dict())
    assert spy.seen == []
    over.reset()
    over.initialize()
    assert spy.seen == ["initialize", ("start", 0)]


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_that_was_saved_after_a_calibration_epoch_had_begun_cannot_go_on(ended):
    session = session_of(Spy(), protocol="compression")
    _ = session.initialize(), session.calibration_epoch_start()
    if ended:
        session.calibration_epoch_end()
    spy = Spy()
    with pytest.raises(LifecycleError, match="Spy was saved after a calibration epoch had begun"):
        session_of(spy, protocol="compression").resume(session.state_dict())
    assert spy.seen == []


def test_a_modifier_that_could_not_be_initialized_stays_so():
    session = session_of(Spy(ready=False, start=9))
    session.initialize()
    spy = Spy(ready=False, start=9)
    session_of(spy).resume(session.state_dict())
    assert not spy.initialized


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"modifier": "Other"}, LifecycleError, "modifier='Other'"),
        ({"started": 1}, TypeError, "started must be true or false"),
        ({"more": 1}, LifecycleError, "unknown 'more'"),
    ],
)
def test_what_is_not_the_saved_state_of_a_modifier_is_refused(change, error, message):
    (modifier,) = adapt(Spy())
    with pytest.raises(error, match=message):
        modifier.load_state_dict({**modifier.state_dict(), **change})


# What can be adapted

RECIPE = """
test_stage:
  pruning_modifiers:
    ConstantPruningModifier:
      targets: [Linear]
      start: 0
    MagnitudePruningModifier:
      targets: [Linear]
      init_sparsity: 0.1
      final_sparsity: 0.5
"""


def kinds(modifiers):
    return [type(adapted.modifier).__name__ for adapted in adapt(modifiers)]


def test_modifiers_may_be_one_or_many_or_a_recipe(tmp_path):
    spy = Spy()
    (adapted,) = adapt(spy)
    assert adapted.modifier is spy
    assert repr(adapted) == "<AdaptedModifier Spy>"
    assert kinds([]) == []
    assert kinds([spy, [pruning()]]) == ["Spy", "ConstantPruningModifier"]
    assert kinds(Recipe.create_instance([spy])) == ["Spy"]
    both = ["ConstantPruningModifier", "MagnitudePruningModifier"]
    assert kinds(RECIPE) == both
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    assert kinds(str(path)) == both


@pytest.mark.parametrize("junk", [None, 3, Spy])
def test_what_cannot_be_adapted_is_refused(junk):
    with pytest.raises(TypeError, match="modifiers must be LLM Compressor's, a list of them or a recipe"):
        adapt(junk)
