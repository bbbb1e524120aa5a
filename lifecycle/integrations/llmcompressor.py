"""LLM Compressor: its sessions under the engine, and its modifiers in our sessions. For version 0.13 and newer."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from lifecycle import protocols
from lifecycle.engine import Lifecycle
from lifecycle.engine.saved import check_keys, check_like, check_same
from lifecycle.errors import LifecycleError, LifecycleWarning, grouped
from lifecycle.events import Event, EventType, spellings
from lifecycle.integrations import require
from lifecycle.session.modifier import Modifier

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from lifecycle.engine.lifecycle import OnViolation
    from lifecycle.protocol import Protocol
    from lifecycle.protocol.rules import Payload
    from lifecycle.session.state import State

__all__ = ["AdaptedModifier", "CountedEvent", "adapt", "guard"]

_core = require("llmcompressor.core", "pip install llmcompressor")
_recipe = require("llmcompressor.recipe", "pip install llmcompressor")
_modifiers = require("llmcompressor.modifiers", "pip install llmcompressor")

_OURS = spellings(EventType)
_THEIRS: dict[Any, Any] = {_OURS.get(each.value, each.value): each for each in _core.EventType}
"""LLM Compressor's member for each event, whatever its version calls it."""

_BY_METHOD = (EventType.INITIALIZE, EventType.FINALIZE)
_REPLACED = ("initialize", "event", "finalize", "reset")
_KEPT_BY_RESET_STAGE = {"state", "recipe"}


# LLM Compressor is not there when types are checked.
class CountedEvent(Event, _core.Event):  # type: ignore[misc, name-defined]
    """An event as LLM Compressor's modifiers get it: one of its own, with the counters and the arithmetic of ours.

    Its `type_` is LLM Compressor's member.

    Examples:
        >>> from llmcompressor.core import Event, EventType
        >>> event = CountedEvent(EventType.BATCH_START, steps_per_epoch=10, global_step=3)
        >>> isinstance(event, Event), event.current_index, event.should_update(0, None, 0.1)
        (True, 0.3, True)
    """

    def __post_init__(self) -> None:
        type_, self.type_ = self.type_, None
        super().__post_init__()
        self.type_ = type_

    @classmethod
    def of(cls, event: Event, type_: Any = None) -> CountedEvent:
        """The position of a live event, as the event `type_` if that is given."""
        type_ = event.type_ if type_ is None else type_
        return cls(
            _THEIRS.get(type_, type_),
            event.steps_per_epoch,
            event.batches_per_step,
            event.invocations_per_step,
            event.global_step,
            event.global_batch,
        )


@contextmanager
def guard(
    protocol: Protocol | str = protocols.COMPRESSION,
    *,
    session: Any = None,
    steps_per_epoch: int | None = None,
    batches_per_step: int | None = None,
    invocations_per_step: int = 1,
    expect: Mapping[str, int] | None = None,
    on_violation: OnViolation = "raise",
) -> Generator[Lifecycle, None, None]:
    """Put one session of LLM Compressor under the engine, inside the block.

    Every event of the session passes the engine first. One that is out of order is refused before any modifier sees it,
    and moves nothing; with ``on_violation="warn"`` or ``"record"`` it is reported and delivered all the same. The
    modifiers get a `CountedEvent`, so that their ``start`` and ``end`` hold, and its ``should_update`` is exact.
    FINALIZE attempts every modifier. Other sessions, LLM Compressor's classes and its modules stay as they are, and so
    does this session after the block.

    Args:
        protocol: A protocol, or the name of a built-in one.
        session: The session; by default the one that is active in LLM Compressor now.
        steps_per_epoch: Optimizer steps in an epoch; the schedules of the modifiers are then in epochs.
        batches_per_step: Batches in one optimizer step.
        invocations_per_step: Calls of the optimizer that make one step.
        expect: Counts that the caller knows; see `Lifecycle`.
        on_violation: What to do with an event that is out of order; see `Lifecycle`.

    Yields:
        The engine, for observers and taps; they come after the modifiers. What is fired on it directly reaches no
        modifier. If the block raises, its run is aborted.

    Raises:
        LifecycleError: The session is guarded already, there is none, or what `Lifecycle` raises. Inside the block,
            `initialize` on a session that was initialized before the block.
        IllegalEventError: Inside the block, an event is out of order.
        ExceptionGroup: Inside the block, modifiers failed at FINALIZE.
        TypeError: `session` is not a session.

    Warns:
        LifecycleWarning: No event came, a reset has abandoned an open run, or a violation was let through.

    Examples:
        >>> from llmcompressor.core import LifecycleCallbacks, active_session
        >>> with guard("data_free") as lc:
        ...     active_session().reset()
        ...     _ = active_session().initialize()
        ...     _ = LifecycleCallbacks.calibration_start()
        ...     _ = LifecycleCallbacks.calibration_end()
        ...     _ = active_session().finalize()
        >>> lc.state, lc.progress.calibration_epochs
        ('finalized', 1)
    """
    if session is None:
        session = _core.active_session()
        if session is None:
            raise LifecycleError("LLM Compressor has no active session in this thread; pass one, as session=...")
    if not isinstance(session, _core.CompressionSession):
        raise TypeError(f"session must be a CompressionSession of LLM Compressor, got {session!r}")
    lifecycle = Lifecycle(
        protocol,
        steps_per_epoch=steps_per_epoch,
        batches_per_step=batches_per_step,
        invocations_per_step=invocations_per_step,
        expect=expect,
        on_violation=on_violation,
    )
    guarding = _Guard(session, lifecycle)
    try:
        yield lifecycle
    except BaseException as error:
        lifecycle.abort(error)
        raise
    finally:
        guarding.remove()
    if not guarding.used:
        message = "no event came to the guarded session: did the run happen in another session, or in another thread?"
        warnings.warn(message, LifecycleWarning, stacklevel=3)


class _StandIn:
    """An object of LLM Compressor's with some attributes replaced. What is set on it is set on the object."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)

    def __str__(self) -> str:
        return str(self._real)


class _Guard:
    """Stands in for the methods of one session's `CompressionLifecycle`."""

    def __init__(self, session: Any, lifecycle: Lifecycle) -> None:
        self.session = session
        self.real = session.lifecycle
        self.lifecycle = lifecycle
        self.used = False
        self._delivery: Callable[[Event], Any] | None = None
        self._answer: Any = None
        if "event" in self.real.__dict__:
            raise LifecycleError("the session is guarded already; leave that guard first")
        # The first observer: LLM Compressor's modifiers come before all others, and journals have their times.
        # Also at events that the protocol does not use: those may be let through.
        self._handle = lifecycle.on(lifecycle.protocol.spellings.values(), self._deliver)
        self._originals = {name: getattr(self.real, name) for name in _REPLACED}
        self._original_reset_stage = session.reset_stage
        for name in _REPLACED:
            setattr(self.real, name, getattr(self, name))
        session.reset_stage = self.reset_stage

    def remove(self) -> None:
        # The engine may be kept for its counters, and must not keep the model.
        self._handle.remove()
        for name in _REPLACED:
            self.real.__dict__.pop(name, None)
        self.session.__dict__.pop("reset_stage", None)

    def initialize(self, *args: Any, **kwargs: Any) -> Any:
        if self.real.initialized_ and self.lifecycle.status == "created":
            raise LifecycleError("the session was initialized before it was guarded: call its reset() first")
        before = self.lifecycle.progress.accepted
        try:
            return self._fire(
                EventType.INITIALIZE, kwargs, lambda event: self._originals["initialize"](*args, **kwargs)
            )
        except BaseException as error:
            # Some modifiers were never initialized. A modifier that has itself fired it, in vain, may catch the error.
            if not self.real.initialized_ and self.lifecycle.progress.accepted > before:
                self.lifecycle.abort(error)
            raise

    def event(self, event_type: Any, global_step: int | None = None, **kwargs: Any) -> Any:
        type_ = event_type.value if isinstance(event_type, _core.EventType) else event_type
        if isinstance(type_, str) and _OURS.get(type_) in _BY_METHOD:
            name = _OURS[type_].value
            raise LifecycleError(f"event() does not take {name.upper()}: call the session's {name}()")

        def deliver(event: Event) -> Any:
            counted = CountedEvent.of(event)

            def tell(modifier: Any, **passed: Any) -> Any:
                return modifier.update_event(**{**passed, "loss": None, **kwargs, "event": counted})

            # LLM Compressor refuses a loss that is missing; where the engine has let it pass, so must that.
            loss = counted if kwargs.get("loss") is None else kwargs["loss"]
            stand_in = self._stand_in(update_event=tell)
            passed = {**kwargs, "loss": loss, "global_step": event.global_step}
            return self._originals["event"].__func__(stand_in, counted.type_, **passed)

        label = {"label": _names(self.real.state.model, kwargs["modules"])} if "modules" in kwargs else {}
        return self._fire(type_, {**label, **kwargs}, deliver)

    def finalize(self, **kwargs: Any) -> Any:
        def deliver(event: Event) -> Any:
            failures: list[Exception] = []

            def attempt(modifier: Any, **passed: Any) -> Any:
                try:
                    return modifier.finalize(**passed)
                except Exception as error:  # noqa: BLE001 # all are attempted, and raised as one
                    failures.append(error)

            answer = self._originals["finalize"].__func__(self._stand_in(finalize=attempt), **kwargs)
            if failures:
                raise grouped(f"{len(failures)} of {len(self.real.recipe.modifiers)} modifiers failed", failures)
            return answer

        return self._fire(EventType.FINALIZE, kwargs, deliver)

    def reset(self) -> None:
        self._begin_anew("reset()", self._originals["reset"], stacklevel=4)

    def reset_stage(self) -> None:
        def begin() -> None:
            self._original_reset_stage()
            # It leaves the last stage's step, and the batch event that came last.
            for name, value in _core.CompressionLifecycle().__dict__.items():
                if name not in _KEPT_BY_RESET_STAGE:
                    setattr(self.real, name, value)

        self._begin_anew("reset_stage()", begin, stacklevel=3)

    def _begin_anew(self, name: str, original: Callable[[], None], *, stacklevel: int) -> None:
        lifecycle = self.lifecycle
        event, progress = lifecycle.event, lifecycle.progress
        message = (
            f"{name} has abandoned an open run, which stood in {lifecycle.state}: "
            f"global_batch={event.global_batch}, global_step={event.global_step}, "
            f"sequential epoch {progress.sequential_epochs}"
        )
        outcome = lifecycle.reset()
        original()
        if outcome == "abandoned":
            warnings.warn(message, LifecycleWarning, stacklevel=stacklevel)

    def _fire(self, type_: Any, payload: Payload, deliver: Callable[[Event], Any]) -> Any:
        self.used = True
        self._delivery, self._answer = deliver, []
        try:
            self.lifecycle.fire(type_, **payload)
            return self._answer
        finally:
            self._delivery = None

    def _deliver(self, event: Event, payload: Payload) -> None:
        if self._delivery is not None:
            self._answer = self._delivery(event)

    def _stand_in(self, **method: Callable[..., Any]) -> _StandIn:
        """LLM Compressor's lifecycle as one of its own methods is to see it.

        The engine has judged the order, so it refuses nothing; and `method` takes the place of a method of each
        modifier that is not finalized.
        """
        ((name, replacement),) = method.items()
        modifiers = [
            _StandIn(modifier, **{name: partial(replacement, modifier)})
            for modifier in self.real.recipe.modifiers
            if not modifier.finalized
        ]
        return _StandIn(
            self.real,
            recipe=_StandIn(self.real.recipe, modifiers=modifiers),
            initialized_=True,
            finalized=False,
            _validate_event_order=self._note_order,
        )

    def _note_order(self, event_type: Any) -> bool:
        self.real._validate_event_order(event_type)  # noqa: SLF001 # its own order state goes on
        return True


def _names(model: Any, modules: Any) -> list[str]:
    """The names of modules in a model; of those that are inside others of them, the outer ones only."""
    listed: list[Any] = [*modules] if issubclass(type(modules), (list, tuple)) else [modules]
    known = {id(module): name for name, module in model.named_modules()} if hasattr(model, "named_modules") else {}
    names = [known.get(id(module)) for module in listed]
    given = set(names)
    found: list[str] = []
    for module, name in zip(listed, names, strict=True):
        if not name:
            found.append(type(module).__name__)
        elif given.isdisjoint(_around(name)):
            found.append(name)
    return found


def _around(name: str) -> Iterable[str]:
    """The names of the modules that a module is in, the model itself included."""
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(len(parts)))


def adapt(modifiers: Any) -> list[Modifier]:
    """LLM Compressor's modifiers as modifiers of a [`CompressionSession`][lifecycle.session.CompressionSession].

    Those of one session share one `State` of LLM Compressor, which is ``session.state.llmcompressor``.

    Args:
        modifiers: A modifier, a list of them, a `Recipe`, or a recipe's path or text. Each modifier serves one run.

    Returns:
        One `AdaptedModifier` for each.

    Raises:
        TypeError: It is none of these.
        ValueError: LLM Compressor cannot read the recipe.

    Examples:
        >>> import torch
        >>> from llmcompressor.modifiers.pruning import ConstantPruningModifier
        >>> from lifecycle.session import CompressionSession
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = model[0].weight.data.copy_(torch.eye(2))
        >>> pruning = adapt(ConstantPruningModifier(targets=["Linear"], start=0))
        >>> with CompressionSession(pruning, "training") as session:
        ...     _ = session.initialize(model=model)
        ...     with session.batch():
        ...         _ = session.loss_calculated(loss=1.0), session.optim_pre_step()
        ...         _ = model[0].weight.data.fill_(0.5)
        ...         _ = session.optim_post_step()
        >>> model[0].weight.tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    if not isinstance(modifiers, (str, list, _recipe.Recipe, _modifiers.Modifier)):
        raise TypeError(f"modifiers must be LLM Compressor's, a list of them or a recipe, got {modifiers!r}")
    return [AdaptedModifier(each) for each in _recipe.Recipe.create_instance(modifiers).modifiers]


class AdaptedModifier(Modifier):
    """One of LLM Compressor's modifiers in a session of ours; see `adapt`.

    Attributes:
        modifier: LLM Compressor's modifier, which keeps its own schedule.
    """

    def __init__(self, modifier: Any) -> None:
        super().__init__()
        self.modifier = modifier
        self._calibrated = False
        self._resumed: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<AdaptedModifier {type(self.modifier).__name__}>"

    def on_initialize(self, state: State, event: Event, **payload: Any) -> None:
        """Initialize it; if a run is resumed that it had started in, start it again."""
        modifier = self.modifier
        if modifier.initialized:
            name = type(modifier).__name__
            raise LifecycleError(
                f"this {name} has had its run: LLM Compressor's modifiers serve one, make a new {name}"
            )
        theirs = vars(state).setdefault("llmcompressor", _core.State())
        theirs.update(**{"model": state.model, "optimizer": state.optimizer, "copy_data": False, **payload})
        resumed, self._resumed = self._resumed, None
        if resumed is None or event.type_ == EventType.INITIALIZE:
            modifier.initialize(state=theirs, **payload)
            return
        # Its `initialize` would start it as if this was step 0.
        modifier.initialized_ = modifier.on_initialize(state=theirs, **payload)
        if resumed["started"] and not resumed["ended"]:
            modifier.on_start(theirs, CountedEvent.of(event, EventType.BATCH_START), **payload)
        modifier.started_, modifier.ended_ = resumed["started"], resumed["ended"]

    def on_event(self, state: State, event: Event, **payload: Any) -> None:
        """Let it take the event."""
        # One that is let through may come before INITIALIZE, as FINALIZE may.
        if "llmcompressor" in vars(state):
            self._calibrated |= event.type_ == EventType.CALIBRATION_EPOCH_START
            self.modifier.update_event(state=state.llmcompressor, event=CountedEvent.of(event), **payload)

    def on_finalize(self, state: State, event: Event, **payload: Any) -> None:
        """Finalize it."""
        if "llmcompressor" in vars(state):
            self.modifier.finalize(state=state.llmcompressor, **payload)

    def on_abort(self, state: State, event: Event, error: BaseException | str | None) -> None:
        """Take its hooks and masks off, by finalizing it."""
        if self.modifier.initialized and not self.modifier.finalized:
            self.modifier.finalize(state=state.llmcompressor)

    def state_dict(self) -> dict[str, Any]:
        """Whether it has started and ended."""
        modifier = self.modifier
        return {
            "modifier": type(modifier).__name__,
            "initialized": modifier.initialized,
            "started": modifier.started_,
            "ended": modifier.ended_,
            "calibrated": self._calibrated,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            LifecycleError: It is another modifier's, or had begun to calibrate.
            TypeError: A part has the wrong type.
        """
        own = self.state_dict()
        check_keys("modifier", state, own)
        check_same("modifier", state["modifier"], own["modifier"])
        for name in "initialized", "started", "ended", "calibrated":
            check_like(name, state[name], own[name])
        if state["calibrated"]:
            raise LifecycleError(
                f"{own['modifier']} was saved after a calibration epoch had begun, and what it had calibrated was not; "
                "save before it"
            )
        self._resumed = state if state["initialized"] else None
