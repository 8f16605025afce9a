"""The programs that open what explains a network: a browser and a spreadsheet."""

from __future__ import annotations

import pytest

from browser import chromium as chromium
from browser import program


@pytest.fixture(scope="package")
def libreoffice() -> str:
    return program("LibreOffice", "soffice", "localc")
