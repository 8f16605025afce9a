"""What was seen during a run, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pellucid.errors import UsageError
from pellucid.inspection.lookup import MOST_NAMES, Lookup, listed
from pellucid.text import counted, first_few

COUNTS = ("count", "nonfinite", "near_zero", "near_zero_abs", "zero", "underflow", "overflow")  # of a section, int64
MOMENTS = ("mean", "std", "min", "max")  # float32
AWAKE = 0.9  # share near zero below which a layer that began at zero counts as trained


@dataclass(frozen=True)
class Layer:
    """A watched module.

    Attributes:
        name: Its name in the model.
        kind: Class name.
        shape: Output shape of one item, without the batch axis; empty if it was never called.
        role: `layer`, or `activation` for the activation functions of `torch.nn`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    role: str


@dataclass(frozen=True, repr=False)
class Section:
    """Statistics of layer outputs, shapes as in the module's table.

    Attributes:
        steps: Step range of each column, first and one after the last.
        count: Finite values seen.
        mean, std, min, max: Of those; std with n − 1.
        near_zero: Values ≤ 0.05, negative ones included: what a following ReLU silences, and what the chapter plots.
        near_zero_abs: Values of a size up to 0.05.
        zero: Values that are exactly 0.
        nonfinite: Values that are nan or infinite; they count nowhere else.
        underflow, overflow: Values below −10 and above 10.
        hist: Counts in 80 bins of 0.25 on [−10, 10], or None.
    """

    steps: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    near_zero: np.ndarray
    near_zero_abs: np.ndarray
    zero: np.ndarray
    nonfinite: np.ndarray
    underflow: np.ndarray
    overflow: np.ndarray
    hist: np.ndarray | None = None

    @classmethod
    def empty(cls) -> Section:
        """That of no layers."""
        none = np.zeros((0, 0), np.int64)
        moments = dict.fromkeys(MOMENTS, none.astype(np.float32))
        return cls(steps=np.zeros((0, 2), np.int64), **moments, **dict.fromkeys(COUNTS, none))

    def __repr__(self) -> str:
        rows, columns = self.count.shape
        bins = "without histograms" if self.hist is None else f"with {self.hist.shape[2]} bins"
        last = f", steps {self.steps[0, 0]} to {self.end - 1}" if columns else ""
        return f"Section of {counted(rows, 'layer')} × {counted(columns, 'column')}{last}, {bins}"

    @property
    def end(self) -> int:
        """The step after the last one that was seen."""
        return int(self.steps[-1, 1]) if len(self.steps) else 0

    def share(self, name: str) -> np.ndarray:
        """A count as fraction of all finite values, such as `share('near_zero')`; nan where there are none."""
        return np.where(self.count > 0, getattr(self, name) / np.maximum(self.count, 1), np.nan).astype(np.float32)


@dataclass(frozen=True, repr=False)
class Record:
    """The arrays of a `History`, which says what they are, draws them and reads them from files."""

    layers: list[Layer] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    train: Section = field(default_factory=Section.empty)
    valid: Section = field(default_factory=Section.empty)
    series: dict[str, np.ndarray] = field(default_factory=dict)
    kernels: np.ndarray | None = None
    kernel_steps: np.ndarray | None = None
    epoch_columns: list[str] = field(default_factory=list)

    @property
    def steps(self) -> np.ndarray:
        """Training steps done at each value of the loss and of hyper-parameters, int64 [value]."""
        return self.series.get("step", np.zeros(0, np.int64))

    @property
    def loss(self) -> np.ndarray | None:
        """Training loss, [value], or None; each is the mean of the steps that it stands for."""
        return self.series.get("loss")

    @property
    def spans(self) -> np.ndarray:
        """Step range of each value, [value, 2], from the one after the last value's to the one after its own last."""
        return np.stack([np.concatenate([[0], self.steps])[:-1], self.steps], axis=1).astype(np.int64)

    @property
    def smooth_loss(self) -> np.ndarray:
        """Exponential mean of the loss (beta 0.98, debiased), [value]; where it was not recorded, over its values."""
        if "smooth_loss" in self.series:
            return self.series["smooth_loss"]
        return np.zeros(0) if self.loss is None else _smoothed(self.loss)

    @property
    def hypers(self) -> dict[str, np.ndarray]:
        """Hyper-parameter → its values, [group, value]."""
        return {k.removeprefix("hyper."): v.T for k, v in self.series.items() if k.startswith("hyper.")}

    @property
    def epochs(self) -> dict[str, np.ndarray]:
        """Column of the result table → its value after each epoch, [epoch]; empty where no epochs were recorded."""
        values = self.series.get("epoch_values")
        return {} if values is None else dict(zip(self.epoch_columns, values.T, strict=True))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays under their saved names, fractions as float32."""
        arrays = {
            f"{phase}.{name}": value
            for phase in ("train", "valid")
            for name, value in vars(getattr(self, phase)).items()
            if value is not None and self.layers
        }
        if self.kernels is not None and self.kernel_steps is not None:
            arrays |= {"kernels": self.kernels, "kernel_steps": self.kernel_steps}
        arrays |= self.series
        return {k: as_float32(v) if v.dtype.kind == "f" else v for k, v in arrays.items()}

    def index(self, layer: int | str) -> int:
        """Row of a layer, given by name or by its number among the layers with parameters (negative from the end).

        A container stands for its last layer.

        Raises:
            UsageError: there is none; the message lists what there is.
        """
        if not self.layers:
            raise UsageError(
                "no layers were recorded, only the loss: train with ActivationStats() (command line: --stats), or look "
                "at the loss with plot_loss() (command line: --picture loss)"
            )
        names = [each.name for each in self.layers]
        numbered = [each for each in self.layers if each.role == "layer"] or self.layers
        found = Lookup(names, [each.name for each in numbered]).find(layer)
        if found:
            return found[-1]
        if isinstance(layer, int):
            which = listed([f"{i} {each.name}" for i, each in enumerate(numbered)], [each.kind for each in numbered])
            raise UsageError(f"there is no layer {layer}; the {len(numbered)} watched ones are {which}")
        raise UsageError(f"no layer {layer!r} was watched; there are {first_few(names, MOST_NAMES)}")

    def dead(self) -> np.ndarray:
        """Share of each layer's training outputs that a ReLU behind it silences (≤ 0.05), [layer, column].

        It is nan where nothing was seen, and as long as a layer that began with zeros alone has not output more: the
        last norm of a residual branch and an adapter are initialised so, in order that the branch adds nothing at
        first, which is waiting and not dead.
        """
        x, share = self.train, self.train.share("near_zero")
        if share.size:
            rows, first = np.arange(len(share)), np.argmax(x.count > 0, axis=1)
            began_at_zero = x.zero[rows, first] == x.count[rows, first]
            awake = np.maximum.accumulate(share < AWAKE, axis=1)
            share[began_at_zero[:, None] & ~awake] = np.nan
        return share


def as_float32(values: np.ndarray) -> np.ndarray:
    """The nearest float32; what is too large for one becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _smoothed(losses: np.ndarray, beta: float = 0.98) -> np.ndarray:
    """Exponential mean without the pull of its start, as the Recorder's; what is nan or infinite is left out."""
    mean, weight, out = 0.0, 0.0, np.full(len(losses), np.nan)
    for i, loss in enumerate(losses.astype(np.float64)):
        if np.isfinite(loss):
            mean, weight = beta * mean + (1 - beta) * loss, beta * weight + 1 - beta
            out[i] = mean / weight
    return out
