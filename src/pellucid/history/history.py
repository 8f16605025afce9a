"""What was seen during a run, as plain arrays with names and shapes: the contract that pictures and tools stand on.

`history.safetensors` holds the arrays below and, in its header, the JSON that `history.json` repeats for people. It
replaces its predecessor in one move, so it can be read at any time while a run writes it. Neither file needs torch.

| array | shape | |
|---|---|---|
| `train.steps` | [column, 2] int64 | first step of the column, and the step after its last |
| `train.count`, `nonfinite`, `near_zero`, `near_zero_abs`, `zero`, `underflow`, `overflow` | [layer, column] int64 | |
| `train.mean`, `std`, `min`, `max` | [layer, column] float32 | over all values of the column; nan for an unseen layer |
| `train.hist` | [layer, column, bin] int64 | 80 bins on [−10, 10], if asked for |
| `valid.…` | as `train` | a column per validation pass, at the training step it followed |
| `grad.norm`, `mean_abs`, `zero`; `weight.norm`; `update.ratio` | [parameter, column] float32 | means of steps |
| `loss` | [column] float32 | mean of the column's steps |
| `hyper.<name>` | [group, column] float32 | mean of the column's steps |
| `kernels`, `kernel_steps` | [snapshot, out, in, row, column], [snapshot] | weights of the first convolution |
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.history import file as history_file
from pellucid.history import wording
from pellucid.history.pictures import Pictures
from pellucid.inspection.lookup import MOST_NAMES, Lookup, listed
from pellucid.text import first_few

if TYPE_CHECKING:
    from pandas import DataFrame

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
        near_zero_abs: Values with |x| ≤ 0.05.
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

    def __repr__(self) -> str:
        return wording.said_of_section(self)

    def share(self, name: str) -> np.ndarray:
        """A count as fraction of all finite values, such as `share('near_zero')`; nan where there are none."""
        return np.where(self.count > 0, getattr(self, name) / np.maximum(self.count, 1), np.nan).astype(np.float32)


@dataclass(frozen=True, repr=False)
class History(Pictures):
    """Everything recorded of a run; see the module for names and shapes of the arrays it is saved as.

    Attributes:
        layers: The watched modules, in the model's order.
        params: Names of the parameters whose gradients were watched.
        train, valid: Layer outputs in training and in validation passes.
        series: `grad.…`, `weight.norm`, `update.ratio`, `loss` and `hyper.…` → array.
        kernels, kernel_steps: Snapshots of the first convolution's weights and their steps.
    """

    layers: list[Layer]
    params: list[str]
    train: Section
    valid: Section
    series: dict[str, np.ndarray] = field(default_factory=dict)
    kernels: np.ndarray | None = None
    kernel_steps: np.ndarray | None = None

    def __repr__(self) -> str:
        return wording.said(self)

    @property
    def history(self) -> History:
        """Itself."""
        return self

    @property
    def loss(self) -> np.ndarray | None:
        """Training loss per column, or None."""
        return self.series.get("loss")

    @property
    def hypers(self) -> dict[str, np.ndarray]:
        """Hyper-parameter → its values, [group, column]."""
        return {k.removeprefix("hyper."): v for k, v in self.series.items() if k.startswith("hyper.")}

    def index(self, layer: int | str) -> int:
        """Row of a layer, given by name or by its number among the layers with parameters (negative from the end).

        A container stands for its last layer.

        Raises:
            UsageError: there is none; the message lists what there is.
        """
        names = [each.name for each in self.layers]
        numbered = [each for each in self.layers if each.role == "layer"] or self.layers
        found = Lookup(names, [each.name for each in numbered]).find(layer)
        if found:
            return found[-1]
        if isinstance(layer, int):
            counted = listed([f"{i} {each.name}" for i, each in enumerate(numbered)], [each.kind for each in numbered])
            raise UsageError(f"there is no layer {layer}; the {len(numbered)} watched ones are {counted}")
        raise UsageError(f"no layer {layer!r} was watched; there are {first_few(names, MOST_NAMES)}")

    def dead(self) -> np.ndarray:
        """Share of each layer's training outputs that a ReLU behind it silences (≤ 0.05), [layer, column].

        It is nan where nothing was seen, and as long as a layer that began with zeros alone has not put out more: the
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

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays under their saved names."""
        arrays = {
            f"{phase}.{name}": value
            for phase in ("train", "valid")
            for name, value in vars(getattr(self, phase)).items()
            if value is not None
        }
        if self.kernels is not None and self.kernel_steps is not None:
            arrays |= {"kernels": self.kernels, "kernel_steps": self.kernel_steps}
        return arrays | self.series

    def save(self, folder: str | Path) -> Path:
        """Write `history.safetensors` and `history.json` into a folder; returns the first.

        Raises:
            UsageError: they cannot be written.
        """
        return history_file.write(folder, self.to_arrays(), [asdict(layer) for layer in self.layers], self.params)

    @classmethod
    def load(cls, folder: str | Path) -> History:
        """Read what `save` wrote, from its folder or the file itself, which may be anybody's.

        Raises:
            UsageError: there is none, a newer version of pellucid wrote it, or it is damaged or not a history.
        """
        arrays, layers, params = history_file.read(folder)
        sections = {
            phase: Section(**{k.removeprefix(f"{phase}."): v for k, v in arrays.items() if k.startswith(f"{phase}.")})
            for phase in ("train", "valid")
        }
        own = {"kernels", "kernel_steps"}
        series = {k: v for k, v in arrays.items() if k not in own and not k.startswith(("train.", "valid."))}
        return cls(
            [Layer(each["name"], each["kind"], tuple(each["shape"]), each["role"]) for each in layers],
            params,
            series=series,
            kernels=arrays.get("kernels"),
            kernel_steps=arrays.get("kernel_steps"),
            **sections,
        )

    def to_pandas(self) -> DataFrame:
        """One row per phase, layer and column, with the step range, the statistics and the shares.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise UsageError("to_pandas() needs pandas: pip install 'pellucid[notebook]'") from None
        frames = []
        for phase, section in (("train", self.train), ("valid", self.valid)):
            n_layers, n = section.count.shape
            frame: dict[str, Any] = {
                "phase": phase,
                "layer": np.repeat([layer.name for layer in self.layers], n),
                "type": np.repeat([layer.kind for layer in self.layers], n),
                "step": np.tile(section.steps[:, 0], n_layers),
                "stop": np.tile(section.steps[:, 1], n_layers),
            }
            stats = ("count", "mean", "std", "min", "max", "nonfinite")
            frame |= {name: getattr(section, name).ravel() for name in stats}
            shares = ("near_zero", "near_zero_abs", "zero", "underflow", "overflow")
            frame |= {name: section.share(name).ravel() for name in shares}
            frames.append(pd.DataFrame(frame))
        return pd.concat(frames, ignore_index=True)
