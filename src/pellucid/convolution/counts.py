"""What every layer of a model costs: parameters, multiplications, activations; and how far its units see."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.convolution.arithmetic import multiplications
from pellucid.convolution.columns import as_html, as_text
from pellucid.convolution.fields.graph import as_type_of, refused
from pellucid.convolution.fields.units import by
from pellucid.convolution.notation import network
from pellucid.convolution.wording import describe
from pellucid.errors import UsageError
from pellucid.looking import looking

CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d
TRANSPOSED = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
HEAD = "Layer", "", "Output", "Parameters", "Multiplications", "over input", "Activations", "Field"
NOTES = (
    "Multiplications by weights, for one image: each weight works once at each position of the output grid.",
    "over input: the same weights at each position of the input grid, as the book's chapter counts them.",
)

Record = Callable[[str, nn.Module, tuple[Any, ...], Any], None]


@dataclass(frozen=True)
class LayerCount:
    """One call of one layer, for one image.

    Attributes:
        name: Of the module in the model, with a number if it was called before.
        layer: Its kind and settings, in the words of `pellucid.convolution.notation`.
        shape: Of the output, without batch axis.
        n_params: Weights and biases; zero where an earlier row has counted the same module.
        n_multiplications: By weights, over the output grid (a transposed convolution: the input grid).
        n_multiplications_input: The chapter's count, which goes over the input grid.
        n_activations: Numbers in the output.
        field: Pixels of the image that one unit sees along each axis, as if the image went on; None if unknown.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    n_params: int
    n_multiplications: int
    n_multiplications_input: int
    n_activations: int
    field: tuple[int, ...] | None


@dataclass(frozen=True)
class LayerCounts:
    """The layers of a model in order of their calls; `str()` gives the table.

    Attributes:
        model: Class name of the model.
        input_size: Shape of an image.
        rows: A row for each call of an innermost module.
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
        """By weights, over the output grids of all layers."""
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
        lines = [
            [row.name, row.layer, by(row.shape), *map(_count, _figures(row)), _side(row.field)] for row in self.rows
        ]
        totals = [sum(figures) for figures in zip(*map(_figures, self.rows), strict=True)] or [0] * 4
        return lines, ["", "total", "", f"{self.n_params:,}", *(f"{total:,}" for total in totals[1:]), ""]

    def _notes(self) -> list[str]:
        elsewhere = self.n_params - sum(row.n_params for row in self.rows)
        notes = [*NOTES]
        if self.measured:
            notes.append("Field: pixels that reach one unit, measured by gradients: torch.fx cannot follow this model.")
        elif any(row.field for row in self.rows):
            notes.append("Field: pixels of the input that one unit sees along an axis, padding included.")
        return [*notes, f"{elsewhere:,} parameters belong to no layer of the table."] if elsewhere else notes


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
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor):
            calls.append((name, module, inputs[0], output))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same'")  # of no concern here: it is about speed
        try:
            observe(model, as_type_of(model, torch.zeros(1, *size)), record)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise refused(model, size, error) from None
        sizes, measured = _fields(model, size) if fields else ({}, False)
    counted: set[int] = set()
    times: Counter[str] = Counter()
    rows = []
    for name, module, x, output in calls:
        times[name] += 1
        row_name = name if times[name] == 1 else f"{name} ({times[name]})"  # as receptive_field names later calls
        rows.append(_row(row_name, module, x, output, counted, sizes.get(row_name)))
    n_params = sum(p.numel() for p in model.parameters())
    return LayerCounts(type(model).__name__, size, tuple(rows), n_params, measured)


def observe(model: nn.Module, xb: Tensor, record: Record) -> None:
    """Run a model on a batch in evaluation mode without gradients, and report every call of an innermost module.

    The model is left as it was, whatever happens.

    Args:
        model: Any module.
        xb: A batch it accepts.
        record: Called with the module's name in the model, the module, its inputs and its output.
    """
    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]

    def hook(name: str) -> Any:
        return lambda module, args, kwargs, output: record(name, module, (*args, *kwargs.values()), output)

    handles = [leaf.register_forward_hook(hook(name), with_kwargs=True) for name, leaf in leaves]
    try:
        with looking(model), torch.no_grad():
            model(xb)
    finally:
        for handle in handles:
            handle.remove()


def own_parameters(module: nn.Module, counted: set[int]) -> int:
    """Number of a module's parameters that are not yet `counted`, which they are from now on."""
    fresh = {id(p): p.numel() for p in module.parameters() if id(p) not in counted}
    counted.update(fresh)
    return sum(fresh.values())


def layer_multiplications(module: nn.Module, x: Tensor, output: Tensor, *, over_input: bool = False) -> int:
    """Multiplications by weights that one image costs in this layer; zero for other layers than linear and convolution.

    A convolution applies its weights once at each position of the output grid, a transposed one at each position of the
    input grid, a linear layer once for each row of features.

    Args:
        module: The layer.
        x: What it was given, batch axis first.
        output: What it gave.
        over_input: Count a convolution over its input grid, as the chapter does: four times as many at stride 2.
    """
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        grid = x if over_input or isinstance(module, TRANSPOSED) else output
        kernel = tuple(module.kernel_size)
        positions = tuple(grid.shape[-len(kernel) :])
        return multiplications(module.in_channels, module.out_channels, kernel, positions, groups=module.groups)
    if isinstance(module, nn.Linear):
        return multiplications(module.in_features, module.out_features, (), tuple(output.shape[1:-1]))
    return 0


def _row(
    name: str, module: nn.Module, x: Tensor, output: Tensor, counted: set[int], field: tuple[int, ...] | None
) -> LayerCount:
    shape = tuple(output.shape[1:])
    work = [layer_multiplications(module, x, output, over_input=over_input) for over_input in (False, True)]
    n_params = own_parameters(module, counted)
    return LayerCount(name, describe(module), shape, n_params, work[0], work[1], prod(shape), field)


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


def _count(n: int) -> str:
    return f"{n:,}" if n else "–"


def _side(field: tuple[int, ...] | None) -> str:
    return "–" if field is None else str(field[0]) if len(set(field)) == 1 else by(field)
