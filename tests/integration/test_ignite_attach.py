"""A session under the real Ignite engine."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recording import Notes
from runs import unhurried
from sequences import LETTER, events

with warnings.catch_warnings():
    # What Ignite imports of torch says it of itself.
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
    from ignite.engine import DeterministicEngine, Engine, Events, create_supervised_trainer
    from ignite.handlers import Checkpoint, EarlyStopping, TerminateOnNan

    from lifecycle.integrations.ignite import attach

from lifecycle import ExpectationError, IllegalEventError, LifecycleError, protocols
from lifecycle.session import CompressionSession, callbacks


class Run:
    """A model, an engine and a session; at every event the session's counters, and what engine and optimizer say."""

    def __init__(self, *, accumulate=1, modifiers=(), engine=Engine, **options):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 3)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.accumulate = accumulate
        self.breaks_at = {}
        self.session = CompressionSession(modifiers, **{"protocol": "training", **options})
        self.engine = engine(self.update)
        self.seen = []
        self.session.lifecycle.on(self.session.lifecycle.protocol.events, self.see)
        self.attachment = attach(self.engine, self.session, optimizer=self.optimizer, model=self.model)

    def update(self, engine, batch):
        self.check("before")
        loss = self.model(batch).pow(2).mean()
        self.session.loss_calculated(loss=loss)
        self.check("loss")
        (loss / self.accumulate).backward()
        if engine.state.iteration % self.accumulate == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.item()

    def check(self, place):
        if self.breaks_at.get(place) == self.engine.state.iteration:
            raise RuntimeError(place)

    def see(self, event, payload):
        theirs = self.engine.state.iteration, self.taken
        self.seen.append((LETTER[event.type_], event.global_batch, event.global_step, *theirs))

    def run(self, batches, **options):
        self.engine.run(data(batches), **options)
        return self

    @property
    def word(self):
        return "".join(letter for letter, *_ in self.seen)

    @property
    def taken(self):
        """The steps that AdamW itself has counted."""
        counts = [int(state["step"]) for state in self.optimizer.state.values()]
        return counts[0] if counts else 0

    @property
    def status(self):
        return self.session.lifecycle.status


def data(batches):
    return [torch.randn(8, 4, generator=torch.Generator().manual_seed(index)) for index in range(batches)]


def batch_events(iterations, accumulate=1):
    """What the iterations must bring, from their numbers alone; they count from 1, across the epochs."""
    for iteration in iterations:
        steps = (iteration - 1) // accumulate
        yield from ((letter, iteration - 1, steps, iteration, steps) for letter in "BL")
        if iteration % accumulate == 0:
            yield from (
                ("P", iteration - 1, steps, iteration, steps),
                ("O", iteration - 1, steps + 1, iteration, steps + 1),
            )
        done = iteration // accumulate
        yield ("E", iteration, done, iteration, done)


def expected(iterations, accumulate=1):
    """A whole run."""
    steps = iterations // accumulate
    last = ("F", iterations, steps, iterations, steps)
    return [("I", 0, 0, 0, 0), *batch_events(range(1, iterations + 1), accumulate), last]


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize(("batches", "epochs"), [(1, 1), (5, 2), (10, 1), (3, 3)])
def test_events_and_counters_are_those_of_the_engine_and_the_optimizer(batches, epochs, accumulate):
    run = Run(accumulate=accumulate).run(batches, max_epochs=epochs)
    assert run.seen == expected(batches * epochs, accumulate)


@given(batches=st.integers(1, 7), epochs=st.integers(1, 3), accumulate=st.integers(1, 8), resumable=st.booleans())
@unhurried
def test_the_order_is_that_of_training_whatever_the_counts(batches, epochs, accumulate, resumable):
    run = Run(accumulate=accumulate)
    run.engine.interrupt_resume_enabled = resumable
    run.run(batches, max_epochs=epochs)
    assert run.seen == expected(batches * epochs, accumulate)
    assert protocols.TRAINING.accepts(events(run.word))


def test_a_number_of_iterations_ends_the_run_as_epochs_do():
    assert Run(accumulate=2).run(5, max_iters=7).seen == expected(7, 2)


def test_what_comes_with_initialize_is_in_the_state():
    run = Run().run(2)
    state = run.session.state
    assert (state.model, state.optimizer, state.data) == (run.model, run.optimizer, run.engine.state.dataloader)


def test_an_evaluator_in_a_handler_fires_nothing():
    run = Run()
    evaluated = []
    evaluator = Engine(lambda engine, batch: evaluated.append(run.model(batch)))
    run.engine.add_event_handler(Events.ITERATION_COMPLETED(every=2), lambda: evaluator.run(data(3)))
    run.engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(data(3)))
    run.run(5, max_epochs=2)
    assert len(evaluated) == 3 * (5 + 2)
    assert run.seen == expected(10)


def test_the_optimizer_fires_nothing_outside_the_update_function():
    run = Run()
    run.engine.add_event_handler(Events.EPOCH_STARTED, lambda engine: run.optimizer.step())
    run.run(2)
    run.optimizer.step()
    assert run.word == "I" + "BLPOE" * 2 + "F"


def test_a_supervised_trainer_reports_from_its_loss_function():
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []

    def loss_function(predicted, wanted):
        loss = torch.nn.functional.mse_loss(predicted, wanted)
        callbacks.loss_calculated(loss=loss)
        return loss

    trainer = create_supervised_trainer(model, optimizer, loss_function, gradient_accumulation_steps=2)
    with CompressionSession(protocol="training") as session:
        session.lifecycle.on(session.lifecycle.protocol.events, lambda event, payload: seen.append(event.type_))
        attach(trainer, optimizer=optimizer)
        trainer.run([(batch, batch[:, :3]) for batch in data(3)])
    assert seen == events("I" + "BLE" + "BLPOE" + "BLE" + "F")


@pytest.mark.parametrize(("steps", "refused"), [(True, "OPTIM_PRE_STEP"), (False, "BATCH_END")])
def test_a_batch_without_a_reported_loss_is_refused(steps, refused):
    optimizer = Run().optimizer
    session = CompressionSession(protocol="training")
    engine = Engine(lambda engine, batch: optimizer.step() if steps else None)
    attach(engine, session, optimizer=optimizer)
    with pytest.raises(IllegalEventError, match=f"(?s){refused} is not allowed.*LOSS_CALCULATED is missing"):
        engine.run(data(1))
    assert session.lifecycle.status == "aborted"


def test_terminated_before_the_update_function_there_is_no_batch():
    run = Run()
    run.engine.add_event_handler(Events.ITERATION_STARTED(once=3), run.engine.terminate)
    run.run(5, max_epochs=2)
    assert run.word == "I" + "BLPOE" * 2 + "F"


@pytest.mark.parametrize("skip_completed", [False, True])
def test_terminated_the_run_is_finalized_once(skip_completed):
    run = Run()
    run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), lambda: run.engine.terminate(skip_completed))
    run.run(5, max_epochs=2)
    assert run.seen == expected(3)


def test_terminated_in_mid_group_the_group_has_no_step():
    run = Run(accumulate=2)
    run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), run.engine.terminate)
    assert run.run(5).seen == expected(3, 2)


def test_a_terminated_epoch_is_followed_by_the_next():
    run = Run(accumulate=2)
    run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), run.engine.terminate_epoch)
    run.run(5, max_epochs=2)
    assert run.seen == expected(3 + 5, 2)


def test_early_stopping_finalizes():
    run = Run()
    stopping = EarlyStopping(1, lambda engine: 1.0, run.engine)
    run.engine.add_event_handler(Events.EPOCH_COMPLETED, stopping)
    assert run.run(3, max_epochs=10).seen == expected(6)


def test_a_loss_that_is_not_a_number_finalizes():
    run = Run()
    run.engine.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(lambda output: float("nan")))
    assert run.run(3).seen == expected(1)


@pytest.mark.parametrize(("place", "last"), [("before", "B"), ("loss", "BL")])
@pytest.mark.parametrize("resumable", [True, False])
def test_an_exception_aborts_the_run_once_and_is_raised(place, last, resumable):
    notes = Notes()
    run = Run(modifiers=[notes])
    run.engine.interrupt_resume_enabled = resumable
    run.breaks_at[place] = 3
    with pytest.raises(RuntimeError, match=place) as raised:
        run.run(5)
    assert run.word == "I" + "BLPOE" * 2 + last
    assert run.status == "aborted"
    assert notes.calls[2:] == [("abort", 2, 2, raised.value)]


@pytest.mark.parametrize("event", [Events.ITERATION_STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED])
def test_an_exception_in_a_handler_aborts_the_run(event):
    run = Run()

    def fail():
        raise RuntimeError("handler")

    run.engine.add_event_handler(event, fail)
    with pytest.raises(RuntimeError, match="handler"):
        run.run(1)
    assert run.status == "aborted"


def test_a_keyboard_interrupt_aborts_the_run():
    run = Run()

    def press():
        raise KeyboardInterrupt

    run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), press)
    with pytest.raises(KeyboardInterrupt):
        run.run(5)
    assert run.status == "aborted"


@pytest.mark.parametrize("attached_first", [True, False])
def test_an_exception_that_a_handler_swallows_aborts_the_run_all_the_same(attached_first):
    notes = Notes()
    run = Run(modifiers=[notes])
    caught = []

    def swallow(engine, error):
        caught.append(error)
        engine.terminate()

    if attached_first:
        run.engine.add_event_handler(Events.EXCEPTION_RAISED, swallow)
    else:
        run.attachment.remove()
        run.engine.add_event_handler(Events.EXCEPTION_RAISED, swallow)
        attach(run.engine, run.session, optimizer=run.optimizer)
    run.breaks_at["loss"] = 3
    run.run(5)
    assert run.word == "I" + "BLPOE" * 2 + "BL"
    assert notes.calls[2:] == [("abort", 2, 2, caught[0])]
    assert len(caught) == 1


def test_an_exception_that_a_handler_raises_again_aborts_the_run():
    run = Run()

    def again(engine, error):
        raise error

    run.engine.add_event_handler(Events.EXCEPTION_RAISED, again)
    run.breaks_at["loss"] = 1
    with pytest.raises(RuntimeError, match="loss"):
        run.run(2)
    assert run.status == "aborted"


def test_after_a_swallowed_exception_the_next_epoch_does_not_train():
    run = Run()
    run.engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: None)
    run.breaks_at["loss"] = 2
    run.run(3, max_epochs=3)
    assert run.word == "I" + "BLPOE" + "BL"
    assert run.taken == 1


def test_a_run_that_ends_before_the_expected_counts_is_aborted():
    notes = Notes()
    run = Run(modifiers=[notes], expect={"steps": 3})
    with pytest.raises(ExpectationError):
        run.run(2)
    assert [call[0] for call in notes.calls] == ["initialize", "start", "abort"]


def test_a_second_run_is_a_new_run():
    run = Run().run(2)
    first = list(run.seen)
    run.optimizer.state.clear()
    run.run(3, epoch_length=3)
    assert first == expected(2)
    assert run.seen[len(first) :] == expected(3)


def test_interrupted_the_run_stays_open_and_goes_on():
    run = Run(accumulate=2)
    run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), run.engine.interrupt)
    run.run(5)
    assert run.status == "open"
    run.run(5)
    assert run.seen == expected(5, 2)


def test_terminated_and_run_again_the_counters_go_on():
    notes = Notes(start=1, end=5)
    run = Run(accumulate=2, modifiers=[notes])
    run.engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), run.engine.terminate)
    run.run(5, max_epochs=2)
    run.run(5, max_epochs=2)
    # Ignite begins an epoch with the batch after the one that it was terminated at.
    assert run.word.count("I") == 1
    assert run.seen == [*expected(3, 2), *expected(run.engine.state.iteration, 2)[len(expected(3, 2)) - 1 :]]
    assert [call[0] for call in notes.calls[:4]] == ["initialize", "start", "finalize", "initialize"]


def test_failed_and_run_again_the_run_goes_on_after_the_last_whole_batch():
    run = Run()
    run.engine.interrupt_resume_enabled = False  # otherwise the next call of Ignite's `run` does nothing
    run.breaks_at["loss"] = 3
    with pytest.raises(RuntimeError, match="loss"):
        run.run(4, max_epochs=2)
    failed = len(run.seen)
    run.run(4)
    # Ignite has counted the iteration that failed.
    iterations = run.engine.state.iteration
    assert [row[:3] for row in run.seen[failed:]] == [row[:3] for row in expected(iterations - 1)[11:]]
    assert run.seen[failed][3] == 4


def checkpointed(run):
    return {"trainer": run.engine, "model": run.model, "optimizer": run.optimizer, "session": run.attachment}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("at", [2, 4, 5, 6])
def test_interrupted_and_resumed_is_as_if_never_interrupted(tmp_path, accumulate, at):
    at *= accumulate  # gradients are not in a checkpoint
    batches = 5 * accumulate
    whole_notes = Notes(start=3, end=7)
    whole = Run(accumulate=accumulate, modifiers=[whole_notes], engine=DeterministicEngine).run(batches, max_epochs=2)

    first = Run(accumulate=accumulate, modifiers=[Notes(start=3, end=7)], engine=DeterministicEngine)
    saving = Checkpoint(checkpointed(first), str(tmp_path), filename_pattern="at.pt")
    first.engine.add_event_handler(Events.ITERATION_COMPLETED(once=at), saving)
    first.breaks_at["before"] = at + 1
    with pytest.raises(RuntimeError, match="before"):
        first.run(batches, max_epochs=2)

    notes = Notes(start=3, end=7)
    second = Run(accumulate=accumulate, modifiers=[notes], engine=DeterministicEngine)
    # A deterministic engine saves random states of numpy.
    Checkpoint.load_objects(checkpointed(second), torch.load(tmp_path / "at.pt", weights_only=False))
    second.run(batches)
    assert first.seen[:-1] + second.seen == whole.seen
    assert whole.seen == expected(2 * batches, accumulate)
    assert torch.equal(second.model.weight, whole.model.weight)
    assert notes.calls[0] == ("initialize", at, at // accumulate)
    assert [call for call in whole_notes.calls if call[1] >= at] == notes.calls[1:]


@pytest.mark.parametrize("attached_first", [True, False])
def test_a_checkpoint_of_an_iteration_has_its_batch_whatever_came_first(attached_first):
    run = Run()
    saved = []
    if not attached_first:
        run.attachment.remove()
    run.engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: saved.append(run.attachment.state_dict()))
    if not attached_first:
        run.attachment = attach(run.engine, run.session, optimizer=run.optimizer)
    run.run(3)
    assert [state["lifecycle"]["event"]["global_batch"] for state in saved] == [1, 2, 3]


def test_before_the_first_batch_is_complete_the_beginning_is_saved():
    run = Run()
    run.breaks_at["loss"] = 1
    with pytest.raises(RuntimeError, match="loss"):
        run.run(1)
    assert run.attachment.state_dict()["lifecycle"]["state"] == "session.ready"


def test_before_any_run_there_is_nothing_to_save():
    assert Run().attachment.state_dict() == {}


def test_an_engine_that_goes_on_without_its_session_is_refused():
    first = Run().run(3)
    second = Run()
    second.engine.load_state_dict({**first.engine.state_dict(), "max_epochs": 2})
    with pytest.raises(LifecycleError, match="the engine goes on at iteration 3, but no session was loaded"):
        second.run(3)
    assert second.seen == []


def test_removed_the_engine_is_as_it_was():
    run = Run()
    bare = Engine(run.update)
    run.attachment.remove()
    run.attachment.remove()
    assert run.engine._process_function == bare._process_function
    assert vars(run.engine).keys() == vars(bare).keys()
    assert not any(run.engine._event_handlers.values())


def test_an_engine_drives_one_session():
    run = Run()
    with pytest.raises(LifecycleError, match="this engine drives a session already"):
        attach(run.engine, CompressionSession(), optimizer=run.optimizer)


def test_a_run_that_is_open_is_refused_and_stays_open():
    run = Run()
    run.session.initialize()
    with pytest.raises(IllegalEventError, match=r"INITIALIZE is not allowed in session\.ready"):
        run.run(1)
    assert run.status == "open"


def test_what_is_no_session_is_refused():
    with pytest.raises(TypeError, match="session must be a CompressionSession, got 'session'"):
        attach(Engine(lambda engine, batch: None), "session", optimizer=Run().optimizer)


def test_what_is_no_engine_is_refused():
    with pytest.raises(TypeError, match=r"engine must be an ignite\.engine\.Engine, got 'trainer'"):
        attach("trainer", CompressionSession(), optimizer=None)


@pytest.mark.parametrize("optimizer", [None, "sgd", [None]])
def test_what_is_no_optimizer_is_refused_at_once(optimizer):
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
        attach(engine, CompressionSession(), optimizer=optimizer)
    assert "_handle_exception" not in vars(engine)


def test_without_a_session_and_none_active_it_is_refused():
    with pytest.raises(LifecycleError, match="no session is active"):
        attach(Engine(lambda engine, batch: None), optimizer=Run().optimizer)


def test_two_optimizers_in_a_batch_are_two_invocations_of_one_step():
    layers = [torch.nn.Linear(4, 3) for _ in range(2)]
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in layers]
    session = CompressionSession(protocol="training", invocations_per_step=2)
    seen = []
    session.lifecycle.on(session.lifecycle.protocol.events, lambda event, payload: seen.append(event.type_))

    def update(engine, batch):
        loss = sum(layer(batch).pow(2).mean() for layer in layers)
        session.loss_calculated(loss=loss)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    engine = Engine(update)
    attach(engine, session, optimizer=optimizers)
    engine.run(data(2))
    assert seen == events("I" + "BLPOPOE" * 2 + "F")
    assert session.state.optimizer is optimizers
    assert session.lifecycle.event.global_step == 2


def test_a_step_that_the_scaler_skips_is_skipped():
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    session = CompressionSession(protocol="training")
    skipped = []
    session.lifecycle.on("optim_post_step", lambda event, payload: skipped.append(payload.get("skipped", False)))

    def update(engine, batch):
        optimizer.zero_grad()
        loss = model(batch).pow(2).mean()
        session.loss_calculated(loss=loss)
        scaler.scale(loss).backward()
        if engine.state.iteration == 2:
            model.weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()

    engine = Engine(update)
    attach(engine, session, optimizer=optimizer, scaler=scaler)
    engine.run(data(3))
    assert skipped == [False, True, False]
    assert session.lifecycle.event.global_step == 2


@pytest.mark.parametrize("attached", [True, False])
def test_a_pruned_model_stays_pruned_with_the_attachment_only(attached):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from llmcompressor.modifiers.pruning import ConstantPruningModifier

        from lifecycle.integrations.llmcompressor import adapt

    run = Run(accumulate=2, modifiers=adapt(ConstantPruningModifier(targets=["Linear"], start=0)), protocol="training")
    with torch.no_grad():
        run.model.weight[:, ::2] = 0
    pruned = []
    if not attached:
        run.attachment.remove()
        run.session.loss_calculated = lambda loss: None
    run.engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: pruned.append(int((run.model.weight == 0).sum())))
    run.run(3, max_epochs=2)
    assert pruned == ([6] * 6 if attached else [6, 0, 0, 0, 0, 0])
