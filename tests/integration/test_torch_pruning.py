"""LLM Compressor's ConstantPruningModifier in a loop written by hand."""

import pytest
import torch
from llmcompressor.modifiers.pruning import ConstantPruningModifier

from lifecycle.integrations.llmcompressor import adapt
from lifecycle.integrations.torch import attach
from lifecycle.session import CompressionSession


def pruned_model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    with torch.no_grad():
        for layer in linears(model):
            layer.weight[layer.weight.abs() <= layer.weight.abs().median()] = 0.0
    return model


def linears(model):
    return [layer for layer in model if isinstance(layer, torch.nn.Linear)]


def zeros(model):
    return [(layer.weight == 0).sum().item() for layer in linears(model)]


def loss_of(model, batch):
    generator = torch.Generator().manual_seed(batch)
    data, target = torch.randn(4, 8, generator=generator), torch.randn(4, 2, generator=generator)
    return (model(data) - target).pow(2).mean()


def train(model, optimizer, scaler, session):
    """Five steps with an accumulation of two, the last on a partial group and the second skipped."""
    for batch in range(9):
        with session.batch():
            loss = loss_of(model, batch)
            session.loss_calculated(loss=loss)
            scaler.scale(loss).backward()
            if batch == 3:
                linears(model)[0].weight.grad[0, 0] = torch.inf
            if batch % 2 == 1 or batch == 8:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()


class Run:
    """A pruned model, and what trains it."""

    def __init__(self, *, fused=False):
        self.model = pruned_model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05, fused=fused)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
        pruning = adapt(ConstantPruningModifier(targets=["Linear"], start=0))
        self.session = CompressionSession(pruning, "training", batches_per_step=2)

    def train(self):
        self.session.initialize(model=self.model, optimizer=self.optimizer)
        train(self.model, self.optimizer, self.scaler, self.session)


@pytest.mark.parametrize("fused", [False, True])
def test_a_pruned_model_keeps_its_zeros_at_every_step(fused):
    run = Run(fused=fused)
    before = linears(run.model)[0].weight.detach().clone()
    at_every_step = []
    run.session.lifecycle.on("optim_post_step", lambda event, payload: at_every_step.append(zeros(run.model)))
    with run.session, attach(run.optimizer, run.scaler):
        run.train()
    assert at_every_step == [[64, 16]] * 5
    assert zeros(run.model) == [64, 16]
    assert run.session.lifecycle.event.global_step == 4
    # All that is not pruned has been trained.
    assert torch.equal(linears(run.model)[0].weight != before, before != 0)


def test_without_the_optimizer_events_it_loses_them():
    run = Run()
    with run.session:
        run.train()
    assert zeros(run.model) == [0, 0]


def test_without_the_session_it_loses_them():
    run = Run()
    unheard = CompressionSession(protocol="training")
    unheard.initialize()
    train(run.model, run.optimizer, run.scaler, unheard)
    assert zeros(run.model) == [0, 0]
