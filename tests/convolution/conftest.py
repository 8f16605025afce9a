"""The programs that open what explains a network: a browser and a spreadsheet."""

from __future__ import annotations

import os
import shutil

import pytest

from browser import FLAGS


def program(what: str, *names: str) -> str:
    """The first of these programs that is installed."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no {what}; .ci/viewers installs it")
        pytest.skip(f"no {what} here; .ci/viewers installs it")
    return found


@pytest.fixture(scope="package")
def chromium():
    path = program("Chromium", "chromium", "chromium-browser", "google-chrome")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def libreoffice() -> str:
    return program("LibreOffice", "soffice", "localc")
