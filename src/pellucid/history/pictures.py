"""The pictures of a history, for whatever has one.

To add one: draw plain arrays in `pellucid.plot`, and give it a method here, with `@picture("its name")` if it is to be
had on the command line too. What it is told there follows from its arguments: `idx` is `--layer`, `step` is `--step`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import numpy as np

from pellucid.errors import UsageError
from pellucid.history.record import Record
from pellucid.plot import activations as draw
from pellucid.plot.figure import AxesOptions, FigureOptions, finished, given_axes
from pellucid.plot.training import plot_loss, plot_sched
from pellucid.text import drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEDULED = ("lr", "mom")
PICTURES: dict[str, NamedPicture] = {}  # by their names on the command line, in the order in which they are listed
Draw = TypeVar("Draw", bound="Callable[..., Figure]")


@dataclass(frozen=True)
class NamedPicture:
    """A picture that can be asked for by name.

    Attributes:
        draw: Function of a history, and of `idx` and `step` if it takes them.
        of_layer, of_step: Whether it does.
    """

    draw: Callable[..., Figure]
    of_layer: bool
    of_step: bool


def picture(name: str) -> Callable[[Draw], Draw]:
    """Let `pellucid show --picture NAME` draw a history with a method of `Pictures`, or with any function of one."""

    def add(function: Draw) -> Draw:
        arguments = inspect.signature(function).parameters
        PICTURES[name] = NamedPicture(function, "idx" in arguments, "step" in arguments)
        return function

    return add


class CurvePictures:
    """Draws losses and hyper-parameters of `self.history`, a Recorder's or a watch's."""

    history: Any

    @picture("loss")
    def plot_loss(
        self,
        skip_start: int = 5,
        with_valid: bool = True,
        log: bool = False,
        show_epochs: bool = False,
        **options: Unpack[AxesOptions],
    ) -> Figure:
        """Plot the smoothed training loss, and the validation loss at the end of each epoch.

        Where no epochs were recorded, the loss of each batch stands pale behind. Batches whose loss was nan or infinite
        are hatched in red.

        Args:
            skip_start: First batches left out, whose loss would stretch the axis.
            with_valid: Show the validation loss.
            log: Logarithmic axes.
            show_epochs: Mark the ends of epochs.
            options: `ax`, `figsize`, `dpi`, `title`, `suptitle`.

        Raises:
            UsageError: the loss was not recorded.
        """
        record: Record = self.history
        if record.loss is None:
            raise UsageError("no loss was recorded: use watch(..., loss=True)")
        valid, ends = record.epochs.get("valid_loss", ()) if with_valid else (), record.series.get("epoch_end", ())
        smooth, raw = record.smooth_loss, () if record.epochs else record.loss
        ax = given_axes(options)
        ax = plot_loss(smooth, valid, ends[: len(valid)], train_at=record.steps, skip_start=skip_start, raw=raw, ax=ax)
        draw.mark_nonfinite(ax, record.spans, ~np.isfinite(record.loss))
        if log:
            ax.set(xscale="log", yscale="log")
        else:
            draw.clip_explosion(ax, record.loss)
        for end in ends if show_epochs else ():
            ax.axvline(end, color="grey", linestyle=":", linewidth=1)
        return finished(ax, options)

    @picture("schedule")
    def plot_sched(self, keys: str | Sequence[str] | None = SCHEDULED, **options: Unpack[FigureOptions]) -> Figure:
        """Plot hyper-parameters over the batches, one panel each, with a line per parameter group where they differ.

        Args:
            keys: Which; the default are learning rate and momentum (if the optimizer has it), None all there are.
            options: `figsize`, `dpi`, `title`, `suptitle`.

        Raises:
            UsageError: nothing was trained yet, or the optimizer has no hyper-parameter of that name.
        """
        record: Record = self.history
        recorded = record.hypers
        if not recorded:
            raise UsageError("nothing was recorded yet: train at least one batch first")
        keys = list(recorded) if keys is None else [keys] if isinstance(keys, str) else keys
        missing = [name for name in keys if name not in recorded]
        if missing and tuple(keys) != SCHEDULED:
            raise UsageError(f"no hyper-parameter {missing[0]!r} was recorded; there are {', '.join(recorded)}")
        chosen = {name: recorded[name].T for name in keys if name in recorded}
        return finished(plot_sched(chosen, at=record.steps), options)


class Pictures(CurvePictures):
    """Draws `self.history`; layers go by name, or by number among those with parameters (−2 is the last but one).

    Pictures of one panel take matplotlib's `figsize`, `dpi`, `title`, `suptitle` and `ax` (or `ctx`), the others the
    first four. Batches in which values were nan or infinite are hatched in red.
    """

    @picture("stats")
    def plot_layer_stats(self, idx: int | str, axes: Any = None, **options: Unpack[FigureOptions]) -> Figure:
        """Plot mean, standard deviation and percentage near zero of a layer's outputs over the training batches.

        Near zero means ≤ 0.05, negative values included: what a following ReLU silences.
        """
        history, row = self._row(idx)
        x = history.train
        columns = x.mean[row], x.std[row], x.share("near_zero")[row], x.nonfinite[row]
        title = "" if options.get("title") else _title(history, row)
        return finished(draw.plot_layer_stats(x.steps, *columns, title=title, axes=axes), options)

    @picture("colors")
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

    @picture("sheet")
    def plot(self, **options: Unpack[FigureOptions]) -> Figure:
        """Plot every layer with parameters on one sheet, a row each: its colours, its moments, its share near zero.

        The loss stands above them if it was recorded.
        """
        history = self._filled()
        x, rows = history.train, [i for i, layer in enumerate(history.layers) if layer.role == "layer"]
        hist = None if x.hist is None else x.hist[rows, :, x.hist.shape[2] // 2 :]
        moments, titles = (x.mean[rows], x.std[rows]), [_title(history, row) for row in rows]
        near_zero, broken = x.share("near_zero")[rows], x.nonfinite[rows]
        sheet = draw.plot_sheet(x.steps, *moments, near_zero, hist, titles, broken, history.loss, history.spans)
        return finished(sheet, options)

    @picture("dead")
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

    @picture("gradients")
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

    @picture("kernels")
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

    @picture("hist")
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

    def _filled(self) -> Record:
        history: Record = self.history
        if not history.layers:
            history.index(0)  # which says that there are none
        if not len(history.train.steps):
            raise UsageError("nothing was recorded yet: train at least one batch first")
        return history

    def _row(self, idx: int | str) -> tuple[Record, int]:
        history = self._filled()
        return history, history.index(idx)

    @staticmethod
    def _hist(history: Record) -> np.ndarray:
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


def _title(history: Record, row: int) -> str:
    layer = history.layers[row]
    shape = " × ".join(map(str, layer.shape))
    return drawable(f"{layer.name}  {layer.kind}" + (f"  {shape}" if shape else ""))
