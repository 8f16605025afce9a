from __future__ import annotations

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import Dataset
from witness import Witness, block, check, images, loaders, network, run, same_weights

import pellucid

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


class Pictures(Dataset):
    """Rows as an image classifier of the library takes them."""

    def __init__(self, n: int, seed: int):
        self.pairs = images(n, seed)

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        x, y = self.pairs[i]
        return {"pixel_values": x, "labels": y}


def classifier():
    """A residual network of two stages, from its configuration alone."""
    torch.manual_seed(1)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config)


def trained(watched: bool):
    model = classifier()
    witness = Witness(model)
    hook = register_optimizer_step_pre_hook(witness.note_gradients)
    names = {"model": model, "train_set": Pictures(29, seed=1), "valid_set": Pictures(13, seed=2)}
    try:
        return run(block("Hugging Face"), names, watched=watched), witness
    finally:
        hook.remove()


def logged(trainer) -> list[float]:
    return [float(row["loss"]) for row in trainer.state.log_history if "loss" in row]


def test_trainer():
    done, witness = trained(watched=True)
    check(done.seen.history, witness, logged(done.trainer), loss_tolerance=1e-4)
    assert same_weights(done.model, trained(watched=False)[0].model)


def test_accelerate_wraps_the_optimizer():
    from accelerate import Accelerator

    model = network()
    witness = Witness(model)
    accelerator = Accelerator(cpu=True)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    prepared, wrapped, loader = accelerator.prepare(model, opt, loaders()[0])
    losses = []
    with pellucid.watch(prepared, optimizer=wrapped, loss=True) as seen:
        for xb, yb in loader:
            loss = torch.nn.functional.cross_entropy(prepared(xb), yb)
            accelerator.backward(loss)
            witness.note_gradients()
            wrapped.step()
            wrapped.zero_grad()
            losses.append(loss.item())
    check(seen.history, witness, losses)
