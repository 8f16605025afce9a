"""Arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PICTURES = (".png", ".svg", ".pdf")
RunFolder = Annotated[Path, typer.Argument(help="A run folder, as `pellucid train` writes it.")]
