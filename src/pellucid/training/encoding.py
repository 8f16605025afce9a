"""Values of many kinds as JSON beside tensors in a safetensors file, and back: nothing is pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pellucid.errors import UsageError
from pellucid.files import appearing_file, regular_file
from pellucid.text import printable

OURS = "pellucid"  # key of the file's metadata under which our JSON stands
INSTEAD = "save it with torch.save(learn.model.state_dict(), file)"


def keepable(value: Any) -> bool:
    """Whether a tensor can lie in such a file."""
    return isinstance(value, Tensor) and not value.is_quantized and value.layout == torch.strided


def encoded(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON, with its tensors put into `tensors` under names that begin with `path`.

    Raises:
        UsageError: it is no tensor, array, number, text or None, nor a list, tuple or dictionary of such.
    """
    if isinstance(value, Tensor) and value.dim() == 0 and _is_in_json(value):  # a count, such as of steps
        return {"scalar": value.item(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Tensor) and keepable(value):
        tensors[f"{path}#"] = value.detach()
        return {"tensor": f"{path}#"}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {k: encoded(v, f"{path}.{k}", tensors) for k, v in value.items()}}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [encoded(v, f"{path}.{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, np.ndarray):
        tensors[f"{path}#"] = torch.from_numpy(value)
        return {"array": f"{path}#"}
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no such numbers
        return {"float": str(value)}
    if value is None or isinstance(value, str | bool | int | float):
        return {"value": value}
    raise UsageError(f"{path!r} holds a {type(value).__name__}, which a file of weights cannot keep: {INSTEAD}")


def _is_in_json(value: Tensor) -> bool:
    return not value.is_complex() and math.isfinite(value.item())


def decoded(value: Any, opened: Any, file: str | Path) -> Any:
    """What `encoded` made JSON of, with tensors from a file that is open; raises UsageError where it is damaged."""
    try:
        if value.keys() == {"scalar", "dtype"}:
            dtype = getattr(torch, value["dtype"])
            return torch.tensor(value["scalar"], dtype=dtype, device="cpu")
        ((kind, content),) = value.items()
        if kind == "tensor":
            # A copy, as the tensor lies in the file itself, at an odd address: sums there may round another way.
            return opened.get_tensor(content).clone()
        if kind == "dict":
            return {k: decoded(v, opened, file) for k, v in content.items()}
        if kind in ("list", "tuple"):
            return (list if kind == "list" else tuple)(decoded(v, opened, file) for v in content)
        if kind == "array":
            return opened.get_tensor(content).numpy().copy()
        if kind == "float":
            return float(content)
        if kind == "value":
            return content
    except (AttributeError, TypeError, ValueError, RuntimeError, RecursionError, SafetensorError):
        pass
    raise UsageError(f"{printable(file)}: damaged, its description is not of this form")


def tensors_in(value: Any) -> Iterator[str]:
    """Names of the tensors that belong to a value."""
    if isinstance(value, dict):
        if isinstance(value.get("tensor"), str):
            yield value["tensor"]
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from tensors_in(each)


def write_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str], file: str | Path) -> None:
    """Write a safetensors file, whole or not at all; raises OSError where that fails."""
    seen: set[int] = set()
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place, size = value.untyped_storage().data_ptr(), value.untyped_storage().nbytes()
        if place in seen or size != value.numel() * value.element_size():
            value = value.clone()  # a part of a larger tensor, or another view of one: as itself
        seen.add(place)
        whole[name] = value
    try:
        with appearing_file(file) as scratch:
            save_file(whole, scratch, metadata)
    except SafetensorError as error:  # its word for a full disk, too
        raise OSError(str(error)) from None


@contextmanager
def opened_file(file: str | Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """A safetensors file and its metadata; raises UsageError where it is none, or damaged."""
    path = regular_file(file)
    try:
        with safe_open(str(path), "pt") as opened:
            yield opened, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{printable(file)}: damaged, or no safetensors ({printable(error)})") from None


def json_of(text: str, file: str | Path) -> dict[str, Any]:
    """The JSON object in a file's metadata; raises UsageError where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{printable(file)}: damaged, its description is no JSON object")
    return value
