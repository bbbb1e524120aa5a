"""The built-in protocols.

The letters: I INITIALIZE, C CALIBRATION_EPOCH_START, B BATCH_START, L LOSS_CALCULATED, P OPTIM_PRE_STEP,
O OPTIM_POST_STEP, E BATCH_END, S SEQUENTIAL_EPOCH_END, K CALIBRATION_EPOCH_END, F FINALIZE.

Each language is written as a regular expression, with ``c = B (E | L E)`` for a calibration batch, which may be forward
only, ``b = c | B L P O E`` for one that may also train the layer, and ``t = B L (E | P O E)`` for a training batch.
"""

from __future__ import annotations

import contextlib

from lifecycle.errors import ProtocolError
from lifecycle.events import EventType, nearest
from lifecycle.protocol import REPEATED, Protocol, Transition

__all__ = [
    "BASIC",
    "BUILT_IN",
    "COMPRESSION",
    "DATA_FREE",
    "SEQUENTIAL",
    "TRAINING",
    "TRAINING_MICROBATCHED",
    "UPSTREAM",
    "find",
    "get",
]

I = EventType.INITIALIZE  # noqa: E741
C = EventType.CALIBRATION_EPOCH_START
B = EventType.BATCH_START
L = EventType.LOSS_CALCULATED
P = EventType.OPTIM_PRE_STEP
O = EventType.OPTIM_POST_STEP  # noqa: E741
E = EventType.BATCH_END
S = EventType.SEQUENTIAL_EPOCH_END
K = EventType.CALIBRATION_EPOCH_END
F = EventType.FINALIZE

CREATED = "created"
READY = "session.ready"
STARTED, LOSS, PENDING, TAKEN = (f"session.batch.{part}" for part in ("started", "loss", "step.pending", "step.taken"))
OPEN = "session.calibration.open"
LAYER_ENDED = "session.calibration.layer_ended"
CALIBRATION_STARTED, CALIBRATION_LOSS, CALIBRATION_PENDING, CALIBRATION_TAKEN = (
    f"session.calibration.batch.{part}" for part in ("started", "loss", "step.pending", "step.taken")
)
FINALIZED = "finalized"

_BEGIN = Transition(CREATED, I, READY)
_END = Transition(READY, F, FINALIZED)
_TRAINING_BATCH = (
    Transition(READY, B, STARTED),
    Transition(STARTED, L, LOSS),
    Transition(LOSS, P, PENDING),
    Transition(PENDING, O, TAKEN),
    Transition(TAKEN, E, READY),
    Transition(LOSS, E, READY),
)
_CALIBRATION_BATCH = (
    Transition(OPEN, B, CALIBRATION_STARTED),
    Transition(CALIBRATION_STARTED, L, CALIBRATION_LOSS),
    Transition(CALIBRATION_LOSS, E, OPEN),
    Transition(CALIBRATION_STARTED, E, OPEN),
)

COMPRESSION = Protocol(
    "compression",
    description="I (C (b | S)* K | t)* F: any mix of calibration, layer by layer or not, and training",
    states=(
        CREATED,
        READY,
        STARTED,
        LOSS,
        PENDING,
        TAKEN,
        OPEN,
        CALIBRATION_STARTED,
        CALIBRATION_LOSS,
        CALIBRATION_PENDING,
        CALIBRATION_TAKEN,
        FINALIZED,
    ),
    transitions=(
        _BEGIN,
        *_TRAINING_BATCH,
        Transition(READY, C, OPEN),
        *_CALIBRATION_BATCH,
        Transition(CALIBRATION_LOSS, P, CALIBRATION_PENDING),
        Transition(CALIBRATION_PENDING, O, CALIBRATION_TAKEN),
        Transition(CALIBRATION_TAKEN, E, OPEN),
        Transition(OPEN, S, OPEN),
        Transition(OPEN, K, READY),
        _END,
    ),
    initial=CREATED,
    final=[FINALIZED],
)

DATA_FREE = Protocol(
    "data_free",
    description="I (C S? K)* F: weights only, no batches",
    states=(CREATED, READY, OPEN, LAYER_ENDED, FINALIZED),
    transitions=(
        _BEGIN,
        Transition(READY, C, OPEN),
        Transition(OPEN, S, LAYER_ENDED),
        Transition(OPEN, K, READY),
        Transition(LAYER_ENDED, K, READY),
        _END,
    ),
    initial=CREATED,
    final=[FINALIZED],
)

BASIC = Protocol(
    "basic",
    description="I (C c* S? K)* F: one calibration pass over the whole model",
    states=(CREATED, READY, OPEN, CALIBRATION_STARTED, CALIBRATION_LOSS, LAYER_ENDED, FINALIZED),
    transitions=(
        _BEGIN,
        Transition(READY, C, OPEN),
        *_CALIBRATION_BATCH,
        Transition(OPEN, S, LAYER_ENDED),
        Transition(OPEN, K, READY),
        Transition(LAYER_ENDED, K, READY),
        _END,
    ),
    initial=CREATED,
    final=[FINALIZED],
)

SEQUENTIAL = Protocol(
    "sequential",
    description="I (C (c* S)+ K)* F: layer by layer; every batch belongs to a layer that ends",
    states=(CREATED, READY, OPEN, CALIBRATION_STARTED, CALIBRATION_LOSS, LAYER_ENDED, FINALIZED),
    transitions=(
        _BEGIN,
        Transition(READY, C, OPEN),
        *_CALIBRATION_BATCH,
        Transition(OPEN, S, LAYER_ENDED),
        Transition(LAYER_ENDED, B, CALIBRATION_STARTED),
        Transition(LAYER_ENDED, S, LAYER_ENDED),
        Transition(LAYER_ENDED, K, READY),
        _END,
    ),
    initial=CREATED,
    final=[FINALIZED],
)

TRAINING = Protocol(
    "training",
    description="I t* F: compression-aware training",
    states=(CREATED, READY, STARTED, LOSS, PENDING, TAKEN, FINALIZED),
    transitions=(_BEGIN, *_TRAINING_BATCH, _END),
    initial=CREATED,
    final=[FINALIZED],
)

TRAINING_MICROBATCHED = Protocol(
    "training_microbatched",
    description="I (B L+ (P O)? E)* F: the losses of several micro-batches inside one batch",
    states=TRAINING.states,
    transitions=(*TRAINING.transitions, Transition(LOSS, L, LOSS)),
    initial=CREATED,
    final=[FINALIZED],
)

# LLM Compressor remembers the last batch event only, and takes any that is not earlier in the order B L P O E; a
# BATCH_START also after anything but a BATCH_START. C, S and K it takes anywhere. Measured on 0.5 to 0.14.
_REMEMBERED = ((B, STARTED), (L, LOSS), (P, PENDING), (O, TAKEN), (E, READY))

UPSTREAM = Protocol(
    "upstream",
    description="what LLM Compressor 0.5 to 0.14 accepts: for migration and comparison",
    states=(CREATED, READY, STARTED, LOSS, PENDING, TAKEN, FINALIZED),
    transitions=(
        Transition(CREATED, I, READY),
        *(Transition(state, B, STARTED) for _, state in _REMEMBERED if state != STARTED),
        *(
            Transition(state, event, target)
            for position, (_, state) in enumerate(_REMEMBERED)
            for event, target in _REMEMBERED[max(position, 1) :]
        ),
        *(Transition(state, event, state) for _, state in _REMEMBERED for event in (I, C, S, K)),
        *(Transition(state, F, FINALIZED) for _, state in _REMEMBERED),
    ),
    initial=CREATED,
    final=[FINALIZED],
)

BUILT_IN: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (COMPRESSION, DATA_FREE, BASIC, SEQUENTIAL, TRAINING, TRAINING_MICROBATCHED, UPSTREAM)
}
"""The built-in protocols by name."""


def find(name: str) -> Protocol | None:
    """The protocol of a name, if that is built in or made from one that is by `repeat_steps`.

    Examples:
        >>> find("training+repeat_steps")
        <Protocol 'training+repeat_steps': 7 states, 9 transitions>
    """
    protocol = BUILT_IN.get(name.removesuffix(REPEATED))
    if protocol is None or protocol.name == name:
        return protocol
    with contextlib.suppress(ProtocolError):
        return protocol.repeat_steps()
    return None


def get(name: str) -> Protocol:
    """A built-in protocol by its name; ``"training+repeat_steps"`` is that made by `repeat_steps`.

    Raises:
        ProtocolError: There is none of that name.
        TypeError: `name` is not a string.

    Examples:
        >>> get("training")
        <Protocol 'training': 7 states, 8 transitions>
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] # callers may have no types
        raise TypeError(f"the name of a protocol must be a string, got {name!r}")
    protocol = find(name)
    if protocol is None:
        raise ProtocolError(f"{name!r} is not a built-in protocol; {nearest(name, BUILT_IN)}")
    return protocol
