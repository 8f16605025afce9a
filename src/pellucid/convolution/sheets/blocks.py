"""Where everything stands in a sheet: stages from left to right, their channels from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pellucid.convolution.sheets.formulas import Layer
from pellucid.convolution.sheets.grids import Frame, Grid
from pellucid.errors import UsageError

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384
ADVICE = "choose fewer layers by layers=, fewer channels of the last by channels=, or a smaller image"
HEAD = 7  # frozen rows: title, hint, part, and four about each block
NARROWEST = 7  # columns of a block, so that its heading can be read


@dataclass
class Stage:
    """One column of the picture: an image, or what a layer makes of the stage before.

    Attributes:
        name: The layer's name in the model.
        layer: None for an image, whose cells are typed in.
        values: True values, (channel, row, column).
        channels: Those that are drawn.
        title, details: Heading of an image; a layer brings its own.
        inks: What the largest pixels of each channel, or of all, are coloured with; none for maps of signed numbers.
        frame: Padding drawn around the maps, which the next stage wants.
    """

    name: str
    layer: Layer | None
    values: np.ndarray
    channels: list[int]
    title: str = ""
    details: str = ""
    inks: tuple[str, ...] = ()
    frame: Frame = field(default_factory=Frame)


@dataclass
class Slot:
    """Where one channel of a stage stands."""

    map: Grid
    kernels: list[Grid]
    scalars: list[tuple[int, int]]


@dataclass
class Block:
    """Where a stage stands: first column, the column its maps' frames begin, and the cells of each channel."""

    stage: Stage
    left: int
    map_left: int
    right: int
    slots: dict[int, Slot]

    @property
    def maps(self) -> dict[int, Grid]:
        """The cells of each channel's map."""
        return {channel: slot.map for channel, slot in self.slots.items()}


def place(stages: Sequence[Stage]) -> list[Block]:
    """Lay the stages out from left to right, their channels from top to bottom.

    Layers that keep channels and size stand row by row beside the layer before.
    """
    runs: list[list[Stage]] = []
    for stage in stages:
        if runs and _beside(runs[-1][-1], stage):
            runs[-1].append(stage)
        else:
            runs.append([stage])
    blocks, left = [], 1
    for run in runs:
        above = max(stage.frame.top for stage in run)
        height = max(_height(stage, above) for stage in run)
        for stage in run:
            blocks.append(_block(stage, left, above, height))
            left = blocks[-1].right + 2
    return blocks


def count_cells(stages: Sequence[Stage]) -> int:
    """Cells that hold a number or a formula."""
    total = 0
    for stage in stages:
        rows, columns = _framed(stage)
        kernels = stage.layer.weights(stage.channels[0]).size if stage.layer else 0
        total += len(stage.channels) * (rows * columns + kernels + (stage.layer.n_scalars if stage.layer else 0))
    return total


def check_size(blocks: Sequence[Block]) -> None:
    """Refuse what no sheet can hold."""
    rows = max(slot.map.top + _framed(block.stage)[0] for block in blocks for slot in block.slots.values())
    if rows > MAX_ROWS or blocks[-1].right > MAX_COLUMNS:
        raise UsageError(
            f"the part needs {rows:,} rows and {blocks[-1].right:,} columns; a sheet has {MAX_ROWS:,} × "
            f"{MAX_COLUMNS:,}: {ADVICE}"
        )


def _framed(stage: Stage) -> tuple[int, int]:
    """Rows and columns of a map with its padding."""
    _, rows, columns = stage.values.shape
    return rows + stage.frame.top + stage.frame.bottom, columns + stage.frame.left + stage.frame.right


def _height(stage: Stage, above: int) -> int:
    """Rows of a channel whose map begins below `above` rows of padding."""
    kernel = stage.layer.kernel[0] if stage.layer and stage.layer.kernel else 0
    rows = above + stage.values.shape[1] + stage.frame.bottom
    return max(rows, kernel, stage.layer.n_scalars if stage.layer else 0)


def _beside(stage: Stage, after: Stage) -> bool:
    no_kernel = after.layer is not None and after.layer.kernel is None
    return no_kernel and stage.channels == after.channels and stage.values.shape == after.values.shape


def _block(stage: Stage, left: int, above: int, height: int) -> Block:
    """Kernels at the left, wrapped to the height of a map; then parameters of one cell; then the maps."""
    layer, column = stage.layer, left
    kernel_places: list[tuple[int, int]] = []
    if layer and layer.kernel:
        rows, columns = layer.kernel
        n = len(layer.sources(stage.channels[0]))
        per_row = -(-n // max(1, (height + 1) // (rows + 1)))
        kernel_places = [((k // per_row) * (rows + 1), left + (k % per_row) * (columns + 1)) for k in range(n)]
        column += max(per_row * (columns + 1), 3)
    scalar_column = column + 1
    column += 3 if layer and layer.n_scalars else 0
    framed = _framed(stage)
    slots = {}
    for i, channel in enumerate(stage.channels):
        top = HEAD + 2 + i * (height + 2)
        kernels = [Grid(top + row, at, *layer.kernel) for row, at in kernel_places] if layer and layer.kernel else []
        scalars = [(top + row, scalar_column) for row in range(layer.n_scalars if layer else 0)]
        grid = Grid(top + above, column + stage.frame.left, *stage.values.shape[1:])
        slots[channel] = Slot(grid, kernels, scalars)
    return Block(stage, left, column, max(column + framed[1], left + NARROWEST), slots)
