"""Architectures of timm and torchvision, for whoever has them: `timm:resnet50`, `torchvision:resnet18`.

A library is imported when one of its names is used, and not before. A run folder may hold such a name without being
trusted: only architectures that the library lists are made, of plain values, and with new weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn

from pellucid.errors import UsageError
from pellucid.importing import described, json_arguments
from pellucid.text import printable

LIBRARIES = ("timm", "torchvision")
# Arguments that say where weights come from, or what pellucid says itself.
RESERVED = {
    "timm": ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "model_name",
             "in_chans", "num_classes", "features_only", "scriptable", "exportable", "no_jit"),
    "torchvision": ("name", "weights", "weights_backbone", "pretrained", "pretrained_backbone", "progress",
                    "num_classes"),
}  # fmt: skip


@dataclass(frozen=True)
class Images:
    """What images the weights of an architecture were learnt from.

    Attributes:
        size: Pixels a side.
        mean, std: Of each channel, on [0, 1]: what images are normalised with.
        interpolation: How they were resized.
        crop: Share of a side that was kept, cut out of the middle.
    """

    _: KW_ONLY
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop: float


def is_library(arch: str) -> bool:
    """Whether this names an architecture of timm or torchvision."""
    library, colon, _ = arch.partition(":")
    return bool(colon) and library in LIBRARIES


def check_installed(arch: str) -> None:
    """Make sure that the library of an architecture is there, without importing it.

    Raises:
        UsageError: it is not installed.
    """
    library = arch.partition(":")[0]
    if find_spec(library) is None:
        raise UsageError(f"{library} is not installed: pip install 'pellucid[{library}]'")


def library_model(
    arch: str, n_in: int, n_out: int | None, arguments: Mapping[str, Any], pretrained: bool = False
) -> nn.Module:
    """Have timm or torchvision make a network.

    Args:
        arch: Such as `timm:resnet50` or `torchvision:resnet18`.
        n_in: Image channels; torchvision's networks take 3.
        n_out: Outputs; None takes as many as the library's weights have, 0 (timm alone) leaves the classifier out.
        arguments: Keyword arguments of the library's function, as they fit into JSON.
        pretrained: With the library's weights, which it may download; otherwise with new ones.

    Raises:
        UsageError: the library is missing, has no such architecture or cannot make it with these arguments.
    """
    library, name = arch.split(":", 1)
    given = json_arguments(arguments, arch)
    if reserved := [each for each in given if each in RESERVED[library]]:
        raise UsageError(f"{arch} takes no argument {printable(reserved[0])!r} here")
    check_library(arch)
    options: dict[str, Any] = given if n_out is None else {**given, "num_classes": n_out}
    try:
        if library == "timm":
            return import_module("timm").create_model(name, pretrained, in_chans=n_in, **options)
        if n_in != 3:
            raise UsageError(f"{arch} takes images with 3 channels, these have {n_in}: timm's networks take others")
        return import_module("torchvision.models").get_model(name, weights="DEFAULT" if pretrained else None, **options)
    except UsageError:
        raise
    except Exception as error:  # their code, and with weights their download
        more = "; a file that you have is loaded with weights='…'" if pretrained else ""
        raise UsageError(f"{described(arch, given)} cannot be made: {printable(error)}{more}") from error


def library_images(arch: str, network: nn.Module) -> Images | None:
    """What images the library's weights are for; None if it publishes none."""
    library, name = arch.split(":", 1)
    if library == "timm":
        known: Any = network.pretrained_cfg
        colours = {"mean": tuple(known["mean"]), "std": tuple(known["std"])}
        return Images(
            size=known["input_size"][-1], interpolation=known["interpolation"], crop=known["crop_pct"], **colours
        )
    weights = import_module("torchvision.models").get_model_weights(name).DEFAULT
    known = weights.transforms()
    return Images(
        size=known.crop_size[0],
        mean=tuple(known.mean),
        std=tuple(known.std),
        interpolation=known.interpolation.value,
        crop=known.crop_size[0] / known.resize_size[0],
    )


def nearest(arch: str, ours: Iterable[str]) -> list[str]:
    """At most three architectures of a similar name, of pellucid's own and of the libraries that can be imported."""
    names = list(ours)
    for library in LIBRARIES:
        with suppress(UsageError):
            names += [f"{library}:{name}" for name in _names(library)]
    return _closest(arch, names)


def _closest(name: str, names: Iterable[str]) -> list[str]:
    """By the name alone, which several libraries may have."""
    first = {each.rpartition(":")[2]: each for each in reversed(list(names))}
    return [first[each] for each in difflib.get_close_matches(name, first, 3)]


def check_library(arch: str) -> None:
    """Make sure that an architecture's library is there and has it; this imports the library.

    Raises:
        UsageError: it is missing, or has none of this name; the message has the nearest.
    """
    library, name = arch.split(":", 1)
    # timm would also take names of model hubs and folders, such as hf-hub:somebody/something.
    if name not in _names(library) and not (library == "timm" and name.split(".")[0] in _names(library)):
        found = ", ".join(f"{library}:{each}" for each in _closest(name, _names(library)))
        closest = f": the nearest are {found}" if found else f": {library}.models.list_models() has all"
        raise UsageError(f"architecture {printable(f'{library}:{name}')!r} does not exist{closest}")


def _names(library: str) -> list[str]:
    """All architectures of a library that classify.

    Raises:
        UsageError: it is not installed, or cannot be imported.
    """
    check_installed(library)
    try:
        models = import_module(f"{library}.models")
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise UsageError(f"{library} cannot be imported: {printable(error)}") from error
    return models.list_models() if library == "timm" else models.list_models(module=models)
