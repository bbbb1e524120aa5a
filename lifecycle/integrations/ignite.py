"""Ignite: a session driven by an engine that trains."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from lifecycle.errors import LifecycleError
from lifecycle.integrations import require
from lifecycle.session import CompressionSession, active_session

ignite = require("ignite.engine", "pip install pytorch-ignite")
events = ignite.Events

from lifecycle.integrations import torch  # noqa: E402 # what to install is said for Ignite first

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = ["Attachment", "attach"]


def attach(
    engine: Any, session: CompressionSession | None = None, *, optimizer: Any, scaler: Any = None, **payload: Any
) -> Attachment:
    """Drive a session by an engine that trains.

    INITIALIZE comes at STARTED, with the optimizer and the data, and FINALIZE at TERMINATE or COMPLETED, whichever is
    first. An exception aborts the run. BATCH_START and BATCH_END stand around the update function, and OPTIM_PRE_STEP
    and OPTIM_POST_STEP around each step that an optimizer takes in it. A ``run`` that begins at iteration 0 is a new
    run of the session. One that begins later goes on with the session as it was after its last complete batch, or as it
    was loaded from a checkpoint.

    The loss is not to be seen from outside the update function, which therefore must report it before it steps:
    ``session.loss_calculated(loss=loss)``.

    Args:
        engine: The `ignite.engine.Engine` that trains.
        session: The session to drive, by default the one that is active now; its protocol must allow ``training`` runs.
        optimizer: The `torch.optim.Optimizer` that the update function steps, or a list of them. If several step in one
            batch, the session needs ``invocations_per_step``.
        scaler: The `torch.amp.GradScaler` that steps it, if there is one.
        **payload: What else comes with INITIALIZE, such as ``model=model``.

    Returns:
        The attachment. Its ``remove()`` leaves the engine as it was; `ignite.handlers.Checkpoint` can save and load it.

    Raises:
        LifecycleError: The engine or an optimizer is attached already, or there is no session.
        TypeError: `engine` is not an engine of Ignite, `session` not a session, `optimizer` not an optimizer of torch,
            or `scaler` not a scaler.

    Examples:
        >>> import torch
        >>> from ignite.engine import Engine
        >>> from lifecycle.session import CompressionSession
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> session = CompressionSession(protocol="training")
        >>> def update(engine, batch):
        ...     optimizer.zero_grad()
        ...     loss = (weight * batch).sum()
        ...     _ = session.loss_calculated(loss=loss)
        ...     loss.backward()
        ...     optimizer.step()
        >>> trainer = Engine(update)
        >>> attachment = attach(trainer, session, optimizer=optimizer)
        >>> _ = trainer.run([1.0, 2.0, 3.0], max_epochs=2)
        >>> session.lifecycle.event.global_step, session.lifecycle.state
        (6, 'finalized')
    """
    if not isinstance(engine, ignite.Engine):
        raise TypeError(f"engine must be an ignite.engine.Engine, got {engine!r}")
    if "_handle_exception" in engine.__dict__:
        raise LifecycleError("this engine drives a session already: remove() that attachment first")
    if session is None:
        session = active_session()
    if not isinstance(session, CompressionSession):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
        raise TypeError(f"session must be a CompressionSession, got {session!r}")
    return Attachment(engine, session, optimizer, scaler, payload)


class Attachment:
    """An engine that drives a session, until it is removed. Made by `attach`."""

    def __init__(
        self, engine: Any, session: CompressionSession, optimizer: Any, scaler: Any, payload: dict[str, Any]
    ) -> None:
        self._engine = engine
        self._session = session
        self._optimizer = optimizer
        self._optimizers: list[Any] = list(optimizer) if type(optimizer) in {list, tuple} else [optimizer]
        self._scaler = scaler
        with self._optimizer_events():
            pass  # what cannot be attached is refused now, not at the first batch
        self._payload = payload
        self._saved: Mapping[str, Any] = {}
        self._in_run = False
        # The batch events and the exceptions are not taken from handlers. ITERATION_STARTED may be the last event of an
        # iteration, a handler of ITERATION_COMPLETED that saves a checkpoint may come before ours, and Ignite drops an
        # exception as soon as EXCEPTION_RAISED has a handler.
        self._update = engine._process_function  # noqa: SLF001 # it has no public name
        self._handle_exception = engine._handle_exception  # noqa: SLF001 # the same
        engine.__dict__.update(_process_function=self._process, _handle_exception=self._fail)
        ended = events.TERMINATE | events.COMPLETED
        self._handles = [
            engine.add_event_handler(events.STARTED, self._start),
            engine.add_event_handler(ended, self._end),
        ]

    def remove(self) -> None:
        """Leave the engine as it was. Doing it again does nothing."""
        if self._handles:
            for handle in self._handles:
                handle.remove()
            self._handles = []
            self._engine.__dict__["_process_function"] = self._update
            del self._engine.__dict__["_handle_exception"]

    def state_dict(self) -> Mapping[str, Any]:
        """The session as it was after the last complete batch; empty before any run.

        FINALIZE is not in it, so that a run that has ended may be prolonged.
        """
        return self._saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with a saved session when the engine, which must be loaded as well, runs again."""
        self._saved = state_dict

    def _start(self, engine: Any) -> None:
        payload = {"optimizer": self._optimizer, "data": engine.state.dataloader, **self._payload}
        if self._session.lifecycle.status in {"finalized", "aborted"}:
            self._session.reset()
        if engine.state.iteration == 0:
            self._session.initialize(**payload)
        elif self._saved:
            self._session.resume(self._saved, **payload)
        else:
            raise LifecycleError(
                f"the engine goes on at iteration {engine.state.iteration}, but no session was loaded: save the "
                "attachment in the checkpoint too, or begin a new run with the weights of this one"
            )
        self._in_run = True
        self._saved = self._session.state_dict()

    def _process(self, engine: Any, batch: Any) -> Any:
        with self._session.batch(), self._optimizer_events():
            output = self._update(engine, batch)
        self._saved = self._session.state_dict()
        return output

    @contextmanager
    def _optimizer_events(self) -> Generator[None, None, None]:
        with ExitStack() as stack:
            for optimizer in self._optimizers:
                stack.enter_context(torch.attach(optimizer, self._scaler, session=self._session))
            yield

    def _end(self) -> None:
        if self._in_run:
            # First, because a run that it is refused in has failed.
            self._session.finalize()
            self._in_run = False

    def _fail(self, error: BaseException) -> None:
        if self._in_run:
            self._in_run = False
            self._session.abort(error)
        self._handle_exception(error)
