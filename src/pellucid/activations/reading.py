"""Read one activation tensor: everything that is recorded of it, as one vector (see `pellucid.activations.vector`).

On the CPU a compiled kernel (if numba is installed) or numpy reads each value once; elsewhere torch's own operations on
the same device give the same numbers without waiting for it (see `pellucid.activations.device_reading`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.activations import device_reading, numpy_reading
from pellucid.activations.vector import length
from pellucid.text import printable

_sparing = 0  # blocks of `uncompiled` that are open


def read(x: Tensor, with_hist: bool) -> Tensor | np.ndarray:
    """The reading of a floating-point tensor of any shape with at least one value.

    Returns:
        An array for a tensor on the CPU; otherwise a tensor on the device of `x`, for `device_reading.settled`.
    """
    reading = np.empty(length(with_hist))
    if read_at(x, with_hist, reading.ctypes.data):
        return reading
    return reduce(x, with_hist)


def read_at(x: Tensor, with_hist: bool, address: int) -> bool:
    """Read a tensor by the compiled kernel into float64 memory; False if it cannot, or a value is not finite."""
    kernel = at_hand()
    if kernel is None or not x.is_cpu or x.dtype is torch.float64:
        return False
    if not is_plain(x):  # the order of the values does not matter, gaps between them do
        with torch._C.DisableTorchFunction():
            x = bare(x).float().contiguous()
        if not is_plain(x):
            return False
    return kernel.read(x.data_ptr(), x.numel(), with_hist, address)


def bare(x: Tensor) -> Tensor:
    """The tensor without its graph, and without a subclass that only adds methods, such as fastai's."""
    plain = Tensor.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]
    if type(x).__torch_dispatch__ is not plain:  # pyright: ignore[reportAttributeAccessIssue]  # values kept elsewhere
        return x.detach()
    with torch._C.DisableTorchFunctionSubclass():
        return x.detach().as_subclass(Tensor)


def is_plain(x: Tensor) -> bool:
    """Whether its values are float32, in the CPU's memory, one after the other in some order."""
    return (
        x.dtype is torch.float32
        and x.is_cpu
        and type(x) in (Tensor, nn.Parameter)
        and x.layout is torch.strided
        and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))
    )


def reduce(x: Tensor, with_hist: bool) -> Tensor | np.ndarray:
    """As `read`, without the compiled kernel."""
    with torch._C.DisableTorchFunction():  # who listens to the functions of a model is not told of these
        return _reduced(x, with_hist)


def _reduced(x: Tensor, with_hist: bool) -> Tensor | np.ndarray:
    x = bare(x)
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)  # the order of memory: nothing is copied
    values = x.reshape(-1)
    if not x.is_cpu:
        return device_reading.read(values, with_hist)
    reading = numpy_reading.read(values.numpy(), with_hist)
    if reading is None:
        found = device_reading.read(values, with_hist).numpy()
        (reading,) = device_reading.settled(found[None], with_hist)
    return reading


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside the block values are read by numpy, unless the compiled kernel is loaded already.

    Loading it takes a second, and compiling it on a machine for the first time ten: too much for a few steps.
    """
    global _sparing
    _sparing += 1
    try:
        yield
    finally:
        _sparing -= 1


def at_hand() -> Any:
    """The compiled readings, or None where they are not to be used: see `compiled` and `uncompiled`."""
    return None if _sparing and not compiled.cache_info().currsize else compiled()


@cache
def compiled() -> Any:
    """The module of compiled readings; None without numba, and, said once, where it does not work."""
    if find_spec("numba") is None:
        return None
    try:
        from pellucid.activations import kernel

        _try(kernel)
    except Exception as error:  # any: its versions, its cache, LLVM and OpenMP fail in ways of their own
        warnings.warn(
            f"numba is installed, but does not work here ({type(error).__name__}: {printable(error)[:300]}): layers "
            "are read by numpy, with the same results in more time (said once)",
            stacklevel=2,
        )
        return None
    return kernel


def _try(kernel: Any) -> None:
    """Compare both entries of the kernel with numpy; an error in compiled code is printed and passed over."""
    values = np.linspace(-12, 12, 40_000, dtype=np.float32)  # enough for two threads
    got = np.zeros(length(True))
    finite = kernel.read(values.ctypes.data, len(values), True, got.ctypes.data)
    want = numpy_reading.read(values, True)
    assert want is not None
    copy = np.zeros_like(values)
    sums = kernel.read_parameters(np.array([[0, values.ctypes.data, copy.ctypes.data, len(values)]], np.int64))
    if not finite or not np.allclose(got, want) or not np.array_equal(copy, values) or sums[2, 0] != len(values):
        raise ArithmeticError("its numbers are wrong")
