"""What the modifiers of a session share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

__all__ = ["State"]


class State(SimpleNamespace):
    """What the modifiers of a session share: these five, and whatever else INITIALIZE brings or a modifier adds.

    Args:
        model: The model that is compressed.
        optimizer: The optimizer that trains it.
        loss: The loss function.
        data: The data that it is calibrated or trained with.
        hardware: What it runs on.
        **others: What else the modifiers need.

    Examples:
        >>> state = State(model="a model", teacher="a larger one")
        >>> state.temperature = 2.0
        >>> state.model, state.teacher, state.temperature, state.optimizer
        ('a model', 'a larger one', 2.0, None)
    """

    def __init__(
        self,
        *,
        model: Any = None,
        optimizer: Any = None,
        loss: Any = None,
        data: Any = None,
        hardware: Any = None,
        **others: Any,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, loss=loss, data=data, hardware=hardware, **others)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
