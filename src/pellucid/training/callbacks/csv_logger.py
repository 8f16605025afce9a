"""The result table as a file that grows by a line an epoch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pellucid.errors import UsageError
from pellucid.text import printable
from pellucid.training.callbacks.core import Callback


class CSVLogger(Callback):
    """Write the result table to a CSV file under `learn.path`, each epoch as soon as it is over.

    Args:
        fname: Name of the file.
        append: Go on with a file that is there, instead of beginning a new one in every fit.

    Raises:
        UsageError: when a fit begins: the file cannot be written, or has other columns.
    """

    order = 60  # behind the recorder
    needs_images = False

    def __init__(self, fname: str | Path = "history.csv", append: bool = False):
        self.fname, self.append = Path(fname), append

    @property
    def file(self) -> Path:
        """The file."""
        return self.learn.path / self.fname

    def read_log(self) -> Any:
        """The file as a pandas DataFrame."""
        import pandas as pd

        return pd.read_csv(self.file)

    def before_fit(self) -> None:
        names = self.learn.recorder.metric_names
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            header = self._header() if self.append else []
            if header and header != names:
                theirs, ours = printable(", ".join(header)), ", ".join(names)
                raise UsageError(
                    f"{printable(self.file)}: has the columns {theirs}, this fit {ours}: give another fname, or "
                    "append=False"
                )
            if not header:
                self._write(names, "w")
        except OSError as error:
            raise UsageError(f"{printable(self.file)}: cannot be written ({error.strerror or error})") from None

    def after_epoch(self) -> None:
        self._write(self.learn.recorder.log, "a")

    def state_dict(self) -> dict[str, Any]:
        return {"text": self.file.read_text(encoding="utf-8")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.file.write_text(state["text"], encoding="utf-8", newline="")

    def _header(self) -> list[str]:
        if not self.file.exists():
            return []
        with self.file.open(newline="", encoding="utf-8") as lines:
            return next(csv.reader(lines), [])

    def _write(self, row: list[Any], mode: str) -> None:
        with self.file.open(mode, newline="", encoding="utf-8") as out:
            csv.writer(out, lineterminator="\n").writerow(row)
