import math

import pytest

from lifecycle import Lifecycle
from lifecycle.demo import ActivationScales, MagnitudePruning, Network, batches, calibrate, train

DATA = batches(6, seed=3)


def test_the_gradients_are_those_of_the_loss():
    network = Network(sizes=(2, 3), seed=5)
    gradients = network.gradients(DATA[0])
    shift = 1e-6
    for layer, layer_gradients in zip(network.layers, gradients, strict=True):
        for unit, unit_gradients in zip(layer, layer_gradients, strict=True):
            for index, gradient in enumerate(unit_gradients):
                weight = unit[index]
                unit[index] = weight + shift
                above = network.loss(DATA[0])
                unit[index] = weight - shift
                below = network.loss(DATA[0])
                unit[index] = weight
                assert gradient == pytest.approx((above - below) / (2 * shift), abs=1e-6)


def test_calibration_sets_the_scale_of_each_layer_to_the_range_it_saw():
    network, lc = Network(), Lifecycle("sequential")
    ActivationScales(lc, network)
    with lc.session():
        calibrate(lc, network, DATA)
    largest = max(abs(value) for batch in DATA for point, _ in batch for value in point)
    assert network.scales[0] == largest / 127
    assert all(0 < scale <= largest / 127 for scale in network.scales)
    assert (lc.progress.total_sequential_epochs, lc.event.global_batch) == (3, 18)


def test_values_beyond_the_scale_are_clipped():
    network = Network(sizes=(2,))
    network.layers = [[[1.0, 0.0, 0.0]]]
    network.scales = [1 / 127]
    assert network.activations([5.0, 0.0])[-1] == network.activations([1.0, 0.0])[-1]


def test_pruning_follows_its_schedule_and_keeps_what_it_removed():
    network, lc = Network(), Lifecycle("training", steps_per_epoch=6)
    pruning = MagnitudePruning(lc, network, start=1, end=3, update=1, sparsity=0.5)
    shares = []
    lc.on("batch_end", lambda event, payload: shares.append((event.global_step, round(network.sparsity(), 2))))
    with lc.session():
        for _ in range(4):
            train(lc, network, DATA)
    assert [share for _, share in shares] == [0.0] * 5 + [0.25] * 6 + [0.5] * 13
    assert pruning.prunings == 3


def test_the_smallest_weights_are_removed():
    network, lc = Network(sizes=(2,)), Lifecycle("training", steps_per_epoch=1)
    network.layers = [[[0.1, -3.0, 9.0]]]
    pruning = MagnitudePruning(lc, network, start=0, end=1, update=1, sparsity=0.5)
    pruning.choose(0.5)
    assert pruning.removed == {(0, 0, 0)}


def test_training_lowers_the_loss():
    network, lc = Network(), Lifecycle("training")
    samples = [sample for batch in DATA for sample in batch]
    before = network.loss(samples)
    with lc.session():
        for _ in range(30):
            train(lc, network, DATA)
    assert network.loss(samples) < 0.9 * before


def test_the_points_of_a_batch_are_labelled_by_their_distance():
    for batch in DATA:
        assert len(batch) == 16
        for (x, y), target in batch:
            assert target == (0.7 < math.hypot(x, y) < 1.6)
