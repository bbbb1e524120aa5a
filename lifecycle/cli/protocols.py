"""``lifecycle protocols``: the built-in protocols."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("protocols")
def command() -> None:
    """List the built-in protocols.

    The letters: I INITIALIZE, C CALIBRATION_EPOCH_START, B BATCH_START, L LOSS_CALCULATED, P OPTIM_PRE_STEP, O
    OPTIM_POST_STEP, E BATCH_END, S SEQUENTIAL_EPOCH_END, K CALIBRATION_EPOCH_END, F FINALIZE; c is a calibration batch,
    b one that may also train, t a training batch.
    """
    from lifecycle.protocols import BUILT_IN

    width = max(map(len, BUILT_IN))
    for protocol in BUILT_IN.values():
        click.echo(f"{protocol.name:{width}}  {protocol.description}")
