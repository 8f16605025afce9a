"""Receptive fields: which pixels a unit of any layer can see, and which ones it listens to."""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.convolution.fields.graph import Untraceable, as_type_of, has_windows, operations
from pellucid.convolution.fields.measured import Measured, gradient_map
from pellucid.convolution.fields.units import Followed, LayerField, by
from pellucid.errors import UsageError
from pellucid.inspection.layers import Layer, with_parameters
from pellucid.inspection.lookup import MOST_NAMES, Lookup
from pellucid.plot.figure import FigureOptions, finished
from pellucid.tables import framed
from pellucid.text import NOT_FINITE, counted, drawable, first_few

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADINGS = ("Layer", "Kind", "Output shape", "Size", "Jump", "Start", "Share of image")


class ReceptiveField:
    """The receptive fields of a model's layers on images of one size; `str()` gives the table.

    Attributes:
        model: Class name of the model.
        input_size: Shape of an image, channels first.
        layers: A row for each module and for each operation in `forward` that widens or joins fields, in order.
        measured: Whether the fields were measured by gradients because the model could not be followed. They then
            end at the border of the image, and may miss pixels.
    """

    def __init__(self, model: nn.Module, input_size: tuple[int, ...], units: Followed | Measured) -> None:
        self.model = type(model).__name__
        self.input_size = input_size
        self.measured = isinstance(units, Measured)
        self.layers: list[LayerField] = units.rows()
        self._module = model
        self._units = units

    def field(self, layer: Layer = None, position: int | Sequence[int] | None = None) -> tuple[range, ...]:
        """The rows and the columns of the image that one unit sees, exact at the borders, one range for each axis.

        Args:
            layer: Name (`conv#2` is the second call of `conv`), module, or number among the layers with parameters,
                negative from the end; a container stands for its last call, None for the last row.
            position: Row and column in the layer's map; one index in an output without map. None takes the middle unit,
                and all units together where there is no map.

        Returns:
            Ranges from the first pixel to the last; there may be holes between, see `mask`. Empty for a unit that sees
            only padding.

        Raises:
            UsageError: there is no such layer or unit.
        """
        name = self._name(layer)
        return self._units.box(name, self._units.position(name, position))

    def mask(self, layer: Layer = None, position: int | Sequence[int] | None = None) -> Tensor:
        """The exact set of pixels that one unit sees, holes and branches included: booleans, shape (row, column).

        Args and errors are those of `field`.
        """
        name = self._name(layer)
        return torch.from_numpy(self._units.mask(name, self._units.position(name, position)).copy())

    def effective(
        self, images: Any, layer: Layer = None, position: int | Sequence[int] | None = None
    ) -> EffectiveField:
        """The effective field of one unit on images; see `effective_field`."""
        name = self._name(layer)
        batch = _as_images(images, self.input_size, self._module)
        at = self._units.position(name, position)
        if at is None:
            raise UsageError(f"{name!r} has no map: name the unit, position=0 for the first output")
        values = gradient_map(self._module, batch, name, self._units.index(name, at))
        total = values.sum()
        if not total > 0:
            raise UsageError(f"no gradient of {name!r} at {at} reaches these images: the unit is off in all of them")
        return EffectiveField(name, at, values / total, self._units.box(name, at), len(batch), _numpy(batch[0]))

    def show(
        self,
        layer: Layer = None,
        position: int | Sequence[int] | None = None,
        image: Any = None,
        **options: Unpack[FigureOptions],
    ) -> Figure:
        """Draw one unit's field on an image, pixel by pixel; without a layer, how fields around one point grow.

        Args:
            layer: As in `field`, but None draws one outline for each layer with another field.
            position: As in `field`.
            image: Shape (channel, row, column) or (row, column), drawn underneath; None leaves it blank.
            options: `figsize`, `dpi`, `title`, `suptitle`.
        """
        from pellucid.plot.fields import plot_field, plot_growth

        self._flat()
        picture = None if image is None else _numpy(image)
        shape = self.input_size[1:]
        if layer is None:
            boxes: dict[tuple[range, ...], str] = {}
            at = _meeting_point(self.layers)
            for row in self.layers:
                box = self.field(row.name, _nearest(row, at))
                if all(map(len, box)):
                    boxes.setdefault(box, f"{row.name} {row.kind}: {by(row.size)}")
            labels = list(map(drawable, boxes.values()))
            return finished(plot_growth(shape, list(boxes), labels, picture, title=drawable(self.model)), options)
        name = self._name(layer)
        at = self._units.position(name, position)
        row = next((row for row in self.layers if row.name == name), None)
        size = f", {by(row.size)} px" if row else ""
        where = "" if at is None else f" at {', '.join(map(str, at))}"
        title = f"{name}{where}{size}"
        mask, box = self._units.mask(name, at), self._units.box(name, at)
        return finished(plot_field(shape, mask, box, picture, title=drawable(title)), options)

    def __getitem__(self, layer: Layer) -> LayerField:
        """The row of a layer, given as in `field`."""
        name = self._name(layer)
        for row in self.layers:
            if row.name == name:
                return row
        raise UsageError(f"{name!r} changes no field, so it has no row; ask field({name!r}) for that of one unit")

    def __str__(self) -> str:
        lines = framed(HEADINGS, list(map(_cells, self.layers)))
        return "\n".join([f"{self.model} on images of {by(self.input_size)}{self._how()}", *lines])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in HEADINGS)
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row)) for row in self.layers]
        caption = html.escape(f"{self.model} on images of {by(self.input_size)}{self._how()}")
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _how(self) -> str:
        return ", measured by gradients" if self.measured else ""

    def _flat(self) -> None:
        if len(self.input_size) != 3:
            raise UsageError(
                f"fields are drawn on images with rows and columns, not on {len(self.input_size) - 1} axes"
            )

    @cached_property
    def _numbered(self) -> list[str]:
        return list(with_parameters(self._module))

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self._units.names(), self._numbered, dict(self._module.named_modules()))

    def _name(self, layer: Layer) -> str:
        if layer is None:
            return self.layers[-1].name
        names, numbered = self._units.names(), self._numbered
        found = self._lookup.find(layer)
        if found:
            return names[found[-1]]
        said = repr(layer) if isinstance(layer, str) else layer if isinstance(layer, int) else type(layer).__name__
        raise UsageError(
            f"there is no layer {said}; there are {first_few(names, MOST_NAMES)}, and a number below {len(numbered)} "
            "counts layers with parameters"
        )


@dataclass(frozen=True)
class EffectiveField:
    """How strongly one unit listens to each pixel: the size of its gradient, averaged over images.

    Attributes:
        layer: Name of the layer.
        position: Of the unit in the layer's map.
        map: Shares of the whole, shape (row, column); they sum to one.
        box: The theoretical field: a range for each axis.
        n_images: Images averaged over.
        image: The first of them.
    """

    layer: str
    position: tuple[int, ...]
    map: np.ndarray
    box: tuple[range, ...]
    n_images: int
    image: np.ndarray

    @property
    def centre(self) -> tuple[float, ...]:
        """Centre of mass, in pixels from the centre of the first pixel."""
        return tuple(float(n @ w) for n, w in self._margins())

    @property
    def sigma(self) -> tuple[float, ...]:
        """Standard deviation along each axis, in pixels: that of the Gaussian with the same second moments."""
        return tuple(math.sqrt(float((n - n @ w) ** 2 @ w)) for n, w in self._margins())

    @property
    def size(self) -> float:
        """Side in pixels of the square with as many pixels as have more than 4.55 % of the largest value.

        Source: Luo et al., arXiv:1701.04128, section 3.
        """
        return math.sqrt(int((self.map > (1 - 0.9545) * self.map.max()).sum()))

    def square(self, share: float = 0.95) -> tuple[range, ...]:
        """Rows and columns within the smallest distance of `centre` that takes in this share of the gradient."""
        if not 0 < share <= 1:
            raise UsageError(f"share must be above 0 and at most 1, not {share}")
        grids = np.indices(self.map.shape)
        distance = np.max([abs(g - c) for g, c in zip(grids, self.centre, strict=True)], axis=0)
        order = distance.argsort(axis=None)
        enough = int((self.map.flat[order].cumsum() < share - 1e-9).sum())
        radius = distance.flat[order[min(enough, len(order) - 1)]] + 1e-9
        return tuple(
            range(max(math.ceil(c - radius), 0), min(math.floor(c + radius) + 1, n))
            for c, n in zip(self.centre, self.map.shape, strict=True)
        )

    def show(self, **options: Unpack[FigureOptions]) -> Figure:
        """Draw the measured field over the first image, with the theoretical field and the square of 95 % around it."""
        from pellucid.plot.fields import plot_effective

        if self.map.ndim != 2:
            raise UsageError(f"effective fields are drawn on rows and columns, not on {self.map.ndim} axes")
        where = ", ".join(map(str, self.position))
        title = drawable(f"{self.layer} at {where}")
        return finished(plot_effective(self.map, self.box, self.square(), self.image, title=title), options)

    def __str__(self) -> str:
        box = by(len(r) for r in self.box)
        sigma = by(round(s, 1) for s in self.sigma)
        images = counted(self.n_images, "image")
        return (
            f"{self.layer} at {', '.join(map(str, self.position))}, over {images}: sees {box} pixels; "
            f"95 % of the gradient in {by(map(len, self.square()))}, σ {sigma}"
        )

    def __repr__(self) -> str:
        return str(self)

    def _margins(self) -> list[tuple[np.ndarray, np.ndarray]]:
        axes = range(self.map.ndim)
        return [(np.arange(self.map.shape[a]), self.map.sum(axis=tuple(set(axes) - {a}))) for a in axes]


def receptive_field(model: nn.Module, input_size: Sequence[int]) -> ReceptiveField:
    """The receptive fields of all layers of a model, by following what each operation reads.

    The model is run once on an image of zeros, in evaluation mode, and left as it was. A unit is a position
    in a layer's map; its field is the union over its channels and over all branches, exact at the borders. A model that
    torch.fx cannot follow is measured by gradients on noise; a warning and `measured` say so.

    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, padding=1))
    >>> [row.size for row in receptive_field(net, (1, 28, 28)).layers]
    [(3, 3), (3, 3), (7, 7)]

    Args:
        model: Any module that takes one batch of images.
        input_size: Shape of an image: (channel, row, column); also (channel, place) or (channel, plane, row, column).

    Raises:
        UsageError: the model takes no such image, or has neither convolution nor pooling.

    Source: A. Araujo, W. Norris and J. Sim, "Computing receptive fields of convolutional neural networks", Distill
    2019, for size, jump and start along a chain; here sets of taps make them hold for any graph and at the borders.
    """
    size = tuple(int(n) for n in input_size)
    if not 2 <= len(size) <= 4 or min(size) < 1:
        raise UsageError(f"input_size is (channel, row, column), such as (1, 28, 28), not {tuple(input_size)}")
    if not isinstance(model, nn.Module):
        raise UsageError(f"receptive_field takes a torch.nn.Module, not {type(model).__name__}")
    try:
        found = operations(model, size)
    except Untraceable as error:
        units = Measured(model, size)
        warnings.warn(
            f"torch.fx cannot follow {type(model).__name__} ({error}); its fields are measured by gradients on noise",
            stacklevel=2,
        )
        return ReceptiveField(model, size, units)
    if not has_windows(found):
        raise UsageError(
            f"{type(model).__name__} has neither convolution nor pooling, so there are no receptive fields to tell"
        )
    return ReceptiveField(model, size, Followed(found))


def effective_field(
    model: nn.Module, images: Any, layer: Layer = None, position: int | Sequence[int] | None = None
) -> EffectiveField:
    """The effective receptive field of one unit: how strongly it listens to each pixel of real images.

    It is the size of the gradient of the unit's value, summed over the layer's channels, with respect to each pixel,
    summed over the image's channels and averaged over images, in evaluation mode. The model is left as it was.

    Args:
        model: Any module that takes one batch of images.
        images: A batch, as the model takes it (normalised if it was trained so), or one image.
        layer: Name, module, or number among the layers with parameters; None takes the last row of the table.
        position: Row and column in the layer's map; None takes the middle unit.

    Raises:
        UsageError: there is no such layer or unit, or no gradient reaches the images.

    Source: W. Luo, Y. Li, R. Urtasun and R. Zemel, "Understanding the effective receptive field in deep convolutional
    neural networks", arXiv:1701.04128.
    """
    shape = tuple(images.shape if hasattr(images, "shape") else torch.as_tensor(images).shape)
    return receptive_field(model, shape[1:] if len(shape) > 3 else shape).effective(images, layer, position)


def _meeting_point(layers: Sequence[LayerField]) -> tuple[float, ...] | None:
    """Centre of the middle unit of the last layer with a map of several units, which earlier layers can share."""
    for row in reversed(layers):
        if None not in row.jump + row.start and min(row.shape[1:], default=1) > 1:
            grid = zip(row.start, row.jump, row.shape[1:], strict=True)
            return tuple((start or 0) + (jump or 0) * (n // 2) for start, jump, n in grid)
    return None


def _nearest(row: LayerField, at: tuple[float, ...] | None) -> tuple[int, ...] | None:
    """The unit whose field's centre is nearest to a point of the image."""
    if at is None or None in row.jump + row.start:
        return None
    grid = zip(at, row.start, row.jump, row.shape[1:], strict=True)
    return tuple(min(max(round((a - (start or 0)) / (jump or 1)), 0), n - 1) for a, start, jump, n in grid)


def _cells(row: LayerField) -> tuple[str, ...]:
    return (
        row.name, row.kind, by(row.shape), _short(row.size), _short(row.jump), _short(row.start), f"{row.share:.1%}"
    )  # fmt: skip


def _short(values: Sequence[Any]) -> str:
    """One number where all axes agree."""
    values = ["–" if value is None else value for value in values]
    return by(values[:1] if len(set(values)) == 1 else values)


def _as_images(images: Any, input_size: tuple[int, ...], model: nn.Module) -> Tensor:
    batch = as_type_of(model, torch.as_tensor(images, device="cpu"))
    batch = batch[None] if batch.ndim == len(input_size) else batch
    if tuple(batch.shape[1:]) != input_size or not len(batch):
        raise UsageError(f"images must have shape (image, {', '.join(map(str, input_size))}), not {tuple(batch.shape)}")
    if not batch.isfinite().all():
        raise UsageError(f"the images have {counted(int((~batch.isfinite()).sum()), *NOT_FINITE)}")
    return batch


def _numpy(image: Any) -> np.ndarray:
    return np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image)
