"""The figure our pictures are drawn on. Imports matplotlib, so only functions import it."""

from __future__ import annotations

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine


class Sheet(Figure):
    """A figure that a notebook shows once, also as the value of a cell's last line.

    Jupyter's inline backend shows that value and then every open figure, the same one among them. This one leaves
    pyplot's list of open figures when it is shown.
    """

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if "inline" in matplotlib.get_backend():
            plt.close(self)
        return {}


class Rows(LayoutEngine):
    """Panels in rows of one height, with margins and gaps in inches whatever the size of the figure.

    Constrained layout measures every label instead: of 12 s that a sheet of 25 layers took, 8 s.

    Args:
        n_rows, n_columns: Of panels.
    """

    LEFT, RIGHT, TOP, BOTTOM, SUPTITLE = 0.7, 0.2, 0.35, 0.5, 0.35
    BETWEEN, BESIDE = 0.35, 0.9  # rows; columns, with tick labels and the name of the axis

    _adjust_compatible = _colorbar_gridspec = True

    def __init__(self, n_rows: int, n_columns: int):
        super().__init__()
        self.n_rows, self.n_columns = n_rows, n_columns

    def execute(self, fig: Figure) -> None:
        """Place the panels."""
        width, height = fig.get_size_inches()
        suptitle = fig.get_suptitle()
        for text in fig.texts:
            if text.get_text() == suptitle:
                text.set_y(1 - 0.1 / height)
        top = self.TOP + (self.SUPTITLE if suptitle else 0)
        room = max(height - top - self.BOTTOM, height / 2)
        gap = min(self.BETWEEN, room / self.n_rows / 2)  # in a small figure half of the room is the panels'
        panel = (room - gap * (self.n_rows - 1)) / self.n_rows
        wide = (width - self.LEFT - self.RIGHT - self.BESIDE * (self.n_columns - 1)) / self.n_columns
        bottom = min(self.BOTTOM, height / 4) / height
        fig.subplots_adjust(
            self.LEFT / width, bottom, 1 - self.RIGHT / width, bottom + room / height, self.BESIDE / wide, gap / panel
        )
