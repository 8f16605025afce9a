"""A convolution as a matrix: the same numbers from one product with the flattened image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.convolution.connectivity import Connection, Copy, Kernel, Mean, connection_of, rule_of
from pellucid.convolution.matrices import symbols
from pellucid.convolution.matrices.places import distinct, places
from pellucid.errors import UsageError
from pellucid.inspection.looking import looking
from pellucid.plot.figure import FigureOptions, finished
from pellucid.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERED_ROWS, LETTERED_COLUMNS = 36, 36
DENSE_UP_TO = 100_000_000


@dataclass(frozen=True)
class ConvMatrix:
    """A convolution as a matrix: a row for each output, a column for each input value, channels first in both.

    Most entries are zero for good, where the kernel cannot reach. The others are kernel weights, each in many places
    and equal in all of them. A call gives what the layer gives: `m(x)` is `m.sparse() @ x.flatten() + m.bias_vector()`
    in the layer's shape. Weights are read from the layer whenever they are needed, so gradients reach it.

    Attributes:
        layer: The convolution, or another layer that sums what it reads.
        input_shape, output_shape: (channel, axis …).
        rows, columns: Row and column of each place that holds a weight; a place where padding repeats a pixel may hold
            a sum of several and is then listed for each.
        weights: Which weight it is, an index into `kernel`, flattened.
    """

    layer: Any
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    rows: Tensor
    columns: Tensor
    weights: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(np.prod(self.output_shape)), int(np.prod(self.input_shape))

    @property
    def kernel(self) -> Tensor:
        """The layer's different weights, as it has them now: its kernel, the shares of a mean, or a single one."""
        made = self._made
        if isinstance(made.weights, Kernel):
            return made.weights.weight
        like = next(self.layer.parameters(), torch.zeros(1, device=self.rows.device))
        return torch.from_numpy(distinct(made)).to(like)

    @property
    def is_zero(self) -> Tensor:
        """True where an entry is zero for good, shape `shape`."""
        mask = torch.ones(self._dense_shape(), dtype=torch.bool, device=self.rows.device)
        mask[self.rows, self.columns] = False
        return mask

    def sparse(self, weight: Tensor | None = None) -> Tensor:
        """The matrix as a sparse COO tensor, from the layer's kernel or another of its shape; differentiable."""
        values = self._kernel(weight).flatten()[self.weights]
        places = torch.stack([self.rows, self.columns])
        return torch.sparse_coo_tensor(places, values, self.shape, check_invariants=False, is_coalesced=self._single)

    def dense(self, weight: Tensor | None = None) -> Tensor:
        """The matrix with all its zeros, from the layer's kernel or another of its shape; differentiable.

        Its gradient with respect to the kernel is the sum over the places that each weight is in.
        """
        kernel = self._kernel(weight)
        places = self.rows * self.shape[1] + self.columns
        values = kernel.flatten()[self.weights]
        flat = torch.zeros(int(np.prod(self._dense_shape())), dtype=kernel.dtype, device=kernel.device)
        return flat.index_add(0, places, values).reshape(self.shape)

    def bias_vector(self) -> Tensor:
        """What is added to the product: each channel's bias once per place, zeros for a layer without."""
        bias = self._bias
        if bias is None:
            return self.kernel.new_zeros(self.shape[0])
        return bias[torch.from_numpy(self._features()).to(bias.device)]

    def weight_gradient(self, matrix_gradient: Tensor) -> Tensor:
        """The kernel's gradient from that of the matrix: for each weight the sum over the places it is in.

        Args:
            matrix_gradient: Derivative of the loss by each entry of the matrix, shape `shape`: for one image the outer
                product of the gradient of the outputs and the image. What it holds at fixed zeros counts for nothing.

        Returns:
            Gradient in the kernel's shape.
        """
        if tuple(matrix_gradient.shape) != self.shape:
            raise UsageError(f"the matrix's gradient has its shape, {self.shape}, not {tuple(matrix_gradient.shape)}")
        values = matrix_gradient[self.rows, self.columns]
        kernel = self.kernel
        return values.new_zeros(kernel.numel()).index_add(0, self.weights, values).reshape(kernel.shape)

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output by a matrix product, for one input or a batch; differentiable."""
        if tuple(x.shape[-len(self.input_shape) :]) != self.input_shape or x.ndim > len(self.input_shape) + 1:
            raise UsageError(f"this matrix takes inputs of shape {self.input_shape}, not {tuple(x.shape)}")
        columns = x.reshape(-1, self.shape[1]).T
        weight = None if isinstance(self._made.weights, Kernel) else self.kernel.to(x)  # ones and shares have no type
        product = torch.sparse.mm(self.sparse(weight), columns) + self.bias_vector()[:, None]
        return product.T.reshape(*x.shape[: -len(self.input_shape)], *self.output_shape)

    def equations(self, rows: Iterable[int] | None = None, *, latex: bool = False) -> str:
        """One equation for each output: αA + βB + γD + δE + b = P.

        Weights are Greek letters, inputs A B C … (without I and O), outputs P Q R …; when letters run out they come
        again with a subscript.

        Args:
            rows: Which outputs; None writes all if they are at most 64.
            latex: As a LaTeX `aligned` block.

        Raises:
            UsageError: too many for a text, or no such row.
        """
        chosen = symbols.chosen_rows(rows, self.shape[0])
        terms: dict[int, list[tuple[int, int]]] = {row: [] for row in chosen}
        wanted = torch.isin(self.rows, torch.tensor(chosen, device=self.rows.device))
        for row, column, weight in self._places(wanted):
            terms[row].append((column, weight))
        biases = self._bias_names()
        named = [([(symbols.GREEK[w], symbols.INPUTS[c]) for c, w in terms[row]], biases[row], symbols.OUTPUTS[row])
                 for row in chosen]  # fmt: skip
        return symbols.equations(named, latex)

    def latex(self) -> str:
        """The product of matrix and input, plus bias, as LaTeX; fixed zeros in grey.

        Raises:
            UsageError: the matrix is larger than a page, 36×36.
        """
        return symbols.matrix_latex(self._entries(), self._bias_names())

    def show(self, **options: Unpack[FigureOptions]) -> Figure:
        """Draw matrix, input, bias and output: one colour for each weight, fixed zeros in grey; letters up to 36×36.

        A larger matrix is drawn without letters, and what takes less than a dot shares it.
        """
        from pellucid.plot.matrix import plot_matrix, plot_places

        n_weights = self.kernel.numel()
        if not self._fits:
            rows, columns, weights = (t.cpu().numpy() for t in (self.rows, self.columns, self.weights))
            return finished(plot_places(rows, columns, weights, self.shape, n_weights, title=self._head()), options)
        drawn = plot_matrix(
            self._entries(),
            [symbols.text(symbols.GREEK[w]) for w in range(n_weights)],
            [symbols.text(symbols.INPUTS[c]) for c in range(self.shape[1])],
            [symbols.text(name) if name else "" for name in self._bias_names()],
            [symbols.text(symbols.OUTPUTS[r]) for r in range(self.shape[0])],
        )
        return finished(drawn, options)

    def __str__(self) -> str:
        if not self._fits:
            return self._head()
        return "\n".join([f"{self._head()} (·)", *symbols.matrix_text(self._entries())])

    def __repr__(self) -> str:
        return str(self)

    def _repr_latex_(self) -> str | None:
        return f"$$\n{self.latex()}\n$$" if self._fits else None

    def _head(self) -> str:
        (rows, columns), places = self.shape, self._n_places()
        weights, zeros = counted(self.kernel.numel(), "weight"), f"{1 - places / (rows * columns):.1%} fixed zeros"
        size = f"{rows:,}×{columns:,}"
        return f"{type(self.layer).__name__} as a {size} matrix: {weights} in {counted(places, 'place')}, {zeros}"

    @property
    def _fits(self) -> bool:
        return self.shape[0] <= LETTERED_ROWS and self.shape[1] <= LETTERED_COLUMNS

    @property
    def _made(self) -> Connection:
        found = connection_of(self.layer, self.input_shape, self.output_shape)
        assert found is not None  # as_matrix asked for it
        return found

    @property
    def _bias(self) -> Tensor | None:
        weights = self._made.weights
        return weights.bias if isinstance(weights, Kernel) else None

    @cached_property
    def _single(self) -> bool:
        """Whether no place holds a sum of weights; places are sorted."""
        same = (self.rows[1:] == self.rows[:-1]) & (self.columns[1:] == self.columns[:-1])
        return not bool(same.any())

    def _n_places(self) -> int:
        if self._single:
            return len(self.rows)
        return len(torch.unique(self.rows * self.shape[1] + self.columns))

    def _kernel(self, weight: Tensor | None) -> Tensor:
        kernel = self.kernel
        if weight is not None and weight.shape != kernel.shape:
            raise UsageError(f"the kernel has shape {tuple(kernel.shape)}, not {tuple(weight.shape)}")
        return kernel if weight is None else weight

    def _dense_shape(self) -> tuple[int, int]:
        if self.shape[0] * self.shape[1] > DENSE_UP_TO:
            raise UsageError(
                f"a {self.shape[0]:,}×{self.shape[1]:,} matrix is too large with its zeros; use sparse() or a smaller "
                "input_size"
            )
        return self.shape

    def _places(self, wanted: Tensor) -> list[tuple[int, int, int]]:
        return list(zip(*(t[wanted].tolist() for t in (self.rows, self.columns, self.weights)), strict=True))

    def _entries(self) -> list[list[tuple[int, ...]]]:
        """The weights in each entry, none for a fixed zero."""
        rows, columns = self.shape
        if not self._fits:
            raise UsageError(
                f"a {rows:,}×{columns:,} matrix is too large to write down; up to {LETTERED_ROWS}×{LETTERED_COLUMNS} "
                "fit: choose a smaller input_size, or name rows in equations(rows=...)"
            )
        entries: list[list[tuple[int, ...]]] = [[()] * columns for _ in range(rows)]
        for row, column, weight in self._places(torch.ones_like(self.rows, dtype=torch.bool)):
            entries[row][column] += (weight,)
        return entries

    def _features(self) -> np.ndarray:
        """Which output feature, and so which bias, each row belongs to."""
        weights = self._made.weights
        axis = weights.dim - 1 if isinstance(weights, Kernel) else 0
        return np.indices(self.output_shape)[axis].ravel()

    def _bias_names(self) -> list[symbols.Name | None]:
        """The name of each row's bias."""
        bias = self._bias
        if bias is None:
            return [None] * self.shape[0]
        return [("b", None if len(bias) == 1 else int(feature) + 1) for feature in self._features()]


def as_matrix(layer: nn.Module, input_size: int | Sequence[int]) -> ConvMatrix:
    """A convolution as the matrix that gives the same result on the flattened input.

    Other layers that sum what they read can be written so too: average pooling, `nn.PixelShuffle`, padding, resizing to
    the nearest pixel. Their weights are the shares of a mean, or ones.

    >>> m = as_matrix(nn.Conv2d(1, 1, 2), input_size=(3, 3))
    >>> print(m.equations().splitlines()[0])
    αA + βB + γD + δE + b = P

    Args:
        layer: `nn.Conv1d`, `Conv2d`, `Conv3d` or their transposed forms, with any stride, padding, padding mode,
            dilation and groups; or another layer that is a sum of its inputs with fixed weights.
        input_size: Shape of an input: the channels and the length of each axis. The channels of a convolution may be
            left out; an int is the length of all its axes.

    Raises:
        UsageError: not such a layer, or one that does not take such an input.

    Source: the chapter's figures after M. Kleinsmith, "CNNs from different viewpoints".
    """
    if not isinstance(layer, nn.Module) or rule_of(layer) is None or isinstance(layer, nn.Linear):
        raise _no_matrix(layer)
    shape = _input_shape(layer, input_size)
    with looking(layer), torch.no_grad():
        weight = next(layer.parameters(), torch.zeros(1, device="cpu"))
        try:
            output_shape = tuple(layer(weight.new_zeros(1, *shape)).shape[1:])
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"{layer} does not take an input of shape {shape}: {str(error).splitlines()[0]}") from None
    found = connection_of(layer, shape, output_shape)
    if found is None or not isinstance(found.weights, Kernel | Mean | Copy):
        raise _no_matrix(layer)
    rows, columns, weights = places(found)
    return ConvMatrix(
        layer, shape, output_shape, *(torch.from_numpy(a).to(weight.device) for a in (rows, columns, weights))
    )


def _no_matrix(layer: Any) -> UsageError:
    return UsageError(
        f"as_matrix takes a convolution of torch.nn, not {type(layer).__name__}, or a layer that copies or averages "
        "what it reads; the matrix of a linear layer is its weight"
    )


def _input_shape(layer: Any, input_size: int | Sequence[int]) -> tuple[int, ...]:
    kernel = getattr(layer, "kernel_size", None)
    n_axes, channels = len(kernel) if isinstance(kernel, tuple) else None, getattr(layer, "in_channels", None)
    if n_axes is None or channels is None:
        return (input_size,) if isinstance(input_size, int) else tuple(int(n) for n in input_size)
    size = (input_size,) * n_axes if isinstance(input_size, int) else tuple(int(n) for n in input_size)
    if len(size) == n_axes:
        size = (channels, *size)
    if len(size) != n_axes + 1 or size[0] != channels or min(size) < 1:
        raise UsageError(
            f"input_size is the length of {n_axes} axes, with {channels} channels in front or without, not {input_size}"
        )
    return size
