"""Hand-written torch loops: the optimizer events of a session, from torch's own hooks."""

from __future__ import annotations

from inspect import currentframe
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from lifecycle.errors import LifecycleError
from lifecycle.events import EventType
from lifecycle.integrations import require
from lifecycle.session import active_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from typing_extensions import Self

    from lifecycle.session import CompressionSession

__all__ = ["Attachment", "attach"]

torch = require("torch", "pip install torch")

_attached: WeakSet[Any] = WeakSet()


def attach(optimizer: Any, scaler: Any = None, *, session: CompressionSession | None = None) -> Attachment:
    """Fire OPTIM_PRE_STEP and OPTIM_POST_STEP whenever an optimizer steps.

    The loop fires the other events: BATCH_START, LOSS_CALCULATED and BATCH_END. Where ``optimizer.step`` is given a
    closure, LOSS_CALCULATED comes from the closure's first return value, unless the batch has a loss already.

    Args:
        optimizer: A `torch.optim.Optimizer`. For several optimizers, attach to each.
        scaler: The `torch.amp.GradScaler` whose ``step`` is called with the optimizer, if there is one. When it skips a
            step, OPTIM_POST_STEP carries ``skipped=True``.
        session: The session to fire on; by default the one that is active now.

    Returns:
        The attachment. Its ``remove()``, or leaving it as a ``with`` block, leaves torch as it was.

    Raises:
        LifecycleError: The optimizer is attached already, or there is no session.
        TypeError: `optimizer` is not an optimizer of torch, or `scaler` not a scaler.

    Examples:
        >>> import torch
        >>> from lifecycle.session import CompressionSession
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.5)
        >>> session = CompressionSession(protocol="training")
        >>> with session, attach(optimizer):
        ...     _ = session.initialize(optimizer=optimizer)
        ...     with session.batch():
        ...         loss = weight.sum()
        ...         _ = session.loss_calculated(loss=loss)
        ...         loss.backward()
        ...         _ = optimizer.step()
        >>> session.lifecycle.event.global_step
        1
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")
    if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
        raise TypeError(f"scaler must be a torch.amp.GradScaler, got {scaler!r}")
    if optimizer in _attached:
        name = type(optimizer).__name__
        raise LifecycleError(f"this {name} is attached to a session already; remove() that attachment first")
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        name = type(optimizer).__name__
        raise TypeError(f"this {name} has no hooks of torch's; attach to the optimizer that it stands around")
    return Attachment(optimizer, scaler, active_session() if session is None else session)


class Attachment:
    """An optimizer whose steps fire events, until it is removed. Made by `attach`."""

    __slots__ = ("_handles", "_inside_scaler", "_optimizer", "_scaler_step", "_session", "_skipped", "_step")

    def __init__(self, optimizer: Any, scaler: Any, session: CompressionSession) -> None:
        self._optimizer = optimizer
        self._session = session
        self._scaler_step = None if scaler is None else _ScalerStep.of(scaler)
        self._inside_scaler = False
        self._skipped = False
        # The call of torch's own function around `step`. There is another one inside it where the optimizer is derived
        # from one of torch's and calls its `step`: torch has put that function around both.
        self._step: FrameType | None = None
        self._handles: tuple[Any, ...] = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )
        if self._scaler_step is not None:
            self._scaler_step.steps[optimizer] = self._step_by_scaler
        _attached.add(optimizer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Fire nothing more, and leave the optimizer and the scaler as they were. Doing it again does nothing."""
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = ()
        self._step = None
        if self._scaler_step is not None:
            self._scaler_step.forget(self._optimizer)
        _attached.discard(self._optimizer)

    def _step_by_scaler(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # The events are fired around the scaler's step, not by the hooks inside it: a step that is skipped may call no
        # hooks, and an exception in a hook would leave the scaler, and what it puts on the optimizer, half-way.
        self._session.optim_pre_step()
        self._skipped = True
        self._inside_scaler = True
        try:
            result = step(self._optimizer, *args, **kwargs)
        finally:
            self._inside_scaler = False
        self._session.optim_post_step(skipped=self._skipped)
        return result

    def _before_step(
        self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._inside_scaler or (self._step is not None and _is_running(self._step)):
            return None
        self._step = _caller()
        # `args` begins with the optimizer itself.
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._watch(args[1]), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._watch(kwargs["closure"])}
        self._session.optim_pre_step()
        return None

    def _after_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._inside_scaler and self._step is not _caller():
            return
        self._step = None
        # Fused optimizers step also where the gradients are not finite: they read this attribute, which the scaler sets
        # while it steps them, and leave the weights as they are.
        skipped = bool(getattr(optimizer, "found_inf", None))
        if self._inside_scaler:
            self._skipped = skipped
        else:
            self._session.optim_post_step(skipped=skipped)

    def _watch(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure that fires at its first call, and keeps the further calls of the same step silent."""
        called = False

        def watched() -> Any:
            nonlocal called
            if called:
                with self._session.lifecycle.suspended("closure"):
                    return closure()
            loss = closure()
            called = True
            if self._session.lifecycle.event.type_ is EventType.BATCH_START:
                self._session.loss_calculated(loss=loss)
            self._session.optim_pre_step()
            return loss

        return watched


class _ScalerStep:
    """Stands in for the ``step`` of a scaler, for the attached optimizers that it steps."""

    __slots__ = ("_original", "_own", "_scaler", "steps")

    def __init__(self, scaler: Any) -> None:
        self._scaler = scaler
        self._original = scaler.step
        self._own = scaler.__dict__.get("step")
        self.steps: dict[Any, Callable[..., Any]] = {}

    @classmethod
    def of(cls, scaler: Any) -> _ScalerStep:
        """The one that a scaler has, put in if it has none."""
        if not isinstance(scaler.step, cls):
            scaler.step = cls(scaler)
        step: _ScalerStep = scaler.step
        return step

    def __call__(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        step = self.steps.get(optimizer)
        if step is None or not self._scaler.is_enabled():
            return self._original(optimizer, *args, **kwargs)
        return step(self._original, *args, **kwargs)

    def __reduce__(self) -> Any:
        # A copy of the scaler has nothing attached.
        return getattr, (self._scaler, "step")

    def forget(self, optimizer: Any) -> None:
        """Leave an optimizer to the scaler alone, and after the last one, go, unless something else stands in front."""
        del self.steps[optimizer]
        if self.steps or self._scaler.__dict__.get("step") is not self:
            return
        if self._own is None:
            del self._scaler.step
        else:
            self._scaler.step = self._own


def _caller() -> FrameType | None:
    """What called the function that asks."""
    here = currentframe()
    return here.f_back.f_back if here and here.f_back else None


def _is_running(call: FrameType) -> bool:
    """Whether a call has not come back, seen from inside it."""
    frame = currentframe()
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is not None
