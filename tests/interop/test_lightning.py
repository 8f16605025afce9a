from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from witness import Witness, block, check, loaders, network, run, same_weights

import pellucid

L = pytest.importorskip("lightning")


class Classifier(L.LightningModule):
    def __init__(self, opt_func=torch.optim.SGD):
        super().__init__()
        self.model, self.opt_func = network(), opt_func
        self.witness = Witness(self.model)

    def training_step(self, batch, _):
        x, y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, _):
        x, y = batch
        self.log("valid_loss", F.cross_entropy(self.model(x), y), batch_size=len(x))

    def configure_optimizers(self):
        return self.opt_func(self.parameters(), lr=0.1)

    def on_before_optimizer_step(self, _):
        self.witness.note_gradients()


def trained(watched: bool):
    lit = Classifier()
    loader, valid_loader = loaders()
    names = {"lit": lit, "loader": loader, "valid_loader": valid_loader}
    return run(block("Lightning"), names, watched=watched)


def logged(name: str) -> list[float]:
    file = max(Path("lightning_logs").glob("version_*/metrics.csv"))
    with file.open() as lines:
        return [float(row[name]) for row in csv.DictReader(lines) if row[name]]


def test_lightning():
    done = trained(watched=True)
    check(done.seen.history, done.lit.witness, logged("train_loss"))
    assert same_weights(done.lit, trained(watched=False).lit)


def test_fabric_wraps_the_optimizer():
    model = network()
    witness = Witness(model)
    fabric = L.Fabric(accelerator="cpu", devices=1)
    prepared, wrapped = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    losses = []
    with pellucid.watch(model, optimizer=wrapped, loss=True) as seen:
        for xb, yb in loaders()[0]:
            loss = F.cross_entropy(prepared(xb), yb)
            fabric.backward(loss)
            witness.note_gradients()
            wrapped.step()
            wrapped.zero_grad()
            losses.append(loss.item())
    check(seen.history, witness, losses)
