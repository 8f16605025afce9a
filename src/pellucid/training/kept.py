"""Kept steps of a training on disk: a folder each, written aside and renamed, with a checksum.

`checkpoints/` in the folder that a user names holds `training.json` (what was asked for, and how far it is) and a
folder `step<N>` for each kept step: `state.safetensors`, all tensors with a JSON description of the rest in its
metadata (see `pellucid.training.state`), and `checkpoint.json`, what people and `pellucid runs` read.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import uuid
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pellucid.errors import UsageError
from pellucid.files import read_json, write_text
from pellucid.seed import RandomState
from pellucid.text import counted, first_few, printable
from pellucid.training.encoding import OURS, decoded, encoded, json_of, opened_file, write_tensors

FORMAT = 1
FOLDER, TRAINING = "checkpoints", "training.json"
DESCRIPTION, STATE = "checkpoint.json", "state.safetensors"
PLACE = re.compile(r"(?P<folder>.+)@(?P<step>step\d+|best)")


class Torn(UsageError):
    """A checkpoint that is not as it was written."""


@dataclass(frozen=True)
class Kept:
    """A step that was kept.

    Attributes:
        folder: The folder that holds it.
        description: `checkpoint.json`.
        changed: Whether the fit that goes on from it has other settings on purpose.
    """

    folder: Path
    description: dict[str, Any]
    changed: bool = False

    @cached_property
    def state(self) -> dict[str, Any]:
        """All of it, see `pellucid.training.state`; raises UsageError where the file is damaged."""
        file = self.folder / STATE
        with opened_file(file) as (opened, metadata):
            return decoded(json_of(metadata.get(OURS, "{}"), file), opened, file)

    @property
    def step(self) -> int:
        """Batches that were trained."""
        return self.description["step"]

    @property
    def epoch(self) -> int:
        """The epoch that goes on."""
        return self.state["position"]["epoch"]

    @property
    def batch(self) -> int:
        """Batches of it that are done."""
        return self.state["position"]["batch"]

    @property
    def fit(self) -> int:
        """Which fit of its call it is of."""
        return self.state["position"]["fit"]

    def random(self, which: str, loader: Any) -> RandomState:
        """The random numbers `now` or at the epoch's `order`."""
        found = RandomState(loader)
        found.load_state_dict(self.state["random"][which])
        return found


def place_of(where: str | Path) -> tuple[Path, str | None]:
    """The folder and the step of a place such as `runs/a@step300`; no step of a folder's name alone."""
    named = PLACE.fullmatch(str(where))
    if named is None or Path(where).exists():
        return Path(where), None
    return Path(named["folder"]), named["step"]


def steps_in(folder: Path) -> list[Path]:
    """The kept steps below a folder, the earliest first."""
    found = [(re.fullmatch(r"step(\d+)", each.name), each) for each in (folder / FOLDER).glob("step*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def write(folder: Path, description: dict[str, Any], state: dict[str, Any]) -> Path:
    """Keep a step; one that is there already stays.

    Raises:
        OSError: it cannot be written.
        UsageError: the state holds something that no file can keep.
    """
    target = folder / FOLDER / f"step{description['step']}"
    if target.exists():
        return target
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        scratch.mkdir(parents=True)
        tensors: dict[str, torch.Tensor] = {}
        tree = json.dumps(encoded(state, "", tensors))
        write_tensors(tensors, {"format": "pt", OURS: tree}, scratch / STATE)
        whole = description | {"format": FORMAT, "checksum": _checksum(scratch / STATE), "versions": versions()}
        write_text(scratch / DESCRIPTION, json.dumps(whole, indent=1) + "\n")
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    with suppress(OSError):  # the name is on disk as well, where folders can be opened
        opened = os.open(target.parent, os.O_RDONLY)
        os.fsync(opened)
        os.close(opened)
    return target


def prune(folder: Path, keep: int) -> None:
    """Remove all but the last steps, and the best one."""
    steps = steps_in(folder)
    best = [each for each in steps if _description(each).get("best")][-1:]
    for each in steps[: max(0, len(steps) - keep)]:
        if each not in best:
            shutil.rmtree(each, ignore_errors=True)


def read(step: Path) -> Kept:
    """A kept step, whole.

    Raises:
        Torn: it is damaged.
        UsageError: it is another version's.
    """
    try:
        description = read_json(step / DESCRIPTION)
    except UsageError as error:
        raise Torn(str(error)) from None
    if description.get("format") != FORMAT:
        raise UsageError(
            f"{printable(step)}: has the format {description.get('format')}, this pellucid goes on from {FORMAT}; "
            f"it was written by pellucid {description.get('versions', {}).get('pellucid', 'unknown')}"
        )
    try:
        sound = _checksum(step / STATE) == description.get("checksum")
    except OSError:
        sound = False
    if not sound:
        raise Torn(f"{printable(step / STATE)}: torn or damaged, its checksum is not that of {DESCRIPTION}")
    return Kept(step, description)


def find(where: str | Path) -> Kept:
    """The kept step of a place: the last sound one of a folder, or the named one.

    Raises:
        UsageError: there is none.
    """
    folder, name = place_of(where)
    steps = steps_in(folder)
    if not folder.is_dir():
        raise UsageError(f"{printable(folder)}: no such folder")
    if not steps:
        raise UsageError(f"{printable(folder)}: has no checkpoint to go on from")
    if name == "best":
        steps = [each for each in steps if _description(each).get("best")]
    elif name is not None:
        steps = [each for each in steps if each.name == name]
    if not steps:
        kept = first_few((each.name for each in steps_in(folder)), 12)
        raise UsageError(f"{printable(where)}: {name} is not kept; kept are {kept}")
    if name is not None:
        return read(steps[-1])
    for i, step in enumerate(reversed(steps)):
        try:
            return read(step)
        except Torn as error:
            if i + 1 == len(steps):
                raise
            warnings.warn(f"{error}; the checkpoint before it is taken", stacklevel=3)
            shutil.rmtree(step, ignore_errors=True)  # it would stand in the way of the same step
    raise AssertionError("unreachable")


def describe_training(folder: Path, contents: dict[str, Any]) -> None:
    """Write `training.json`; raises OSError."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "versions": versions()} | contents, indent=1)
    write_text(folder / FOLDER / TRAINING, text + "\n")


def training_of(folder: Path) -> dict[str, Any]:
    """`training.json`; raises UsageError where there is none, or it is damaged or another version's."""
    file = folder / FOLDER / TRAINING
    found = read_json(file, "nothing can be resumed here")
    if found.get("format") != FORMAT:
        raise UsageError(f"{printable(file)}: has the format {found.get('format')}, this pellucid knows {FORMAT}")
    return found


def sweep(folder: Path) -> None:
    """Remove what a killed process was writing."""
    for scratch in (folder / FOLDER).glob(".step*.tmp"):
        shutil.rmtree(scratch, ignore_errors=True)


def discard_steps(folder: Path) -> None:
    """Remove the kept steps."""
    for step in steps_in(folder):
        shutil.rmtree(step, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove all that was kept."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def versions() -> dict[str, Any]:
    """What the bits of a training depend on, beside itself."""
    packages = {name: version(name) for name in ("pellucid", "torch", "numpy")}
    cpu = torch.backends.cpu.get_cpu_capability()
    return packages | {"python": platform.python_version(), "threads": torch.get_num_threads(), "processor": cpu}


def warn_of_versions(kept: Kept) -> None:
    """Warn where bits may differ from those of a training that was not interrupted."""
    then, now = kept.description.get("versions", {}), versions()
    other = [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
    if other:
        what = counted(len(other), "difference")
        warnings.warn(f"results may differ in their last bits, for {what}: {'; '.join(other)}", stacklevel=3)


def _description(step: Path) -> dict[str, Any]:
    try:
        return read_json(step / DESCRIPTION)
    except UsageError:
        return {}


def _checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "blake2b").hexdigest()
