"""LLM Compressor's own pipelines under the guard, on a tiny Llama: the same weights, and every event in its place."""

import io

import pytest
import torch
from integration import tiny
from llmcompressor import oneshot
from llmcompressor.core import active_session, create_session
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from loguru import logger

from lifecycle import ExpectationError, LifecycleWarning, trace
from lifecycle.integrations.llmcompressor import guard

logger.disable("llmcompressor")

LAYERS = 2
PROJECTIONS = ["re:.*_proj$"]

LABELS = [("model.rotary_emb",), ("model.layers.0",), ("model.layers.1", "model.norm", "lm_head")]
"""The modules of each part that the sequential pipeline calibrates; the last layer takes what comes after it along."""

LAYER_BY_LAYER = ["C", *LABELS, "K"]
WHOLE = ["C", ("LlamaForCausalLM",), "K"]


def quantization(scheme):
    return QuantizationModifier(targets="Linear", ignore=["lm_head"], scheme=scheme)


def gptq(scheme="W8A8"):
    return GPTQModifier(targets="Linear", ignore=["lm_head"], scheme=scheme)


def smoothquant():
    return SmoothQuantModifier(smoothing_strength=0.8)


def sparsegpt():
    return SparseGPTModifier(sparsity=0.5, targets=PROJECTIONS)


def wanda():
    return WandaPruningModifier(sparsity=0.5, targets=PROJECTIONS)


RUNS = {
    "data-free": (lambda: [quantization("FP8_DYNAMIC")], None, "data_free", WHOLE),
    "basic, quantization": (lambda: [quantization("W8A8")], "basic", "basic", WHOLE),
    "basic, GPTQ": (lambda: [gptq()], "basic", "basic", WHOLE),
    "sequential, quantization": (lambda: [quantization("W8A8")], "sequential", "sequential", LAYER_BY_LAYER),
    "sequential, GPTQ": (lambda: [gptq()], "sequential", "sequential", LAYER_BY_LAYER),
    "sequential, two": (lambda: [smoothquant(), gptq()], "sequential", "sequential", LAYER_BY_LAYER),
    "sequential, SparseGPT": (lambda: [sparsegpt()], "sequential", "sequential", LAYER_BY_LAYER),
    "sequential, Wanda": (lambda: [wanda()], "sequential", "sequential", LAYER_BY_LAYER),
    "independent, two": (lambda: [smoothquant(), gptq()], "independent", "sequential", LAYER_BY_LAYER * 2),
    "no recipe": (lambda: None, None, "data_free", []),
}
"""Of each run its recipe, the pipeline that `oneshot` is told to take, the fitting protocol and what is fired."""


def compress(folder, recipe, pipeline):
    """A model that went through `oneshot`."""
    model = tiny.llama(folder, layers=LAYERS)
    data = {"dataset": tiny.dataset(), "tokenizer": tiny.tokenizer(), "pipeline": pipeline} if pipeline else {}
    torch.manual_seed(1)
    oneshot(model=model, recipe=recipe, num_calibration_samples=tiny.SAMPLES, max_seq_length=tiny.LENGTH, **data)
    return model


def bits(model):
    """Every tensor of a model, as it is in memory."""
    return {
        name: (tensor.dtype, tensor.shape, tensor.contiguous().view(torch.uint8).tolist())
        for name, tensor in model.state_dict().items()
    }


def written(file):
    """What a journal has, with the labels of layers in place of their events."""
    file.seek(0)
    short = {"calibration_epoch_start": "C", "calibration_epoch_end": "K"}
    _, *records = trace.read(file)
    return [record.label or record.control or short.get(record.event, record.event) for record in records]


@pytest.mark.parametrize("name", RUNS)
def test_a_pipeline_gives_the_same_weights_and_its_journal_conforms(tmp_path, name):
    recipe, pipeline, protocol, sequence = RUNS[name]
    unguarded = compress(tmp_path, recipe(), pipeline)
    file = io.BytesIO()
    with trace.Journal(file) as journal, guard(protocol) as lc:
        lc.attach(journal)
        guarded = compress(tmp_path, recipe(), pipeline)
    assert bits(guarded) == bits(unguarded)
    assert (bits(guarded) != bits(tiny.llama(tmp_path, layers=LAYERS))) == bool(sequence)
    assert written(file) == ["reset", "initialize", *sequence, "finalize"]
    for conformed in protocol, "compression":
        file.seek(0)
        report = trace.check(file, conformed)
        assert report.ok
        assert report.run_count == 1


def test_the_layers_of_every_calibration_epoch_can_be_expected(tmp_path):
    with guard("sequential", expect={"sequential_epochs": LAYERS + 1, "calibration_epochs": 2}) as lc:
        compress(tmp_path, [smoothquant(), gptq()], "independent")
    assert lc.progress.total_sequential_epochs == 2 * (LAYERS + 1)


def test_a_layer_that_was_never_calibrated_is_noticed(tmp_path):
    wanted = {"sequential_epochs": LAYERS + 2}
    with pytest.raises(ExpectationError, match="expected 4, counted 3"), guard("sequential", expect=wanted) as lc:
        compress(tmp_path, [quantization("W8A8")], "sequential")
    assert lc.status == "aborted"


def test_a_run_in_another_session_is_noticed(tmp_path):
    with pytest.warns(LifecycleWarning, match="did the run happen in another session"), guard(), create_session():
        compress(tmp_path, [quantization("FP8_DYNAMIC")], None)


# GPTQ W4A16 has groups of 128 weights, and this model has rows of 64. The first part has no weights.

CRASH = "unflatten: Provided sizes"


def crash(folder):
    compress(folder, [gptq("W4A16")], "sequential")


def test_after_a_crash_the_session_is_what_it_was_and_the_journal_says_where_it_stood(tmp_path):
    session, path = active_session(), tmp_path / "run.jsonl"
    before = set(vars(session.lifecycle)), set(vars(session))
    with pytest.raises(RuntimeError, match=CRASH), trace.Journal(path) as journal, guard("sequential") as lc:  # noqa: PT012 # the journal is part of it
        lc.attach(journal)
        crash(tmp_path)
    assert (set(vars(session.lifecycle)), set(vars(session))) == before
    assert (lc.status, lc.state) == ("aborted", "session.calibration.layer_ended")
    *_, first, failed, aborted = trace.read(path)
    assert (first.label, first.error) == (LABELS[0], None)
    assert (failed.label, failed.error.partition(":")[0]) == (LABELS[1], "RuntimeError")
    assert (aborted.control, aborted.error.partition(":")[0]) == ("abort", "RuntimeError")
    (run,) = trace.check(path).runs
    assert (run.status, run.violations) == ("aborted", ())


def test_after_a_crash_a_second_guarded_run_is_clean(tmp_path):
    clean = bits(compress(tmp_path, [gptq()], "sequential"))
    with pytest.raises(RuntimeError, match=CRASH), guard("sequential"):
        crash(tmp_path)
    with guard("sequential") as lc:
        assert bits(compress(tmp_path, [gptq()], "sequential")) == clean
    assert (lc.status, lc.progress.rejected) == ("finalized", 0)


def test_after_a_crash_inside_the_guard_the_next_run_says_what_it_abandons(tmp_path):
    file = io.BytesIO()
    with trace.Journal(file) as journal, guard("sequential") as lc:
        lc.attach(journal)
        with pytest.raises(RuntimeError, match=CRASH):
            crash(tmp_path)
        with pytest.warns(LifecycleWarning, match=r"abandoned an open run, which stood in .*sequential epoch 2$"):
            compress(tmp_path, [quantization("W8A8")], "sequential")
    assert written(file) == [
        *["reset", "initialize", "C", *LABELS[:2]],
        *["reset", "initialize", *LAYER_BY_LAYER, "finalize"],
    ]
    file.seek(0)
    assert [run.status for run in trace.check(file).runs] == ["abandoned", "complete"]
