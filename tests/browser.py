"""Pages in a real browser."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


def program(what: str, *names: str) -> str:
    """The first of these programs that is installed."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no {what}; .ci/viewers installs it")
        pytest.skip(f"no {what} here; .ci/viewers installs it")
    return found


_users: list[object] = []  # of the one browser of this process: playwright cannot be started twice
_running: dict[str, Any] = {}


@pytest.fixture(scope="package")
def chromium():
    """A browser, while tests of a package run: asyncio is not for others until it is closed."""
    path = program("Chromium", "chromium", "chromium-browser", "google-chrome")
    from playwright.sync_api import sync_playwright

    if not _users:
        _running["playwright"] = sync_playwright().start()
        _running["browser"] = _running["playwright"].chromium.launch(executable_path=path, args=FLAGS)
    user = object()
    _users.append(user)
    yield _running["browser"]
    _users.remove(user)
    if not _users:
        _running["browser"].close()
        _running["playwright"].stop()


class Tab:
    """A page that is open, with everything it asked for and complained about."""

    def __init__(self, browser, file: Path, **options):
        options = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"} | options
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_selector("body[data-settled=true]")

    def stage(self, name: str):
        return self.page.locator("section.stage").filter(has=self.page.locator(f"h3:text-is('{name}')"))

    def spot(self, name: str, row: int, column: int) -> tuple[float, float]:
        """Where a cell of a large map lies in the window, after scrolling there."""
        map_ = self.stage(name).locator(".map")
        map_.scroll_into_view_if_needed()
        box = map_.locator("canvas").bounding_box()
        high, wide = map_.evaluate(
            "e => { const v = views.find(v => v.map === e); return [v.plane.high, v.plane.wide] }"
        )
        return box["x"] + (column + 0.5) * box["width"] / wide, box["y"] + (row + 0.5) * box["height"] / high

    def click(self, name: str, row: int, column: int) -> None:
        self.page.mouse.click(*self.spot(name, row, column))
        self.settle()

    def lit(self, name: str) -> np.ndarray:
        """Which units the page shows as lit: (channel, *grid) of bool."""
        short = name.removeprefix("layer ")
        units = self.page.evaluate("name => window.pellucid.lit(name)", short)
        shape = self.page.evaluate("name => views[window.pellucid.layers().indexOf(name)].shape", short)
        lit = np.zeros(shape, bool)
        for unit in units:
            lit[tuple(unit)] = True
        return lit

    def numbers(self) -> list[float]:
        """The numbers of the line of the calculation."""
        return [number(text) for text in self.page.locator(".sum .n").all_inner_texts()]

    def tables(self) -> list[np.ndarray]:
        """Values, weights, products of the channels shown; padding as 0."""
        rows = self.page.evaluate(
            "[...document.querySelectorAll('.product table')]"
            ".map(t => [...t.rows].map(r => [...r.cells].map(c => c.textContent)))"
        )
        return [np.array([[number(cell) for cell in row] for row in table]) for table in rows]

    def where(self) -> str:
        return self.page.locator("#where").inner_text()

    def close(self, file: Path) -> None:
        self.context.close()
        assert self.requests == [file.as_uri()]
        assert self.complaints == []


def number(text: str) -> float:
    return float(text.replace("−", "-"))
