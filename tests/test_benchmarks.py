from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle import EventType, IllegalEventError, Lifecycle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

BENCHMARKS = Path(__file__).parent / "benchmarks"
TARGETS = {
    ("fire, no observers", "floor"): "<= 1.35",
    ("fire, 1 observer", "floor"): "<= 2.5",
    ("Machine", "fire, no observers"): ">= 30",
    ("fire", "Machine"): "<= 3",
    ("Machine(...)", "Lifecycle()"): ">= 20",
    ("import lifecycle and a first engine", "import transitions.extensions"): "<= 1.3",
}
STEPS = st.lists(
    st.tuples(
        # A number picks one of the events that are legal then, so that runs get far.
        st.sampled_from(EventType) | st.integers(0, 2),
        st.fixed_dictionaries({}, optional={"loss": st.sampled_from([0.5, None]), "skipped": st.booleans()}),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def suite() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("suite")


@pytest.fixture(scope="module")
def harness(suite: ModuleType) -> ModuleType:
    return sys.modules["harness"]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("benchmarks") / "figures.json"
    command = [sys.executable, str(BENCHMARKS), "--quick", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # our own file
    assert (done.returncode, done.stderr) == (0, "")
    return {"printed": done.stdout, **json.loads(file.read_text())}


def test_the_targets_stand_beside_the_ratios(figures: dict[str, Any]) -> None:
    found = {(r["over"], r["under"]): r["target"] for s in figures["sections"] for r in s["ratios"] if r["target"]}
    found.pop(("LLM Compressor", "fire, no observers"), None)
    assert found == TARGETS


def test_every_measure_is_positive(figures: dict[str, Any]) -> None:
    measures = [measure for section in figures["sections"] for measure in section["measures"].values()]
    assert all(0 < measure["minimum"] <= measure["median"] for measure in measures)


def test_every_figure_is_printed(figures: dict[str, Any]) -> None:
    wanted = [name for section in figures["sections"] for name in section["measures"]]
    wanted += [f"{ratio['over']} / {ratio['under']}" for section in figures["sections"] for ratio in section["ratios"]]
    printed = figures["printed"].splitlines()
    assert [name for name in wanted if not any(line.startswith(name) for line in printed)] == []


@given(steps=STEPS, batches_per_step=st.none() | st.integers(1, 3))
def test_floor_and_engine_count_alike(suite: ModuleType, steps: list[Any], batches_per_step: int | None) -> None:
    floor, engine = suite.Floor(), Lifecycle(batches_per_step=batches_per_step)
    floor.event.batches_per_step = batches_per_step
    for choice, payload in steps:
        legal = engine.allowed or tuple(EventType)
        event = choice if isinstance(choice, EventType) else legal[choice % len(legal)]
        refused = []
        for contender in floor, engine:
            try:
                contender.fire(event, **payload)
            except ValueError:  # noqa: PERF203 # which of the two refuses is the question
                refused.append(contender)
        assert refused in ([], [floor, engine])
        assert suite.counters(floor.event, floor) == suite.counters(engine.event, engine.progress)


def test_floor_engine_and_machines_count_alike_over_the_workload(suite: ModuleType) -> None:
    suite.check_agreement()


def test_a_contender_that_counts_otherwise_is_found_out(suite: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def other() -> Lifecycle:
        engine = Lifecycle(batches_per_step=2)
        engine.initialize()
        return engine

    monkeypatch.setattr(suite, "engine", other)
    with pytest.raises(AssertionError, match=r"^fire counts"):
        suite.check_agreement()


def test_a_call_that_should_be_refused_and_is_not_is_found_out(suite: ModuleType) -> None:
    with pytest.raises(AssertionError, match="was not refused"):
        suite.refuse([Lifecycle().initialize], IllegalEventError)


@pytest.mark.parametrize(("samples", "verdict"), [((2, 4, 4), "ok"), ((2, 6, 6), "missed"), ((3, 4, 4), "missed")])
def test_a_target_is_met_when_minimum_and_median_meet_it(
    harness: ModuleType, samples: tuple[int, ...], verdict: str
) -> None:
    measures = {"a": harness.Measure(samples), "b": harness.Measure((1, 2, 2))}
    section = harness.Section("", "", measures, [harness.Ratio("a", "b", at_most=2)])
    assert [result.verdict for result in section.results()] == [verdict]


def test_a_race_that_fails_leaves_garbage_collection_on(harness: ModuleType) -> None:
    turns = iter([None] * 4)
    with pytest.raises(StopIteration):
        harness.race([harness.Contender("tired", lambda: next(turns))], harness.QUICK)
    assert gc.isenabled()


def test_without_llm_compressor_there_is_no_such_contender(suite: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llmcompressor", None)
    assert suite.upstream.lifecycle() is None
