"""The workbook itself: numbers, formulas and colours, written by XlsxWriter."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import xlsxwriter
from xlsxwriter.utility import xl_range, xl_rowcol_to_cell
from xlsxwriter.worksheet import Worksheet

from pellucid.convolution.sheets.blocks import HEAD, Block, Slot, Stage
from pellucid.convolution.sheets.formulas import Scalar
from pellucid.convolution.sheets.grids import Grid
from pellucid.errors import UsageError

MAX_FORMULA = 8_192
PIXEL = 22
COLD, WARM = "#8DB6E6", "#F4A488"  # light enough for blue numbers
INKS = {1: ("#262626",), 3: ("#C8322B", "#2E8B40", "#2F56C4")}
COLOURS = ("red", "green", "blue")


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


class _PlainFormulas(Worksheet):
    """Takes formulas as they are: XlsxWriter searches each for 29 new functions, two thirds of its time."""

    def _prepare_formula(self, formula: str, expand_future_functions: bool = False) -> str:
        return formula.removeprefix("=")


class _Sheet:
    """The sheet while it is written."""

    def __init__(self, book: Any):
        self.book, self.formats = book, {}
        self.sheet = book.add_worksheet("convolution", _PlainFormulas)

    def head(self, title: str, part: str) -> None:
        self.sheet.set_row_pixels(0, 30)
        self.sheet.write(0, 1, title, self.format(bold=True, font_size=15))
        self.sheet.write(
            1,
            1,
            "The image and all blue numbers can be changed; what comes after follows. Select a cell, trace its "
            "precedents (Excel: Formulas, Trace Precedents; LibreOffice: Tools, Detective, Trace Precedents); "
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
        kernel_digits = _digits(np.array(list(kernels.values()))) if layer and layer.kernel else digits
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
            wide = "kernel" if len(slot.kernels) == 1 else f"input {source}"
            self.sheet.write(grid.top - 1, grid.left, wide if grid.columns > 1 else str(source), small)
        for (row, column), scalar in zip(slot.scalars, scalars, strict=True):
            self.sheet.write(row, column - 1, scalar.label, beside)
            style = self.cell(_digits(np.array(scalar.value)), blue=scalar.formula is None, bg_color="#F7F3E8")
            if scalar.formula is None:
                self.sheet.write_number(row, column, scalar.value, style)
            else:
                self.sheet.write_formula(row, column, _checked(scalar.formula), style, scalar.value)

    def numbers(self, grid: Grid, values: np.ndarray, digits: str) -> None:
        style = self.cell("General" if (values == values.round()).all() else digits, blue=True)
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
        row, column = grid.top - stage.frame.top - 1, grid.left - stage.frame.left + 3
        style = self.format(font_size=7, font_color="#808080", num_format='"white above "0.##', align="left")
        middle = (values.max() + values.min()) / 2
        self.result(row, column, 4, f"(MAX({grid.fixed})+MIN({grid.fixed}))/2", middle, style)
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
        ranges = " ".join(grid.area for grid in grids)
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


def _checked(formula: str) -> str:
    if len(formula) > MAX_FORMULA:
        raise UsageError(
            f"a sum over this many channels takes a formula of {len(formula):,} characters; a cell holds "
            f"{MAX_FORMULA:,}: choose earlier layers by layers="
        )
    return f"={formula}"


def _digits(values: np.ndarray) -> str:
    """Number format that shows about three digits of the largest in a narrow cell; no zero before the point."""
    largest = float(np.abs(values).max())
    if 99.5 < largest < 1e5:
        return "0"
    if largest >= 1e5 or 0 < largest < 0.000995:
        return "0E+0"
    text = "0.0" if largest >= 9.95 else "#.00" if largest >= 0.0995 or largest == 0 else "#.000"
    return f"{text};-{text};0"
