"""The layer table: shapes, parameters and multiplications of every layer of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pellucid.convolution.counts import layer_multiplications, observe, own_parameters

WIDTHS = (20, 20, 12, 10, 16)


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer.

    Attributes:
        kind: Class name of the module.
        shape: Output shape, batch first.
        n_params: Weights and biases; zero when an earlier row has already counted the same module.
        trainable: Whether it has parameters that are trained.
        n_multiplications: Multiplications by weights per image, counted over the output grid.
    """

    kind: str
    shape: tuple[int, ...]
    n_params: int
    trainable: bool
    n_multiplications: int


@dataclass(frozen=True)
class ModelSummary:
    """The layer table of a model; `str()` gives it as text.

    Attributes:
        name: Class name of the model.
        input_shape: Shape of the batch it was run on.
        rows: Its layers in order of their calls.
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
        rule = "=" * sum(WIDTHS)
        lines = [f"{self.name} (Input shape: ['{_by(self.input_shape)}'])", rule]
        lines += [_line("Layer (type)", "Output Shape", "Param #", "Trainable", "Multiplications"), rule]
        for row in self.rows:
            counts = f"{row.n_params:,}", str(row.trainable), f"{row.n_multiplications:,}"
            lines.append(_line(row.kind, _by(row.shape), *counts))
        total = sum(row.n_multiplications for row in self.rows)
        lines += [rule, f"Total params: {self.n_params:,}", f"Total trainable params: {self.n_trainable:,}"]
        lines += [f"Total non-trainable params: {self.n_params - self.n_trainable:,}"]
        lines += [f"Total multiplications per image: {total:,}", *self.notes]
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
    rows: list[LayerRow] = []
    counted: set[int] = set()

    def record(_: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            n_params = own_parameters(module, counted)
            trainable = any(p.requires_grad for p in module.parameters())
            n_multiplications = layer_multiplications(module, inputs[0], output)
            rows.append(LayerRow(type(module).__name__, tuple(output.shape), n_params, trainable, n_multiplications))

    observe(model, xb, record)
    parameters = list(model.parameters())
    n_trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return ModelSummary(
        type(model).__name__, tuple(xb.shape), rows, sum(p.numel() for p in parameters), n_trainable, notes
    )


def _line(*cells: str) -> str:
    return "".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
