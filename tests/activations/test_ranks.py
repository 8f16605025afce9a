"""Two real processes with gloo between them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import pellucid

X = torch.randn(3, 16, 4, generator=torch.Generator().manual_seed(5))
Y = torch.arange(16) % 3


def both(rank: int, folder: str) -> None:
    """What each of the two processes does."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    train(rank, f"{folder}/watched")
    fit(rank, f"{folder}/learner")
    dist.destroy_process_group()
    # gloo's threads live on and may let go of a tensor while the interpreter ends, which aborts the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def train(rank: int, folder: str) -> None:
    """Rank 0 trains on ten rows of each batch and validates, rank 1 trains on six; both save what they recorded."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    parallel = DistributedDataParallel(model)
    opt = torch.optim.SGD(parallel.parameters(), lr=0.1)
    rows = slice(0, 10) if rank == 0 else slice(10, 16)
    with pellucid.watch(parallel, optimizer=opt, loss=True) as seen:
        for i, batch in enumerate(X):
            F.cross_entropy(parallel(batch[rows]), Y[rows]).backward()
            opt.step()
            opt.zero_grad()
            if rank == 0 and i != 1:
                model.eval()
                model(batch[:5])
                model.train()
    seen.history.save(f"{folder}/{rank}")


def fit(rank: int, folder: str) -> None:
    """As `train`, by a learner with statistics, for two epochs."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    rows = slice(0, 10) if rank == 0 else slice(10, 16)
    batches = [(batch[rows], Y[rows]) for batch in X]
    dls = pellucid.DataLoaders(batches, batches)
    stats = pellucid.ActivationStats()
    learn = pellucid.Learner(dls, model, loss_func=nn.CrossEntropyLoss(), cbs=stats)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 0.1)
    stats.history.save(f"{folder}/{rank}")
    np.save(f"{folder}/{rank}.npy", learn.recorder.raw_losses)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The folder of what both processes recorded."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(both, (str(folder),), nprocs=2)
    return folder


def test_ranks_record_what_one_process_would(saved):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    outputs, losses = [], []
    for batch in X:
        outputs.append([model[0](batch).detach(), model[:2](batch).detach(), model(batch).detach()])
        parts = [F.cross_entropy(model(batch[rows]), Y[rows]) for rows in (slice(0, 10), slice(10, 16))]
        loss = torch.stack(parts).mean()
        losses.append(loss.item())
        loss.backward()
        opt.step()
        opt.zero_grad()
    for rank in range(2):
        h = pellucid.History.load(saved / "watched" / str(rank))
        np.testing.assert_allclose(h.loss, losses, rtol=1e-5)
        for column, layers in enumerate(outputs):
            for row, x in enumerate(layers):
                assert h.train.count[row, column] == x.numel()
                assert h.train.mean[row, column] == pytest.approx(x.double().mean().item(), rel=1e-4, abs=1e-6)
                assert h.train.std[row, column] == pytest.approx(x.double().std().item(), rel=1e-4)
                assert h.train.min[row, column] == pytest.approx(x.min().item(), rel=1e-4)
        assert h.valid.steps[:, 0].tolist() == [1, 3]
        assert h.valid.count[0].tolist() == [40, 40]


def test_a_learners_statistics_have_the_loss_of_all_ranks(saved):
    own = np.stack([np.load(saved / "learner" / f"{rank}.npy") for rank in range(2)])
    assert np.abs(own[0] - own[1]).min() > 0.001
    for rank in range(2):
        h = pellucid.History.load(saved / "learner" / str(rank))
        np.testing.assert_allclose(h.loss, own.mean(0), rtol=1e-5)
        assert h.train.count[0].tolist() == [16 * 8] * 6
        np.testing.assert_allclose(h.hypers["lr"], [[0.1] * 6] * 2, rtol=1e-6)  # weights, biases
        assert list(h.epochs) == ["train_loss", "valid_loss"] and len(h.epochs["valid_loss"]) == 2
