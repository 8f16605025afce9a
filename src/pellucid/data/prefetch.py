"""Batches on their way to a GPU while it computes the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def one_ahead(batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batches with their first tensor on the GPU, each copied there while the one before is used.

    A copy runs beside the computation only if it starts from pinned memory and on a stream of its own.
    """
    copying = torch.cuda.Stream(device)

    def sent(pixels: Tensor) -> tuple[Tensor, Any]:
        with torch.cuda.stream(copying):
            return pixels.pin_memory().to(device, non_blocking=True), copying.record_event()

    def arrived(pixels: Tensor, arrival: Any) -> Tensor:
        computing = torch.cuda.current_stream(device)
        computing.wait_event(arrival)
        pixels.record_stream(computing)  # its memory is not used again before the computation has read it
        return pixels

    waiting: tuple[tuple[Tensor, Any], Tensor] | None = None
    for pixels, positions in batches:
        ahead = sent(pixels), positions
        if waiting is not None:
            yield arrived(*waiting[0]), waiting[1]
        waiting = ahead
    if waiting is not None:
        yield arrived(*waiting[0]), waiting[1]


def default_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
