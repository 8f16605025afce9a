"""The pictures of a history, for whatever has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.plot import activations as draw
from pellucid.plot.figure import figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pellucid.activations.history import History


class Pictures:
    """Draws `self.history`; layers go by name, or by number among those with parameters (−2 is the last but one)."""

    history: Any

    def plot_layer_stats(self, idx: int | str, axes: Any = None) -> Figure:
        """Plot mean, standard deviation and percentage near zero of a layer's outputs over the training batches.

        Near zero means ≤ 0.05, negative values included: what a following ReLU silences.
        """
        history, row = self._row(idx)
        x = history.train
        return draw.plot_layer_stats(
            x.steps, x.mean[row], x.std[row], x.share("near_zero")[row], title=_title(history, row), axes=axes
        )

    def color_dim(self, idx: int | str, *, signed: bool = False, ax: Axes | None = None) -> Figure:
        """Plot the histogram of a layer's outputs over the training batches as colours, log(1 + count).

        Args:
            idx: The layer.
            signed: Show −10 to 10 instead of the chapter's 0 to 10.
            ax: Draw here; None makes a new figure.
        """
        history, row = self._row(idx)
        hist = self._hist(history)[row]
        hist = hist if signed else hist[:, hist.shape[1] // 2 :]
        low = -10.0 if signed else 0.0
        return figure_of(draw.color_dim(history.train.steps, hist, (low, 10.0), title=_title(history, row), ax=ax))

    def plot(self) -> Figure:
        """Plot every layer with parameters on one sheet, a row each: its colours, its moments, its share near zero."""
        history = self._filled()
        x, rows = history.train, [i for i, layer in enumerate(history.layers) if layer.role == "layer"]
        hist = None if x.hist is None else x.hist[rows, :, x.hist.shape[2] // 2 :]
        return draw.plot_sheet(
            x.steps, x.mean[rows], x.std[rows], x.share("near_zero")[rows], hist, [_title(history, row) for row in rows]
        )

    def dead_chart(self, ax: Axes | None = None) -> Figure:
        """Plot the share of outputs near zero (≤ 0.05) of every layer with parameters over the training batches."""
        history = self._filled()
        rows = [i for i, layer in enumerate(history.layers) if layer.role == "layer"]
        names = [_title(history, row) for row in rows]
        return figure_of(draw.dead_chart(history.train.steps, history.train.share("near_zero")[rows], names, ax=ax))

    def plot_gradients(self, axes: Any = None) -> Figure:
        """Plot gradient norm and update-to-weight ratio of every weight over the training batches, log scale.

        Raises:
            UsageError: gradients were not recorded.
        """
        history = self._filled()
        if "grad.norm" not in history.series:
            raise UsageError("no gradients were recorded: give watch() the optimizer, and with_grads=True")
        rows = [i for i, name in enumerate(history.params) if name.endswith("weight")] or range(len(history.params))
        rows = list(rows)
        series = history.series
        names = [history.params[row] for row in rows]
        return draw.plot_gradients(
            history.train.steps, series["grad.norm"][rows], series["update.ratio"][rows], names, axes=axes
        )

    def plot_hist(self, idx: int | str, step: int | None = None, ax: Axes | None = None) -> Figure:
        """Plot the histogram of a layer's outputs at a training step; None takes the last one."""
        history, row = self._row(idx)
        column = self._column_of(history.train.steps, step)
        x = history.train
        start, stop = x.steps[column]
        when = f"step {start}" if stop == start + 1 else f"steps {start} to {stop - 1}"
        counts = self._hist(history)[row, column]
        outside = int(x.underflow[row, column]), int(x.overflow[row, column])
        return figure_of(draw.plot_hist(counts, (-10.0, 10.0), outside, title=f"{_title(history, row)}, {when}", ax=ax))

    def show_kernels(self, step: int | None = None, ax: Axes | None = None) -> Figure:
        """Show the first convolution's kernels as images, as they were at a step (nearest snapshot before it).

        Raises:
            UsageError: the model has no two-dimensional convolution, or nothing was recorded.
        """
        history = self._filled()
        if history.kernels is None or history.kernel_steps is None:
            raise UsageError("no kernels were recorded: the model has no nn.Conv2d")
        at = len(history.kernel_steps) - 1
        if step is not None:
            at = max(int(np.searchsorted(history.kernel_steps, step, side="right")) - 1, 0)
        return figure_of(draw.show_kernels(history.kernels[at], title=f"step {history.kernel_steps[at]}", ax=ax))

    def _filled(self) -> History:
        history = self.history
        if not len(history.train.steps):
            raise UsageError("nothing was recorded yet: train at least one batch first")
        return history

    def _row(self, idx: int | str) -> tuple[History, int]:
        history = self._filled()
        return history, history.index(idx)

    @staticmethod
    def _hist(history: History) -> np.ndarray:
        if history.train.hist is None:
            raise UsageError("no histograms were recorded: use with_hist=True")
        return history.train.hist

    @staticmethod
    def _column_of(steps: np.ndarray, step: int | None) -> int:
        if step is None:
            return len(steps) - 1
        if not steps[0, 0] <= step < steps[-1, 1]:
            raise UsageError(f"step {step} was not recorded; there are {steps[0, 0]} to {steps[-1, 1] - 1}")
        return int(np.searchsorted(steps[:, 0], step, side="right")) - 1


def _title(history: History, row: int) -> str:
    layer = history.layers[row]
    shape = " × ".join(map(str, layer.shape))
    return f"{layer.name}  {layer.kind}" + (f"  {shape}" if shape else "")
