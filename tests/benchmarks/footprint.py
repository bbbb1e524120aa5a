"""What a contender weighs in memory, and what it costs a fresh process to import."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import tracemalloc
from typing import TYPE_CHECKING, Any

from harness import Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPEATS = 3

TIMED = "from time import perf_counter_ns as now; start = now(); {work}; print(now() - start)"


def weigh(make: Callable[[], object], objects: int) -> Measure:
    """Bytes of one object, with all that only it refers to."""
    return Measure([_weigh(make, objects) for _ in range(REPEATS)])


def _weigh(make: Callable[[], object], objects: int) -> float:
    # What the first object builds for all that follow is not part of one.
    make()
    kept: list[Any] = [None] * objects
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for index in range(objects):
            kept[index] = make()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / objects


def time_imports(work: Mapping[str, str], processes: int) -> dict[str, Measure]:
    """Milliseconds that statements take in a fresh process, the start of the interpreter left aside."""
    samples: dict[str, list[float]] = {name: [] for name in work}
    with tempfile.TemporaryDirectory() as cache:
        # Byte code for all, as installed packages have it, wherever they come from and whatever the caller forbids.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for statement in work.values():
            _in_process(statement, environment)
        for _ in range(processes):
            for name, statement in work.items():
                samples[name].append(_in_process(statement, environment) / 1e6)
    return {name: Measure(found) for name, found in samples.items()}


def _in_process(statement: str, environment: Mapping[str, str]) -> int:
    # Without `site`, which on some machines has loaded half of what is to be timed.
    command = [sys.executable, "-S", "-c", TIMED.format(work=statement)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(done.stdout)
