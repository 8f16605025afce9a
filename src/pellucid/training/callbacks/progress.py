"""Show a fit as it goes: a table that grows by a row an epoch, and a bar within the epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any, Protocol

from pellucid.output import is_terminal, say
from pellucid.tables import columns
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.holder import nothing

REFRESH_S = 0.1
CELL = 9


class Display(Protocol):
    """Where progress is shown."""

    def header(self, names: list[str]) -> None:
        """Start the table; without names there is none."""
        ...

    def row(self, cells: list[str]) -> None:
        """Add a finished epoch."""
        ...

    def bar(self, done: int, total: int, text: str) -> None:
        """Show how far the epoch is."""
        ...

    def close(self) -> None:
        """Take the bar away."""
        ...


class ProgressCallback(Callback):
    """Print the chapter's columns: epoch, train_loss, valid_loss, the metrics, time.

    A terminal shows a live bar, a notebook a live table, anything else plain lines. The table is the learner's `logger`
    while a fit runs, unless another one was set; `learn.no_bar()` and `learn.no_logging()` leave a part out.

    Args:
        bar: Show how far the epoch is.
    """

    order = 60
    needs_images = False

    def __init__(self, bar: bool = True):
        self.bar = bar

    def before_fit(self) -> None:
        self._display = make_display(self.bar)
        self._rows: list[list[str]] = []
        self._logged = self.learn.logger is nothing
        if self._logged:
            self.learn.logger = self._row
        names = self.learn.recorder.metric_names if self._logged else []
        self._show(lambda: self._display.header(names))
        self._shown = 0.0

    def after_batch(self) -> None:
        now = time.monotonic()
        if not self.bar or now - self._shown < REFRESH_S:
            return
        self._shown = now
        learn = self.learn
        losses = learn.recorder.losses_read  # a bar is no reason to wait for an accelerator
        phase = f"loss {losses[-1]:.4f}" if losses else ""
        text = f"epoch {learn.epoch} {phase if learn.training else 'validating'}"
        self._show(lambda: self._display.bar(learn.iter + 1, learn.n_iter, text))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._logged:
            for cells in state["rows"]:
                self._show_row(cells)

    def cleanup_fit(self) -> None:
        if hasattr(self, "_display"):
            self._show(self._display.close)
            if self._logged:
                self.learn.logger = nothing
            del self._display

    def _row(self, log: list[Any]) -> None:
        self._show_row([f"{value:.6f}" if isinstance(value, float) else str(value) for value in log])

    def _show_row(self, cells: list[str]) -> None:
        self._rows.append(cells)
        self._show(lambda: self._display.row(cells))

    def _show(self, action: Callable[[], None]) -> None:
        """Show something; where the terminal or notebook has gone meanwhile, go on with lines that cannot fail."""
        try:
            action()
        except (OSError, UnicodeError):
            self._display = PlainDisplay()
            self._display.set_widths(self.learn.recorder.metric_names)


def make_display(bar: bool = True) -> Display:
    """The display that fits where the output goes."""
    if _in_notebook():
        return NotebookDisplay()
    return TerminalDisplay() if bar and is_terminal(sys.stdout) else PlainDisplay()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class PlainDisplay:
    """Plain lines, one an epoch."""

    def header(self, names: list[str]) -> None:
        """Print the column names."""
        self.set_widths(names)
        if names:
            self.row(names)

    def set_widths(self, names: list[str]) -> None:
        """Make the columns wide enough for their names."""
        self.widths = [max(CELL, len(name)) for name in names]

    def row(self, cells: list[str]) -> None:
        """Print a line."""
        say(columns([cells], least=self.widths)[0])

    def bar(self, done: int, total: int, text: str) -> None:
        """Nothing: a file or pipe gets whole lines only."""

    def close(self) -> None:
        """Nothing to take away."""


class TerminalDisplay(PlainDisplay):
    """Plain lines with a bar below them, drawn by rich."""

    def header(self, names: list[str]) -> None:
        """Print the column names and start the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        # Refreshed by hand: a refreshing thread would compete with the training loop for the interpreter.
        self.progress = Progress(*columns, auto_refresh=False, transient=True)
        self.task = self.progress.add_task("", total=None)
        self.progress.start()
        super().header(names)

    def bar(self, done: int, total: int, text: str) -> None:
        """Redraw the bar."""
        self.progress.update(self.task, completed=done, total=total, description=text, refresh=True)

    def close(self) -> None:
        """Take the bar away."""
        self.progress.stop()


class NotebookDisplay:
    """One HTML table, updated in place."""

    def header(self, names: list[str]) -> None:
        """Show the empty table."""
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        self.html: Any = HTML
        self.names, self.rows = names, []
        self.handle: Any = display(HTML(self._table()), display_id=True)

    def row(self, cells: list[str]) -> None:
        """Add a row."""
        self.rows.append(cells)
        self.handle.update(self.html(self._table()))

    def bar(self, done: int, total: int, text: str) -> None:
        """Show the bar above the table."""
        bar = f'<progress value="{done}" max="{total}" style="width:240px"></progress> {done}/{total} {escape(text)}'
        self.handle.update(self.html(bar + self._table()))

    def close(self) -> None:
        """Leave the table without its bar."""
        self.handle.update(self.html(self._table()))

    def _table(self) -> str:
        if not self.names:
            return ""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.names)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
