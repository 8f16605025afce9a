"""What happened in a run, as plain arrays with names and shapes: the contract that pictures and tools stand on.

`history.safetensors` holds the arrays below and, in its header, the JSON that `history.json` repeats for people. It
replaces its predecessor in one move, so it can be read at any time while a run writes it. Neither file needs torch.

Losses and hyper-parameters, of a Recorder or a watch. A value stands for one step, or in long runs for several:

| array | shape | |
|---|---|---|
| `step` | [value] int64 | training steps done at the end of the value |
| `loss` | [value] float32 | mean of the value's steps |
| `smooth_loss` | [value] float32 | exponential mean of the loss over the whole fit, at the end of the value |
| `hyper.<name>` | [value, group] float32 | at the end of the value (a Recorder's) or its mean (a watch's) |
| `epoch_end` | [epoch] int64 | training steps done |
| `epoch_values` | [epoch, column] float32 | `epoch_columns` of the header names them: train_loss, valid_loss, metrics |

What layers did, if they were watched; a column stands for one step or several, up to 2,048 columns:

| array | shape | |
|---|---|---|
| `train.steps` | [column, 2] int64 | first step of the column, and the step after its last |
| `train.count`, `nonfinite`, `near_zero`, `near_zero_abs`, `zero`, `underflow`, `overflow` | [layer, column] int64 | |
| `train.mean`, `std`, `min`, `max` | [layer, column] float32 | over all values of the column; nan for an unseen layer |
| `train.hist` | [layer, column, bin] int64 | 80 bins on [−10, 10], if asked for |
| `valid.…` | as `train` | a column per validation pass, at the training step it followed |
| `grad.norm`, `mean_abs`, `zero`; `weight.norm`; `update.ratio` | [parameter, column] float32 | means of steps |
| `kernels`, `kernel_steps` | [snapshot, out, in, row, column], [snapshot] | weights of the first convolution |

This is version 2. Version 1 had the two tables in two files, and the `hyper.…` of a watch as [group, column].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.history import file as history_file
from pellucid.history import wording
from pellucid.history.pictures import Pictures
from pellucid.history.record import Layer, Record, Section

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class History(Record, Pictures):
    """Everything recorded of a run; see the module for names and shapes of the arrays it is saved as.

    Attributes:
        layers: The watched modules, in the model's order; none where only losses and hyper-parameters were recorded.
        params: Names of the parameters whose gradients were watched.
        train, valid: Layer outputs in training and in validation passes.
        series: `step`, `loss`, `hyper.…`, `epoch_values`, `grad.…` and others → array.
        kernels, kernel_steps: Snapshots of the first convolution's weights and their steps.
        epoch_columns: Names of the columns of `series["epoch_values"]`, such as train_loss, valid_loss, accuracy.
    """

    def __repr__(self) -> str:
        return wording.said(self)

    @property
    def history(self) -> History:
        """Itself."""
        return self

    def with_curves(self, other: Record) -> History:
        """This history with the losses, hyper-parameters and epochs of another one."""
        own = {name: values for name, values in self.series.items() if name in history_file.GRADIENTS}
        curves = {name: values for name, values in other.series.items() if name not in history_file.GRADIENTS}
        return replace(self, series=own | curves, epoch_columns=other.epoch_columns)

    def with_epochs(self, other: Record) -> History:
        """This history with the values of epochs of another one."""
        epochs = {name: values for name, values in other.series.items() if name.startswith("epoch_")}
        return replace(self, series=self.series | epochs, epoch_columns=other.epoch_columns)

    def save(self, folder: str | Path) -> Path:
        """Write `history.safetensors` into a folder, and `history.json` if there are layers; returns the first.

        Raises:
            UsageError: they cannot be written.
        """
        try:
            return history_file.write(folder, self)
        except OSError as error:
            raise history_file.unwritable(Path(folder), error) from error

    @classmethod
    def load(cls, folder: str | Path) -> History:
        """Read what `save` wrote, from its folder or the file itself, trusted or not; version 1 too.

        Raises:
            UsageError: there is none, a newer version of pellucid wrote it, or it is damaged or not a history.
        """
        arrays, description = history_file.read(folder)
        sections = {}
        if description["layers"]:
            for phase in ("train", "valid"):
                names = [name for name in arrays if name.startswith(f"{phase}.")]
                sections[phase] = Section(**{name.removeprefix(f"{phase}."): arrays.pop(name) for name in names})
        return cls(
            [Layer(each["name"], each["kind"], tuple(each["shape"]), each["role"]) for each in description["layers"]],
            description["params"],
            kernels=arrays.pop("kernels", None),
            kernel_steps=arrays.pop("kernel_steps", None),
            series=arrays,
            epoch_columns=description["epoch_columns"],
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
