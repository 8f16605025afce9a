"""The layer table: shapes, parameters, multiplications and receptive fields of every layer of a model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn

from pellucid.convolution.fields.graph import as_type_of, refused
from pellucid.convolution.fields.units import by
from pellucid.convolution.notation import network
from pellucid.convolution.wording import describe
from pellucid.errors import UsageError
from pellucid.inspection.work import Work, layer_work, with_shapes
from pellucid.tables import as_html, as_text, framed

MODEL = "(model)"  # the name of a row for the model itself
UNCOUNTED = " + ?"  # after a number of multiplications that leaves some out
NOTES = (
    "Multiplications of convolutions and matrix products, for one image: a weight works once at each output position.",
    "over input: the same weights at each position of the input grid, as the book's chapter counts them.",
)


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer.

    Attributes:
        name: Of the module in the model, `name#2` for its second call; empty for the model itself.
        kind: Class name of the module.
        layer: Its kind and settings, in the words of `pellucid.convolution.notation`.
        shape: Of the output: as it was, batch axis first, in `summarize`; of one image, without it, in `layer_counts`.
        n_params: Weights and biases that no other row counts: zero when an earlier call of the module has a row.
        trainable: Whether it has parameters that are trained.
        n_multiplications: For one image in its convolutions and matrix products, over the output grid (a transposed
            convolution: the input grid).
        n_multiplications_input: The chapter's count, which goes over the input grid.
        n_activations: Numbers in the output for one image.
        field: Pixels of the image that one unit sees along each axis, as if the image went on; None if unknown.
        uncounted: Operations in it whose multiplications are not known, such as `quantized::linear_dynamic`.
    """

    name: str
    kind: str
    layer: str
    shape: tuple[int, ...]
    n_params: int
    trainable: bool
    n_multiplications: int
    n_multiplications_input: int
    n_activations: int
    field: tuple[int, ...] | None = None
    uncounted: tuple[str, ...] = ()


Columns = dict[str, Callable[[LayerRow], str]]  # head → cell


@dataclass(frozen=True)
class LayerTable:
    """The layers of a model in order of their calls, and those with parameters that it does not call.

    Attributes:
        model: Class name of the model.
        input_size: Shape of what it was run on: a batch in `summarize`, an image in `layer_counts`.
        rows: A row for each call of a layer: a module that calls no other, computes by itself or holds parameters.
        n_params: Of the whole model, each counted once, whichever module holds them.
        n_trainable: Those that are trained.
    """

    model: str
    input_size: tuple[int, ...]
    rows: tuple[LayerRow, ...]
    n_params: int
    n_trainable: int

    @property
    def n_multiplications(self) -> int:
        """Of all layers for one image, over their output grids; without what rows mark as uncounted."""
        return sum(row.n_multiplications for row in self.rows)

    def cells(self, columns: Columns) -> list[list[str]]:
        """A list of cells for each row."""
        return [[cell(row) for cell in columns.values()] for row in self.rows]

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, repr=False)
class ModelSummary(LayerTable):
    """The layer table of a model run on a batch, as the book prints it; `str()` gives it as text.

    Attributes:
        notes: Lines below the totals (optimizer, loss, callbacks).
    """

    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = framed([*SUMMARY], self.cells(SUMMARY), least=WIDTHS)
        lines = [f"{self.model} (Input shape: ['{_spaced(self.input_size)}'])", *lines, lines[0]]
        lines += [f"Total params: {self.n_params:,}", f"Total trainable params: {self.n_trainable:,}"]
        lines += [f"Total non-trainable params: {self.n_params - self.n_trainable:,}"]
        lines += [f"Total multiplications per image: {self.n_multiplications:,}"]
        return "\n".join([*lines, *_uncounted_notes(self.rows), *self.notes])


@dataclass(frozen=True, repr=False)
class LayerCounts(LayerTable):
    """What the layers of a model cost for one image, and how far their units see; `str()` gives the table.

    Attributes:
        measured: Whether the receptive fields were measured by gradients because the model could not be followed.
    """

    measured: bool = False

    def __str__(self) -> str:
        cells, foot = self.cells(COUNTS), self._foot()
        return "\n".join([self._title(), "", as_text([*COUNTS], cells, foot, left=3), "", *self._notes()])

    def _repr_html_(self) -> str:
        return as_html(self._title(), [*COUNTS], self.cells(COUNTS), self._foot(), left=3, notes=self._notes())

    def _title(self) -> str:
        return f"{self.model} on an input of {by(self.input_size)}"

    def _foot(self) -> list[str]:
        over_input = sum(row.n_multiplications_input for row in self.rows)
        totals = self.n_params, self.n_multiplications, over_input, sum(row.n_activations for row in self.rows)
        return ["", "total", "", *(f"{total:,}" for total in totals), ""]

    def _notes(self) -> list[str]:
        notes = [*NOTES, *_uncounted_notes(self.rows)]
        if self.measured:
            notes.append("Field: pixels that reach one unit, measured by gradients: torch.fx cannot follow this model.")
        elif any(row.field for row in self.rows):
            notes.append("Field: pixels of the input that one unit sees along an axis, padding included.")
        return notes


def summarize(model: nn.Module, xb: Tensor, notes: Sequence[str] = ()) -> ModelSummary:
    """Run `model` on a batch in evaluation mode and tabulate its layers; the model stays as it was.

    Args:
        model: Any module.
        xb: A batch it accepts, batch axis first.
        notes: Lines to add below the totals.
    """
    return ModelSummary(*_counted(model, xb)[0], notes=tuple(notes))


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
            (name, _, rows, *totals), model = _counted(model, x)
            sizes, measured = _fields(model, size) if fields else ({}, False)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise refused(model, size, error) from None
    of_one = tuple(replace(row, shape=row.shape[1:], field=sizes.get(row.name)) for row in rows)
    return LayerCounts(name, size, of_one, *totals, measured=measured)


def _counted(
    model: nn.Module, xb: Tensor
) -> tuple[tuple[str, tuple[int, ...], tuple[LayerRow, ...], int, int], nn.Module]:
    """The columns of a `LayerTable` in its order, and the model with the shapes that the batch gave it."""
    model = with_shapes(model, xb)
    rows = tuple(map(_row, layer_work(model, xb)))
    parameters = list(model.parameters())
    n_trainable = sum(p.numel() for p in parameters if p.requires_grad)
    table = type(model).__name__, tuple(xb.shape), rows, sum(p.numel() for p in parameters), n_trainable
    return table, model


def _row(work: Work) -> LayerRow:
    called = "" if work.called else ", not called"
    return LayerRow(
        work.name,
        f"{type(work.module).__name__}{called}",
        f"{describe(work.module)}{called}",
        work.shape,
        work.n_params,
        work.trainable,
        work.n_multiplications,
        work.n_multiplications_input,
        prod(work.shape[1:]) if work.shape else 0,
        uncounted=work.uncounted,
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


def _uncounted_notes(rows: Sequence[LayerRow]) -> list[str]:
    """What the mark means and which operations it stands for, as a line; none where everything was counted."""
    names = sorted({name for row in rows for name in row.uncounted})
    return [f"{UNCOUNTED.strip()}  without {', '.join(names)}: no formula for their multiplications"] if names else []


def _work(n: int, row: LayerRow) -> str:
    return f"{n:,}{UNCOUNTED}" if row.uncounted else _count(n)


def _count(n: int) -> str:
    return f"{n:,}" if n else "–"


def _side(field: tuple[int, ...] | None) -> str:
    return "–" if field is None else str(field[0]) if len(set(field)) == 1 else by(field)


def _spaced(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


SUMMARY: Columns = {
    "Layer (type)": lambda row: row.kind,
    "Output Shape": lambda row: _spaced(row.shape),
    "Param #": lambda row: f"{row.n_params:,}",
    "Trainable": lambda row: str(row.trainable),
    "Multiplications": lambda row: f"{row.n_multiplications:,}{UNCOUNTED if row.uncounted else ''}",
}
WIDTHS = 18, 18, 10, 8, 14  # the book's, where names are short
COUNTS: Columns = {
    "Layer": lambda row: row.name or MODEL,
    "": lambda row: row.layer,
    "Output": lambda row: by(row.shape),
    "Parameters": lambda row: _count(row.n_params),
    "Multiplications": lambda row: _work(row.n_multiplications, row),
    "over input": lambda row: _work(row.n_multiplications_input, row),
    "Activations": lambda row: _count(row.n_activations),
    "Field": lambda row: _side(row.field),
}
