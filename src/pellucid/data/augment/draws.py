"""Random numbers for each image of a batch.

All come from torch's global generator on the CPU: what is drawn for a seed depends neither on the device nor on who
decodes the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pellucid.errors import UsageError

# What is taken in place of random values: one for all images, one an image, or a function of the batch that gives them.
Draw = float | Sequence[float] | Tensor | Callable[[Tensor], "float | Sequence[float] | Tensor"] | None


def uniform(low: float, high: float, *shape: int) -> Tensor:
    """Random numbers between `low` and `high`, float64, on the CPU."""
    return low + (high - low) * torch.rand(*shape, dtype=torch.float64, device="cpu")


def drawn(
    x: Tensor, low: float, high: float, p: float, neutral: float, draw: Draw = None, *, batch: bool = False
) -> Tensor:
    """A number for each image of a batch: with probability `p` one between `low` and `high`, else `neutral`.

    Args:
        x: The batch.
        low: Smallest random number.
        high: Largest one.
        p: Share of the images that get a number other than `neutral`.
        neutral: What leaves an image as it is.
        draw: Numbers to take in place of the random ones.
        batch: Draw once for the whole batch.

    Returns:
        float64, shape (image,), on the CPU.

    Raises:
        UsageError: `draw` has fewer numbers than the batch has images.
    """
    n = 1 if batch else len(x)
    values, hit = uniform(low, high, n), uniform(0, 1, n) < p
    if draw is not None:
        given = torch.as_tensor(draw(x) if callable(draw) else draw, dtype=torch.float64, device="cpu").flatten()
        if 1 < len(given) < len(x):
            raise UsageError(f"draw has {len(given)} numbers, and the batch {len(x)} images: give one each, or one")
        values = given[: len(x)]
    return torch.where(hit, values, neutral).expand(len(x))


def check_share(name: str, p: float) -> None:
    """Refuse what is no probability."""
    if not 0 <= p <= 1:
        raise UsageError(f"{name} must be a probability, from 0 to 1, got {p}")


def parts(rows: Tensor, x: Tensor) -> Iterator[Tensor]:
    """Row numbers of a batch in pieces that are worked on together.

    On the CPU these are as many images as there are threads, which stay in its caches from one operation to the next:
    64 images of 224 pixels are warped in two thirds of the time that the whole batch at once takes.
    """
    if len(rows):
        yield from rows.to(x.device).split(torch.get_num_threads() if x.device.type == "cpu" else len(rows))
