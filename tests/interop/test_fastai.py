from __future__ import annotations

import numpy as np
import pytest
from torch.nn import functional as F
from witness import Witness, block, check, loaders, network, run, same_weights

pytest.importorskip("fastai")
from fastai.callback.core import Callback
from fastai.callback.schedule import Learner  # the one with fit_one_cycle
from fastai.data.core import DataLoaders
from fastai.torch_core import TensorImageBW


class Noting(Callback):
    """Gradients and losses as fastai sees them."""

    def __init__(self, witness):
        self.witness, self.losses = witness, []

    def before_step(self):
        self.witness.note_gradients()
        self.losses.append(self.learn.loss.item())


def trained(watched: bool):
    model = network()
    witness = Witness(model)
    dls = DataLoaders(*([(TensorImageBW(xb), yb) for xb, yb in each] for each in loaders()))
    learn = Learner(dls, model, loss_func=F.cross_entropy, cbs=Noting(witness))
    return run(block("fastai"), {"learn": learn}, watched=watched), witness


def test_fastai():
    done, witness = trained(watched=True)
    check(done.seen.history, witness, done.learn.noting.losses)
    beta, mean = 0.98, 0.0
    for n, loss in enumerate(done.seen.history.loss, 1):
        mean = beta * mean + (1 - beta) * float(loss)
        assert done.learn.recorder.losses[n - 1] == pytest.approx(mean / (1 - beta**n), rel=1e-5)
    np.testing.assert_allclose(done.seen.history.hypers["lr"][0], done.learn.recorder.lrs, rtol=1e-6)
    assert same_weights(done.learn.model, trained(watched=False)[0].learn.model)
