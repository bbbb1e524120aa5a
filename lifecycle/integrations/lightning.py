"""Lightning: a callback that drives a session through ``Trainer.fit``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lifecycle.errors import LifecycleError
from lifecycle.events import EventType
from lifecycle.integrations import require
from lifecycle.session import CompressionSession

Callback: Any = require("lightning.pytorch", "pip install lightning").Callback

from lifecycle.integrations.torch import attach, torch  # noqa: E402 # what to install is said for Lightning first

if TYPE_CHECKING:
    from lifecycle.integrations.torch import Attachment

__all__ = ["LifecycleCallback"]


class LifecycleCallback(Callback):  # type: ignore[misc] # the frameworks are not there when types are checked
    """Fires the events of a session while a Lightning `Trainer` fits.

    INITIALIZE comes when training starts, after the sanity check, with the model, the optimizer (a list if there are
    several), the data and the hardware. FINALIZE comes when training ends; an exception aborts the run instead.
    In validation the session is suspended. Every ``fit`` is a new run, but one that is given a checkpoint goes on with
    the run in it.

    The loss is the tensor that Lightning calls ``backward`` on: what ``training_step`` returned, divided by
    ``accumulate_grad_batches``, and scaled if the precision is ``16-mixed``. A batch without one, as when
    ``training_step`` returns None, has the loss NaN. Of several losses in one batch, those count that the protocol
    allows: in ``training``, the first.

    Args:
        session: The session to drive; its protocol must allow ``training`` runs. If several optimizers step in one
            batch, it needs ``invocations_per_step``.

    Attributes:
        session: The session.

    Raises:
        TypeError: `session` is not a `CompressionSession`.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from lifecycle.session import CompressionSession
        >>> callback = LifecycleCallback(CompressionSession(protocol="training"))
        >>> trainer = Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    def __init__(self, session: CompressionSession) -> None:
        if not isinstance(session, CompressionSession):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
            raise TypeError(f"session must be a CompressionSession, got {session!r}")
        self.session = session
        self._in_run = False
        self._attachments: list[Attachment] = []
        self._suspension = ExitStack()
        self._saved: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The session as it was after the last complete batch, for Lightning's checkpoints; empty before any run.

        FINALIZE is not in it: a finished ``fit`` may be prolonged from its last checkpoint.
        """
        return self._saved

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget the last run when a ``fit`` begins: a checkpoint is loaded after this."""
        if stage == "fit":
            self._saved = {}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Take the session that training goes on with.

        Raises:
            LifecycleError: The checkpoint has none, or one of another step.
        """
        if trainer.state.fn != "fit":
            return
        saved = checkpoint["callbacks"].get(self.state_key, {})
        # A checkpoint of no step has none: Lightning's `Tuner` writes it before training begins, and goes back to it.
        if saved.get("global_step", 0) != checkpoint["global_step"]:
            what = f"its session is of global_step {saved['global_step']}" if saved else "has no session"
            raise LifecycleError(
                f"the checkpoint is of global_step {checkpoint['global_step']}, but {what}: resume from one that was "
                "written with this callback, and after it, or begin a new run with the weights of this one"
            )
        self._saved = saved

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Fire INITIALIZE, or go on with the run that was loaded."""
        optimizers = trainer.optimizers
        payload = {
            "model": pl_module,
            "optimizer": optimizers[0] if len(optimizers) == 1 else optimizers,
            "data": trainer.train_dataloader,
            "hardware": pl_module.device,
        }
        if self.session.lifecycle.status in {"finalized", "aborted"}:
            self.session.reset()
        if self._saved:
            self.session.resume(self._saved["session"], **payload)
        else:
            self.session.initialize(**payload)
        self._in_run = True
        self._save(trainer)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        for optimizer in optimizers:
            self._attachments.append(attach(optimizer, scaler, session=self.session))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Fire BATCH_START."""
        self.session.batch_start()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Fire LOSS_CALCULATED."""
        if self.session.lifecycle.can(EventType.LOSS_CALCULATED):
            self.session.loss_calculated(loss=loss)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """See that there is a loss. The optimizer events themselves come from torch's hooks, right after this."""
        self._require_loss()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Fire BATCH_END."""
        self._end_batch(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Suspend the session, if it is in a run."""
        if self._in_run:
            self._suspension.enter_context(self.session.lifecycle.suspended("validation"))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Go on."""
        self._suspension.close()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Fire BATCH_END for a batch that the module has refused, which ends the epoch without a further hook."""
        self._end_batch(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Fire FINALIZE."""
        # First, because a run that it is refused in has failed.
        self.session.finalize()
        self._leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Abort the run, if it has begun."""
        if self._in_run:
            self._leave()
            self.session.abort(exception)

    def _require_loss(self) -> None:
        if self.session.lifecycle.event.type_ is EventType.BATCH_START:
            self.session.loss_calculated(loss=torch.tensor(float("nan")))

    def _end_batch(self, trainer: Any) -> None:
        # No batch is open where the loader gave None, of which Lightning tells the end but not the start.
        if not self.session.lifecycle.can(EventType.BATCH_START):
            self._require_loss()
            self.session.batch_end()
            self._save(trainer)

    def _save(self, trainer: Any) -> None:
        self._saved = {"global_step": trainer.global_step, "session": self.session.state_dict()}

    def _leave(self) -> None:
        self._in_run = False
        self._suspension.close()
        while self._attachments:
            self._attachments.pop().remove()
