"""Loops written by hand, on the real torch."""

import copy
import gc
import importlib
import io
import pickle
import sys
import weakref

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from runs import unhurried
from sequences import LETTER, events

from lifecycle import IllegalEventError, LifecycleError, MissingPayloadError, protocols
from lifecycle.integrations.torch import attach
from lifecycle.session import CompressionSession, Modifier

SGD = "sgd"
ADAMW = "adamw"
FUSED = "fused adamw"
OPTIMIZERS = {
    SGD: lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    ADAMW: lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
    FUSED: lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


class Loop:
    """A tiny model, its optimizer, its session, and at every event what the weights themselves say of the steps."""

    def __init__(self, name=SGD, *, scaler=None, session=None, **options):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 2)
        self.optimizer = OPTIMIZERS[name](self.model.parameters())
        self.scaler = scaler
        self.session = session or CompressionSession(**{"protocol": "training", **options})
        self.word = ""
        self.batches_ended, self.steps, self.moves = [], [], []
        self.last = self.weights()
        self.session.lifecycle.on(self.session.lifecycle.protocol.events, self.see)

    def weights(self):
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()]).clone()

    def see(self, event, payload):
        now = self.weights()
        moved = not torch.equal(now, self.last)
        self.last = now
        letter = LETTER[event.type_]
        self.word += letter.lower() if payload.get("skipped") else letter
        self.batches_ended.append(event.global_batch)
        self.steps.append(event.global_step)
        self.moves.append((self.moves[-1] if self.moves else 0) + moved)

    def loss(self, batch):
        generator = torch.Generator().manual_seed(batch)
        return self.model(torch.randn(8, 4, generator=generator)).pow(2).mean()

    def backward(self, batch, *, overflow=False):
        """Forward, loss and backward."""
        loss = self.loss(batch)
        self.session.loss_calculated(loss=loss)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        if overflow:
            self.model.weight.grad[0, 0] = torch.inf

    def step(self):
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()

    def batch(self, batch, *, step=True, overflow=False):
        with self.session.batch():
            self.backward(batch, overflow=overflow)
            if step:
                self.step()

    def batches(self, count):
        for batch in range(count):
            self.batch(batch)

    def run_batch(self, work):
        """A run of one batch, in which `work` is all that is done."""
        with self.session:
            self.session.initialize()
            with self.session.batch():
                work()

    def run(self, count):
        with self.session, attach(self.optimizer, self.scaler):
            self.session.initialize()
            self.batches(count)


def cpu_scaler(**options):
    return torch.amp.GradScaler("cpu", init_scale=1024.0, **options)


# Plain steps


@every_optimizer
def test_every_step_fires_its_two_events(name):
    loop = Loop(name)
    loop.run(3)
    assert loop.word == "I" + "BLPOE" * 3 + "F"


def test_the_counters_at_every_event_are_those_of_the_weights():
    loop = Loop()
    loop.run(2)
    assert loop.word == "I" + "BLPOE" + "BLPOE" + "F"
    assert loop.batches_ended == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert loop.steps == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    assert loop.moves == loop.steps


@pytest.mark.parametrize("last_group_steps", [False, True])
@pytest.mark.parametrize(
    ("accumulation", "groups", "rest"),
    [(1, 7, 0), (2, 3, 1), (4, 1, 3)],
)
def test_a_batch_of_an_accumulation_group_has_no_step(accumulation, groups, rest, last_group_steps):
    loop = Loop(ADAMW, batches_per_step=accumulation)
    with loop.session, attach(loop.optimizer):
        loop.session.initialize()
        for batch in range(7):
            full = (batch + 1) % accumulation == 0
            loop.batch(batch, step=full or (last_group_steps and batch == 6))
    group = "BLE" * (accumulation - 1) + "BLPOE"
    partial = ("BLE" * (rest - 1) + "BLPOE" if last_group_steps else "BLE" * rest) if rest else ""
    assert loop.word == "I" + group * groups + partial + "F"
    assert loop.steps == loop.moves
    assert loop.batches_ended == [loop.word[: place + 1].count("E") for place in range(len(loop.word))]
    assert loop.optimizer.state[loop.model.weight]["step"] == loop.steps[-1]


def test_a_learning_rate_scheduler_sees_the_steps_as_before():
    loop = Loop()
    # It puts a `step` of its own on the optimizer.
    early = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=1, gamma=0.5)
    with loop.session, attach(loop.optimizer):
        late = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=1, gamma=0.5)
        loop.session.initialize()
        for batch in range(2):
            loop.batch(batch)
            early.step()
            late.step()
    assert loop.word == "I" + "BLPOE" * 2 + "F"
    assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 16)


def test_a_step_in_a_suspension_fires_nothing():
    loop = Loop()
    with loop.session, attach(loop.optimizer):
        loop.session.initialize()
        with loop.session.lifecycle.suspended("a probe of the learning rate"):
            loop.loss(0).backward()
            loop.optimizer.step()
    assert loop.word == "IF"


# Closures


def lbfgs(loop, **options):
    loop.optimizer = torch.optim.LBFGS(loop.model.parameters(), lr=0.1, max_iter=4, **options)


def closure_of(loop, batch, losses, *, fires=False):
    def closure():
        loop.optimizer.zero_grad()
        loss = loop.loss(batch)
        if fires:
            loop.session.loss_calculated(loss=loss)
        loss.backward()
        losses.append(loss)
        return loss

    return closure


@pytest.mark.parametrize("fires", [False, True], ids=["the loop fires no loss", "the closure fires its loss"])
@pytest.mark.parametrize("options", [{}, {"line_search_fn": "strong_wolfe"}], ids=["", "strong_wolfe"])
def test_lbfgs_fires_at_its_first_closure_call_only(options, fires):
    loop, losses, given_losses = Loop(), [], []
    lbfgs(loop, **options)
    loop.session.lifecycle.on("loss_calculated", lambda event, payload: given_losses.append(payload["loss"]))
    with loop.session, attach(loop.optimizer):
        loop.session.initialize()
        for batch in range(2):
            with loop.session.batch():
                loop.optimizer.step(closure_of(loop, batch, losses, fires=fires))
            if batch == 0:
                first_of_second_batch = len(losses)
    assert len(losses) > 4
    assert loop.word == "I" + "BLPOE" * 2 + "F"
    assert given_losses[0] is losses[0]
    assert given_losses[1] is losses[first_of_second_batch]
    assert loop.steps == loop.moves


@every_optimizer
@pytest.mark.parametrize("fires", [False, True])
@pytest.mark.parametrize("by_name", [False, True])
def test_a_closure_gives_other_optimizers_their_loss(name, fires, by_name):
    loop, losses = Loop(name), []
    with loop.session, attach(loop.optimizer):
        loop.session.initialize()
        for batch in range(2):
            with loop.session.batch():
                closure = closure_of(loop, batch, losses, fires=fires)
                loss = loop.optimizer.step(closure=closure) if by_name else loop.optimizer.step(closure)
                assert loss is losses[-1]
    assert loop.word == "I" + "BLPOE" * 2 + "F"
    assert loop.steps == loop.moves


def test_a_loss_fired_before_the_step_is_the_one_that_counts():
    loop, losses = Loop(), []
    with loop.session, attach(loop.optimizer):
        loop.session.initialize()
        with loop.session.batch():
            loop.session.loss_calculated(loss=0.5)
            loop.optimizer.step(closure_of(loop, 0, losses))
    assert loop.word == "IBLPOEF"


def test_a_closure_of_none_is_no_closure():
    loop = Loop()
    with loop.session, attach(loop.optimizer):
        loop.session.initialize()
        with loop.session.batch():
            loop.backward(0)
            loop.optimizer.step(None)
    assert loop.word == "IBLPOEF"


def test_a_closure_without_a_loss_is_refused_before_the_weights_move():
    loop = Loop()
    before = loop.weights()
    with attach(loop.optimizer, session=loop.session), pytest.raises(MissingPayloadError):
        loop.run_batch(lambda: loop.optimizer.step(lambda: loop.loss(0).backward()))
    assert torch.equal(loop.weights(), before)


def failing_at(call, loop):
    calls = []

    def closure():
        loss = closure_of(loop, 0, calls)()
        if len(calls) == call:
            raise RuntimeError("no more data")
        return loss

    return closure


@pytest.mark.parametrize(("call", "word"), [(1, "IB"), (2, "IBLP")])
def test_a_closure_that_raises_ends_the_run_and_the_next_one_works(call, word):
    loop = Loop()
    lbfgs(loop)
    with attach(loop.optimizer, session=loop.session):
        with pytest.raises(RuntimeError, match="no more data"):
            loop.run_batch(lambda: loop.optimizer.step(failing_at(call, loop)))
        assert (loop.word, loop.session.lifecycle.status) == (word, "aborted")
        loop.session.reset()
        # LBFGS itself stands half-way.
        loop.optimizer.state.clear()
        loop.run_batch(lambda: loop.optimizer.step(closure_of(loop, 1, [])))
    assert loop.word == word + "IBLPOEF"


# Steps that are refused, and steps that fail


def gradients(loop, *, overflow=False):
    """Forward and backward, of which the session is told nothing."""
    loss = loop.loss(0)
    (loss if loop.scaler is None else loop.scaler.scale(loss)).backward()
    if overflow:
        loop.model.weight.grad[0, 0] = torch.inf
    return loss


@every_optimizer
@pytest.mark.parametrize("make_scaler", [lambda: None, cpu_scaler], ids=["", "scaler"])
@pytest.mark.parametrize("started", [False, True], ids=["outside of a batch", "before the loss"])
def test_a_step_that_is_refused_moves_nothing_and_can_be_made_later(name, make_scaler, started):
    refused, undisturbed = Loop(name, scaler=make_scaler()), Loop(name, scaler=make_scaler())
    with attach(refused.optimizer, refused.scaler, session=refused.session):
        refused.session.initialize()
        if started:
            refused.session.batch_start()
        loss = gradients(refused)
        before = refused.weights()
        with pytest.raises(IllegalEventError, match="OPTIM_PRE_STEP is not allowed"):
            refused.step()
        assert torch.equal(refused.weights(), before)
        assert not refused.optimizer.state
        assert refused.session.lifecycle.event.global_step == 0
        if not started:
            refused.session.batch_start()
        refused.session.loss_calculated(loss=loss)
        refused.step()
    gradients(undisturbed)
    undisturbed.step()
    assert torch.equal(refused.weights(), undisturbed.weights())
    assert refused.word == "IBLPO"


@every_optimizer
def test_a_skip_that_is_refused_leaves_the_scaler_alone(name):
    loop = Loop(name, scaler=cpu_scaler())
    with attach(loop.optimizer, loop.scaler, session=loop.session):
        loop.session.initialize()
        gradients(loop, overflow=True)
        with pytest.raises(IllegalEventError):
            loop.step()
    loop.scaler.unscale_(loop.optimizer)  # which raises if the scaler has done so


@every_optimizer
def test_a_step_with_a_closure_outside_of_a_batch_moves_nothing(name):
    loop = Loop(name)
    before = loop.weights()
    with attach(loop.optimizer, session=loop.session):
        loop.session.initialize()
        with pytest.raises(IllegalEventError):
            loop.optimizer.step(closure_of(loop, 0, []))
    assert torch.equal(loop.weights(), before)


class FailsOnce:
    """A pre-hook of the user's, registered after ours."""

    def __init__(self):
        self.failed = False

    def __call__(self, optimizer, args, kwargs):
        if not self.failed:
            self.failed = True
            raise RuntimeError("no memory")


@pytest.mark.parametrize("name", [SGD, ADAMW])
@pytest.mark.parametrize("make_scaler", [lambda: None, cpu_scaler], ids=["", "scaler"])
def test_a_step_that_raises_ends_the_run_and_the_next_one_works(name, make_scaler):
    loop = Loop(name, scaler=make_scaler())
    with attach(loop.optimizer, loop.scaler, session=loop.session):
        loop.optimizer.register_step_pre_hook(FailsOnce())
        with pytest.raises(RuntimeError, match="no memory"):
            loop.run_batch(lambda: (loop.backward(0), loop.step()))
        assert (loop.word, loop.session.lifecycle.status) == ("IBLP", "aborted")
        assert loop.session.lifecycle.state.endswith("step.pending")
        loop.session.reset()
        # Without the scaler, which is then not between the optimizer and its hooks.
        loop.run_batch(lambda: (loop.backward(1), loop.optimizer.step()))
    assert loop.word == "IBLP" + "IBLPOEF"


def test_torchs_own_failure_in_a_step_goes_to_the_caller_as_it_is():
    loop = Loop(ADAMW)

    def step():
        loop.backward(0)
        loop.model.weight.grad = loop.model.weight.grad.to_sparse()
        loop.optimizer.step()

    with attach(loop.optimizer, session=loop.session), pytest.raises(RuntimeError, match="sparse gradients"):
        loop.run_batch(step)
    assert (loop.word, loop.session.lifecycle.status) == ("IBLP", "aborted")


class Raises(Modifier):
    def __init__(self, letter):
        super().__init__()
        self.letter = letter

    def on_event(self, state, event, **payload):
        if LETTER[event.type_] == self.letter:
            raise RuntimeError("cannot prune")


@every_optimizer
@pytest.mark.parametrize("make_scaler", [lambda: None, cpu_scaler], ids=["", "scaler"])
@pytest.mark.parametrize("letter", ["P", "O"])
def test_a_modifier_that_raises_leaves_the_step_undone_or_done(name, make_scaler, letter):
    session = CompressionSession([Raises(letter)], protocol="training")
    loop, alone = Loop(name, scaler=make_scaler(), session=session), Loop(name, scaler=make_scaler())
    before = loop.weights()
    gradients(alone)
    alone.step()
    with pytest.raises(RuntimeError, match="cannot prune"):
        loop.run(1)
    assert torch.equal(loop.weights(), before if letter == "P" else alone.weights())
    # What the scaler puts on an optimizer that it steps would be taken for the next step's.
    assert vars(loop.optimizer).keys() == vars(alone.optimizer).keys()


# Scalers


@every_optimizer
def test_a_skipped_step_is_told_from_a_real_one(name):
    loop = Loop(name, scaler=cpu_scaler())
    scales = []
    with loop.session, attach(loop.optimizer, loop.scaler):
        loop.session.initialize()
        for batch in range(4):
            loop.batch(batch, overflow=batch in {0, 2})
            scales.append(loop.scaler.get_scale())
    assert loop.word == "I" + ("BLPoE" + "BLPOE") * 2 + "F"
    assert loop.steps == loop.moves
    assert scales == [512.0, 512.0, 256.0, 256.0]


@unhurried
@given(plan=st.lists(st.sampled_from(["accumulate", "step", "overflow"]), max_size=8))
def test_fused_or_not_the_events_are_those_of_the_weights(plan):
    batches = {"accumulate": "BLE", "step": "BLPOE", "overflow": "BLPoE"}
    for name in OPTIMIZERS:
        loop = Loop(name, scaler=cpu_scaler())
        with loop.session, attach(loop.optimizer, loop.scaler):
            loop.session.initialize()
            for batch, what in enumerate(plan):
                loop.batch(batch, step=what != "accumulate", overflow=what == "overflow")
        assert loop.word == "I" + "".join(batches[what] for what in plan) + "F"
        assert protocols.TRAINING.accepts(events(loop.word.upper()))
        assert loop.steps == loop.moves


@every_optimizer
@pytest.mark.parametrize("overflow", [False, True])
def test_gradients_unscaled_by_the_loop_for_clipping(name, overflow):
    loop = Loop(name, scaler=cpu_scaler())
    with loop.session, attach(loop.optimizer, loop.scaler):
        loop.session.initialize()
        with loop.session.batch():
            loop.backward(0, overflow=overflow)
            loop.scaler.unscale_(loop.optimizer)
            torch.nn.utils.clip_grad_norm_(loop.model.parameters(), 0.1)
            loop.step()
    assert loop.word == ("IBLPoEF" if overflow else "IBLPOEF")
    assert loop.moves[-1] == (not overflow)


@every_optimizer
def test_a_scaler_that_is_not_enabled_steps_as_the_optimizer_does(name):
    loop = Loop(name, scaler=cpu_scaler(enabled=False))
    loop.run(2)
    assert loop.word == "I" + "BLPOE" * 2 + "F"


def test_a_scaler_that_is_not_enabled_takes_a_closure():
    loop = Loop(scaler=cpu_scaler(enabled=False))
    with loop.session, attach(loop.optimizer, loop.scaler):
        loop.session.initialize()
        with loop.session.batch():
            loop.scaler.step(loop.optimizer, closure=closure_of(loop, 0, []))
    assert loop.word == "IBLPOEF"


@every_optimizer
def test_the_step_of_a_scaler_returns_what_it_returned(name):
    loop = Loop(name, scaler=cpu_scaler())
    with loop.session, attach(loop.optimizer, loop.scaler):
        loop.session.initialize()
        with loop.session.batch():
            loop.backward(0)
            # A closure, which torch lets through if it has no name: nothing else makes `step` return something.
            returned = loop.scaler.step(loop.optimizer, lambda: 0.25)
    assert returned == 0.25


@pytest.mark.parametrize(("name", "word"), [(SGD, "IBLEF"), (ADAMW, "IBLEF"), (FUSED, "IBLPoEF")])
def test_attached_without_its_scaler_a_skip_still_counts_no_step(name, word):
    loop = Loop(name, scaler=cpu_scaler())
    with loop.session, attach(loop.optimizer):
        loop.session.initialize()
        loop.batch(0, overflow=True)
    assert loop.word == word
    assert loop.steps[-1] == loop.moves[-1] == 0


# Several optimizers


class Pair(Loop):
    """A loop with a second model and optimizer, as GANs have."""

    def __init__(self, name=SGD, **options):
        super().__init__(name, **options)
        self.other = Loop(name)

    def batch(self, batch, *, overflow=(False, False)):
        with self.session.batch():
            for loop, infinite in zip((self, self.other), overflow, strict=True):
                loss = loop.loss(batch)
                if loop is self:
                    self.session.loss_calculated(loss=loss)
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
                if infinite:
                    loop.model.weight.grad[0, 0] = torch.inf
                if self.scaler is None:
                    loop.optimizer.step()
                else:
                    self.scaler.step(loop.optimizer)
                loop.optimizer.zero_grad()
            if self.scaler is not None:
                self.scaler.update()


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"invocations_per_step": 2}, [1, 2, 3]), ({"protocol": protocols.TRAINING.repeat_steps()}, [2, 4, 6])],
    ids=["two calls are a step", "each call is a step"],
)
def test_several_optimizers_in_one_batch(options, steps):
    pair = Pair(**options)
    with pair.session, attach(pair.optimizer), attach(pair.other.optimizer):
        pair.session.initialize()
        pair.batches(3)
    assert pair.word == "I" + "BLPOPOE" * 3 + "F"
    assert protocols.TRAINING.repeat_steps().accepts(events(pair.word))
    assert [step for letter, step in zip(pair.word, pair.steps, strict=True) if letter == "E"] == steps
    assert pair.moves[-1] == 3


def test_a_second_optimizer_needs_a_protocol_that_repeats_steps():
    pair = Pair()
    before = pair.other.weights()
    pair.session.initialize()
    with (
        attach(pair.optimizer, session=pair.session),
        attach(pair.other.optimizer, session=pair.session),
        pytest.raises(IllegalEventError),
    ):
        pair.batch(0)
    assert pair.word == "IBLPO"
    assert torch.equal(pair.other.weights(), before)


@every_optimizer
def test_one_scaler_skips_one_optimizer_and_steps_the_other(name):
    pair = Pair(name, scaler=cpu_scaler(), invocations_per_step=2)
    with pair.session, attach(pair.optimizer, pair.scaler), attach(pair.other.optimizer, pair.scaler):
        pair.session.initialize()
        pair.batch(0, overflow=(True, False))
        pair.batch(1)
        pair.batch(2, overflow=(False, True))
    assert pair.word == "IBLPoPOEBLPOPOEBLPOPoEF"
    # Four calls that were not skipped are two steps, whichever optimizer made them.
    assert pair.steps == [0] * 8 + [0, 0, 0, 1, 1, 1, 1] + [1, 1, 1, 2, 2, 2, 2] + [2]


def test_the_second_optimizers_closure_gives_no_second_loss():
    pair, losses, given_losses = Pair(invocations_per_step=2), [], []
    pair.session.lifecycle.on("loss_calculated", lambda event, payload: given_losses.append(payload["loss"]))
    with pair.session, attach(pair.optimizer), attach(pair.other.optimizer):
        pair.session.initialize()
        with pair.session.batch():
            pair.optimizer.step(closure_of(pair, 0, losses))
            pair.other.optimizer.step(closure_of(pair.other, 0, losses))
    assert pair.word == "IBLPOPOEF"
    assert len(given_losses) == 1
    assert given_losses[0] is losses[0]


def test_an_optimizer_that_is_not_attached_fires_nothing_by_the_scaler_either():
    pair = Pair(scaler=cpu_scaler())
    before = pair.other.weights()
    with pair.session, attach(pair.optimizer, pair.scaler):
        pair.session.initialize()
        pair.batch(0)
    assert pair.word == "IBLPOEF"
    assert not torch.equal(pair.other.weights(), before)


# Attaching and removing


def hooks_of(optimizer):
    return {name: dict(value) for name, value in vars(optimizer).items() if name.endswith("_hooks")}


@every_optimizer
def test_removal_leaves_the_optimizer_and_the_scaler_as_they_were(name):
    loop = Loop(name, scaler=cpu_scaler())
    loop.optimizer.register_step_pre_hook(lambda *_: None)
    optimizer, hooks, scaler = vars(loop.optimizer).copy(), hooks_of(loop.optimizer), vars(loop.scaler).copy()
    attachment = attach(loop.optimizer, loop.scaler, session=loop.session)
    assert hooks_of(loop.optimizer) != hooks
    assert vars(loop.scaler) != scaler
    attachment.remove()
    assert vars(loop.optimizer) == optimizer
    assert hooks_of(loop.optimizer) == hooks
    assert vars(loop.scaler) == scaler


def test_removing_twice_takes_nothing_off_that_was_attached_since():
    loop = Loop(scaler=cpu_scaler())
    first = attach(loop.optimizer, loop.scaler, session=loop.session)
    first.remove()
    with loop.session, attach(loop.optimizer, loop.scaler):
        first.remove()
        loop.session.initialize()
        loop.batch(0)
    assert loop.word == "IBLPOEF"


@pytest.mark.parametrize("first", [0, 1])
def test_optimizers_on_one_scaler_are_removed_in_any_order(first):
    pair = Pair(scaler=cpu_scaler())
    attachments = [attach(loop.optimizer, pair.scaler, session=pair.session) for loop in (pair, pair.other)]
    attachments.pop(first).remove()
    with pair.session:
        pair.session.initialize()
        # The skip of an optimizer that is not fused is seen by the scaler only.
        pair.batch(0, overflow=(True, True))
    assert pair.word == "IBLPoEF"
    attachments.pop().remove()
    assert "step" not in vars(pair.scaler)


def test_leaving_the_with_block_by_an_exception_removes_it():
    loop = Loop()
    with pytest.raises(KeyError), attach(loop.optimizer, session=loop.session):
        raise KeyError
    assert not any(hooks_of(loop.optimizer).values())


def test_a_step_that_the_user_has_put_on_the_scaler_comes_back():
    loop, calls = Loop(scaler=cpu_scaler()), []

    def counted(optimizer):
        calls.append(optimizer)
        return torch.amp.GradScaler.step(loop.scaler, optimizer)

    loop.scaler.step = counted
    loop.run(1)
    assert loop.word == "IBLPOEF"
    assert calls == [loop.optimizer]
    assert loop.scaler.step is counted


def test_a_step_that_the_user_has_put_in_front_stays():
    loop = Loop(scaler=cpu_scaler())
    attachment = attach(loop.optimizer, loop.scaler, session=loop.session)
    ours = loop.scaler.step

    def in_front(optimizer):
        return ours(optimizer)

    loop.scaler.step = in_front
    with loop.session:
        loop.session.initialize()
        loop.batch(0)
        attachment.remove()
    assert loop.word == "IBLPOEF"
    assert loop.scaler.step is in_front
    before = loop.weights()
    gradients(loop)
    loop.step()
    assert not torch.equal(loop.weights(), before)


def test_an_optimizer_is_attached_once():
    loop = Loop(scaler=cpu_scaler())
    with loop.session, attach(loop.optimizer):
        with pytest.raises(LifecycleError, match="this SGD is attached to a session already"):
            attach(loop.optimizer, loop.scaler, session=CompressionSession())
        assert "step" not in vars(loop.scaler)
        loop.session.initialize()
        loop.batch(0)
    assert loop.word == "IBLPOEF"


def test_the_session_is_the_one_that_is_active_when_it_is_attached():
    loop = Loop()
    with loop.session, attach(loop.optimizer):
        loop.session.initialize()
        with CompressionSession(protocol="training") as inner:
            inner.initialize()
            loop.batch(0)
    assert loop.word == "IBLPOEF"
    assert inner.lifecycle.event.global_step == 0


def test_without_a_session_nothing_is_attached():
    loop = Loop(scaler=cpu_scaler())
    with pytest.raises(LifecycleError, match="no session is active"):
        attach(loop.optimizer, loop.scaler)
    assert not any(hooks_of(loop.optimizer).values())
    assert "step" not in vars(loop.scaler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda loop: [loop.model], r"optimizer must be a torch\.optim\.Optimizer, got Linear\("),
        (lambda loop: [[loop.optimizer]], r"optimizer must be a torch\.optim\.Optimizer, got \[SGD"),
        (lambda loop: [loop.optimizer, 1024.0], r"scaler must be a torch\.amp\.GradScaler, got 1024\.0"),
    ],
)
def test_what_is_not_an_optimizer_or_a_scaler_is_refused(arguments, message):
    loop = Loop()
    with pytest.raises(TypeError, match=message):
        attach(*arguments(loop), session=loop.session)
    assert not any(hooks_of(loop.optimizer).values())


def test_an_optimizer_that_stands_around_another_is_refused_and_the_inner_one_works():
    loop = Loop()
    around = Accelerator(cpu=True).prepare(loop.optimizer)
    with pytest.raises(TypeError, match="this AcceleratedOptimizer has no hooks of torch's; attach to the optimizer"):
        attach(around, session=loop.session)
    with attach(around.optimizer, session=loop.session):
        loop.run_batch(lambda: (loop.backward(0), around.step()))
    assert loop.word == "IBLPOEF"


def test_without_torch_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "lifecycle.integrations.torch")
    with pytest.raises(ImportError, match=r"^torch is not installed: pip install torch$"):
        importlib.import_module("lifecycle.integrations.torch")


def test_an_attached_optimizer_is_not_kept_in_memory():
    loop = Loop()
    attach(loop.optimizer, session=loop.session)
    optimizer = weakref.ref(loop.optimizer)
    del loop.optimizer
    gc.collect()
    assert optimizer() is None


# What is saved, copied and resumed


@every_optimizer
def test_the_state_dicts_are_those_of_a_loop_without_it(name):
    attached, bare = Loop(name, scaler=cpu_scaler()), Loop(name, scaler=cpu_scaler())
    attached.session.initialize()
    bare.session.initialize()
    with attach(attached.optimizer, attached.scaler, session=attached.session):
        attached.batch(0)
        saved = attached.optimizer.state_dict(), attached.scaler.state_dict()
    gradients(bare)
    bare.step()
    torch.testing.assert_close(saved, (bare.optimizer.state_dict(), bare.scaler.state_dict()), rtol=0, atol=0)


def pickled(parts):
    return pickle.loads(pickle.dumps(parts))  # noqa: S301 # its own


@every_optimizer
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_are_not_attached(name, copied):
    loop = Loop(name, scaler=cpu_scaler())
    with attach(loop.optimizer, loop.scaler, session=loop.session):
        # Together, so that the optimizer's parameters are the model's.
        model, optimizer, scaler = copied((loop.model, loop.optimizer, loop.scaler))
    scaler.scale(model(torch.ones(4)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.step()
    assert not torch.equal(model.weight, loop.model.weight)
    assert loop.word == ""


def checkpoint(loop):
    """The loop's checkpoint, through a file of torch."""
    file = io.BytesIO()
    parts = {
        "model": loop.model.state_dict(),
        "gradients": [parameter.grad for parameter in loop.model.parameters()],
        "optimizer": loop.optimizer.state_dict(),
        "scaler": loop.scaler.state_dict(),
        "session": loop.session.state_dict(),
    }
    torch.save(parts, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def half(loop, batches):
    for batch in batches:
        loop.batch(batch, step=batch % 2 == 1, overflow=batch == 3)


@every_optimizer
@pytest.mark.parametrize("saved_after", [2, 3, 4, 6])
def test_a_loop_goes_on_from_a_checkpoint_of_torch_as_if_it_had_not_stopped(name, saved_after):
    whole = Loop(name, scaler=cpu_scaler())
    with whole.session, attach(whole.optimizer, whole.scaler):
        whole.session.initialize()
        half(whole, range(7))

    first = Loop(name, scaler=cpu_scaler())
    with attach(first.optimizer, first.scaler, session=first.session):
        first.session.initialize()
        half(first, range(saved_after))
        saved = checkpoint(first)

    second = Loop(name, scaler=cpu_scaler())
    second.model.load_state_dict(saved["model"])
    second.optimizer.load_state_dict(saved["optimizer"])
    second.scaler.load_state_dict(saved["scaler"])
    for parameter, gradient in zip(second.model.parameters(), saved["gradients"], strict=True):
        parameter.grad = gradient
    with second.session, attach(second.optimizer, second.scaler):
        second.session.resume(saved["session"], model=second.model, optimizer=second.optimizer)
        half(second, range(saved_after, 7))

    assert whole.word == "I" + "BLE" + "BLPOE" + "BLE" + "BLPoE" + "BLE" + "BLPOE" + "BLE" + "F"
    assert first.word + second.word == whole.word
    assert first.batches_ended + second.batches_ended == whole.batches_ended
    assert first.steps + second.steps == whole.steps
    assert torch.equal(second.weights(), whole.weights())


class Derived(torch.optim.SGD):
    """Its `step` calls that of torch's class, which torch has given hooks as well once it has made one of them."""

    def step(self, closure=None):
        result = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(0.5)
        return result


@pytest.mark.parametrize("with_closure", [False, True])
def test_a_step_inside_a_step_is_one_step(with_closure, monkeypatch):
    torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    monkeypatch.setitem(OPTIMIZERS, "derived", lambda parameters: Derived(parameters, lr=0.1))
    loop = Loop("derived")

    def closure():
        loss = loop.loss(0)
        loss.backward()
        return loss

    def step():
        if with_closure:
            loop.optimizer.step(closure)
        else:
            loop.backward(0)
            loop.optimizer.step()

    with attach(loop.optimizer, session=loop.session):
        loop.run_batch(step)
    assert loop.word == "IBLPOEF"
    # All that the outer step does is done before OPTIM_POST_STEP.
    assert loop.moves == [0, 0, 0, 0, 1, 1, 1]
