"""Spreadsheets in LibreOffice."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import openpyxl
from openpyxl.worksheet.worksheet import Worksheet

from hanging import HUNG_S


def recalculate(program: str, files: Sequence[Path], folder: Path) -> list[Worksheet]:
    """The sheets after LibreOffice computed all of them anew."""
    command = [
        program,
        "--headless",
        "--norestore",
        f"-env:UserInstallation=file://{folder}/profile",
        "--convert-to",
        "xlsx",
    ]
    subprocess.run([*command, "--outdir", folder / "out", *files], check=True, capture_output=True, timeout=HUNG_S)
    return [openpyxl.load_workbook(folder / "out" / file.name, data_only=True).active for file in files]
