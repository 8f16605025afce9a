"""The figure our pictures are drawn on. Imports matplotlib, so only functions import it."""

from __future__ import annotations

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


class Sheet(Figure):
    """A figure that a notebook shows once, also as the value of a cell's last line.

    Jupyter's inline backend shows that value and then every open figure, the same one among them. This one leaves
    pyplot's list of open figures when it is shown.
    """

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if "inline" in matplotlib.get_backend():
            plt.close(self)
        return {}
