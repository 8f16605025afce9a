"""Small helpers of notebooks: tensors from anything, the first batch, the sample photo."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def tensor(x: Any, *rest: Any, **options: Any) -> Tensor:
    """Make a tensor of numbers, nested lists, an array or a Pillow image (uint8, row × column [× channel]).

    `tensor(1, 2, 3)` is `tensor([1, 2, 3])`; `options` go to `torch.tensor`.
    """
    if rest:
        x = (x, *rest)
    if isinstance(x, Image.Image):
        x = np.array(x)
    return torch.tensor(x, **options) if not isinstance(x, Tensor) else x


def image2tensor(image: Image.Image) -> Tensor:
    """Pillow image → uint8 tensor (channel, row, column)."""
    pixels = tensor(image)
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def first(items: Iterable[Any]) -> Any:
    """The first item: `first(dls.valid)` is a batch."""
    return next(iter(items))


def to_cpu(batch: Any) -> Any:
    """Move tensors to the CPU, inside lists, tuples and dicts too."""
    if isinstance(batch, Tensor):
        return batch.cpu()
    if isinstance(batch, dict):
        return {key: to_cpu(value) for key, value in batch.items()}
    return type(batch)(map(to_cpu, batch)) if isinstance(batch, list | tuple) else batch


def to_np(batch: Any) -> Any:
    """Tensors as numpy arrays, inside lists, tuples and dicts too."""
    if isinstance(batch, Tensor):
        return batch.detach().cpu().numpy()
    if isinstance(batch, dict):
        return {key: to_np(value) for key, value in batch.items()}
    return type(batch)(map(to_np, batch)) if isinstance(batch, list | tuple) else batch


def image_bear() -> Path:
    """A colour photograph to try things on: a sample picture that matplotlib ships, in place of the book's bear."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
