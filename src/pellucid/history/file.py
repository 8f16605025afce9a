"""The file of a history: how it is written, and what is checked of one before anything in it is believed.

A history may come from a stranger. Its header says how large every array is; names, types and shapes are checked
against each other there, before the first array is read, and the values afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn

import numpy as np

from pellucid.errors import UsageError
from pellucid.files import appearing_file, regular_file, write_text
from pellucid.history import earlier
from pellucid.history.earlier import Kinds, Wanted
from pellucid.history.record import COUNTS, MOMENTS, Record
from pellucid.text import printable

SCHEMA = 2
FILE = "history.safetensors"
RANGE = (-10.0, 10.0)
N_BINS = 80
MOST_BYTES = 8 << 30  # a record of 5,000 layers with histograms in all columns; a sparse file can claim any size
MOST = 2**53  # counts are whole numbers kept in float64 while a run goes on
GRADIENTS = ("grad.norm", "grad.mean_abs", "grad.zero", "weight.norm", "update.ratio")
_ROLES = ("layer", "activation")
_KIND = {"I64": "int64", "F32": "float32"}  # safetensors' names


def write(folder: str | Path, record: Record) -> Path:
    """Write `history.safetensors` into a folder, whole or not at all; returns it.

    Layers are described once more in `history.json`, for people.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    folder = Path(folder)
    arrays = {name: np.ascontiguousarray(value) for name, value in record.to_arrays().items()}
    description = {
        "schema": SCHEMA,
        "layers": [asdict(layer) for layer in record.layers],
        "params": record.params,
        "hist_range": RANGE,
        "epoch_columns": record.epoch_columns,
        "arrays": {name: [str(value.dtype), *value.shape] for name, value in arrays.items()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with appearing_file(folder / FILE) as scratch:
            save_file(arrays, scratch, metadata={"pellucid": json.dumps(description)})
        if record.layers:
            write_text(folder / "history.json", json.dumps(description, indent=1) + "\n")
    except (ValueError, SafetensorError) as error:  # a full disk is safetensors' own error, \0 a ValueError
        raise OSError(str(error)) from error
    return folder / FILE


def make_room(folder: Path) -> None:
    """Make the folder, and find out before a training whether `write` could write there.

    Raises:
        UsageError: it could not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / FILE).is_dir():
            raise IsADirectoryError("is a folder")
        with TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: Exception) -> UsageError:
    """The error that says so to a user."""
    return UsageError(f"{printable(folder / FILE)}: the history cannot be written ({printable(error)})")


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the description that `write` wrote, from the folder or the file itself; version 1 as version 2.

    Raises:
        UsageError: there is none, a newer version of pellucid wrote it, or it is damaged or not a history.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    file = path / FILE if _is_folder(path) else path
    regular_file(file, "a run writes it when it ends, with --stats from its beginning on; `history.save(folder)` too")
    check = Check(file)
    try:
        if file.stat().st_size > MOST_BYTES:
            check.fail(f"{file.stat().st_size:,} bytes are more than any history has")
        with safe_open(file, "numpy") as opened:
            found = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            kinds = {name: (_KIND.get(each.get_dtype()), tuple(each.get_shape())) for name, each in found.items()}
            description = _description(check, opened.metadata(), kinds)
            _check_shapes(check, description, kinds)
            arrays = {name: opened.get_tensor(name) for name in found}
    except (SafetensorError, OSError, UnicodeError) as error:
        raise UsageError(f"{printable(file)}: truncated or damaged ({printable(error)})") from None
    for phase in ("train", "valid") if description["layers"] else ():
        _check_section(check, phase, {k.split(".")[1]: v for k, v in arrays.items() if k.startswith(f"{phase}.")})
    if "kernel_steps" in arrays:
        check.that(_ascends(arrays["kernel_steps"]), "kernel_steps must ascend from 0 or later")
    if description["schema"] == 1:
        earlier.upgrade(arrays, description)
    for name in ("step", "epoch_end"):
        check.that(_ascends(arrays.get(name, np.zeros(0))), f"{name} must ascend from 0 or later")
    return arrays, description


class Check:
    """Says what is wrong with a file."""

    def __init__(self, file: Path):
        self.file = file

    def fail(self, what: str) -> NoReturn:
        """Refuse it."""
        raise UsageError(f"{printable(self.file)}: damaged, or not a history ({printable(what)})")

    def that(self, holds: object, what: str) -> None:
        """Refuse it unless something holds."""
        if not holds:
            self.fail(what)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, a null character: `regular_file` says so
        return False


def _description(check: Check, metadata: Mapping[str, str] | None, kinds: Kinds) -> dict[str, Any]:
    text = (metadata or {}).get("pellucid")
    if text is None and earlier.RECORD.keys() & kinds.keys():
        return earlier.description(kinds)
    if text is None:
        raise UsageError(f"{printable(check.file)}: is no history of a run; `pellucid train` or watch() makes one")
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        check.fail(f"its description is no JSON: {error}")
    check.that(isinstance(description, dict), "its description is no JSON object")
    schema = description.get("schema")
    check.that(_is_whole(schema) and schema >= 1, f"schema {schema!r} is no version")
    if schema > SCHEMA:
        raise UsageError(
            f"{printable(check.file)}: its schema is {schema}, this pellucid reads up to {SCHEMA}; update pellucid"
        )
    layers, params = description.get("layers"), description.get("params")
    check.that(isinstance(layers, list) and (layers or schema > 1), "it lists no layers")
    for layer in layers:
        check.that(_is_layer(layer), f"this describes no layer: {str(layer)[:200]}")
    check.that(len({layer["name"] for layer in layers}) == len(layers), "two layers have the same name")
    check.that(_are_names(params), "params must be a list of different names")
    check.that(description.get("hist_range") == list(RANGE), f"histograms must cover {RANGE}")
    columns = description.setdefault("epoch_columns", [] if schema == 1 else None)
    check.that(_are_names(columns), "epoch_columns must be a list of different names")
    return description


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_layer(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"name", "kind", "shape", "role"}
        and isinstance(value["name"], str)
        and isinstance(value["kind"], str)
        and value["role"] in _ROLES
        and isinstance(value["shape"], list)
        and all(_is_whole(n) and n >= 0 for n in value["shape"])
    )


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value) and len(set(value)) == len(value)


def _check_shapes(check: Check, description: Mapping[str, Any], kinds: Kinds) -> None:
    """Every array there must be, each as large as the others say, and none beside them."""
    of_layers = _wanted_of_layers(check, description, kinds) if description["layers"] else {}
    first = description["schema"] == 1
    wanted = of_layers | (earlier.wanted(check, description, kinds) if first else _wanted_curves(description, kinds))
    for name, (dtype, shape) in wanted.items():
        check.that(name in kinds, f"it has no array {name}")
        found = kinds[name]
        fits = len(found[1]) == len(shape) and all(
            have == want or (want is None and have) for have, want in zip(found[1], shape, strict=True)
        )
        text = " × ".join("n" if n is None else str(n) for n in shape)
        check.that(found[0] == dtype and fits, f"{name} must be {dtype}, {text}; it is {found[0]}, {found[1]}")
    for name in kinds:
        check.that(name in wanted, f"{name} is no array of a history")


def _wanted_of_layers(check: Check, description: Mapping[str, Any], kinds: Kinds) -> Wanted:
    n_layers, n_params = len(description["layers"]), len(description["params"])
    with_hist = "train.hist" in kinds
    wanted: Wanted = {}
    columns = {}
    for phase in ("train", "valid"):
        steps = kinds.get(f"{phase}.steps")
        if steps is None or len(steps[1]) != 2:
            check.fail(f"it has no table {phase}.steps")
        n = columns[phase] = steps[1][0]
        wanted[f"{phase}.steps"] = "int64", (n, 2)
        wanted |= {f"{phase}.{name}": ("int64", (n_layers, n)) for name in COUNTS}
        wanted |= {f"{phase}.{name}": ("float32", (n_layers, n)) for name in MOMENTS}
        if with_hist:
            wanted[f"{phase}.hist"] = "int64", (n_layers, n, N_BINS)
    if n_params:
        wanted |= dict.fromkeys(GRADIENTS, ("float32", (n_params, columns["train"])))
    if "kernels" in kinds or "kernel_steps" in kinds:
        shape = kinds.get("kernels", (None, (1,)))[1]
        wanted |= {"kernels": ("float32", (shape[0], *[None] * 4)), "kernel_steps": ("int64", (shape[0],))}
    return wanted


def _wanted_curves(description: Mapping[str, Any], kinds: Kinds) -> Wanted:
    curves = [name for name in kinds if name in ("loss", "smooth_loss") or name.startswith("hyper.")]
    wanted: Wanted = {}
    if curves or "step" in kinds:
        n = earlier.length(kinds, "step")
        wanted |= {"step": ("int64", (n,))}
        wanted |= {name: ("float32", (n, None) if name.startswith("hyper.") else (n,)) for name in curves}
    if "epoch_end" in kinds or "epoch_values" in kinds:
        n, columns = earlier.length(kinds, "epoch_end"), len(description["epoch_columns"])
        wanted |= {"epoch_end": ("int64", (n,)), "epoch_values": ("float32", (n, columns))}
    return wanted


def _check_section(check: Check, phase: str, x: Mapping[str, np.ndarray]) -> None:
    """What must hold between the numbers of a table."""
    first, stop = x["steps"][:, 0], x["steps"][:, 1]
    check.that(_ascends(first) and (stop > first).all(), f"{phase}.steps must ascend from 0 or later")
    for name in COUNTS:
        check.that(((x[name] >= 0) & (x[name] <= MOST)).all(), f"{phase}.{name} must lie between 0 and 2⁵³")
    n, empty = x["count"], x["count"] == 0
    parts = (x["zero"], x["near_zero_abs"], x["near_zero"], n)
    ordered = all((a <= b).all() for a, b in pairwise(parts))
    check.that(ordered and (x["underflow"] + x["overflow"] <= n).all(), f"{phase} counts more values than there were")
    for name in MOMENTS:
        check.that((np.isnan(x[name]) == empty).all(), f"{phase}.{name} must be nan where nothing was counted, only")
    seen = ~empty
    check.that((x["std"][seen] >= 0).all() and (x["min"] <= x["max"])[seen].all(), f"{phase} has impossible moments")
    if "hist" in x:
        hist = x["hist"]
        check.that(((hist >= 0) & (hist <= MOST)).all(), f"{phase}.hist must lie between 0 and 2⁵³")
        total = hist.sum(axis=2) + x["underflow"] + x["overflow"]
        check.that((total == n).all(), f"the bins of {phase}.hist do not add up to {phase}.count")


def _ascends(steps: np.ndarray) -> bool:
    return not len(steps) or bool(steps[0] >= 0 and (steps[1:] > steps[:-1]).all())
