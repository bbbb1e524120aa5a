"""The races, with the targets of the project beside their ratios."""

from __future__ import annotations

import tempfile
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import machines
import upstream
import workload
from floor import Floor
from footprint import time_imports, weigh
from harness import Contender, Ratio, Section, Settings, race
from transitions import MachineError

from lifecycle import EventType, IllegalEventError, Lifecycle, Progress, Tap
from lifecycle.trace import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ENGINE, FLOOR, MACHINE, UPSTREAM = "fire, no observers", "floor", "Machine", "LLM Compressor"
METHODS = "methods, no observers"

MAKE_ENGINE, MAKE_MACHINE = "Lifecycle()", "Machine(...)"
MAKE_LEAN_MACHINE = "Machine(auto_transitions=False, ...)"

IMPORTS = {
    "import transitions.extensions": "import transitions.extensions",
    "import lifecycle and a first engine": "import lifecycle; lifecycle.Lifecycle()",
    "import lifecycle": "import lifecycle",
}


def run(settings: Settings) -> Iterator[Section]:
    """All sections, one by one as they are done."""
    check_agreement()
    for section in events, rejections, records, creation, memory, imports:
        yield section(settings)


def observe(event: object, payload: object) -> None:
    """An observer that does nothing."""


def engine(observers: int = 0) -> Lifecycle:
    made = Lifecycle()
    for _ in range(observers):
        made.on(EventType, observe)
    made.initialize()
    return made


def floor() -> Floor:
    made = Floor()
    made.fire(EventType.INITIALIZE)
    return made


def model(make: Callable[..., Any]) -> machines.Run:
    made: Any = make(auto_transitions=False).model
    made.initialize()
    return made


def counters(event: Any, progress: Any) -> dict[str, object]:
    """All that a contender counts, by name."""
    counted = {name: getattr(event, name) for name in ("type_", "global_step", "global_batch")}
    return counted | {field.name: getattr(progress, field.name) for field in fields(Progress)}


def check_agreement() -> None:
    """See that the contenders do the same work.

    Raises:
        AssertionError: One counts other than the floor.
    """
    hand_written, fired, called = floor(), engine(), engine()
    models = {make.__name__: model(make) for make in (machines.flat, machines.hierarchical)}
    workload.by_fire(hand_written.fire)
    workload.by_fire(fired.fire)
    workload.by_methods(called)
    for made in models.values():
        workload.by_methods(made)
    wanted = counters(hand_written.event, hand_written)
    for name, made in {"fire": fired, "methods": called, **models}.items():
        found = counters(made.event, made.progress)
        if found != wanted:
            raise AssertionError(f"{name} counts {found}, the floor {wanted}")


def events(settings: Settings) -> Section:
    """An event that is accepted, over a run of calibration and training."""
    contenders = [
        Contender(FLOOR, partial(workload.by_fire, floor().fire), workload.EVENTS),
        Contender(ENGINE, partial(workload.by_fire, engine().fire), workload.EVENTS),
        Contender("fire, 1 observer", partial(workload.by_fire, engine(1).fire), workload.EVENTS),
        Contender("fire, 10 observers", partial(workload.by_fire, engine(10).fire), workload.EVENTS),
        Contender(METHODS, partial(workload.by_methods, engine()), workload.EVENTS),
        Contender(MACHINE, partial(workload.by_methods, model(machines.flat)), workload.EVENTS),
        Contender("HierarchicalMachine", partial(workload.by_methods, model(machines.hierarchical)), workload.EVENTS),
    ]
    compressor = upstream.lifecycle()
    if compressor:
        theirs, letters = compressor
        contenders.append(Contender(UPSTREAM, partial(workload.by_fire, theirs.event, letters), workload.EVENTS))
    return Section(
        "An accepted event",
        "ns",
        race(contenders, settings),
        [
            Ratio(ENGINE, FLOOR, at_most=1.35),
            Ratio("fire, 1 observer", FLOOR, at_most=2.5),
            Ratio("fire, 10 observers", FLOOR),
            Ratio(METHODS, FLOOR),
            Ratio(MACHINE, ENGINE, at_least=30),
            Ratio(MACHINE, METHODS),
            Ratio("HierarchicalMachine", ENGINE),
            Ratio(UPSTREAM, ENGINE, at_least=5),
        ],
        [] if compressor else [upstream.LEFT_OUT],
    )


def rejections(settings: Settings) -> Section:
    """An event that is refused, and the text of the error."""
    places = list(workload.refusals())
    floors, engines, models = [], [], []
    for path, event in places:
        hand_written, made, machine = Floor(), Lifecycle(), machines.flat(auto_transitions=False)
        for step in path:
            hand_written.fire(step, loss=workload.LOSS)
            made.fire(step, loss=workload.LOSS)
            machine.model.trigger(step.value, loss=workload.LOSS)
        floors.append(partial(hand_written.fire, event))
        engines.append(partial(made.fire, event))
        models.append(getattr(machine.model, event.value))
    return Section(
        "A rejected event, with str(error)",
        "ns",
        race(
            [
                Contender(FLOOR, partial(refuse, floors, ValueError), len(places)),
                Contender("fire", partial(refuse, engines, IllegalEventError), len(places)),
                Contender(MACHINE, partial(refuse, models, MachineError), len(places)),
            ],
            settings,
        ),
        [Ratio("fire", MACHINE, at_most=3)],
    )


def refuse(calls: Iterable[Callable[[], object]], kind: type[Exception]) -> None:
    """Make calls that must all be refused."""
    for call in calls:
        try:
            call()
        except kind as error:  # noqa: PERF203 # raising is what is timed
            str(error)
        else:
            raise AssertionError(f"{call} was not refused")


def records(settings: Settings) -> Section:
    """An event with a journal that writes it to a file."""
    plain, tapped, journalled = engine(), engine(), engine()
    tapped.attach(Tap())
    with tempfile.TemporaryFile() as file, Journal(file) as journal:
        journalled.attach(journal)

        def write() -> None:
            # Over what the last pass wrote, so that the file does not fill the disk.
            file.seek(0)
            workload.by_fire(journalled.fire)

        measures = race(
            [
                Contender(ENGINE, partial(workload.by_fire, plain.fire), workload.EVENTS),
                Contender("fire, a Tap that does nothing", partial(workload.by_fire, tapped.fire), workload.EVENTS),
                Contender("fire, a Journal on a file", write, workload.EVENTS),
            ],
            settings,
        )
    bare, full = measures[ENGINE], measures["fire, a Journal on a file"]
    costs = f"{full.minimum - bare.minimum:,.0f} (minima) and {full.median - bare.median:,.0f} (medians)"
    return Section(
        "An event that is written to a journal",
        "ns",
        measures,
        [Ratio("fire, a Journal on a file", ENGINE)],
        [f"the record itself costs the difference: {costs}"],
    )


def creation(settings: Settings) -> Section:
    """A new engine."""
    made: Mapping[str, Callable[[], object]] = {
        "Floor()": Floor,
        MAKE_ENGINE: Lifecycle,
        MAKE_MACHINE: machines.flat,
        MAKE_LEAN_MACHINE: partial(machines.flat, auto_transitions=False),
        "HierarchicalMachine(...)": machines.hierarchical,
    }
    return Section(
        "Creating an engine",
        "ns",
        race([Contender(name, make) for name, make in made.items()], settings),
        [
            Ratio(MAKE_MACHINE, MAKE_ENGINE, at_least=20),
            Ratio(MAKE_LEAN_MACHINE, MAKE_ENGINE),
        ],
    )


def memory(settings: Settings) -> Section:
    """What an engine weighs."""
    return Section(
        "An engine in memory",
        "bytes",
        {
            "Floor()": weigh(Floor, settings.objects),
            MAKE_ENGINE: weigh(Lifecycle, settings.objects),
            MAKE_MACHINE: weigh(machines.flat, settings.objects),
            MAKE_LEAN_MACHINE: weigh(partial(machines.flat, auto_transitions=False), settings.objects),
        },
        [Ratio(MAKE_MACHINE, MAKE_ENGINE, at_least=20)],
        ["the rows of a protocol are built once and shared by all its engines, so they are not in this"],
    )


def imports(settings: Settings) -> Section:
    """What a program pays before its first event."""
    return Section(
        "In a fresh process, without the start of Python",
        "ms",
        time_imports(IMPORTS, settings.processes),
        [Ratio("import lifecycle and a first engine", "import transitions.extensions", at_most=1.3)],
    )
