"""One sheet of maps, kernels and formulas: where everything stands, and how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import xlsxwriter
from xlsxwriter.utility import xl_range, xl_rowcol_to_cell

from pellucid.convolution.formulas import Frame, Grid, Layer, Scalar
from pellucid.errors import UsageError

MAX_ROWS, MAX_COLUMNS, MAX_FORMULA = 1_048_576, 16_384, 8_192
ADVICE = "choose fewer layers by layers=, fewer channels of the last by channels=, or a smaller image"
HEAD = 7  # frozen rows: title, hint, part, and four about each block
PIXEL = 22
NARROWEST = 7  # columns of a block, so that its heading can be read
COLD, WARM = "#5B8FD0", "#EE7B5B"
INKS = {1: ("#262626",), 3: ("#C8322B", "#2E8B40", "#2F56C4")}
COLOURS = ("red", "green", "blue")


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


def render(blocks: Sequence[Block], title: str, part: str) -> bytes:
    """The workbook: every number and every formula, with the values the formulas have."""
    file = BytesIO()
    with xlsxwriter.Workbook(file, {"in_memory": True}) as book:
        book.set_properties({"title": title, "comments": part})
        sheet = _Sheet(book)
        sheet.head(title, part)
        sources: dict[int, Grid] = {}
        for block in blocks:
            sheet.block(block, sources)
            sources = block.maps
        sheet.finish(blocks)
    return file.getvalue()


class _Sheet:
    """The sheet while it is written."""

    def __init__(self, book: Any):
        self.book, self.formats = book, {}
        self.sheet = book.add_worksheet("convolution")

    def head(self, title: str, part: str) -> None:
        self.sheet.set_row_pixels(0, 30)
        self.sheet.write(0, 1, title, self.format(bold=True, font_size=15))
        self.sheet.write(
            1,
            1,
            "Blue numbers can be changed: everything after them follows. Select a cell and trace its precedents "
            "(Excel: Formulas, Trace Precedents; LibreOffice: Tools, Detective, Trace Precedents); "
            "again for the layer before.",
            self.format(font_size=9, font_color="#404040"),
        )
        self.sheet.write(2, 1, part, self.format(font_size=9, font_color="#404040"))

    def block(self, block: Block, sources: dict[int, Grid]) -> None:
        """Write one stage; `sources` are the maps before it."""
        stage, layer = block.stage, block.stage.layer
        _, rows, columns = stage.values.shape
        shown = f"{len(stage.channels)} of " if len(stage.channels) < len(stage.values) else ""
        heading = layer or stage
        self.sheet.write(3, block.left, heading.title, self.format(bold=True, font_size=11))
        small = self.format(font_size=8, font_color="#595959")
        self.sheet.write(4, block.left, heading.details, small)
        shape = f"{shown}{len(stage.values)}×{rows}×{columns}"
        self.sheet.write(5, block.left, f"{stage.name}: {shape}", small)
        digits = _digits(stage.values[stage.channels])
        kernels = {channel: layer.weights(channel) for channel in stage.channels} if layer else {}
        kernel_digits = _digits(np.array(list(kernels.values())))
        for channel, slot in block.slots.items():
            scalars = layer.scalars(channel, sources) if layer else []
            self.labels(block, channel, slot, scalars)
            for kernel, grid in zip(kernels.get(channel, ()), slot.kernels, strict=True):
                self.numbers(grid, kernel, kernel_digits)
            self.map(block, channel, slot, sources, digits)
            self.padding(stage, channel, slot.map, digits)
        self.colours(block)

    def labels(self, block: Block, channel: int, slot: Slot, scalars: Sequence[Scalar]) -> None:
        """Names over maps and kernels, and the parameters of one cell."""
        stage, layer = block.stage, block.stage.layer
        small = self.format(font_size=7, font_color="#808080")
        beside = self.format(font_size=7, font_color="#808080", align="right")
        n = len(stage.values)
        if n > 1:
            label = COLOURS[channel] if len(stage.inks) == 3 else f"channel {channel}"
            self.sheet.write(slot.map.top - stage.frame.top - 1, block.map_left, label, small)
        if layer is None:
            return
        for source, grid in zip(layer.sources(channel), slot.kernels, strict=False):
            wide = "kernel" if len(slot.kernels) == 1 else f"for {source}"
            self.sheet.write(grid.top - 1, grid.left, wide if grid.columns > 1 else str(source), small)
        for (row, column), scalar in zip(slot.scalars, scalars, strict=True):
            self.sheet.write(row, column - 1, scalar.label, beside)
            style = self.cell(_digits(np.array(scalar.value)), blue=scalar.formula is None, bg_color="#F7F3E8")
            if scalar.formula is None:
                self.sheet.write_number(row, column, scalar.value, style)
            else:
                self.sheet.write_formula(row, column, _checked(scalar.formula), style, scalar.value)

    def numbers(self, grid: Grid, values: np.ndarray, digits: str) -> None:
        style = self.cell("General" if digits == "0" else digits, blue=True)
        for i, row in enumerate(values.tolist()):
            for j, value in enumerate(row):
                self.sheet.write_number(grid.top + i, grid.left + j, value, style)

    def map(self, block: Block, channel: int, slot: Slot, sources: dict[int, Grid], digits: str) -> None:
        layer, values = block.stage.layer, block.stage.values[channel]
        if layer is None:
            self.numbers(slot.map, values, digits)
            return
        style, grid = self.cell(digits), slot.map
        scalars = [xl_rowcol_to_cell(*place, row_abs=True, col_abs=True) for place in slot.scalars]
        for i, row in enumerate(values.tolist()):
            for j, value in enumerate(row):
                formula = _checked(layer.formula(channel, (i, j), sources, slot.kernels, scalars))
                self.sheet.write_formula(grid.top + i, grid.left + j, formula, style, value)

    def padding(self, stage: Stage, channel: int, grid: Grid, digits: str) -> None:
        """Padding: typed zeros, or references to the cells it repeats."""
        style = self.cell(digits, font_color="#A6A6A6", bg_color="#F2F2F2")
        for (row, column), source in stage.frame.places(grid.rows, grid.columns):
            if source is None:
                self.sheet.write_number(grid.top + row, grid.left + column, 0, style)
            else:
                value = float(stage.values[channel][source])
                self.sheet.write_formula(grid.top + row, grid.left + column, f"={grid.cell(*source)}", style, value)

    def colours(self, block: Block) -> None:
        """Colour scales, which follow the numbers: grey or channel colours for an image, cold to warm for the rest."""
        stage, grids = block.stage, list(block.maps.values())
        if stage.inks:
            for channel, grid in block.maps.items():
                self.ink(grid, stage, stage.values[channel], stage.inks[channel % len(stage.inks)])
            return
        self.diverge(block.map_left, grids, stage.values[stage.channels])
        kernels = [grid for slot in block.slots.values() for grid in slot.kernels]
        if stage.layer and kernels:
            weights = np.concatenate([stage.layer.weights(channel).ravel() for channel in stage.channels])
            self.diverge(block.left, kernels, weights)

    def ink(self, grid: Grid, stage: Stage, values: np.ndarray, ink: str) -> None:
        """White to dark, with white numbers above the middle of the range, which a cell above the image holds."""
        row, column = grid.top - stage.frame.top - 1, grid.left + 3
        style = self.format(font_size=7, font_color="#808080", num_format='"white numbers above "0.##', align="left")
        middle = (values.max() + values.min()) / 2
        self.result(row, column, 5, f"(MAX({grid.fixed})+MIN({grid.fixed}))/2", middle, style)
        white = {"type": "cell", "criteria": ">", "value": f"={xl_rowcol_to_cell(row, column, True, True)}"}
        area = (grid.top, grid.left, grid.top + grid.rows - 1, grid.left + grid.columns - 1)
        self.sheet.conditional_format(*area, {"type": "2_color_scale", "min_color": "#FFFFFF", "max_color": ink})
        self.sheet.conditional_format(*area, {**white, "format": self.book.add_format({"font_color": "#FFFFFF"})})

    def diverge(self, left: int, grids: Sequence[Grid], values: np.ndarray) -> None:
        """Blue below zero, white at zero, red above; a heading cell holds the end of the scale: the largest number."""
        first, last = grids[0], grids[-1]
        right = max(grid.left + grid.columns for grid in grids)
        area = Grid(first.top, first.left, last.top + last.rows - first.top, right - first.left).fixed
        digits = f'"±"{_digits(values).split(";")[0].replace("#", "0")}'
        style = self.format(font_size=8, font_color="#595959", align="left", num_format=digits)
        self.result(6, left, 2, f"MAX(MAX({area}),-MIN({area}),1E-30)", np.abs(values).max(), style)
        end = xl_rowcol_to_cell(6, left, True, True)
        low = {"min_type": "formula", "min_value": f"=-{end}", "min_color": COLD}
        middle = {"mid_type": "num", "mid_value": 0, "mid_color": "#FFFFFF"}
        high = {"max_type": "formula", "max_value": f"={end}", "max_color": WARM}
        ranges = " ".join(grid.fixed.replace("$", "") for grid in grids)
        scale = {"type": "3_color_scale", "multi_range": ranges, **low, **middle, **high}
        self.sheet.conditional_format(first.top, first.left, last.top, last.left, scale)

    def result(self, row: int, column: int, width: int, formula: str, value: float, style: Any) -> None:
        """A formula in a cell merged over several columns."""
        self.sheet.merge_range(row, column, row, column + width - 1, "", style)
        self.sheet.write_formula(row, column, f"={formula}", style, float(value))

    def finish(self, blocks: Sequence[Block]) -> None:
        """Pixel grid, frozen heading, and a page that fits when printed."""
        bottom = max(grid.top + grid.rows for block in blocks for grid in block.maps.values())
        everything = xl_range(HEAD, 0, bottom, blocks[-1].right)
        self.sheet.ignore_errors({"formula_differs": everything, "formula_range": everything})
        self.sheet.hide_gridlines(2)
        self.sheet.set_column_pixels(0, blocks[-1].right, PIXEL)
        self.sheet.set_default_row(PIXEL * 0.75)
        self.sheet.freeze_panes(HEAD, 0)
        self.sheet.set_zoom(80)
        self.sheet.set_landscape()
        self.sheet.set_paper(8)
        self.sheet.fit_to_pages(1, 0)
        self.sheet.repeat_rows(0, HEAD - 1)

    def cell(self, digits: str, *, blue: bool = False, **options: Any) -> Any:
        colour = {"font_color": "#1F3FA8" if blue else "#000000"}
        look = {"font_size": 7, "align": "center", "shrink": True, "border": 1, "border_color": "#D9D9D9"}
        return self.format(**{**look, "num_format": digits, **colour, **options})

    def format(self, **options: Any) -> Any:
        key = tuple(sorted(options.items()))
        if key not in self.formats:
            self.formats[key] = self.book.add_format({"font_name": "Arial", "valign": "vcenter", **options})
        return self.formats[key]


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


def _checked(formula: str) -> str:
    if len(formula) > MAX_FORMULA:
        raise UsageError(
            f"a sum over this many channels takes a formula of {len(formula):,} characters; a cell holds "
            f"{MAX_FORMULA:,}: choose earlier layers by layers="
        )
    return f"={formula}"


def _digits(values: np.ndarray) -> str:
    """Number format that shows about three digits of the largest in a narrow cell; no zero before the point."""
    largest = float(np.abs(values).max(initial=0))
    if largest == 0 or (largest > 99.5 and largest < 1e5) or (values == values.round()).all():
        return "0"
    for limit, text in ((9.95, "0.0"), (0.0995, "#.00"), (0.000995, "#.000")):
        if largest >= limit and largest < 1e5:
            return f"{text};-{text};0"
    return "0E+0"
