"""Contenders timed side by side in one process, and the ratios between them."""

from __future__ import annotations

import gc
import random
import statistics
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Settings:
    """How long to measure.

    Args:
        rounds: Rounds of a race; every contender is timed once in each.
        window: Nanoseconds that one timing lasts, about: long beside the clock's own cost, short beside a time slice.
        objects: Objects that are made at once to weigh one.
        processes: Fresh processes that are started to time each import.
    """

    rounds: int
    window: int
    objects: int
    processes: int


FULL = Settings(rounds=300, window=2_000_000, objects=200, processes=40)
QUICK = Settings(rounds=3, window=20_000, objects=5, processes=1)


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to time: each call of `run` does `operations` of what is measured."""

    name: str
    run: Callable[[], object]
    operations: int = 1


@dataclass(frozen=True, slots=True)
class Measure:
    """What one operation cost in every round."""

    samples: Sequence[float]

    @property
    def minimum(self) -> float:
        return min(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Ratio:
    """What `over` costs, divided by what `under` costs, and what the project wants that to be."""

    over: str
    under: str
    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value meets the target; without a target each does."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"


@dataclass(frozen=True, slots=True)
class Result:
    """A ratio as measured. The target is met when the minimum and the median meet it."""

    ratio: Ratio
    minimum: float
    median: float

    @property
    def verdict(self) -> str:
        if not self.ratio.target:
            return ""
        return "ok" if self.ratio.holds(self.minimum) and self.ratio.holds(self.median) else "missed"


@dataclass(frozen=True, slots=True)
class Section:
    """What was measured together."""

    title: str
    unit: str
    measures: Mapping[str, Measure]
    ratios: Sequence[Ratio]
    notes: Sequence[str] = ()

    def results(self) -> list[Result]:
        """The ratios of those contenders that were there."""
        pairs = [
            (ratio, self.measures[ratio.over], self.measures[ratio.under])
            for ratio in self.ratios
            if {ratio.over, ratio.under} <= self.measures.keys()
        ]
        return [Result(ratio, over.minimum / under.minimum, over.median / under.median) for ratio, over, under in pairs]

    def text(self) -> str:
        costs = [_line(name, f"{cost.minimum:,.1f}", f"{cost.median:,.1f}") for name, cost in self.measures.items()]
        ratios = [
            _line(
                f"{result.ratio.over} / {result.ratio.under}",
                f"{result.minimum:.2f}",
                f"{result.median:.2f}",
                result.ratio.target,
                result.verdict,
            )
            for result in self.results()
        ]
        return "\n".join(
            [
                _line(f"{self.title}, {self.unit}", "minimum", "median"),
                *costs,
                _line("  ratio", "", "", "target"),
                *ratios,
                *self.notes,
            ]
        )

    def data(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "unit": self.unit,
            "measures": {
                name: {"minimum": cost.minimum, "median": cost.median, "rounds": len(cost.samples)}
                for name, cost in self.measures.items()
            },
            "ratios": [
                {
                    "over": result.ratio.over,
                    "under": result.ratio.under,
                    "target": result.ratio.target,
                    "minimum": result.minimum,
                    "median": result.median,
                    "verdict": result.verdict,
                }
                for result in self.results()
            ],
            "notes": list(self.notes),
        }


def _line(label: str, minimum: str, median: str, target: str = "", verdict: str = "") -> str:
    return f"{label:<64}{minimum:>12}{median:>12}  {target:<8}  {verdict}".rstrip()


def race(contenders: Sequence[Contender], settings: Settings) -> dict[str, Measure]:
    """Time the contenders in turn, in another order in every round, without garbage collection while a clock runs.

    Returns:
        Nanoseconds of one operation, by the contender's name.
    """
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    calls = {contender.name: max(1, settings.window // _one_call(contender)) for contender in contenders}
    order = list(contenders)
    shuffle = random.Random(0).shuffle  # noqa: S311 # an order, not a secret
    gc.collect()
    # What is alive now need not be looked through again at every collection below.
    gc.freeze()
    gc.disable()
    try:
        for _ in range(settings.rounds):
            shuffle(order)
            for contender in order:
                count = calls[contender.name]
                samples[contender.name].append(_time(contender, count) / (count * contender.operations))
                gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return {name: Measure(tuple(found)) for name, found in samples.items()}


def least_times(rounds: int, *contenders: Callable[[], object]) -> list[float]:
    """The least time of each contender in seconds, for calls that are long: all are timed once in every round."""
    times: list[list[int]] = [[] for _ in contenders]
    for _ in range(rounds):
        for contender, its in zip(contenders, times, strict=True):
            started = perf_counter_ns()
            contender()
            its.append(perf_counter_ns() - started)
    return [min(its) / 1e9 for its in times]


def _time(contender: Contender, calls: int) -> int:
    run = contender.run
    started = perf_counter_ns()
    for _ in repeat(None, calls):
        run()
    return perf_counter_ns() - started


def _one_call(contender: Contender) -> int:
    # The first calls are cold.
    return max(1, min(_time(contender, 1) for _ in range(3)))
