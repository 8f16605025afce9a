"""numba installed but failing, in any way: layers are read by numpy, and that is said once."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pellucid
import pellucid.activations
from pellucid.activations import reading

BROKEN = {
    "needs another numpy": "raise ImportError('Numba needs NumPy 2.3 or less. Got NumPy 2.4.')",
    "part missing": "raise ModuleNotFoundError(\"No module named 'llvmlite'\", name='llvmlite')",
    "empty": "",
    "no cache": "def njit(*a, **k): raise RuntimeError('cannot cache function: no locator available')",
    "library": "raise OSError('libLLVM.so: cannot open shared object file')",
    "system": "raise SystemError('initialization failed')",
    "assertion": "assert False",
    "attribute": "import numpy; numpy.no_such_thing",
    "syntax": "def njit(:",
    "recursion": "def f(): f()\nf()",
    "control characters": "raise ValueError('\\x1b[31mred')",
}


@pytest.fixture
def fresh(monkeypatch):
    """As in a new process: numba not imported, no kernel known."""
    for name in [name for name in sys.modules if name.split(".")[0] == "numba"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "pellucid.activations.kernel", raising=False)
    monkeypatch.delattr(pellucid.activations, "kernel", raising=False)
    reading.compiled.cache_clear()
    yield
    reading.compiled.cache_clear()


def record() -> pellucid.History:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with pellucid.watch(model, opt) as seen:
        for _ in range(3):
            model(torch.randn(8, 4)).square().mean().backward()
            opt.step()
    return seen.history


@pytest.fixture(scope="module")
def want() -> pellucid.History:
    assert reading.compiled() is not None, "numba belongs to the test environment"
    return record()


@pytest.mark.parametrize("code", BROKEN.values(), ids=BROKEN)
def test_a_failing_numba_is_said_once(want, fresh, monkeypatch, tmp_path, code):
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = record()
        record()
    messages = [str(each.message) for each in caught if "numba" in str(each.message)]
    assert len(messages) == 1
    assert "read by numpy" in messages[0]
    assert messages[0].isprintable()
    for name, value in got.to_arrays().items():
        np.testing.assert_allclose(value, want.to_arrays()[name], rtol=1e-5, atol=1e-7)


def test_compiled_code_with_wrong_numbers_is_not_used(fresh, monkeypatch):
    kernel = reading.compiled()
    assert kernel is not None, "numba belongs to the test environment"
    monkeypatch.setattr(kernel, "_c_read", lambda *args: 1)
    reading.compiled.cache_clear()
    with pytest.warns(UserWarning, match="its numbers are wrong"):
        assert reading.compiled() is None


def test_no_numba_is_nothing_to_say(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert reading.compiled() is None


def test_a_cache_folder_that_cannot_be_written(tmp_path):
    package, file = tmp_path / "pellucid", tmp_path / "file"
    (package / "activations").mkdir(parents=True)
    for place in (Path(pellucid.__file__).parent, Path(reading.__file__).parent):
        for each in place.iterdir():
            target = package / each.relative_to(Path(pellucid.__file__).parent)
            if each.name not in ("activations", "__pycache__"):
                target.symlink_to(each)
    for each in (file, package / "activations" / "__pycache__"):
        each.write_text("")  # a file where numba wants a folder, which stops root as well
    code = "import torch, pellucid\nwith pellucid.watch(torch.nn.Linear(2, 2)) as seen: seen.model(torch.ones(3, 2))\n"
    code += "print(seen.history.train.count.tolist())"
    places = dict.fromkeys(("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME"), str(file)) | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | places, capture_output=True, text=True)
    assert done.stdout.strip() == "[[6]]"
    assert done.stderr.count("numba is installed, but does not work here") == 1
