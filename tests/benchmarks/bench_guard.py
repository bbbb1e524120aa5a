"""``python tests/benchmarks/bench_guard.py``: what the guard costs in runs of LLM Compressor, as ratios in one run.

The same run of `oneshot` on a tiny Llama, and a hand-written training loop with a modifier that does nothing, each with
and without the guard, in turn. On a tiny model nearly all is LLM Compressor's overhead; on a real one the share of the
guard is smaller still.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from harness import FULL, QUICK, Contender, Measure, Ratio, Section, race

sys.path.append(str(Path(__file__).parents[1]))

# LLM Compressor logs to what is standard output when it is imported, and the tables are to stand there alone.
with redirect_stdout(sys.stderr):
    from integration import tiny
    from llmcompressor import oneshot
    from llmcompressor.core import CompressionSession, EventType
    from llmcompressor.modifiers import Modifier
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from loguru import logger

    from lifecycle.integrations.llmcompressor import guard

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 30
BATCHES = 20


def unguarded(*args: Any, **options: Any) -> AbstractContextManager[None]:
    """No guard, with the arguments of one."""
    return nullcontext()


GUARDS: dict[str, Callable[..., AbstractContextManager[Any]]] = {"plain": unguarded, "guarded": guard}
BATCH = ("BATCH_START", "LOSS_CALCULATED", "OPTIM_PRE_STEP", "OPTIM_POST_STEP", "BATCH_END")


class Idle(Modifier):
    """Does nothing."""

    def on_initialize(self, state: Any, **kwargs: Any) -> bool:
        return True


def data_free() -> dict[str, Any]:
    """The options of a run without data."""
    return {"recipe": QuantizationModifier(targets="Linear", ignore=["lm_head"], scheme="FP8_DYNAMIC")}


def sequential() -> dict[str, Any]:
    """The options of a run that is calibrated layer by layer."""
    return {
        "recipe": GPTQModifier(targets="Linear", ignore=["lm_head"], scheme="W8A8"),
        "pipeline": "sequential",
        "dataset": tiny.dataset(),
        "tokenizer": tiny.tokenizer(),
        "num_calibration_samples": tiny.SAMPLES,
        "max_seq_length": tiny.LENGTH,
    }


def bench_oneshot(options: Callable[[], dict[str, Any]], folder: str, rounds: int) -> dict[str, Measure]:
    """Time `oneshot` alone, in turn with and without the guard; its model is made before the clock runs."""
    samples: dict[str, list[float]] = {name: [] for name in GUARDS}
    for number in range(rounds + 1):
        for name in [*GUARDS][:: 1 if number % 2 else -1]:
            model, prepared = tiny.llama(folder), options()
            gc.collect()
            started = perf_counter_ns()
            with GUARDS[name]():
                oneshot(model=model, **prepared)
            # The first round is cold.
            if number:
                samples[name].append((perf_counter_ns() - started) / 1e6)
    return {name: Measure(found) for name, found in samples.items()}


def training(guarding: Callable[..., AbstractContextManager[Any]]) -> None:
    """A training loop that does nothing but fire its events."""
    session = CompressionSession()
    events = [EventType[name] for name in BATCH]
    with guarding("training", session=session):
        session.initialize(recipe=[Idle()])
        for _ in range(BATCHES):
            for event in events:
                session.event(event, loss=1.0)
        session.finalize()


def main() -> None:
    """Measure, and print a line for each ratio."""
    parser = argparse.ArgumentParser(description="Time the guard.")
    parser.add_argument("--quick", action="store_true", help="a few tiny rounds: see that it runs, trust no figure")
    quick = parser.parse_args().quick
    logger.disable("llmcompressor")
    ratio = Ratio("guarded", "plain")
    with tempfile.TemporaryDirectory() as folder:
        for title, options in {"oneshot, data-free": data_free, "oneshot, sequential GPTQ": sequential}.items():
            measures = bench_oneshot(options, folder, 1 if quick else ROUNDS)
            print(Section(title, "ms", measures, [ratio]).text(), flush=True)
    contenders = [
        Contender(name, lambda guarding=guarding: training(guarding), BATCHES * len(BATCH))
        for name, guarding in GUARDS.items()
    ]
    print(Section("events with an idle modifier", "ns", race(contenders, QUICK if quick else FULL), [ratio]).text())


if __name__ == "__main__":
    main()
