"""Shared fixtures: one cache folder a session, MNIST laid out once in it, small coloured photos."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: more threads, which wait by spinning, take it from the other
    os.environ["OMP_NUM_THREADS"] = "1"

if "PELLUCID_GPU_TESTS" not in os.environ:  # `make gpu` sets it; all other tests compare with loops by hand on the CPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as shells start what runs behind `&`: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import matplotlib
import numpy as np
import pytest
from PIL import Image

matplotlib.use("Agg")
with suppress(ImportError):  # the environment of interop/ has no hypothesis, and no test of it needs one
    from hypothesis import settings

    # No example has a time limit of its own: on a busy machine any may wait, and speed is measured in benchmarks/.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}


@pytest.fixture(scope="session", autouse=True)
def pellucid_home(tmp_path_factory) -> Path:
    """A cache folder of this session's own, shared by its worker processes."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "pellucid-home"
    os.environ["PELLUCID_HOME"] = str(home)
    return home


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Each test draws the same numbers every time: four labels of a batch of four are one class now and then."""
    from pellucid.seed import set_seed

    set_seed(0)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def mnist(pellucid_home) -> Path:
    from pellucid.data.catalogue import URLs, untar_data

    return untar_data(URLs.MNIST)


@pytest.fixture(scope="session")
def mnist_sample(pellucid_home) -> Path:
    from pellucid.data.catalogue import URLs, untar_data

    return untar_data(URLs.MNIST_SAMPLE)


def make_photo(path: Path, colour: str, rng: np.random.Generator, size: tuple[int, int] = (80, 60)) -> Path:
    """A noisy photo (width, height) of one dominant colour with a bright rectangle somewhere."""
    width, height = size
    pixels = np.full((height, width, 3), COLOURS[colour], np.float64) + rng.normal(0, 25, (height, width, 3))
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    pixels[top : top + height // 4, left : left + width // 4] += 60
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three classes of twelve colour JPEGs of mixed sizes: `photos/<colour>/<n>.jpg`."""
    rng = np.random.default_rng(0)
    for colour in COLOURS:
        for n in range(12):
            size = tuple(int(s) for s in rng.integers(40, 200, 2))
            make_photo(tmp_path / "photos" / colour / f"{n}.jpg", colour, rng, size)
    return tmp_path / "photos"


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what tests have recorded as a note, also from worker processes."""
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, text in report.user_properties:
            if name == "note":
                terminalreporter.write_line(text)
