"""A session under the real Lightning `Trainer`."""

import math
import warnings

import pytest
import recording
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import unhurried
from sequences import LETTER, events

with warnings.catch_warnings():
    # Lightning says it of its own use of torch, when it is imported and when it collects batches.
    LEAF_SPEC = r"`isinstance\(treespec, LeafSpec\)` is deprecated"
    warnings.filterwarnings("ignore", LEAF_SPEC)
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateFinder, ModelCheckpoint
    from lightning.pytorch.plugins.precision import MixedPrecision

    from lifecycle.integrations.lightning import LifecycleCallback
    from lifecycle.integrations.torch import attach

from lifecycle import ExpectationError, IllegalEventError, LifecycleError, protocols
from lifecycle.session import CompressionSession

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{LEAF_SPEC}"),
    # Lightning's advice for machines with many cores.
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    # It says so once in a process, of what a test here does on purpose.
    pytest.mark.filterwarnings("ignore:`training_step` returned `None`"),
]


class Batches:
    """A loader that can be resumed in mid-epoch, as Lightning demands of one."""

    def __init__(self, count):
        self.count = count
        self.given = 0
        self.start = 0

    def __len__(self):
        return self.count

    def __iter__(self):
        start, self.start = self.start, 0
        for index in range(start, self.count):
            self.given = index + 1
            yield torch.randn(8, 4, generator=torch.Generator().manual_seed(index))

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.start = state["given"] % self.count


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3)
        self.losses = []

    def loss(self, batch):
        return self.layer(batch).pow(2).mean()

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Validated(Net):
    def __init__(self):
        super().__init__()
        self.validated = 0

    def validation_step(self, batch, batch_idx):
        self.validated += 1
        self.log("loss", 1.0)


class Notes(recording.Notes):
    def on_abort(self, state, event, error):
        super().on_abort(state, event, repr(error))


class Run:
    """A module, a trainer and a session, and at every event the counters of the session and of Lightning itself."""

    def __init__(self, module=None, *, callbacks=(), modifiers=(), protocol="training", callback=None, **options):
        self.options = options
        self.module = module or Net()
        self.callback = callback or LifecycleCallback(CompressionSession(modifiers, protocol))
        self.session = self.callback.session
        self.callbacks = list(callbacks)
        self.seen = []
        self.payloads = []
        self.trainer = self.new_trainer()
        self.session.lifecycle.on(self.session.lifecycle.protocol.events, self.see)

    def new_trainer(self):
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        saving = any(isinstance(callback, ModelCheckpoint) for callback in self.callbacks)
        defaults = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": saving, "max_epochs": 1, **quiet}
        return Trainer(**{**defaults, **self.options}, callbacks=[self.callback, *self.callbacks])

    def see(self, event, payload):
        letter = LETTER[event.type_]
        letter = letter.lower() if payload.get("skipped") else letter
        theirs = self.trainer.global_step, self.trainer.fit_loop.total_batch_idx
        self.seen.append((letter, event.global_batch, event.global_step, *theirs))
        self.payloads.append(payload)

    def fit(self, batches, **options):
        loader = batches if not isinstance(batches, int) else Batches(batches)
        self.trainer.fit(self.module, loader, **options)
        return self

    @property
    def word(self):
        return "".join(letter for letter, *_ in self.seen)

    @property
    def losses(self):
        return [payload["loss"].item() for payload in self.payloads if "loss" in payload]


def expected(batches, epochs=1, accumulate=1):
    """What the run must be, from the counts alone: Lightning counts a step when the optimizer has returned."""
    seen = [("I", 0, 0, 0, -1)]
    step = 0
    for batch in range(batches * epochs):
        seen += [(letter, batch, step, step, batch) for letter in "BL"]
        in_epoch = batch % batches + 1
        if in_epoch % accumulate == 0 or in_epoch == batches:
            seen += [("P", batch, step, step, batch), ("O", batch, step + 1, step, batch)]
            step += 1
        seen.append(("E", batch + 1, step, step, batch))
    return [*seen, ("F", batches * epochs, step, step, batches * epochs - 1)]


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize(("batches", "epochs"), [(1, 1), (5, 2), (10, 1), (3, 3)])
def test_events_and_counters_are_those_of_the_trainer(batches, epochs, accumulate):
    run = Run(max_epochs=epochs, accumulate_grad_batches=accumulate).fit(batches)
    assert run.seen == expected(batches, epochs, accumulate)
    assert run.trainer.global_step == run.session.lifecycle.event.global_step


@given(data=st.data(), batches=st.integers(1, 7), epochs=st.integers(1, 3), accumulate=st.integers(1, 8))
@settings(unhurried, max_examples=30)
def test_the_order_is_that_of_training_whatever_the_counts_and_the_validation(data, batches, epochs, accumulate):
    interval = data.draw(st.integers(1, batches))
    run = Run(Validated(), max_epochs=epochs, accumulate_grad_batches=accumulate, val_check_interval=interval)
    run.fit(batches, val_dataloaders=Batches(2))
    assert run.seen == expected(batches, epochs, accumulate)
    assert protocols.TRAINING.accepts(events(run.word))


def test_what_comes_with_initialize_is_in_the_state():
    run = Run()
    loader = Batches(1)
    run.fit(loader)
    state = run.session.state
    assert (state.model, state.optimizer, state.data) == (run.module, run.trainer.optimizers[0], loader)
    assert state.hardware == torch.device("cpu")


def test_validation_and_the_sanity_check_fire_nothing():
    run = Run(Validated(), num_sanity_val_steps=2, val_check_interval=2, max_epochs=2)
    run.fit(5, val_dataloaders=Batches(3))
    assert run.module.validated == 2 + 2 * 2 * 3
    assert run.seen == expected(5, 2)


class Shared(Net):
    """Fires in validation what it would fire in training."""

    def validation_step(self, batch, batch_idx):
        callback = next(each for each in self.trainer.callbacks if isinstance(each, LifecycleCallback))
        callback.session.batch_start()
        if callback.session.lifecycle.event.global_batch == self.fails_after:
            raise RuntimeError("validation")

    fails_after = None


def test_in_validation_the_session_is_suspended():
    run = Run(Shared(), val_check_interval=2, num_sanity_val_steps=0).fit(5, val_dataloaders=Batches(3))
    assert run.seen == expected(5, 1)
    assert run.session.lifecycle.progress.ignored == 2 * 3


def test_a_validation_that_fails_aborts_and_leaves_nothing_suspended():
    module = Shared()
    module.fails_after = 2
    run = Run(module, val_check_interval=2, num_sanity_val_steps=0)
    with pytest.raises(RuntimeError, match="validation"):
        run.fit(5, val_dataloaders=Batches(3))
    assert (run.word, run.session.lifecycle.status) == ("IBLPOEBLPOE", "aborted")
    run.session.reset()
    run.session.initialize()
    assert run.session.batch_start().type_.name == "BATCH_START"


def test_the_loss_is_what_backward_is_called_on():
    run = Run(accumulate_grad_batches=4).fit(6)
    assert run.losses == pytest.approx([loss / 4 for loss in run.module.losses])


def test_a_stop_in_mid_epoch_finalizes_after_the_batch():
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *others):
            trainer.should_stop = trainer.fit_loop.total_batch_idx == 2

    run = Run(callbacks=[Stop()], accumulate_grad_batches=2).fit(5)
    # Lightning leaves the third batch without a step.
    assert run.word == "I" + "BLE" + "BLPOE" + "BLE" + "F"


def test_early_stopping_finalizes():
    run = Run(Validated(), callbacks=[EarlyStopping("loss", patience=1)], max_epochs=10, num_sanity_val_steps=0)
    run.fit(3, val_dataloaders=Batches(1))
    assert run.seen == expected(3, 2)


class Breaks(Net):
    """Fails in a batch, before or after the optimizer has stepped."""

    def __init__(self, batch, hook="training_step"):
        super().__init__()
        self.batch = batch
        self.hook = hook

    def check(self, hook):
        if hook == self.hook and self.trainer.fit_loop.total_batch_idx == self.batch:
            raise RuntimeError(hook)

    def training_step(self, batch, batch_idx):
        self.check("training_step")
        return super().training_step(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer):
        self.check("on_before_optimizer_step")

    def on_train_batch_end(self, *others):
        self.check("on_train_batch_end")


@pytest.mark.parametrize(
    ("hook", "last"), [("training_step", "B"), ("on_before_optimizer_step", "BL"), ("on_train_batch_end", "BLPOE")]
)
def test_an_exception_aborts_the_run_once(hook, last):
    notes = Notes()
    run = Run(Breaks(2, hook), modifiers=[notes])
    with pytest.raises(RuntimeError, match=hook) as raised:
        run.fit(5)
    assert run.word == "I" + "BLPOE" * 2 + last
    assert run.session.lifecycle.status == "aborted"
    complete = 3 if last.endswith("E") else 2
    assert notes.calls[2:] == [("abort", complete, complete, repr(raised.value))]


@pytest.mark.parametrize("module", [Net(), Breaks(1)], ids=["finalized", "aborted"])
def test_after_the_run_the_optimizer_fires_nothing(module):
    run = Run(module)
    if isinstance(module, Breaks):
        with pytest.raises(RuntimeError, match="training_step"):
            run.fit(2)
    else:
        run.fit(2)
    before = list(run.seen)
    optimizer = run.session.state.optimizer
    optimizer.step()
    assert run.seen == before
    assert not optimizer._optimizer_step_pre_hooks


def test_a_run_that_ends_before_the_expected_counts_is_aborted():
    notes = Notes()
    run = Run(callback=LifecycleCallback(CompressionSession([notes], "training", expect={"steps": 3})))
    with pytest.raises(ExpectationError):
        run.fit(2)
    assert [call[0] for call in notes.calls] == ["initialize", "start", "abort"]


def test_a_second_fit_is_a_new_run():
    run = Run().fit(2)
    run.trainer = run.new_trainer()
    run.fit(3)
    assert run.seen == expected(2) + expected(3)


def test_a_fit_after_an_exception_is_a_new_run():
    run = Run(Breaks(1))
    with pytest.raises(RuntimeError, match="training_step"):
        run.fit(2)
    run.trainer = run.new_trainer()
    run.module.batch = None
    run.fit(2)
    assert run.word == "IBLPOEB" + "IBLPOEBLPOEF"


@pytest.mark.parametrize("skipping", ["steps", "groups"])
def test_a_batch_whose_training_step_returns_none_has_the_loss_nan(skipping):
    class Skips(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx == 1 else loss

    # Lightning calls the optimizer all the same where a group ends.
    accumulate = 1 if skipping == "steps" else 2
    run = Run(Skips(), accumulate_grad_batches=accumulate).fit(3)
    assert run.seen == expected(3, accumulate=accumulate)
    assert [math.isnan(loss) for loss in run.losses] == [False, True, False]


def test_a_batch_that_only_accumulates_may_have_no_loss():
    class Skips(Net):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 0 else super().training_step(batch, batch_idx)

    run = Run(Skips(), accumulate_grad_batches=2).fit(2)
    assert run.seen == expected(2, accumulate=2)


def test_a_batch_that_the_module_refuses_ends_with_the_epoch():
    class Refuses(Net):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 1 else None

    run = Run(Refuses(), max_epochs=2).fit(3)
    assert run.word == "I" + ("BLPOE" + "BLE") * 2 + "F"


def test_a_batch_that_is_none_is_no_batch():
    class WithNone(Batches):
        def __iter__(self):
            for index, batch in enumerate(super().__iter__()):
                yield None if index == 1 else batch

    with pytest.warns(UserWarning, match="train_dataloader yielded None"):
        run = Run().fit(WithNone(3))
    assert run.word == "I" + "BLPOE" * 2 + "F"


def test_a_step_that_the_scaler_skips_is_skipped():
    class Overflows(Net):
        def on_after_backward(self):
            if self.trainer.fit_loop.total_batch_idx == 1:
                self.layer.weight.grad[0, 0] = torch.inf

    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    run = Run(Overflows(), plugins=[MixedPrecision("16-mixed", "cpu", scaler)]).fit(3)
    assert run.word == "I" + "BLPOE" + "BLPoE" + "BLPOE" + "F"
    # Lightning counts it nevertheless.
    assert (run.session.lifecycle.event.global_step, run.trainer.global_step) == (2, 3)
    assert run.losses[:2] == pytest.approx([8 * loss for loss in run.module.losses[:2]], rel=1e-2)


def test_the_first_closure_of_lbfgs_counts():
    class Lbfgs(Net):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), max_iter=3)

    run = Run(Lbfgs()).fit(2)
    assert len(run.module.losses) > 2
    assert run.seen == expected(2)


class Adversaries(Net):
    """Two optimizers that step in every batch, by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = torch.nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        for optimizer, layer in zip(self.optimizers(), (self.layer, self.other), strict=True):
            loss = layer(batch).pow(2).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.layer, self.other)]


def test_two_optimizers_in_a_batch_are_two_invocations_of_one_step():
    callback = LifecycleCallback(CompressionSession(protocol="training", invocations_per_step=2))
    run = Run(Adversaries(), callback=callback).fit(3)
    assert run.word == "I" + "BLPOPOE" * 3 + "F"
    assert run.session.state.optimizer == run.trainer.optimizers
    # Lightning counts each call.
    assert (run.session.lifecycle.event.global_step, run.trainer.global_step) == (3, 6)


def test_two_optimizers_in_a_batch_of_a_session_for_one_are_refused():
    with pytest.raises(IllegalEventError, match=r"OPTIM_PRE_STEP is not allowed in session\.batch\.step\.taken"):
        Run(Adversaries()).fit(1)


def test_losses_of_several_backward_passes_count_where_the_protocol_allows_them():
    class Twice(Net):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for _ in range(2):
                self.manual_backward(super().training_step(batch, batch_idx))
            self.optimizers().step()

    assert Run(Twice()).fit(2).word == "I" + "BLPOE" * 2 + "F"
    assert Run(Twice(), protocol="training_microbatched").fit(2).word == "I" + "BLLPOE" * 2 + "F"


def test_a_protocol_without_training_is_refused_at_the_first_batch():
    run = Run(protocol="basic")
    with pytest.raises(IllegalEventError, match=r"BATCH_START is not allowed in session\.ready"):
        run.fit(1)
    assert run.session.lifecycle.status == "aborted"


def test_a_run_that_is_open_is_refused_and_stays_open():
    run = Run()
    run.session.initialize()
    with pytest.raises(IllegalEventError, match=r"INITIALIZE is not allowed in session\.ready"):
        run.fit(1)
    assert run.session.lifecycle.status == "open"


def test_a_validation_that_fails_leaves_a_run_of_others_open():
    class FailsToValidate(Net):
        def validation_step(self, batch, batch_idx):
            raise RuntimeError("validation")

    run = Run(FailsToValidate(), limit_val_batches=0).fit(1, val_dataloaders=Batches(1))
    run.session.reset()
    run.session.initialize()
    run.options = {}
    with pytest.raises(RuntimeError, match="validation"):
        run.new_trainer().validate(run.module, Batches(1), verbose=False)
    assert run.session.lifecycle.status == "open"


def test_an_optimizer_that_is_watched_already_is_refused():
    run = Run()
    optimizer = torch.optim.SGD(run.module.parameters(), lr=0.1)
    run.module.configure_optimizers = lambda: optimizer
    with attach(optimizer, session=CompressionSession()), pytest.raises(LifecycleError, match="attached to a session"):
        run.fit(1)
    assert run.session.lifecycle.status == "aborted"


def test_what_is_no_session_is_refused():
    with pytest.raises(TypeError, match="session must be a CompressionSession, got 'session'"):
        LifecycleCallback("session")


def test_before_the_first_batch_is_complete_the_beginning_is_saved():
    run = Run(Breaks(0))
    with pytest.raises(RuntimeError, match="training_step"):
        run.fit(1)
    assert run.callback.state_dict()["session"]["lifecycle"]["state"] == "session.ready"


def test_before_any_run_there_is_nothing_to_save():
    assert LifecycleCallback(CompressionSession()).state_dict() == {}


# What resumes saves to another folder.
resumed = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def weights(run):
    return torch.cat([parameter.detach().flatten() for parameter in run.module.parameters()])


SCHEDULE = {"start": 2, "end": 5}


@resumed
@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_interrupted_and_resumed_is_as_if_never_interrupted(tmp_path, accumulate, step):
    options = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    batches = 2 * accumulate + 1  # three steps an epoch, the last of them partial
    whole_notes = Notes(**SCHEDULE)
    whole = Run(modifiers=[whole_notes], **options).fit(batches)
    assert whole.seen == expected(batches, 2, accumulate)

    def saving(path):
        return ModelCheckpoint(path, "at", every_n_train_steps=step, save_on_train_epoch_end=False)

    at = next(row[1] for row in whole.seen if row[0] == "E" and row[2] == step)
    first = Run(Breaks(at), callbacks=[saving(tmp_path)], modifiers=[Notes(**SCHEDULE)], **options)
    with pytest.raises(RuntimeError, match="training_step"):
        first.fit(batches)

    notes = Notes(**SCHEDULE)
    second = Run(callbacks=[saving(tmp_path / "again")], modifiers=[notes], **options)
    second.fit(batches, ckpt_path=tmp_path / "at.ckpt")
    assert first.seen[:-1] + second.seen == whole.seen
    assert torch.equal(weights(second), weights(whole))
    assert notes.calls[0] == ("initialize", at, step)
    assert [call for call in whole_notes.calls if call[1] >= at] == notes.calls[1:]


@resumed
@pytest.mark.parametrize("hook", ["training_step", "on_before_optimizer_step"])
def test_what_is_saved_in_mid_batch_goes_on_after_the_last_whole_batch(tmp_path, hook):
    def saving(path):
        return ModelCheckpoint(path, "at", save_on_exception=True)

    first = Run(Breaks(3, hook), callbacks=[saving(tmp_path)])
    with pytest.raises(RuntimeError, match=hook):
        first.fit(5)
    second = Run(callbacks=[saving(tmp_path / "again")])
    second.fit(5, ckpt_path=tmp_path / "at.ckpt")
    # The loader had given the batch that failed, and gives the one after it as Lightning's fourth.
    assert [row[:4] for row in second.seen] == [row[:4] for row in expected(4)[-6:]]


def test_a_run_that_has_ended_is_prolonged_from_its_checkpoint(tmp_path):
    first = Run().fit(3)
    first.trainer.save_checkpoint(tmp_path / "end.ckpt")
    second = Run(max_epochs=2)
    second.fit(3, ckpt_path=tmp_path / "end.ckpt")
    assert first.seen[:-1] + second.seen == expected(3, 2)


def test_a_checkpoint_without_a_session_is_refused(tmp_path):
    run = Run().fit(2)
    run.trainer.save_checkpoint(tmp_path / "end.ckpt")
    checkpoint = torch.load(tmp_path / "end.ckpt", weights_only=True)
    del checkpoint["callbacks"]["LifecycleCallback"]
    torch.save(checkpoint, tmp_path / "bare.ckpt")
    second = Run(Validated(), max_epochs=2)
    with pytest.raises(LifecycleError, match="the checkpoint is of global_step 2, but has no session"):
        second.fit(2, ckpt_path=tmp_path / "bare.ckpt", val_dataloaders=Batches(1))
    assert second.seen == []
    second.trainer.validate(second.module, Batches(1), ckpt_path=tmp_path / "bare.ckpt", verbose=False)


def test_a_checkpoint_written_before_the_callback_has_ended_the_batch_is_refused(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, *others):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    first = Run()
    first.trainer.callbacks.insert(0, Save())
    first.fit(2)
    with pytest.raises(LifecycleError, match="is of global_step 2, but its session is of global_step 1: resume"):
        Run(max_epochs=2).fit(2, ckpt_path=tmp_path / "2.ckpt")


def test_a_checkpoint_that_was_validated_is_not_resumed(tmp_path):
    run = Run(Validated()).fit(2, val_dataloaders=Batches(1))
    run.trainer.save_checkpoint(tmp_path / "end.ckpt")
    run.seen.clear()
    run.trainer = run.new_trainer()
    run.trainer.validate(run.module, Batches(1), ckpt_path=tmp_path / "end.ckpt", verbose=False)
    run.fit(2, val_dataloaders=Batches(1))
    assert run.seen == expected(2)


def test_a_search_for_the_learning_rate_before_training_leaves_every_fit_a_new_run(tmp_path):
    run = Run(callbacks=[LearningRateFinder(num_training_steps=2)], default_root_dir=tmp_path)
    run.module.lr = 0.1
    run.fit(2)
    run.trainer = run.new_trainer()
    run.fit(3)
    assert run.seen == expected(2) + expected(3)


@pytest.mark.parametrize("with_callback", [True, False])
def test_a_pruned_model_stays_pruned_with_the_callback_only(with_callback):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from llmcompressor.modifiers.pruning import ConstantPruningModifier

    from lifecycle.integrations.llmcompressor import adapt

    module = Net()
    with torch.no_grad():
        module.layer.weight[:, ::2] = 0
    pruned = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *others):
            pruned.append(int((pl_module.layer.weight == 0).sum()))

    pruning = adapt(ConstantPruningModifier(targets=["Linear"], start=0))
    run = Run(module, modifiers=pruning, callbacks=[Watch()], accumulate_grad_batches=2)
    if not with_callback:
        run.trainer.callbacks.remove(run.callback)
    run.fit(6)
    assert pruned == ([6] * 6 if with_callback else [6, 0, 0, 0, 0, 0])
