"""Statistics of several ranks made one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pellucid.activations.columns import Means, Readings, Timeline
from pellucid.activations.vector import HIGH, LOW, MEAN, RELU_MEAN, Count


def pool_ranks(readings: Mapping[Timeline, Readings], means: Iterable[Means], group: Any) -> None:
    """Give every rank the record of all, in place; `means` have the columns of the first timeline."""
    # Every rank must come through the same collectives with arrays of the same shape, or all of them hang. So columns
    # are made common first: a rank that alone validates has some that the others lack.
    for timeline in readings:
        timeline.spread(*common_columns(timeline.spans[: timeline.n], group))
    for timeline, table in readings.items():
        reduce_readings(table.cells[:, : timeline.n], group)
    for table in means:
        all_reduce(table.sums, dist.ReduceOp.SUM, group)
        all_reduce(table.counts, dist.ReduceOp.SUM, group)


def reduce_readings(cells: np.ndarray, group: Any) -> None:
    """Pool readings over the ranks in place: counts add, deviations are taken about the common mean."""
    # A cell that a rank has nothing in adds nothing: its counts are 0, its minimum is inf and its maximum −inf.
    low, high = cells[..., LOW].copy(), cells[..., HIGH].copy()
    all_reduce(low, dist.ReduceOp.MIN, group)
    all_reduce(high, dist.ReduceOp.MAX, group)
    own_n, own = cells[..., Count.N].copy(), cells.copy()
    totals = cells[..., Count.N :].copy()
    all_reduce(totals, dist.ReduceOp.SUM, group)
    # About the common mean, which takes a second exchange: Σx² over all ranks minus n · mean² would cancel.
    n = np.maximum(totals[..., 0], 1)
    for mean in (MEAN, RELU_MEAN):
        common = own[..., mean] * own_n
        all_reduce(common, dist.ReduceOp.SUM, group)
        common /= n
        deviations = own[..., mean + 1] + own_n * (own[..., mean] - common) ** 2
        all_reduce(deviations, dist.ReduceOp.SUM, group)
        cells[..., mean], cells[..., mean + 1] = common, deviations
    cells[..., LOW], cells[..., HIGH], cells[..., Count.N :] = low, high, totals


def all_reduce(array: np.ndarray, op: Any, group: Any) -> None:
    """Replace an array by the sum, minimum or maximum over the ranks."""
    # nccl moves memory of its own device only; gloo and mpi take the CPU's.
    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device)
    dist.all_reduce(tensor, op, group)
    array[...] = tensor.cpu().numpy()


def common_columns(spans: np.ndarray, group: Any) -> tuple[np.ndarray, np.ndarray]:
    """The columns of all ranks, and where this rank's are among them; a rank lacks some if another alone validates."""
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, spans, group)
    everything = np.concatenate(gathered)
    # A column is known by its first step, and ends where the rank that got furthest ended it.
    first, place = np.unique(everything[:, 0], return_inverse=True)
    common = np.stack([first, np.zeros_like(first)], axis=1)
    np.maximum.at(common[:, 1], place, everything[:, 1])
    return common, np.searchsorted(first, spans[:, 0])
