from __future__ import annotations

import torch
from torch.nn import functional as F
from witness import Witness, block, check, loaders, network, run, same_weights


def trained(watched: bool):
    model = network()
    witness = Witness(model)
    opt = torch.optim.AdamW(model.parameters(), lr=0.01)
    opt.register_step_pre_hook(witness.note_gradients)
    loader, valid_loader = loaders()
    names = {"model": model, "opt": opt, "loader": loader, "valid_loader": valid_loader}
    return run(block("A loop of your own"), names, watched=watched), witness


def test_a_loop_of_your_own():
    done, witness = trained(watched=True)
    labels = [yb for _ in range(2) for _, yb in loaders()[0]]
    losses = [F.cross_entropy(each["5"][0], yb).item() for each, yb in zip(witness.passes, labels, strict=True)]
    check(done.seen.history, witness, losses)
    assert same_weights(done.model, trained(watched=False)[0].model)
