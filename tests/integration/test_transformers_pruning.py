"""LLM Compressor's ConstantPruningModifier in the Trainer."""

import gc

import pytest
import torch
from llmcompressor.modifiers.pruning import ConstantPruningModifier
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from lifecycle.integrations.llmcompressor import adapt
from lifecycle.integrations.transformers import LifecycleCallback, LifecycleMixin
from lifecycle.session import CompressionSession

BOTH = pytest.mark.parametrize("driver", ["mixin", "callback"])
PRUNED = "re:.*proj"


class LifecycleTrainer(LifecycleMixin, Trainer):
    pass


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


def projections(model):
    return {name: weight for name, weight in model.named_parameters() if name.endswith("proj.weight")}


def pruned_model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, max_position_embeddings=16, **sizes))
    with torch.no_grad():
        for weight in projections(model).values():
            weight[weight.abs() <= weight.abs().median()] = 0.0
    return model


def zeros(model):
    return {name: int((weight == 0).sum()) for name, weight in projections(model).items()}


@pytest.fixture
def build(tmp_path):
    def build(driver, session, **options):
        ids = torch.randint(0, 32, (10, 8), generator=torch.Generator().manual_seed(0))
        settings = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_strategy": "no"}
        sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "num_train_epochs": 2}
        takes = {
            "model": pruned_model(),
            "args": TrainingArguments(str(tmp_path), learning_rate=0.01, **settings, **sizes, **options),
            "train_dataset": [{"input_ids": row, "labels": row} for row in ids],
        }
        if driver == "mixin":
            return LifecycleTrainer(**takes, session=session)
        return Trainer(**takes, callbacks=[] if driver is None else [LifecycleCallback(session)])

    return build


def pruning_session(**schedule):
    modifier = ConstantPruningModifier(targets=[PRUNED], **{"start": 0, **schedule})
    return CompressionSession(adapt(modifier), "training", steps_per_epoch=3)


@BOTH
def test_a_pruned_model_keeps_its_zeros_to_the_last_step(build, driver):
    session = pruning_session()
    trainer = build(driver, session, save_strategy="no")
    before = {name: weight.detach().clone() for name, weight in projections(trainer.model).items()}
    half = {name: weight.numel() // 2 for name, weight in before.items()}
    at_every_step = []
    session.lifecycle.on("optim_post_step", lambda event, payload: at_every_step.append(zeros(trainer.model)))
    with session:
        trainer.train()
    assert len(before) == 7
    assert at_every_step == [half] * 6
    assert zeros(trainer.model) == half
    # All that is not pruned has been trained.
    for name, weight in projections(trainer.model).items():
        assert torch.equal(weight != before[name], before[name] != 0)


def test_without_the_session_it_loses_them(build):
    trainer = build(None, None, save_strategy="no")
    trainer.train()
    assert sum(zeros(trainer.model).values()) == 0


@BOTH
def test_a_modifier_that_has_ended_lets_them_go(build, driver):
    session = pruning_session(end=1.0)
    trainer = build(driver, session, save_strategy="no")
    sums = []
    session.lifecycle.on("batch_end", lambda event, payload: sums.append(sum(zeros(trainer.model).values())))
    with session:
        trainer.train()
    # A step in its four batches, its next four and its last two, in each of two epochs.
    assert [count > 0 for count in sums] == [True] * 13 + [False] * 7


@BOTH
def test_a_resumed_run_ends_with_the_same_weights(build, driver, tmp_path):
    class Crash(TrainerCallback):
        def on_substep_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise RuntimeError("power cut")

    def train(*callbacks, **options):
        session = pruning_session()
        trainer = build(driver, session, save_strategy="steps", save_steps=1)
        for callback in callbacks:
            trainer.add_callback(callback)
        with session:
            trainer.train(**options)
        return trainer.model

    whole = train()
    with pytest.raises(RuntimeError, match="power cut"):
        train(Crash())
    resumed = train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert zeros(resumed) == zeros(whole) == zeros(pruned_model())
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, resumed.get_parameter(name))
