"""The layer table: shapes, parameters and multiplications of every layer of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pellucid.convolution.counts import UNCOUNTED, uncounted_notes
from pellucid.inspection.work import layer_work, with_shapes

HEAD = "Layer (type)", "Output Shape", "Param #", "Trainable", "Multiplications"
WIDTHS = 20, 20, 12, 10, 16  # of narrow tables; longer names widen their column


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer.

    Attributes:
        kind: Class name of the module.
        shape: Output shape, batch first.
        n_params: Weights and biases that no other row counts: zero when an earlier call of the module has a row.
        trainable: Whether it has parameters that are trained.
        n_multiplications: Per image in its convolutions and matrix products, counted over the output grid.
        uncounted: Operations in it whose multiplications are not known.
    """

    kind: str
    shape: tuple[int, ...]
    n_params: int
    trainable: bool
    n_multiplications: int
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSummary:
    """The layer table of a model; `str()` gives it as text.

    Attributes:
        name: Class name of the model.
        input_shape: Shape of the batch it was run on.
        rows: Its layers in order of their calls, and those with parameters that it does not call.
        n_params: Parameters of the whole model, each counted once, whichever module holds them.
        n_trainable: Those that are trained.
        notes: Lines below the totals (optimizer, loss, callbacks).
    """

    name: str
    input_shape: tuple[int, ...]
    rows: list[LayerRow]
    n_params: int
    n_trainable: int
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        table: list[list[str]] = [[*HEAD]]
        for row in self.rows:
            work = f"{row.n_multiplications:,}{UNCOUNTED if row.uncounted else ''}"
            table.append([row.kind, _by(row.shape), f"{row.n_params:,}", str(row.trainable), work])
        widths = [
            max(least, 2 + max(map(len, column)))
            for least, column in zip(WIDTHS, zip(*table, strict=True), strict=True)
        ]
        rule = "=" * sum(widths)
        head, *body = ("".join(map(str.ljust, cells, widths)).rstrip() for cells in table)
        lines = [f"{self.name} (Input shape: ['{_by(self.input_shape)}'])", rule, head, rule, *body]
        total = sum(row.n_multiplications for row in self.rows)
        lines += [rule, f"Total params: {self.n_params:,}", f"Total trainable params: {self.n_trainable:,}"]
        lines += [f"Total non-trainable params: {self.n_params - self.n_trainable:,}"]
        lines += [f"Total multiplications per image: {total:,}", *uncounted_notes(self.rows), *self.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def summarize(model: nn.Module, xb: Tensor, notes: Sequence[str] = ()) -> ModelSummary:
    """Run `model` on a batch in evaluation mode and tabulate its layers; the model stays as it was.

    Args:
        model: Any module.
        xb: A batch it accepts, batch axis first.
        notes: Lines to add below the totals.
    """
    model = with_shapes(model, xb)
    rows = [
        LayerRow(
            type(work.module).__name__ if work.called else f"{type(work.module).__name__}, not called",
            work.shape,
            work.n_params,
            work.trainable,
            work.n_multiplications,
            work.uncounted,
        )
        for work in layer_work(model, xb)
    ]
    parameters = list(model.parameters())
    n_trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return ModelSummary(
        type(model).__name__, tuple(xb.shape), rows, sum(p.numel() for p in parameters), n_trainable, notes
    )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
