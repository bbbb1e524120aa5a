"""``lifecycle demo``: the main job in small."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from lifecycle import Lifecycle, LifecycleError, trace
from lifecycle.demo import ActivationScales, MagnitudePruning, Network, batches, calibrate, train

if TYPE_CHECKING:
    from lifecycle.events import Event

__all__ = ["command"]

CALIBRATION_BATCHES = 8
STEPS_PER_EPOCH = 20
EPOCHS = 40


@click.command(name="demo")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False),
    default="lifecycle-demo.jsonl",
    show_default=True,
    help="Where to write the journal.",
)
def command(journal: str) -> None:
    """Calibrate and prune a small network under a lifecycle, then make a mistake."""
    network = Network()
    training, test = batches(STEPS_PER_EPOCH, seed=1), list(itertools.chain(*batches(STEPS_PER_EPOCH, seed=2)))
    layers = len(network.layers)
    lc = Lifecycle(steps_per_epoch=STEPS_PER_EPOCH, expect={"sequential_epochs": layers})
    ActivationScales(lc, network)
    pruning = MagnitudePruning(lc, network, start=10, end=25, update=1, sparsity=0.5)

    click.echo("A network of three layers learns which points lie in a ring.\n")
    total = layers * CALIBRATION_BATCHES + EPOCHS * STEPS_PER_EPOCH
    with (
        # Begun anew: a journal that is named by its path is continued.
        open(journal, "wb") as file,  # noqa: PTH123
        trace.Journal(file) as writer,
        click.progressbar(length=total, label="Calibrating and training", item_show_func=_position) as bar,
    ):
        tap, shown = lc.attach(writer), lc.on("batch_end", lambda event, payload: bar.update(1, event))
        with lc.session():
            calibrate(lc, network, training[:CALIBRATION_BATCHES])
            for _ in range(EPOCHS):
                train(lc, network, training)
        shown.remove()
        tap.remove()

    scales = ", ".join(f"{scale:.4f}" for scale in network.scales if scale)
    click.echo(f"\n{layers} layers calibrated to 8 bits, with the scales {scales}")
    click.echo(f"{network.sparsity():.0%} of the weights removed, in {pruning.prunings} prunings from epoch 10 to 25")
    click.echo(f"{network.accuracy(test):.0%} of unseen points on the right side\n")
    click.echo(f"The journal, checked (lifecycle check {journal}):\n")
    click.echo(trace.check(journal))

    click.echo("\nNow a mistake: a training loop that forgets to say that the optimizer has stepped.\n")
    lc.reset()
    try:
        with lc.session(), lc.batch(batch=training[0]):
            lc.loss_calculated(loss=network.loss(training[0]))
            lc.optim_pre_step()
    except LifecycleError as error:
        click.secho(f"{type(error).__name__}: {error}", fg="red")


def _position(event: Event | None) -> str:
    return "" if event is None else f"step {event.global_step}, epoch {event.current_index:.1f}"
