"""Weights and moments in files: safetensors and JSON, nothing pickled, under the names that the plain model has.

`<name>.safetensors` holds a model's weights and opens with any safetensors library. `<name>.optimizer.safetensors`
holds the moments of the optimizer that trained it, and parameters that are not the model's, such as those of a loss; it
names the weights it belongs to by their checksum.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from pellucid.errors import UsageError
from pellucid.optim.optimizers import align_state, forget, moment_device
from pellucid.text import printable
from pellucid.training.encoding import OURS, decoded, encoded, json_of, keepable, opened_file, tensors_in, write_tensors

WRAPPERS = nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel
LAZY = nn.UninitializedParameter, nn.UninitializedBuffer


def plain_model(model: nn.Module) -> nn.Module:
    """The model inside of `torch.compile`, `DataParallel` and the like."""
    inner = _inside(model)
    return model if inner is None else plain_model(model._modules[inner])  # type: ignore[arg-type]


def plain_names(model: nn.Module) -> dict[str, str | None]:
    """Key of the model's `state_dict` → name it has in the plain model, None for what belongs to a wrapper alone."""
    return {key: _plain(model, key) for key in model.state_dict()}


def save_checkpoint(file: Path, model: nn.Module, loss_func: Any, opt: Optimizer | None) -> Path:
    """Write weights and, with an optimizer, its moments beside them, into a folder that is made; returns the file.

    Raises:
        UsageError: they cannot be written, or hold something that such files cannot keep.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        optimizer_file(file).unlink(missing_ok=True)  # of what is replaced
        save_weights(model, file)
        if opt is not None:
            save_moments(opt, *named_params(model, loss_func, opt), file)
    except OSError as error:
        raise UsageError(f"{printable(file)}: cannot be written ({error.strerror or error})") from None
    return file


def save_weights(model: nn.Module, file: str | Path) -> None:
    """Write a model's weights; tied ones once, as safetensors' own `save_model` does.

    Raises:
        UsageError: the model holds something that such a file cannot keep.
        OSError: the file cannot be written.
    """
    state, names = model.state_dict(), plain_names(model)
    tensors = {name: state[key] for key, name in names.items() if name and keepable(state[key])}
    others = {name or key: state[key] for key, name in names.items() if (name or key) not in tensors}
    metadata = {"format": "pt"}
    if others:
        metadata[OURS] = json.dumps({name: encoded(value, name, tensors) for name, value in others.items()})
    first: dict[Any, str] = {}
    for name, tensor in list(tensors.items()):
        if tensor.device.type == "meta" or isinstance(tensor, LAZY):
            raise UsageError(f"{name!r} has no values yet: run the model on a batch, or load weights, before saving")
        place = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        if tensor.numel() and place in first:
            metadata[name] = first[place]
            del tensors[name]
        first.setdefault(place, name)
    write_tensors(tensors, metadata, file)


def load_weights(model: nn.Module, file: str | Path, *, strict: bool = True) -> None:
    """Read weights that `save_weights`, or safetensors, wrote: all of them, or nothing and an error.

    Args:
        model: The plain model, or one in a wrapper.
        file: What to read.
        strict: Refuse a file that lacks weights of the model, or has others.

    Raises:
        UsageError: no such file, a damaged one, or weights of another model.
    """
    with opened_file(file) as (opened, metadata):
        state, names = model.state_dict(), plain_names(model)
        own = {name: key for key, name in names.items() if name}
        others = json_of(metadata.get(OURS, "{}"), file)
        places = _places(own, state, set(opened.keys()), metadata)
        missing = sorted(name for name in own if name not in places and name not in others)
        extras = sorted(set(opened.keys()) - set(own) - set(tensors_in(others)))
        faults = [f"{name!r} is missing" for name in missing] if strict else []
        faults += [f"{name!r} is not the model's" for name in extras] if strict else []
        loaded: dict[str, Any] = {}
        for name, place in places.items():
            loaded[own[name]] = opened.get_tensor(place)
            faults += _misfits(name, loaded[own[name]], state[own[name]])
        for key, name in names.items():
            if (name or key) in others and key not in loaded:
                loaded[key] = decoded(others[name or key], opened, file)
    refusal = f"{printable(file)}: its weights do not fit this {type(plain_model(model)).__name__}: "
    if faults:
        raise UsageError(refusal + "; ".join(faults[:4]) + (f"; and {len(faults) - 4} more" if faults[4:] else ""))
    try:
        model.load_state_dict(loaded, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:  # what a module's own code makes of it
        raise UsageError(refusal + printable(error)) from None


def named_params(model: nn.Module, loss_func: Any, opt: Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters of an optimizer by name, and those of them that are not the model's."""
    names = {id(p): _plain(model, key) for key, p in model.named_parameters()}
    own = set(names)
    if isinstance(loss_func, nn.Module):
        names |= {id(p): f"loss_func.{key}" for key, p in loss_func.named_parameters() if id(p) not in own}
    held = [p for group in opt.param_groups for p in group["params"]]
    params = {names.get(id(p)) or f"other.{i}": p for i, p in enumerate(held)}
    return params, {name: p for name, p in params.items() if id(p) not in own}


def optimizer_file(weights: Path) -> Path:
    """Where the moments that belong to a file of weights are kept."""
    return weights.with_name(f"{weights.stem}.optimizer.safetensors")


def save_moments(opt: Optimizer, params: Mapping[str, Tensor], beside: Mapping[str, Tensor], weights: Path) -> None:
    """Write what an optimizer has gathered, beside the weights it belongs to.

    Args:
        opt: Any torch optimizer.
        params: Its parameters by name.
        beside: Parameters that it trains and that are not in the file of weights.
        weights: The file of weights.

    Raises:
        UsageError: its state holds something that such a file cannot keep.
        OSError: the file cannot be written.
    """
    tensors = {f"parameter.{name}": p.detach() for name, p in beside.items()}
    state = {name: encoded(opt.state[p], name, tensors) for name, p in params.items() if p in opt.state}
    content = {"optimizer": type(opt).__name__, "weights": _checksum(weights), "state": state}
    write_tensors(tensors, {"format": "pt", OURS: json.dumps(content)}, optimizer_file(weights))


def load_moments(opt: Optimizer, params: Mapping[str, Tensor], beside: Mapping[str, Tensor], weights: Path) -> None:
    """Give an optimizer the moments that belong to a file of weights, or none, and say why where there are some.

    Arguments as of `save_moments`.

    Raises:
        UsageError: the file of moments is damaged.
    """
    forget(opt)
    file = optimizer_file(weights)
    if not file.exists():
        return
    with opened_file(file) as (opened, metadata):
        content = json_of(metadata.get(OURS, "{}"), file)
        if content.get("optimizer") != type(opt).__name__ or content.get("weights") != _checksum(weights):
            whose = "other weights" if content.get("optimizer") == type(opt).__name__ else "another optimizer"
            warnings.warn(
                f"{printable(file)}: belongs to {whose}; {type(opt).__name__} begins without moments", stacklevel=3
            )
            return
        state = {name: decoded(each, opened, file) for name, each in content.get("state", {}).items()}
        groups = {id(p): group for group in opt.param_groups for p in group["params"]}
        for name, p in params.items():
            if name in state:
                check_moments(state[name], p, f"{printable(file)}: {name!r}")
                opt.state[p] = {k: on_device(v, p, groups[id(p)]) for k, v in state[name].items()}
        with torch.no_grad():
            for name, p in beside.items():
                if f"parameter.{name}" in opened.keys():  # noqa: SIM118 (it is no dictionary)
                    p.copy_(opened.get_tensor(f"parameter.{name}"))
    align_state(opt)


def _inside(module: nn.Module) -> str | None:
    """Name under which a wrapper has the module it wraps."""
    if "_orig_mod" in module._modules:  # torch.compile's; its class is not imported for this, that takes a second
        return "_orig_mod"
    return "module" if isinstance(module, WRAPPERS) else None


def _plain(module: nn.Module | None, key: str) -> str | None:
    head, dot, rest = key.partition(".")
    if module is None or not dot:
        return key if module is None or _inside(module) is None else None
    inner, child = _inside(module), getattr(module, head, None)
    below = _plain(child if isinstance(child, nn.Module) else None, rest)
    if inner is not None:
        return below if head == inner else None
    return None if below is None else f"{head}.{below}"


def _places(own: Mapping[str, str], state: Mapping[str, Any], there: set[str], metadata: Mapping[str, str]) -> dict:
    """Name in the model → name in the file: its own, or that of a weight it is tied to, in the file or in the model."""
    by_memory: dict[Any, list[str]] = {}
    for name, key in own.items():
        if keepable(state[key]) and not isinstance(state[key], LAZY):
            by_memory.setdefault((state[key].data_ptr(), state[key].shape, state[key].stride()), []).append(name)
    tied = {name: group for group in by_memory.values() for name in group}
    found = {}
    for name in own:
        candidates = [name, metadata.get(name, ""), *tied.get(name, ())]
        place = next((c for c in candidates if c in there), None)
        if place is not None:
            found[name] = place
    return found


def _misfits(name: str, loaded: Tensor, own: Any) -> list[str]:
    if not keepable(own) or isinstance(own, LAZY) or name.endswith("_extra_state"):  # a module's own affair
        return []
    if loaded.shape != own.shape:
        return [f"{name!r} is {_by(loaded)}, the model's is {_by(own)}"]
    if loaded.dtype.is_floating_point != own.dtype.is_floating_point or loaded.is_complex() != own.is_complex():
        return [f"{name!r} is {loaded.dtype}, the model's is {own.dtype}"]
    return []


def _by(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def check_moments(state: Any, p: Tensor, what: str) -> None:
    """Refuse what an optimizer has not gathered of this parameter; raises UsageError."""
    # The fused kernels do not compare sizes: moments of another shape would be read beyond their end.
    flat = [value for value in state.values() if isinstance(value, Tensor)] if isinstance(state, dict) else None
    elementwise = flat is not None and any(value.shape == p.shape for value in flat)
    if flat is None or (elementwise and any(value.shape != p.shape and value.numel() != 1 for value in flat)):
        raise UsageError(f"{what} has moments that do not fit a parameter of {_by(p)}")


def on_device(value: Any, p: Tensor, group: dict[str, Any]) -> Any:
    """A part of a parameter's state where torch has it, see `moment_device`."""
    if isinstance(value, list | tuple):
        return type(value)(on_device(v, p, group) for v in value)
    return value.to(moment_device(value, p, group)) if isinstance(value, Tensor) else value


def _checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
