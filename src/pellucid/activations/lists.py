"""The statistics of a fit in the form in which fastai keeps them: lists over the training batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.errors import UsageError

if TYPE_CHECKING:
    from fastcore.foundation import L
    from torch import Tensor

    from pellucid.history.history import History


class Lists:
    """Reads `self.history`; layers go by name, or by number among those with parameters (−2 is the last but one).

    Over a long fit each value stands for several batches, as the columns of the history do.
    """

    history: Any

    @property
    def stats(self) -> L:
        """A dict `mean, std, near_zero` (and `hist`, if recorded) for each layer with parameters, for each batch."""
        from fastcore.foundation import L

        history = _recorded(self.history)
        rows = [i for i, layer in enumerate(history.layers) if layer.role == "layer"]
        table: dict[str, Any] = {name: _values(history, name)[rows] for name in ("mean", "std", "near_zero")}
        if history.train.hist is not None:
            table["hist"] = _positive(history.train.hist[rows])

        def cell(row: int, column: int) -> dict[str, Any]:
            return {k: v[row, column] if k == "hist" else float(v[row, column]) for k, v in table.items()}

        return L(L(cell(row, i) for row in range(len(rows))) for i in range(len(history.train.steps)))

    def layer_stats(self, idx: int | str) -> L:
        """Mean, standard deviation and share near zero of a layer's outputs, each a list over the batches."""
        from fastcore.foundation import L

        history = _recorded(self.history)
        row = history.index(idx)
        return L(L(_values(history, name)[row].tolist()) for name in ("mean", "std", "near_zero"))

    def hist(self, idx: int | str) -> Tensor:
        """log(1 + count) of a layer's outputs in 40 bins on [0, 10], float32 (bin, batch).

        Raises:
            UsageError: histograms were not recorded.
        """
        history = _recorded(self.history)
        if history.train.hist is None:
            raise UsageError("no histograms were recorded: use with_hist=True")
        return _positive(history.train.hist[history.index(idx)]).t().float().log1p()


def _recorded(history: History) -> History:
    if not len(history.train.steps):
        raise UsageError("nothing was recorded yet: train at least one batch first")
    return history


def _values(history: History, name: str) -> np.ndarray:
    return history.train.share(name) if name == "near_zero" else getattr(history.train, name)


def _positive(hist: np.ndarray) -> Tensor:
    """The bins from 0 on."""
    return torch.from_numpy(hist[..., hist.shape[-1] // 2 :].copy())
