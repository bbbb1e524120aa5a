"""Hugging Face Trainer: a callback and a mixin that drive a session through a training run."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from lifecycle.engine.listeners import Tap
from lifecycle.errors import LifecycleError
from lifecycle.events import EventType
from lifecycle.integrations import require
from lifecycle.session import CompressionSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.engine.listeners import Control, LifecycleView

__all__ = ["LifecycleCallback", "LifecycleMixin"]

_INSTALL = "pip install transformers[torch]"
TrainerCallback: Any = require("transformers", _INSTALL).TrainerCallback
torch = require("torch", _INSTALL)

SAVED_AS = "lifecycle"
"""Where ``stateful_callbacks`` in a checkpoint's ``trainer_state.json`` has the saved run."""

_BATCH_START = EventType.BATCH_START
_LOSS_CALCULATED = EventType.LOSS_CALCULATED


class _StepCallback(TrainerCallback):  # type: ignore[misc] # the frameworks are not there when types are checked
    """Fires what a callback is told of: all but BATCH_START and LOSS_CALCULATED."""

    def __init__(self, session: CompressionSession) -> None:
        if not isinstance(session, CompressionSession):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
            raise TypeError(f"session must be a CompressionSession, got {session!r}")
        self.session = session
        self._begun: Any = None
        self._scale = 0.0

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any, train_dataloader: Any, **others: Any
    ) -> None:
        saved = _saved_run(state)
        # Its own run that is still open has failed: the Trainer does not tell callbacks that.
        if self._is_own or self.session.lifecycle.status in {"finalized", "aborted"}:
            self.session.reset()
        payload = {"model": model, "optimizer": optimizer, "data": train_dataloader, "hardware": args.device}
        if saved is None:
            self.session.initialize(**payload)
        else:
            self.session.resume(saved, **payload)
        self._begun = self.session.state
        self._save(state)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, optimizer: Any, **others: Any) -> None:
        self._scale = _scale(optimizer)
        self.session.optim_pre_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, *, optimizer: Any, **others: Any) -> None:
        # A fused optimizer is called by the scaler also where it skips the step. Then only the scale tells.
        skipped = optimizer.step_was_skipped or _scale(optimizer) < self._scale
        self.session.optim_post_step(skipped=skipped)

    def on_substep_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.session.batch_end()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.session.batch_end()
        self._save(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.session.finalize()

    def abort(self, error: BaseException) -> None:
        """End the run as failed, if the Trainer has begun it."""
        if self._is_own:
            self.session.abort(error)

    @property
    def _is_own(self) -> bool:
        # Each run of a session has a state of its own.
        return self.session.state is self._begun

    def _save(self, state: Any) -> None:
        """Leave the run where the next checkpoint takes it along.

        It is that of the last whole step, where the Trainer resumes, wherever in a step the checkpoint is written.
        """
        state.stateful_callbacks[SAVED_AS] = {"global_step": state.global_step, "session": self.session.state_dict()}


class LifecycleCallback(_StepCallback, Tap):
    """Drives a session through `Trainer.train`, for a Trainer that cannot be subclassed.

    A callback is told neither of the batches nor of the loss. This one takes them from the model: in a training step,
    the first forward pass of a batch is BATCH_START, and the loss in its output is that of LOSS_CALCULATED. Nor is it
    told of an exception: put ``with session:`` around ``train()``, which aborts the run then. `LifecycleMixin` needs
    neither.

    Args:
        session: The session to drive; its protocol must allow ``training`` runs.

    Raises:
        TypeError: `session` is not a `CompressionSession`.
    """

    def __init__(self, session: CompressionSession) -> None:
        super().__init__(session)
        self._handles: tuple[Any, ...] = ()
        session.lifecycle.attach(self)

    def control(self, lifecycle: LifecycleView, action: Control, detail: object) -> None:
        """Watch no longer when the run has failed."""
        if action in {"abort", "reset"}:
            self._unwatch()

    def on_step_begin(self, args: Any, state: Any, control: Any, *, model: Any, **others: Any) -> None:
        """Watch the model while the step lasts."""
        self._handles = (
            model.register_forward_pre_hook(self._before_forward),
            model.register_forward_hook(self._after_forward),
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """End the last batch of the step."""
        self._unwatch()
        super().on_step_end(args, state, control, **others)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Watch no longer: a step that the epoch cuts short has no end of its own."""
        self._unwatch()

    def _before_forward(self, model: Any, inputs: Any) -> None:
        if self.session.lifecycle.can(_BATCH_START):
            self.session.batch_start()

    def _after_forward(self, model: Any, inputs: Any, output: Any) -> None:
        if self.session.lifecycle.can(_LOSS_CALCULATED):
            loss = _loss_in(output)
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                raise LifecycleError(
                    f"{type(model).__name__} returned no loss, so the Trainer computes it elsewhere, where a callback "
                    "does not see it; use LifecycleMixin"
                )
            self.session.loss_calculated(loss=loss)

    def _unwatch(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = ()


if TYPE_CHECKING:

    class _Trainer:
        callback_handler: Any
        compute_loss: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def train(self, *args: Any, **kwargs: Any) -> Any: ...
        def training_step(self, *args: Any, **kwargs: Any) -> Any: ...
        def evaluate(self, *args: Any, **kwargs: Any) -> Any: ...
        def predict(self, *args: Any, **kwargs: Any) -> Any: ...
        def save_model(self, *args: Any, **kwargs: Any) -> Any: ...
else:
    _Trainer = object


class LifecycleMixin(_Trainer):
    """Makes a Trainer drive a session: ``class MyTrainer(LifecycleMixin, Trainer)``.

    `train` begins a new run of the session, or goes on with the run that is saved in the checkpoint that it resumes
    from. An exception in it aborts the run. In evaluation, prediction and saving the session is suspended.

    Args:
        *args: What the Trainer takes.
        session: The session to drive; its protocol must allow ``training`` runs.
        **kwargs: What the Trainer takes.

    Attributes:
        session: The session.

    Raises:
        TypeError: `session` is not a `CompressionSession`.

    Examples:
        >>> from lifecycle.session import CompressionSession
        >>> from transformers import Trainer
        >>> class MyTrainer(LifecycleMixin, Trainer):
        ...     pass
    """

    def __init__(self, *args: Any, session: CompressionSession, **kwargs: Any) -> None:
        self._lifecycle_callback = _StepCallback(session)
        self.session = session
        super().__init__(*args, **kwargs)
        # First, because a callback may write a checkpoint as soon as a step has ended.
        self.callback_handler.callbacks.insert(0, self._lifecycle_callback)
        # Not a method, which a subclass that computes its own loss would override.
        self.compute_loss = self._telling(self.compute_loss)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; see `Trainer.train`."""
        try:
            return super().train(*args, **kwargs)
        except BaseException as error:
            self._lifecycle_callback.abort(error)
            raise

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run one batch forward and backward; see `Trainer.training_step`."""
        self.session.batch_start()
        loss = super().training_step(*args, **kwargs)
        # It may have computed the loss without `compute_loss`.
        if self.session.lifecycle.event.type_ is _BATCH_START:
            self.session.loss_calculated(loss=loss)
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; see `Trainer.evaluate`."""
        with self.session.lifecycle.suspended("evaluation"):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict; see `Trainer.predict`."""
        with self.session.lifecycle.suspended("prediction"):
            return super().predict(*args, **kwargs)

    def save_model(self, *args: Any, **kwargs: Any) -> Any:
        """Save the model; see `Trainer.save_model`."""
        with self.session.lifecycle.suspended("saving"):
            return super().save_model(*args, **kwargs)

    def _telling(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        """`compute_loss`, which tells the session of the first loss of each training batch."""

        @wraps(compute_loss)
        def told(*args: Any, **kwargs: Any) -> Any:
            result = compute_loss(*args, **kwargs)
            # It is called in evaluation as well.
            if self.session.lifecycle.can(_LOSS_CALCULATED):
                self.session.loss_calculated(loss=_loss_in(result))
            return result

        return told


def _saved_run(state: Any) -> Any:
    """The session as saved in the checkpoint that is resumed from; None in a new run.

    Raises:
        LifecycleError: The checkpoint has none, or one of another step.
    """
    saved = state.stateful_callbacks.get(SAVED_AS, {"global_step": 0, "session": None})
    if saved["global_step"] != state.global_step:
        what = f"of global_step {saved['global_step']}" if SAVED_AS in state.stateful_callbacks else "missing"
        raise LifecycleError(
            f"the checkpoint is of global_step {state.global_step}, but its saved session is {what}: resume from "
            "a checkpoint of a run with a session, or begin a new run with the weights of this one"
        )
    return saved["session"]


def _loss_in(result: Any) -> Any:
    """The loss in what a model or `compute_loss` has returned; None if it has none."""
    if isinstance(result, dict):
        return cast("dict[str, Any]", result).get("loss")
    return cast("Any", result)[0] if isinstance(result, (tuple, list)) else result


def _scale(optimizer: Any) -> float:
    """The scale of the gradients; a constant if they are not scaled."""
    scaler = optimizer.scaler
    return 0.0 if scaler is None else scaler.get_scale()
