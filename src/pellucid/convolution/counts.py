"""What every layer of a model costs: parameters, multiplications, activations; and how far its units see."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from pellucid.convolution.fields.graph import as_type_of, refused
from pellucid.convolution.fields.units import by
from pellucid.convolution.notation import network
from pellucid.convolution.wording import describe
from pellucid.errors import UsageError
from pellucid.inspection.work import Work, layer_work, with_shapes
from pellucid.tables import as_html, as_text

MODEL = "(model)"  # the name of a row for the model itself
UNCOUNTED = " + ?"  # after a number of multiplications that leaves some out
HEAD = "Layer", "", "Output", "Parameters", "Multiplications", "over input", "Activations", "Field"
NOTES = (
    "Multiplications of convolutions and matrix products, for one image: a weight works once at each output position.",
    "over input: the same weights at each position of the input grid, as the book's chapter counts them.",
)


@dataclass(frozen=True)
class LayerCount:
    """One call of one layer, for one image.

    Attributes:
        name: Of the module in the model, `name#2` for its second call; empty for the model itself.
        layer: Its kind and settings, in the words of `pellucid.convolution.notation`.
        shape: Of the output, without batch axis.
        n_params: Weights and biases that no other row counts.
        n_multiplications: In its convolutions and matrix products, over the output grid (a transposed convolution: the
            input grid).
        n_multiplications_input: The chapter's count, which goes over the input grid.
        n_activations: Numbers in the output.
        field: Pixels of the image that one unit sees along each axis, as if the image went on; None if unknown.
        uncounted: Operations in it whose multiplications are not known, such as `quantized::linear_dynamic`.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    n_params: int
    n_multiplications: int
    n_multiplications_input: int
    n_activations: int
    field: tuple[int, ...] | None
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerCounts:
    """The layers of a model in order of their calls; `str()` gives the table.

    Attributes:
        model: Class name of the model.
        input_size: Shape of an image.
        rows: A row for each call of a layer: a module that calls no other, computes by itself or holds parameters.
        n_params: Of the whole model, each counted once, whichever module holds them.
        measured: Whether the receptive fields were measured by gradients because the model could not be followed.
    """

    model: str
    input_size: tuple[int, ...]
    rows: tuple[LayerCount, ...]
    n_params: int
    measured: bool = False

    @property
    def n_multiplications(self) -> int:
        """Of all layers, over their output grids; without what rows mark as uncounted."""
        return sum(row.n_multiplications for row in self.rows)

    def __str__(self) -> str:
        return "\n".join([self._title(), "", as_text(HEAD, *self._cells(), left=3), "", *self._notes()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return as_html(self._title(), HEAD, *self._cells(), left=3, notes=self._notes())

    def _title(self) -> str:
        return f"{self.model} on an input of {by(self.input_size)}"

    def _cells(self) -> tuple[list[list[str]], list[str]]:
        lines = [[row.name or MODEL, row.layer, by(row.shape), *_marked(row), _side(row.field)] for row in self.rows]
        totals = [sum(figures) for figures in zip(*map(_figures, self.rows), strict=True)] or [0] * 4
        return lines, ["", "total", "", f"{self.n_params:,}", *(f"{total:,}" for total in totals[1:]), ""]

    def _notes(self) -> list[str]:
        notes = [*NOTES, *uncounted_notes(self.rows)]
        if self.measured:
            notes.append("Field: pixels that reach one unit, measured by gradients: torch.fx cannot follow this model.")
        elif any(row.field for row in self.rows):
            notes.append("Field: pixels of the input that one unit sees along an axis, padding included.")
        return notes


def layer_counts(model: nn.Module | str, input_size: Sequence[int], *, fields: bool = True) -> LayerCounts:
    """Count what every layer of a model costs for one image, by running it once on zeros; the model stays as it was.

    >>> table = layer_counts('conv 1 4 k3 s2 p1, relu, conv 4 8 k3 s2 p1', (1, 28, 28))
    >>> [(row.n_params, row.n_multiplications, row.n_multiplications_input, row.field) for row in table.rows[::2]]
    [(40, 7056, 28224, (3, 3)), (296, 14112, 56448, (7, 7))]

    Args:
        model: Any module that takes a batch of images or features, or a line of words as `network` takes it.
        input_size: Shape of one image, such as (1, 28, 28), without batch axis.
        fields: Whether to find receptive fields, which takes longer than the rest.

    Raises:
        UsageError: the size is no shape, or the model does not take such an image.
    """
    size = tuple(input_size)
    if not size or not all(isinstance(n, int) and n > 0 for n in size):
        raise UsageError(f"input_size is the shape of one image, such as (1, 28, 28), not {input_size!r}")
    model = network(model, size) if isinstance(model, str) else model
    try:
        x = as_type_of(model, torch.zeros(1, *size, device="cpu"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using padding='same'")  # of no concern here: it is about speed
            model = with_shapes(model, x)
            works = layer_work(model, x)
            sizes, measured = _fields(model, size) if fields else ({}, False)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise refused(model, size, error) from None
    n_params = sum(p.numel() for p in model.parameters())
    rows = tuple(_row(work, sizes.get(work.name)) for work in works)
    return LayerCounts(type(model).__name__, size, rows, n_params, measured)


def _row(work: Work, field: tuple[int, ...] | None) -> LayerCount:
    shape = work.shape[1:]
    return LayerCount(
        work.name,
        describe(work.module) if work.called else f"{describe(work.module)}, not called",
        shape,
        work.n_params,
        work.n_multiplications,
        work.n_multiplications_input,
        prod(shape) if work.shape else 0,
        field,
        work.uncounted,
    )


def _fields(model: nn.Module, size: tuple[int, ...]) -> tuple[dict[str, tuple[int, ...]], bool]:
    """Receptive fields by name, and whether they were measured; none for models without kernels."""
    from pellucid.convolution.fields.receptive import receptive_field

    if not 2 <= len(size) <= 4:
        return {}, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = receptive_field(model, size)
        except UsageError:  # no convolution and no pooling: every unit sees everything
            return {}, False
    return {row.name: row.size for row in found.layers}, found.measured


def _figures(row: LayerCount) -> tuple[int, int, int, int]:
    return row.n_params, row.n_multiplications, row.n_multiplications_input, row.n_activations


def _marked(row: LayerCount) -> list[str]:
    parameters, *work, activations = _figures(row)
    if row.uncounted:
        return [_count(parameters), *(f"{n:,}{UNCOUNTED}" for n in work), _count(activations)]
    return [*map(_count, _figures(row))]


def uncounted_notes(rows: Sequence[Any]) -> list[str]:
    """What the mark means and which operations it stands for, as a line; none where everything was counted."""
    names = sorted({name for row in rows for name in row.uncounted})
    return [f"{UNCOUNTED.strip()}  without {', '.join(names)}: no formula for their multiplications"] if names else []


def _count(n: int) -> str:
    return f"{n:,}" if n else "–"


def _side(field: tuple[int, ...] | None) -> str:
    return "–" if field is None else str(field[0]) if len(set(field)) == 1 else by(field)
