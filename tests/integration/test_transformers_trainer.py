import gc
import json
from pathlib import Path

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_jit_checkpoint import JITCheckpointCallback

from lifecycle import EventType, IllegalEventError, LifecycleError, Tap, protocols
from lifecycle.integrations.transformers import LifecycleCallback, LifecycleMixin
from lifecycle.session import CompressionSession, Modifier

BOTH = pytest.mark.parametrize("driver", ["mixin", "callback"])
CASES = [(5, 1), (5, 2), (10, 4), (3, 4), (4, 2)]


class Net(torch.nn.Module):
    """A model that computes its own loss, as those of transformers do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x, labels=None):
        logits = self.linear(x).squeeze(-1)
        if labels is None:
            return {"logits": logits}
        return {"loss": (logits - labels).pow(2).mean(), "logits": logits}


class LifecycleTrainer(LifecycleMixin, Trainer):
    pass


class Log:
    """Rows of event, the session's counters, and the Trainer's own at that moment."""

    def __init__(self, trainer, session):
        self.rows = []
        self.losses = []
        self.skipped = []
        self.trainer = trainer
        session.lifecycle.on(EventType, self.note)

    def note(self, event, payload):
        own = self.trainer.state
        self.rows.append((event.type_.name, event.global_batch, event.global_step, own.global_step, own.epoch))
        if "loss" in payload:
            self.losses.append(float(payload["loss"].detach()))
        if "skipped" in payload:
            self.skipped.append(payload["skipped"])

    @property
    def names(self):
        return [row[0] for row in self.rows]


class Controls(Tap):
    def __init__(self, session):
        self.actions = []
        session.lifecycle.attach(self)

    def control(self, lifecycle, action, detail):
        self.actions.append((action, detail))


class Observe(Modifier):
    """Notes the hooks that are called, and raises in one of them if it is told to."""

    def __init__(self, fail_at=None, **schedule):
        super().__init__(**schedule)
        self.fail_at = fail_at
        self.calls = []

    def _call(self, name, event):
        self.calls.append((name, event.global_step))
        if name == self.fail_at:
            raise RuntimeError(f"{name} failed")

    def on_initialize(self, state, event, **payload):
        self._call("initialize", event)

    def on_event(self, state, event, **payload):
        if self.fail_at is not None:
            self._call(event.type_.value, event)

    def on_start(self, state, event, **payload):
        self._call("start", event)

    def on_end(self, state, event, **payload):
        self._call("end", event)

    def on_finalize(self, state, event, **payload):
        self._call("finalize", event)

    def on_abort(self, state, event, error):
        self.calls.append(("abort", str(error)))


class Passes(torch.utils.data.IterableDataset):
    """Batches that nobody knows the number of."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def rows(count):
    return [{"x": torch.tensor([1.0, i]), "labels": torch.tensor(i % 3.0)} for i in range(count)]


@pytest.fixture(scope="module", autouse=True)
def fast():
    # The Trainer collects garbage at each run, and what the imports left takes it ten times as long as a run.
    gc.collect()
    gc.freeze()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    gc.unfreeze()


@pytest.fixture
def build(tmp_path):
    def build(driver, session, batches=5, *, trainer_class=None, model=None, callbacks=(), data=None, **options):
        settings = {
            "output_dir": str(tmp_path),
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            "logging_strategy": "no",
            "save_strategy": "no",
            "per_device_train_batch_size": 1,
            "per_device_eval_batch_size": 1,
            "num_train_epochs": 1,
            "learning_rate": 0.01,
            "dataloader_pin_memory": False,
        }
        takes = {
            "model": model or Net(),
            "args": TrainingArguments(**{**settings, **options}),
            "train_dataset": rows(batches) if data is None else data,
            "eval_dataset": rows(2),
        }
        if driver == "mixin":
            return (trainer_class or LifecycleTrainer)(**takes, callbacks=list(callbacks), session=session)
        return (trainer_class or Trainer)(**takes, callbacks=[*callbacks, LifecycleCallback(session)])

    return build


def train(trainer, session, driver, **options):
    """Train as the documentation says: a callback does not see exceptions, a ``with`` block does."""
    if driver == "mixin":
        return trainer.train(**options)
    with session:
        return trainer.train(**options)


def expected(batches, accumulation, epochs=1, stop=None):
    """The rows of a run of whole epochs, or of its first `stop` steps, from nothing but the numbers of batches."""
    found = [("INITIALIZE", 0, 0, 0, 0)]
    batch = step = epoch = 0
    for done in range(epochs * batches):
        place = done % batches + 1
        found += [(name, batch, step, step, epoch) for name in ("BATCH_START", "LOSS_CALCULATED")]
        batch += 1
        if place % accumulation == 0 or place == batches:
            found += [("OPTIM_PRE_STEP", batch - 1, step, step, epoch)]
            found += [("OPTIM_POST_STEP", batch - 1, step + 1, step, epoch)]
            step, epoch = step + 1, done // batches + place / batches
        found.append(("BATCH_END", batch, step, step, epoch))
        if step == stop:
            break
    return [*found, ("FINALIZE", batch, step, step, epoch)]


@BOTH
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize(("batches", "accumulation"), CASES)
def test_a_run_fires_every_batch_and_every_step_once(build, driver, batches, accumulation, epochs):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, batches, gradient_accumulation_steps=accumulation, num_train_epochs=epochs)
    log = Log(trainer, session)
    train(trainer, session, driver)
    assert log.rows == expected(batches, accumulation, epochs)
    assert protocols.TRAINING.accepts(log.names)
    assert session.lifecycle.event.global_step == trainer.state.global_step
    assert session.lifecycle.progress.ignored == 0


@BOTH
def test_whole_epochs_are_whole_where_the_batches_do_not_divide(build, driver):
    session = CompressionSession(protocol="training", steps_per_epoch=3)
    trainer = build(driver, session, 10, gradient_accumulation_steps=4, num_train_epochs=2)
    ends = []

    class AtEnds(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            ends.append((state.epoch, session.lifecycle.event.epoch_full))

    trainer.add_callback(AtEnds)
    train(trainer, session, driver)
    assert ends == [(1, 1), (2, 2)]


@BOTH
@pytest.mark.parametrize("max_steps", [2, 4])
def test_a_run_ends_at_max_steps(build, driver, max_steps):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, 5, gradient_accumulation_steps=2, max_steps=max_steps)
    log = Log(trainer, session)
    train(trainer, session, driver)
    assert log.rows == expected(5, 2, 2, stop=max_steps)


@BOTH
def test_batches_of_an_unknown_number_step_when_the_trainer_does(build, driver):
    session = CompressionSession(protocol="training")
    data = Passes(rows(5))
    trainer = build(driver, session, data=data, gradient_accumulation_steps=2, max_steps=5, eval_strategy="epoch")
    log = Log(trainer, session)
    evaluated_in = []

    class Evaluated(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs):
            evaluated_in.append(session.lifecycle.state)

    trainer.add_callback(Evaluated)
    train(trainer, session, driver)
    without, stepping = ["BATCH_START", "LOSS_CALCULATED", "BATCH_END"], ["OPTIM_PRE_STEP", "OPTIM_POST_STEP"]
    group = [*without, *without[:2], *stepping, without[2]]
    # The Trainer does not step at the end of a pass that it cannot foresee.
    assert log.names == ["INITIALIZE", *group * 2, *without, *group * 2, *without, *group, "FINALIZE"]
    assert log.rows[-1][1:4] == (12, 5, 5)
    assert evaluated_in == ["session.ready"] * 3


@BOTH
def test_no_batches_make_an_empty_run(build, driver):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, data=Passes([]), max_steps=3, accelerator_config={"dispatch_batches": False})
    log = Log(trainer, session)
    train(trainer, session, driver)
    assert log.names == ["INITIALIZE", "FINALIZE"]


@BOTH
def test_the_state_holds_what_the_trainer_works_with(build, driver):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session)
    train(trainer, session, driver)
    state = session.state
    assert state.model is trainer.model
    assert state.optimizer is trainer.optimizer
    assert len(state.data) == 5
    assert state.hardware == torch.device("cpu")


@BOTH
def test_evaluation_and_saving_fire_nothing(build, driver):
    session = CompressionSession(protocol="training")
    strategy = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    options = {"eval_on_start": True, "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    trainer = build(driver, session, 5, gradient_accumulation_steps=2, **strategy, **options)
    log = Log(trainer, session)
    train(trainer, session, driver)
    trainer.evaluate()
    trainer.predict(rows(2))
    assert log.rows == expected(5, 2)
    assert session.lifecycle.progress.ignored == 0


def test_evaluation_prediction_and_saving_are_suspended(build):
    session = CompressionSession(protocol="training")
    controls = Controls(session)
    trainer = build("mixin", session, 2, eval_strategy="epoch", save_strategy="epoch")

    class Fire(TrainerCallback):
        def on_prediction_step(self, args, state, control, **kwargs):
            session.batch_start()

    trainer.add_callback(Fire)
    log = Log(trainer, session)
    trainer.train()
    trainer.predict(rows(2))
    assert log.rows == expected(2, 1)
    assert session.lifecycle.progress.ignored == 4
    assert controls.actions == [
        *[("suspend", "evaluation"), ("resume", "evaluation")],
        *[("suspend", "saving"), ("resume", "saving")],
        *[("suspend", "prediction"), ("resume", "prediction")],
    ]


class Stop(TrainerCallback):
    """Stops the run or the epoch at the first call of a hook once `step` steps are done."""

    def __init__(self, hook, step, switch="should_training_stop"):
        self.step = step
        self.switch = switch
        setattr(self, hook, self.stop)

    def stop(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            setattr(control, self.switch, True)


@BOTH
def test_early_stopping_ends_the_run(build, driver):
    session = CompressionSession(protocol="training")
    strategy = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    options = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "learning_rate": 0.0}
    callbacks = [EarlyStoppingCallback(2)]
    trainer = build(driver, session, 10, gradient_accumulation_steps=2, callbacks=callbacks, **strategy, **options)
    log = Log(trainer, session)
    train(trainer, session, driver)
    assert log.rows == expected(10, 2, stop=3)


@BOTH
def test_a_run_that_stops_inside_a_group_is_finalized_without_its_step(build, driver):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, 8, gradient_accumulation_steps=4, callbacks=[Stop("on_substep_end", 1)])
    log = Log(trainer, session)
    train(trainer, session, driver)
    whole = expected(8, 4)
    assert log.rows == [*whole[: 1 + 3 * 3 + 5 + 3], ("FINALIZE", 5, 1, 1, 0.5)]


@BOTH
def test_an_epoch_that_stops_early_is_followed_by_the_next(build, driver):
    session = CompressionSession(protocol="training")
    stop = Stop("on_step_end", 1, "should_epoch_stop")
    trainer = build(driver, session, 4, num_train_epochs=2, callbacks=[stop])
    log = Log(trainer, session)
    train(trainer, session, driver)
    assert log.rows[-1] == ("FINALIZE", 5, 5, 5, 2)
    assert protocols.TRAINING.accepts(log.names)


class Failing(Trainer):
    """Fails in a batch, before its loss, as if the memory were full."""

    fail_in = 3

    def compute_loss(self, *args, **kwargs):
        if self.model.training:
            self.fail_in -= 1
            if self.fail_in == 0:
                raise RuntimeError("CUDA out of memory.")
        return super().compute_loss(*args, **kwargs)


class FailingLifecycleTrainer(LifecycleMixin, Failing):
    pass


def failing(driver):
    return FailingLifecycleTrainer if driver == "mixin" else Failing


@BOTH
def test_an_exception_in_a_batch_aborts_the_run(build, driver):
    modifier = Observe()
    session = CompressionSession([modifier], "training")
    trainer = build(driver, session, 6, gradient_accumulation_steps=2, trainer_class=failing(driver))
    log = Log(trainer, session)
    with pytest.raises(RuntimeError, match=r"^CUDA out of memory\.$"):
        train(trainer, session, driver)
    # The mixin opens the batch before the loss is asked for, the callback when the model is called.
    opened = 1 if driver == "mixin" else 0
    assert log.rows == expected(6, 2)[: 1 + 3 + 5 + opened]
    assert session.lifecycle.status == "aborted"
    assert modifier.calls == [("initialize", 0), ("start", 0), ("abort", "CUDA out of memory.")]


@BOTH
@pytest.mark.parametrize(
    ("hook", "count"),
    [
        ("initialize", 1),
        ("batch_start", 2),
        ("start", 2),
        ("loss_calculated", 3),
        ("optim_pre_step", 7),
        ("optim_post_step", 8),
        ("batch_end", 4),
    ],
)
def test_an_exception_in_a_hook_aborts_the_run(build, driver, hook, count):
    modifier = Observe(fail_at=hook)
    session = CompressionSession([modifier], "training")
    trainer = build(driver, session, 6, gradient_accumulation_steps=2)
    with pytest.raises(RuntimeError, match=f"^{hook} failed$"):
        train(trainer, session, driver)
    assert session.lifecycle.progress.accepted == count
    assert session.lifecycle.status == "aborted"
    assert modifier.calls[-1] == ("abort", f"{hook} failed")
    assert [name for name, _ in modifier.calls].count("abort") == 1


@BOTH
def test_an_exception_at_finalize_reaches_the_caller(build, driver):
    session = CompressionSession([Observe(fail_at="finalize")], "training")
    trainer = build(driver, session)
    with pytest.raises(Exception, match="1 of 1 modifiers failed to finalize: Observe"):
        train(trainer, session, driver)
    assert session.lifecycle.status == "finalized"


@BOTH
def test_an_evaluation_after_an_exception_fires_nothing(build, driver):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, trainer_class=failing(driver))
    with pytest.raises(RuntimeError):
        train(trainer, session, driver)
    accepted = session.lifecycle.progress.accepted
    trainer.evaluate()
    assert session.lifecycle.progress.accepted == accepted


@BOTH
@pytest.mark.parametrize("fails", [False, True])
def test_training_again_is_a_new_run(build, driver, fails):
    modifier = Observe()
    session = CompressionSession([modifier], "training")
    trainer = build(driver, session, trainer_class=failing(driver))
    trainer.fail_in = 3 if fails else 99
    log = Log(trainer, session)
    if fails:
        with pytest.raises(RuntimeError):
            train(trainer, session, driver)
    else:
        train(trainer, session, driver)
    modifier.calls.clear()
    log.rows.clear()
    train(trainer, session, driver)
    assert log.rows == expected(5, 1)
    assert modifier.calls == [("initialize", 0), ("start", 0), ("finalize", 5)]


def test_a_callback_alone_finds_at_the_next_run_that_the_last_one_failed(build):
    modifier = Observe()
    session = CompressionSession([modifier], "training")
    trainer = build("callback", session, trainer_class=Failing)
    with pytest.raises(RuntimeError):
        trainer.train()
    assert session.lifecycle.status == "open"
    trainer.train()
    assert session.lifecycle.status == "finalized"
    begin = [("initialize", 0), ("start", 0)]
    assert modifier.calls == [*begin, ("abort", "None"), *begin, ("finalize", 5)]


@BOTH
def test_an_attempt_with_a_smaller_batch_is_a_new_run(build, driver):
    modifier = Observe()
    session = CompressionSession([modifier], "training")
    options = {"auto_find_batch_size": True, "per_device_train_batch_size": 2}
    trainer = build(driver, session, 6, trainer_class=failing(driver), **options)
    trainer.fail_in = 2
    log = Log(trainer, session)
    train(trainer, session, driver)
    assert log.rows[-1][:4] == ("FINALIZE", 6, 6, 6)
    begin = [("initialize", 0), ("start", 0)]
    assert modifier.calls == [*begin, ("abort", "None"), *begin, ("finalize", 6)]


@BOTH
@pytest.mark.parametrize("before", ["nothing", "a run", "a failed run"])
def test_a_run_that_someone_else_has_begun_is_refused_and_stays_open(build, driver, before):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, trainer_class=failing(driver))
    trainer.fail_in = 3 if before == "a failed run" else 99
    if before == "a run":
        train(trainer, session, driver)
    elif before == "a failed run":
        with pytest.raises(RuntimeError):
            train(trainer, session, driver)
    session.reset()
    session.initialize()
    with pytest.raises(IllegalEventError, match=r"^INITIALIZE is not allowed in session\.ready"):
        trainer.train()
    assert session.lifecycle.status == "open"


SAVES = {"save_strategy": "steps", "save_steps": 1}


def crashed(build, driver, batches, accumulation, *, after):
    """The rows and losses of a run that failed in the batch after its `after`-th step, having saved each step."""
    session = CompressionSession(protocol="training", steps_per_epoch=-(-batches // accumulation))

    class Crash(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == after:
                raise RuntimeError("power cut")

    options = {"gradient_accumulation_steps": accumulation, "num_train_epochs": 2, **SAVES}
    trainer = build(driver, session, batches, callbacks=[Crash()], **options)
    log = Log(trainer, session)
    with pytest.raises(RuntimeError, match="power cut"):
        train(trainer, session, driver)
    return log


def resumed(build, driver, batches, accumulation, checkpoint, *, modifiers=(), **options):
    session = CompressionSession(modifiers, "training", steps_per_epoch=-(-batches // accumulation))
    trainer = build(driver, session, batches, gradient_accumulation_steps=accumulation, num_train_epochs=2, **options)
    log = Log(trainer, session)
    train(trainer, session, driver, resume_from_checkpoint=checkpoint)
    return log


def up_to_step(log, step):
    """The rows and losses until a step is over."""
    end = next(i for i, row in enumerate(log.rows) if row[2] == step and (row[0] == "BATCH_END" or step == 0))
    found = log.rows[: end + 1]
    return found, log.losses[: [row[0] for row in found].count("LOSS_CALCULATED")]


@BOTH
@pytest.mark.parametrize(("batches", "accumulation"), [(4, 1), (5, 2), (6, 4)])
def test_a_resumed_run_is_the_rest_of_the_whole_run(build, driver, tmp_path, batches, accumulation):
    steps = -(-batches // accumulation)
    whole = resumed(build, driver, batches, accumulation, None)
    first = crashed(build, driver, batches, accumulation, after=2 * steps - 1)
    assert whole.rows == expected(batches, accumulation, 2)
    for step in range(1, 2 * steps):
        rest = resumed(build, driver, batches, accumulation, str(tmp_path / f"checkpoint-{step}"))
        rows_before, losses_before = up_to_step(first, step)
        assert rows_before + rest.rows == whole.rows
        assert losses_before + rest.losses == pytest.approx(whole.losses)


@BOTH
def test_a_run_saved_at_the_end_of_an_epoch_goes_on_with_the_next(build, driver, tmp_path):
    whole = resumed(build, driver, 5, 2, None, save_strategy="epoch")
    rest = resumed(build, driver, 5, 2, str(tmp_path / "checkpoint-3"))
    assert up_to_step(whole, 3)[0] + rest.rows == expected(5, 2, 2)


@BOTH
def test_a_run_that_was_over_is_finalized(build, driver, tmp_path):
    resumed(build, driver, 5, 2, None, **SAVES)
    rest = resumed(build, driver, 5, 2, str(tmp_path / "checkpoint-6"))
    assert rest.rows == expected(5, 2, 2)[-1:]


@BOTH
def test_schedules_go_on_where_they_were(build, driver, tmp_path):
    resumed(build, driver, 5, 2, None, modifiers=[Observe(start=1 / 3, end=1.5)], **SAVES)
    modifier = Observe(start=1 / 3, end=1.5)
    resumed(build, driver, 5, 2, str(tmp_path / "checkpoint-2"), modifiers=[modifier])
    assert modifier.calls == [("initialize", 2), ("end", 5), ("finalize", 6)]


@BOTH
def test_resuming_on_the_same_trainer_resets_its_session(build, driver, tmp_path):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, 5, **SAVES)
    log = Log(trainer, session)
    train(trainer, session, driver)
    log.rows.clear()
    train(trainer, session, driver, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert log.rows == expected(5, 1)[1 + 2 * 5 :]


@BOTH
def test_a_trainer_that_does_not_skip_data_counts_what_it_trains_again(build, driver, tmp_path):
    resumed(build, driver, 5, 2, None, **SAVES)
    rest = resumed(build, driver, 5, 2, str(tmp_path / "checkpoint-2"), ignore_data_skip=True)
    again = [(name, batch + 4, step + 2, own + 2) for name, batch, step, own, _ in expected(5, 2, 2, stop=4)[1:]]
    assert [row[:4] for row in rest.rows] == again


@BOTH
def test_the_restoring_of_callbacks_leaves_the_saved_run_alone(build, driver, tmp_path):
    first = resumed(build, driver, 5, 2, None, **SAVES)
    checkpoint = str(tmp_path / "checkpoint-2")
    rest = resumed(build, driver, 5, 2, checkpoint, restore_callback_states_from_checkpoint=True)
    assert up_to_step(first, 2)[0] + rest.rows == expected(5, 2, 2)


class RequestCheckpoint(TrainerCallback):
    """Does what SIGTERM does to a Trainer with `enable_jit_checkpoint`, at a hook once `step` steps are done."""

    def __init__(self, hook, step):
        self.step = step
        setattr(self, hook, self.request)

    def request(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.manager.is_checkpoint_requested = True


def checkpoint_in_time(build, driver, hook, step):
    """Train until a checkpoint is written because of a signal at a hook."""
    session = CompressionSession(protocol="training", steps_per_epoch=2)
    request = RequestCheckpoint(hook, step)
    options = {"gradient_accumulation_steps": 4, "num_train_epochs": 2, "enable_jit_checkpoint": True}
    trainer = build(driver, session, 8, callbacks=[request], **options)
    callbacks = trainer.callback_handler.callbacks
    request.manager = next(each.jit_manager for each in callbacks if isinstance(each, JITCheckpointCallback))
    train(trainer, session, driver)


@pytest.mark.parametrize(
    ("driver", "signal", "saved_at"),
    [
        *[(driver, ("on_train_begin", 0), 0) for driver in ("mixin", "callback")],
        *[(driver, ("on_substep_end", 1), 1) for driver in ("mixin", "callback")],
        ("mixin", ("on_optimizer_step", 1), 2),
    ],
)
def test_a_checkpoint_written_inside_a_step_resumes_at_its_boundary(build, tmp_path, driver, signal, saved_at):
    whole = resumed(build, driver, 8, 4, None)
    checkpoint_in_time(build, driver, *signal)
    rest = resumed(build, driver, 8, 4, str(tmp_path / f"checkpoint-{saved_at}"))
    rows_before, losses_before = up_to_step(whole, saved_at)
    assert rows_before + rest.rows == whole.rows
    assert losses_before + rest.losses == pytest.approx(whole.losses)


def test_a_checkpoint_written_before_a_callback_alone_has_ended_the_step_is_refused(build, tmp_path):
    checkpoint_in_time(build, "callback", "on_optimizer_step", 1)
    with pytest.raises(LifecycleError, match=r"of global_step 2, but its saved session is of global_step 1: resume"):
        resumed(build, "callback", 8, 4, str(tmp_path / "checkpoint-2"))


@BOTH
def test_a_checkpoint_without_a_session_is_refused(build, driver, tmp_path):
    resumed(build, driver, 5, 2, None, **SAVES)
    path = tmp_path / "checkpoint-2" / "trainer_state.json"
    saved = json.loads(path.read_text())
    del saved["stateful_callbacks"]["lifecycle"]
    path.write_text(json.dumps(saved))
    session = CompressionSession(protocol="training", steps_per_epoch=3)
    trainer = build(driver, session, 5, gradient_accumulation_steps=2)
    with pytest.raises(LifecycleError, match=r"of global_step 2, but its saved session is missing: resume"):
        train(trainer, session, driver, resume_from_checkpoint=str(path.parent))
    assert session.lifecycle.status == "created"


@BOTH
def test_a_session_saved_at_another_step_is_refused(build, driver, tmp_path):
    resumed(build, driver, 5, 2, None, **SAVES)
    paths = [tmp_path / f"checkpoint-{step}" / "trainer_state.json" for step in (2, 3)]
    saved, other = (json.loads(path.read_text()) for path in paths)
    saved["stateful_callbacks"] = other["stateful_callbacks"]
    paths[0].write_text(json.dumps(saved))
    session = CompressionSession(protocol="training", steps_per_epoch=3)
    trainer = build(driver, session, 5, gradient_accumulation_steps=2)
    with pytest.raises(LifecycleError, match=r"of global_step 2, but its saved session is of global_step 3: resume"):
        train(trainer, session, driver, resume_from_checkpoint=str(paths[0].parent))


@BOTH
def test_another_sessions_checkpoint_is_refused(build, driver, tmp_path):
    resumed(build, driver, 5, 2, None, **SAVES)
    session = CompressionSession([Observe()], "training", steps_per_epoch=3)
    trainer = build(driver, session, 5, gradient_accumulation_steps=2)
    with pytest.raises(LifecycleError, match="number of modifiers"):
        train(trainer, session, driver, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert session.lifecycle.status == "created"


class Overflowing(Net):
    """Has infinite gradients in its third batch."""

    batch = 0

    def forward(self, x, labels=None):
        output = super().forward(x, labels)
        self.batch += 1
        if self.batch == 3:
            output["loss"] = output["loss"] * float("inf")
        return output


@BOTH
@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch", "adamw_torch_fused"])
def test_a_step_that_the_scaler_skips_is_not_counted(build, driver, optimizer):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, 6, model=Overflowing(), optim=optimizer, gradient_accumulation_steps=2)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    log = Log(trainer, session)
    train(trainer, session, driver)
    assert log.skipped == [False, True, False]
    assert log.names == [row[0] for row in expected(6, 2)]
    assert session.lifecycle.event.global_step == 2
    assert trainer.state.global_step == 3


@BOTH
def test_a_step_that_the_optimizer_says_it_skipped_is_not_counted(build, driver):
    class Skip(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer, **kwargs):
            # As DeepSpeed's optimizer has it, which scales by itself.
            optimizer._is_overflow = state.global_step == 1

    session = CompressionSession(protocol="training")
    trainer = build(driver, session, 3, callbacks=[Skip()])
    log = Log(trainer, session)
    train(trainer, session, driver)
    assert log.skipped == [False, True, False]
    assert session.lifecycle.event.global_step == 2


@BOTH
def test_a_skipped_step_does_not_shift_a_resumed_run(build, driver, tmp_path):
    def run(checkpoint=None):
        session = CompressionSession(protocol="training")
        model = Overflowing()
        model.batch = 4 if checkpoint else 0
        trainer = build(driver, session, 6, model=model, gradient_accumulation_steps=2, **SAVES)
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        log = Log(trainer, session)
        train(trainer, session, driver, resume_from_checkpoint=checkpoint)
        return log

    whole = run()
    rest = run(str(tmp_path / "checkpoint-2"))
    assert rest.rows == whole.rows[-len(rest.rows) :]
    assert rest.names == [row[0] for row in expected(6, 2)[1 + 2 * 8 :]]


@BOTH
def test_the_loss_is_that_of_the_batch(build, driver):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, learning_rate=0.0)
    log = Log(trainer, session)
    train(trainer, session, driver)
    model = trainer.model
    losses = [float(model(**{name: value[None] for name, value in row.items()})["loss"].detach()) for row in rows(5)]
    assert sorted(log.losses) == pytest.approx(sorted(losses))


def test_the_loss_is_told_before_the_backward_pass(build):
    session = CompressionSession(protocol="training")
    trainer = build("mixin", session)
    seen = []
    session.lifecycle.on(
        "loss_calculated",
        lambda event, payload: seen.append((payload["loss"].requires_grad, trainer.model.linear.weight.grad)),
    )
    trainer.train()
    assert seen == [(True, None)] * 5


class OwnLoss(LifecycleTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = outputs["loss"] * 0 + 7
        return (loss, outputs) if return_outputs else loss


def test_a_subclass_computes_its_own_loss(build):
    session = CompressionSession(protocol="training")
    trainer = build("mixin", session, 4, trainer_class=OwnLoss, gradient_accumulation_steps=2, eval_strategy="epoch")
    log = Log(trainer, session)
    trainer.train()
    assert log.rows == expected(4, 2)
    assert log.losses == [7] * 4


class TwoLosses(Trainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        first, _ = self.compute_loss(model, inputs, return_outputs=True)
        loss = first + self.compute_loss(model, inputs)
        self.accelerator.backward(loss)
        return loss.detach()


@BOTH
def test_the_first_of_several_losses_in_a_batch_is_told(build, driver):
    class Both(LifecycleMixin, TwoLosses):
        pass

    session = CompressionSession(protocol="training")
    trainer = build(driver, session, 3, trainer_class=Both if driver == "mixin" else TwoLosses)
    log = Log(trainer, session)
    steps = []
    step = trainer.training_step
    trainer.training_step = lambda *args, **kwargs: steps.append(step(*args, **kwargs)) or steps[-1]
    train(trainer, session, driver)
    assert log.rows == expected(3, 1)
    assert [2 * loss for loss in log.losses] == pytest.approx([float(loss) for loss in steps])


@BOTH
def test_a_protocol_of_several_losses_is_told_of_each(build, driver):
    class Both(LifecycleMixin, TwoLosses):
        pass

    session = CompressionSession(protocol="training_microbatched")
    trainer = build(driver, session, 2, trainer_class=Both if driver == "mixin" else TwoLosses)
    log = Log(trainer, session)
    train(trainer, session, driver)
    batch = ["BATCH_START", *["LOSS_CALCULATED"] * 2, "OPTIM_PRE_STEP", "OPTIM_POST_STEP", "BATCH_END"]
    assert log.names == ["INITIALIZE", *batch * 2, "FINALIZE"]


def test_a_training_step_without_compute_loss_tells_the_loss_that_it_returns(build):
    class Direct(Trainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = model(**inputs)["loss"] * 0 + 5
            self.accelerator.backward(loss)
            return loss.detach()

    class Both(LifecycleMixin, Direct):
        pass

    session = CompressionSession(protocol="training")
    trainer = build("mixin", session, trainer_class=Both)
    log = Log(trainer, session)
    trainer.train()
    assert log.rows == expected(5, 1)
    assert log.losses == [5] * 5


class SequenceNet(Net):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x, labels=None):
        return self.kind(super().forward(x, labels).values())


@BOTH
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_model_that_returns_a_sequence_has_its_loss_first(build, driver, kind):
    session = CompressionSession(protocol="training")
    trainer = build(driver, session, model=SequenceNet(kind))
    log = Log(trainer, session)
    train(trainer, session, driver)
    assert log.rows == expected(5, 1)


def squared(outputs, labels, num_items_in_batch=None):
    return (outputs["logits"] - labels).pow(2).mean() + 1


def test_a_loss_function_of_the_trainers_is_heard_by_the_mixin(build):
    session = CompressionSession(protocol="training")
    trainer = build("mixin", session, 3)
    trainer.compute_loss_func = squared
    log = Log(trainer, session)
    trainer.train()
    assert log.rows == expected(3, 1)
    assert min(log.losses) >= 1


class LogitsNet(Net):
    def forward(self, x, labels=None):
        return super().forward(x)["logits"]


@pytest.mark.parametrize("model", [Net, LogitsNet], ids=["no loss", "several numbers"])
def test_a_callback_alone_says_that_it_cannot_see_the_loss(build, model):
    session = CompressionSession(protocol="training")
    trainer = build("callback", session, 4, model=model(), per_device_train_batch_size=2)
    trainer.compute_loss_func = lambda outputs, labels, **kwargs: squared(
        outputs if isinstance(outputs, dict) else {"logits": outputs}, labels
    )
    with pytest.raises(LifecycleError, match=r"^\w+ returned no loss, .* use LifecycleMixin$"):
        train(trainer, session, "callback")
    assert session.lifecycle.status == "aborted"


@BOTH
def test_what_is_not_a_session_is_refused(build, driver):
    with pytest.raises(TypeError, match="session must be a CompressionSession, got 'mine'"):
        build(driver, "mine")


def test_a_run_that_fails_leaves_no_hooks_on_the_model(build):
    session = CompressionSession(protocol="training")
    trainer = build("callback", session, trainer_class=Failing)
    with pytest.raises(RuntimeError):
        train(trainer, session, "callback")
    assert not trainer.model._forward_hooks
    assert not trainer.model._forward_pre_hooks


def test_a_whole_run_leaves_no_hooks_on_the_model_even_after_one_that_was_left_open(build):
    session = CompressionSession(protocol="training")
    trainer = build("callback", session, trainer_class=Failing)
    with pytest.raises(RuntimeError):
        trainer.train()
    trainer.train()
    assert not trainer.model._forward_hooks
    assert not trainer.model._forward_pre_hooks


def test_checkpoints_hold_the_run_beside_the_trainers_own_state(build, tmp_path):
    session = CompressionSession(protocol="training")
    build("mixin", session, 2, **SAVES).train()
    saved = json.loads(Path(tmp_path, "checkpoint-1", "trainer_state.json").read_text())
    run = saved["stateful_callbacks"]["lifecycle"]
    assert run["global_step"] == saved["global_step"] == run["session"]["lifecycle"]["event"]["global_step"] == 1
