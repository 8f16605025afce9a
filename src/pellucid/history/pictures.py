"""The pictures of a history, for whatever has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pellucid.errors import UsageError
from pellucid.plot import activations as draw
from pellucid.plot.figure import AxesOptions, FigureOptions, finished, given_axes
from pellucid.plot.training import plot_loss
from pellucid.text import drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.history.history import History


class Pictures:
    """Draws `self.history`; layers go by name, or by number among those with parameters (−2 is the last but one).

    Pictures of one panel take matplotlib's `figsize`, `dpi`, `title`, `suptitle` and `ax` (or `ctx`), the others the
    first four. Batches in which values were nan or infinite are hatched in red.
    """

    history: Any

    def plot_layer_stats(self, idx: int | str, axes: Any = None, **options: Unpack[FigureOptions]) -> Figure:
        """Plot mean, standard deviation and percentage near zero of a layer's outputs over the training batches.

        Near zero means ≤ 0.05, negative values included: what a following ReLU silences.
        """
        history, row = self._row(idx)
        x = history.train
        columns = x.mean[row], x.std[row], x.share("near_zero")[row], x.nonfinite[row]
        title = "" if options.get("title") else _title(history, row)
        return finished(draw.plot_layer_stats(x.steps, *columns, title=title, axes=axes), options)

    def plot_loss(self, **options: Unpack[AxesOptions]) -> Figure:
        """Plot the training loss over the batches, as it was and smoothed.

        Raises:
            UsageError: the loss was not recorded.
        """
        history = self._filled()
        if history.loss is None:
            raise UsageError("no loss was recorded: use watch(..., loss=True)")
        steps, ax = history.train.steps, given_axes(options)
        drawn = plot_loss(_smoothed(history.loss), train_at=draw.centres(steps), skip_start=0, raw=history.loss, ax=ax)
        draw.clip_explosion(drawn, history.loss)
        draw.mark_nonfinite(drawn, steps, ~np.isfinite(history.loss))
        return finished(drawn, options)

    def color_dim(self, idx: int | str, *, signed: bool = False, **options: Unpack[AxesOptions]) -> Figure:
        """Plot the histogram of a layer's outputs over the training batches as colours, log(1 + count).

        Args:
            idx: The layer.
            signed: Show −10 to 10 instead of the chapter's 0 to 10.
            options: `ax`, `figsize`, `dpi`, `title`, `suptitle`.
        """
        history, row = self._row(idx)
        hist = self._hist(history)[row]
        hist = hist if signed else hist[:, hist.shape[1] // 2 :]
        low = -10.0 if signed else 0.0
        x, ax = history.train, given_axes(options)
        drawn = draw.color_dim(x.steps, hist, (low, 10.0), x.nonfinite[row], title=_title(history, row), ax=ax)
        return finished(drawn, options)

    def plot(self, **options: Unpack[FigureOptions]) -> Figure:
        """Plot every layer with parameters on one sheet, a row each: its colours, its moments, its share near zero.

        The loss stands above them if it was recorded.
        """
        history = self._filled()
        x, rows = history.train, [i for i, layer in enumerate(history.layers) if layer.role == "layer"]
        hist = None if x.hist is None else x.hist[rows, :, x.hist.shape[2] // 2 :]
        moments, titles = (x.mean[rows], x.std[rows]), [_title(history, row) for row in rows]
        near_zero, broken = x.share("near_zero")[rows], x.nonfinite[rows]
        sheet = draw.plot_sheet(x.steps, *moments, near_zero, hist, titles, broken, history.loss)
        return finished(sheet, options)

    def dead_chart(self, **options: Unpack[AxesOptions]) -> Figure:
        """Plot the share of outputs near zero (≤ 0.05) of every layer with parameters over the training batches.

        A layer that was initialised to zero, such as the last norm of a residual branch, stays blank until it has put
        out something else.
        """
        history = self._filled()
        rows = [i for i, layer in enumerate(history.layers) if layer.role == "layer"]
        names = [_title(history, row) for row in rows]
        x, ax = history.train, given_axes(options)
        drawn = draw.dead_chart(x.steps, history.dead()[rows], names, x.nonfinite[rows], ax=ax)
        return finished(drawn, options)

    def plot_gradients(self, axes: Any = None, **options: Unpack[FigureOptions]) -> Figure:
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
        names = [drawable(history.params[row]) for row in rows]
        norms, ratios = series["grad.norm"][rows], series["update.ratio"][rows]
        return finished(draw.plot_gradients(history.train.steps, norms, ratios, names, axes=axes), options)

    def plot_hist(self, idx: int | str, step: int | None = None, **options: Unpack[AxesOptions]) -> Figure:
        """Plot the histogram of a layer's outputs at a training step; None takes the last one."""
        history, row = self._row(idx)
        column = self._column_of(history.train.steps, step)
        x = history.train
        start, stop = x.steps[column]
        when = f"step {start}" if stop == start + 1 else f"steps {start} to {stop - 1}"
        counts = self._hist(history)[row, column]
        outside = int(x.underflow[row, column]), int(x.overflow[row, column])
        title = f"{_title(history, row)}, {when}"
        return finished(draw.plot_hist(counts, (-10.0, 10.0), outside, title=title, ax=given_axes(options)), options)

    def show_kernels(self, step: int | None = None, **options: Unpack[AxesOptions]) -> Figure:
        """Show the first convolution's kernels as images, as they were at a step (nearest snapshot before it).

        Raises:
            UsageError: the model has no two-dimensional convolution, or nothing was recorded.
        """
        history = self._filled()
        if history.kernels is None or history.kernel_steps is None:
            raise UsageError("no kernels were recorded: the model has no nn.Conv2d")
        at = len(history.kernel_steps) - 1
        if step is not None:
            self._column_of(history.train.steps, step)
            at = max(int(np.searchsorted(history.kernel_steps, step, side="right")) - 1, 0)
        title = f"step {history.kernel_steps[at]}"
        return finished(draw.show_kernels(history.kernels[at], title=title, ax=given_axes(options)), options)

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
    return drawable(f"{layer.name}  {layer.kind}" + (f"  {shape}" if shape else ""))


def _smoothed(losses: np.ndarray, beta: float = 0.98) -> np.ndarray:
    """Exponential mean without the pull of its start, as the Recorder's; what is nan or infinite is left out."""
    mean, weight, out = 0.0, 0.0, np.full(len(losses), np.nan)
    for i, loss in enumerate(losses.astype(np.float64)):
        if np.isfinite(loss):
            mean, weight = beta * mean + (1 - beta) * loss, beta * weight + 1 - beta
            out[i] = mean / weight
    return out
