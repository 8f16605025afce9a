"""Read a run folder, trusted or not: everything is checked before a model is made, and no code comes out of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from pellucid.data.pipeline import Pipeline
from pellucid.errors import UsageError
from pellucid.files import read_json, regular_file
from pellucid.importing import described, is_foreign, refuse_own_code
from pellucid.nn.libraries import check_installed, is_library
from pellucid.runs.architectures import Arguments, make, needs_permission, outline
from pellucid.runs.predictions import Run
from pellucid.runs.schema import check, foreign_transforms
from pellucid.seed import kept_rng
from pellucid.text import printable
from pellucid.training.checkpoint import load_weights, plain_model

# safetensors' names of types
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_LISTED = 3
USE_OF_MODEL = "its model is made by"


def load_run(folder: str | Path, model: nn.Module | None = None, *, allow: str | Iterable[str] = ()) -> Run:
    """Open a run folder.

    Args:
        folder: As `pellucid train` or `learn.save_run` wrote it, your own or a stranger's.
        model: Put the weights into this one, rather than make it again; needed for models that have no name.
        allow: Functions and classes, as `module:name`, that may be called to make the model and its transforms. The
            folder names them if the model is none of pellucid's, timm's or torchvision's, or a transform none of
            pellucid's, and calling them runs code; the message says which.

    Raises:
        UsageError: it is no run folder, its files are damaged, do not fit each other or were written by a newer
            pellucid, or its model or a transform is made by code that was not allowed.
    """
    folder = Path(folder)
    run = read_json(folder / "run.json", "this is no run folder; `pellucid train` makes one")
    run = check(run, folder / "run.json")
    weights = regular_file(folder / "model.safetensors", "the run is not complete")
    arch, arguments = run["settings"]["arch"], run["settings"].get("arguments", {})
    shape, n_out = tuple(run["input_shape"]), len(run["vocab"])
    if model is None and is_library(arch):
        check_installed(arch)
        refuse_own_code(arch, folder)
    named = [(USE_OF_MODEL, arch, arguments)] if model is None and needs_permission(arch) else []
    named += [("a transform of its images is", each["name"], each.get("arguments")) for each in foreign_transforms(run)]
    _check_allowed(named, folder, [allow] if isinstance(allow, str) else list(allow))
    pipeline = Pipeline.from_json(run)
    if model is None:
        sketch = outline(arch, arguments, shape, n_out)
        if sketch is not None:
            _check_header(sketch, weights)
        with kept_rng():  # of the first weights, which are replaced at once
            model = make(arch, arguments, shape, n_out)
    _check_header(plain_model(model), weights)
    load_weights(model, weights)
    _check_values(model, weights)
    return Run(folder, run, model.eval(), pipeline)


def _check_allowed(named: Sequence[tuple[str, str, Arguments | None]], folder: Path, allow: Sequence[str]) -> None:
    """Refuse code outside pellucid, given as what it is for, its name and arguments, unless its name is allowed."""
    foreign = [(use, name, arguments) for use, name, arguments in named if is_foreign(name)]
    refused = [(use, name, arguments) for use, name, arguments in foreign if name not in allow]
    if refused:
        names = list(dict.fromkeys(name for _, name, _ in refused))
        calls = " and ".join(f"{use} {described(name, arguments)}" for use, name, arguments in refused)
        them, allowed = ("that name", repr(names[0])) if len(names) == 1 else ("those names", repr(names))
        options = printable(" ".join(f"--allow {name}" for name in names))
        raise UsageError(
            f"{printable(folder)}: {calls}, which is code outside pellucid. If you trust it, allow {them}: "
            f"load_run(…, allow={printable(allowed)}), or {options} on the command line"
            + ("; or make the model yourself: load_run(…, model=…)" if refused[0][0] == USE_OF_MODEL else "")
        )
    for name in allow:
        if not is_foreign(name):
            raise UsageError(f"allow (command line: --allow) takes module:name, such as nets:small, not {name!r}")
    for _, name, _ in foreign:
        refuse_own_code(name, folder)


def _check_header(model: nn.Module, file: Path) -> None:
    """Compare names, shapes and types with the file's own list, without reading a weight."""
    try:
        with safe_open(file, "pt") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            held = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{printable(file)}: truncated or damaged ({printable(error)})") from None
    state, others = model.state_dict(), _aliases(model)
    missing = [name for name in state if not held.keys() & {name, *others.get(name, ())}]
    problems = [f"has no {name}" for name in missing] + [f"has {name} besides" for name in held if name not in state]
    for name in state.keys() & held.keys():
        shape, kind = held[name]
        ours, dtype = tuple(state[name].shape), _TYPES.get(kind)
        if shape != ours:
            problems.append(f"{name} is {_times(shape)} instead of {_times(ours)}")
        elif not _holds(state[name].dtype, dtype):
            problems.append(f"{name} is {kind} instead of {str(state[name].dtype).removeprefix('torch.')}")
    if problems:
        more = f" and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        listed = printable("; ".join(problems[:_LISTED]))
        raise UsageError(f"{printable(file)}: its weights are not those of this model: {listed}{more}")


def _holds(ours: torch.dtype, theirs: torch.dtype | None) -> bool:
    """Whether a tensor takes up values of another type unchanged; whole numbers are no weights."""
    if theirs is None or theirs == ours:
        return theirs == ours
    floating = theirs.is_floating_point and ours.is_floating_point
    return floating and torch.promote_types(theirs, ours) == ours


def _aliases(model: nn.Module) -> dict[str, set[str]]:
    """Names under which each tied tensor is known; a file holds it once."""
    names: dict[int, set[str]] = {}
    for listed in (model.named_parameters, model.named_buffers):
        for name, tensor in listed(remove_duplicate=False):
            names.setdefault(id(tensor), set()).add(name)
    return {name: group for group in names.values() for name in group}


def _check_values(model: nn.Module, file: Path) -> None:
    # A buffer may be infinite on purpose, as the mask of an attention is.
    bad = [name for name, p in model.named_parameters() if not bool(p.isfinite().all())]
    bad += [name for name, b in model.named_buffers() if b.is_floating_point() and bool(b.isnan().any())]
    if bad:
        raise UsageError(
            f"{printable(file)}: {printable(bad[0])} holds values that are nan or infinite; the training exploded, or "
            "the file is damaged"
        )


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a single number"
