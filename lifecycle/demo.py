"""The main job in small: a network that is calibrated layer by layer and then trained while it is pruned.

Everything is pure Python, and everything real: the network learns which points lie in a ring, its layers get the scales
of 8-bit activations, and its smallest weights are removed on a schedule. Both modifiers do their work in events.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lifecycle.engine import Lifecycle
    from lifecycle.events import Event
    from lifecycle.protocol.rules import Payload

__all__ = ["ActivationScales", "MagnitudePruning", "Network", "batches", "calibrate", "train"]

INT8_MAX = 127
BATCH_SIZE = 16
LEARNING_RATE = 0.5

Vector = list[float]
Batch = list[tuple[Vector, float]]


class Network:
    """A multi-layer perceptron with one output: the probability that a point lies in the ring.

    Args:
        sizes: Width of the input and of each hidden layer; the output has width 1.
        seed: Of the first weights.
    """

    def __init__(self, sizes: Sequence[int] = (2, 12, 8), seed: int = 0) -> None:
        rng = random.Random(seed)  # noqa: S311 # weights, not secrets
        shapes = zip(sizes, (*sizes[1:], 1), strict=True)
        # A row of weights for each unit, its bias last.
        self.layers = [
            [[*(rng.gauss(0, 1 / math.sqrt(n)) for _ in range(n)), 0.0] for _ in range(m)] for n, m in shapes
        ]
        self.scales: list[float | None] = [None] * len(self.layers)

    def activations(self, point: Vector) -> list[Vector]:
        """The inputs of every layer, and the output last."""
        values = [point]
        for number, layer in enumerate(self.layers):
            scale = self.scales[number]
            inputs = values[-1]
            if scale is not None:
                inputs = [scale * max(-INT8_MAX, min(INT8_MAX, round(value / scale))) for value in inputs]
            sums = [sum(w * x for w, x in zip(unit, inputs, strict=False)) + unit[-1] for unit in layer]
            last = number == len(self.layers) - 1
            values.append([1 / (1 + math.exp(-s)) if last else math.tanh(s) for s in sums])
        return values

    def loss(self, batch: Batch) -> float:
        """The mean cross-entropy."""
        outputs = [(self.activations(point)[-1][0], target) for point, target in batch]
        return -sum(math.log(max(p if t else 1 - p, 1e-12)) for p, t in outputs) / len(outputs)

    def accuracy(self, batch: Batch) -> float:
        """The share of points that are put on the right side."""
        return sum((self.activations(point)[-1][0] > 0.5) == bool(target) for point, target in batch) / len(batch)  # noqa: PLR2004

    def gradients(self, batch: Batch) -> list[list[Vector]]:
        """The mean gradient of the loss, shaped like `layers`; rounding to the scales is passed through."""
        totals = [[[0.0] * len(unit) for unit in layer] for layer in self.layers]
        for point, target in batch:
            values = self.activations(point)
            errors = [values[-1][0] - target]
            for number in reversed(range(len(self.layers))):
                layer, inputs = self.layers[number], values[number]
                for unit_total, error in zip(totals[number], errors, strict=True):
                    for index, value in enumerate((*inputs, 1.0)):
                        unit_total[index] += error * value / len(batch)
                back = [sum(e * unit[i] for e, unit in zip(errors, layer, strict=True)) for i in range(len(inputs))]
                errors = [b * (1 - x * x) for b, x in zip(back, inputs, strict=True)]
        return totals

    def step(self, gradients: list[list[Vector]]) -> None:
        """One step of gradient descent."""
        for layer, layer_gradients in zip(self.layers, gradients, strict=True):
            for unit, unit_gradients in zip(layer, layer_gradients, strict=True):
                unit[:] = [w - LEARNING_RATE * g for w, g in zip(unit, unit_gradients, strict=True)]

    def sparsity(self) -> float:
        """The share of weights that are zero, biases left aside."""
        weights = [w for layer in self.layers for unit in layer for w in unit[:-1]]
        return weights.count(0.0) / len(weights)


class ActivationScales:
    """Learns the range of a layer's inputs from the batches, and sets its scale when the layer ends."""

    def __init__(self, lifecycle: Lifecycle, network: Network) -> None:
        self.network = network
        self.layer = 0
        self.largest = 0.0
        lifecycle.on("batch_start", self.observe, when=lambda event, payload: lifecycle.progress.calibrating)
        lifecycle.on("sequential_epoch_end", self.set_scale)

    def observe(self, event: Event, payload: Payload) -> None:
        """See a batch."""
        seen = (abs(value) for point, _ in payload["batch"] for value in self.network.activations(point)[self.layer])
        self.largest = max(self.largest, *seen)

    def set_scale(self, event: Event, payload: Payload) -> None:
        """Fix the scale of the layer that has ended, and turn to the next."""
        self.network.scales[self.layer] = self.largest / INT8_MAX
        self.layer, self.largest = self.layer + 1, 0.0


class MagnitudePruning:
    """Removes the smallest weights, more of them each time the schedule is due, and keeps them removed.

    Args:
        lifecycle: The run; its events must be epoch based.
        network: What is pruned.
        start: First epoch of the schedule.
        end: Last epoch of the schedule, when `sparsity` is reached.
        update: Epochs from one pruning to the next.
        sparsity: The share of weights to remove in the end.
    """

    def __init__(
        self, lifecycle: Lifecycle, network: Network, *, start: float, end: float, update: float, sparsity: float
    ) -> None:
        self.network = network
        self.start, self.end, self.update, self.sparsity = start, end, update, sparsity
        self.removed: set[tuple[int, int, int]] = set()
        self.prunings = 0
        lifecycle.on("optim_post_step", self.prune)

    def prune(self, event: Event, payload: Payload) -> None:
        """Choose weights if the schedule is due; set those that were chosen to zero."""
        if event.should_update(self.start, self.end, self.update):
            self.prunings += 1
            done = (event.current_index - self.start) / (self.end - self.start)
            self.choose(self.sparsity * min(1.0, done + self.update / (self.end - self.start)))
        for layer, unit, index in self.removed:
            self.network.layers[layer][unit][index] = 0.0

    def choose(self, share: float) -> None:
        """Take the smallest `share` of all weights."""
        weights = {
            (number, row, index): abs(weight)
            for number, layer in enumerate(self.network.layers)
            for row, unit in enumerate(layer)
            for index, weight in enumerate(unit[:-1])
        }
        self.removed = set(sorted(weights, key=weights.__getitem__)[: round(share * len(weights))])


def batches(count: int, seed: int) -> list[Batch]:
    """Random points with whether they lie in the ring, in `count` batches."""
    rng = random.Random(seed)  # noqa: S311 # points, not secrets
    points = [[rng.uniform(-2, 2), rng.uniform(-2, 2)] for _ in range(count * BATCH_SIZE)]
    samples = [(point, float(0.7 < math.hypot(*point) < 1.6)) for point in points]  # noqa: PLR2004
    return [samples[begin : begin + BATCH_SIZE] for begin in range(0, len(samples), BATCH_SIZE)]


def calibrate(lifecycle: Lifecycle, network: Network, data: Sequence[Batch]) -> None:
    """Show every layer all batches, one layer after the other."""
    with lifecycle.calibration_epoch():
        for number in range(len(network.layers)):
            for batch in data:
                with lifecycle.batch(batch=batch):
                    pass
            lifecycle.sequential_epoch_end(modules=[f"layers.{number}"])


def train(lifecycle: Lifecycle, network: Network, data: Iterable[Batch]) -> None:
    """One optimizer step for every batch."""
    for batch in data:
        with lifecycle.batch(batch=batch):
            gradients: Any = network.gradients(batch)
            lifecycle.loss_calculated(loss=network.loss(batch))
            lifecycle.optim_pre_step()
            network.step(gradients)
            lifecycle.optim_post_step()
