"""A part of a network on one image as a spreadsheet, in which every activation is a live formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pellucid.convolution.connectivity.connection import is_convolution
from pellucid.errors import UsageError
from pellucid.files import appearing_file
from pellucid.inspection.calls import IMAGE, Call, calls
from pellucid.inspection.layers import Layer, with_parameters
from pellucid.inspection.lookup import Lookup
from pellucid.text import NOT_FINITE, counted, first_few

if TYPE_CHECKING:
    from pellucid.convolution.sheets.blocks import Stage

MAX_CELLS = 250_000


@dataclass(frozen=True)
class Spreadsheet:
    """A spreadsheet that was written.

    Attributes:
        path: The file.
        ranges: Where the output of each layer stands: {name: {channel: range}}, as `ranges['0'][0]` → 'AI9:AV22'. The
            typed-in numbers it starts from are under 'pixels', 'image' or 'input'.
    """

    path: Path
    ranges: dict[str, dict[int, str]]


def to_spreadsheet(
    model: nn.Module,
    image: Any,
    path: str | Path,
    layers: int | str | Sequence[Layer] | None = 2,
    *,
    channels: int | Sequence[int] | None = None,
    normalize: tuple[Any, Any] | None = None,
) -> Spreadsheet:
    """Write a part of a network on one image as a sheet, so that *trace precedents* shows what made an activation.

    The image, kernels, biases and norm parameters are numbers; every cell of a layer's output is a formula over the
    cells of its window and its kernel, so changing a pixel or a weight changes all that follows. Evaluation mode; the
    file also holds the values PyTorch found. Padding is drawn as cells around a map. Needs the extra `spreadsheet`
    (XlsxWriter).

    Args:
        model: Any module whose chosen part is a chain of convolutions (2 dimensions, also transposed), poolings, norms,
            activation functions and layers that copy numbers, such as `nn.PixelShuffle`.
        image: (row, column), (channel, row, column) or (1, channel, row, column), as the network takes it.
        path: File to write, ending in .xlsx; one that exists is replaced.
        layers: How many convolutions from the image on, each with what follows it up to the next; None for all. Or
            which, neighbours: convolutions or modules that hold some, by name, as modules, or in a list also by number
            among the layers with parameters, such as [-2].
        channels: How many channels of the last layer, or which; None for all. Of the layers before, those are drawn
            that they are made of, so every sum stays complete.
        normalize: Mean and standard deviation (of each channel) that the image was normalised with on [0, 1], as
            `Normalize.from_stats` takes them. A part that starts at the image then starts from pixels of 0 to 255.

    Raises:
        UsageError: XlsxWriter is missing, the file cannot be written, the model has no convolution or the part is no
            chain, a layer has no formula, numbers are nan or infinite, or the part is too large for a sheet.
    """
    try:
        import xlsxwriter  # noqa: F401
    except ImportError:
        raise UsageError("to_spreadsheet needs XlsxWriter: pip install 'pellucid[spreadsheet]'") from None
    from pellucid.convolution.sheets import blocks, sheet

    path = _checked_path(path)
    found = calls(model, image)
    start, end = _part(model, found, layers)
    _check_finite(found[start:end])
    stages = _stages(found[start:end], normalize if found[start].source == IMAGE else None)
    _choose_channels(stages, channels)
    n_cells = blocks.count_cells(stages)
    if n_cells > MAX_CELLS:
        raise UsageError(f"the part has {n_cells:,} cells; a sheet here has at most {MAX_CELLS:,}: {blocks.ADVICE}")
    placed = blocks.place(stages)
    blocks.check_size(placed)
    _write(path, sheet.render(placed, *_titles(model, found, start, end)))
    return Spreadsheet(path, {b.stage.name: {c: g.area for c, g in b.maps.items()} for b in placed})


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() != ".xlsx":
        raise UsageError(f"a spreadsheet's name ends in .xlsx: {path}")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of {path} does not exist: make it first")
    return path


def _write(path: Path, content: bytes) -> None:
    try:
        with appearing_file(path) as scratch:
            scratch.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); close it if a program has it open") from None


def _part(model: nn.Module, found: list[Call], layers: int | str | Sequence[Layer] | None) -> tuple[int, int]:
    """First and last call (exclusive) of the part: the chosen convolutions, what lies between and what follows."""
    convs = [i for i, call in enumerate(found) if _is_convolution(call)]
    if not convs:
        raise UsageError(f"{type(model).__name__} calls no convolution (nn.Conv2d), so there is nothing to draw")
    chosen = _chosen(model, found, convs, layers)
    start, end = convs[chosen[0]], convs[chosen[-1]] + 1
    for i in range(start + 1, end):
        if not _joined(found, i):
            raise UsageError(
                f"between {found[i - 1].name!r} and {found[i].name!r} the model branches, or computes something that "
                "is no module (an addition, F.relu); a sheet shows a chain of modules: choose a part by layers=, "
                f"such as [{found[start].name!r}]"
            )
    from_image = layers is None or isinstance(layers, int)
    while from_image and start > 0 and _joined(found, start):
        start -= 1
    while end < len(found) and end not in convs and _joined(found, end) and found[end].output.ndim == 4:
        end += 1
    return start, end


def _chosen(
    model: nn.Module, found: list[Call], convs: list[int], layers: int | str | Sequence[Layer] | None
) -> list[int]:
    """Places of the chosen ones among the convolutions, neighbours."""
    labels = [call.label for call in found]
    names = [labels[i] for i in convs]
    if layers is None or isinstance(layers, int):
        if layers is not None and layers < 1:
            raise UsageError(f"layers={layers} shows nothing: give 1 or more, or None for all {len(convs)}")
        return list(range(len(convs)))[:layers]
    lookup = Lookup(labels, list(with_parameters(model)), dict(model.named_modules()))
    chosen: set[int] = set()
    for entry in [layers] if isinstance(layers, str) else layers:
        inside = lookup.find(entry)
        hits = {i for i, place in enumerate(convs) if place in inside}
        if not hits:
            told = f"layer {entry!r} is none and holds none" if inside else f"convolution {entry!r} does not exist"
            raise UsageError(f"{told}: there are {first_few(map(repr, names), 12)}")
        chosen |= hits
    if not chosen:
        raise UsageError("layers=[] shows nothing: name a convolution, or give None for all")
    left_out = [names[i] for i in range(min(chosen), max(chosen)) if i not in chosen]
    if left_out:
        raise UsageError(f"chosen convolutions must follow one another; {', '.join(map(repr, left_out))} is left out")
    return sorted(chosen)


def _is_convolution(call: Call) -> bool:
    is_map = call.output.ndim == 4
    return isinstance(call.module, nn.Conv2d) or (is_map and is_convolution(call.module, *call.shapes))


def _joined(found: list[Call], i: int) -> bool:
    """Whether a call's input is the output of the call before, unchanged."""
    return found[i].source == i - 1 and torch.equal(found[i].input, found[i - 1].output)


def _check_finite(part: Sequence[Call]) -> None:
    for call in part:
        arrays = [(name, value) for name, value in call.module.state_dict().items() if value.is_floating_point()]
        for name, value in [*arrays, ("output", call.output)]:
            if n_bad := int((~value.isfinite()).sum()):
                raise UsageError(f"{name} of layer {call.name!r} has {counted(n_bad, *NOT_FINITE)}")


def _stages(part: Sequence[Call], normalize: tuple[Any, Any] | None) -> list[Stage]:
    """What stands in the sheet from left to right, all channels, padding not yet asked for."""
    from pellucid.convolution.sheets.blocks import Stage
    from pellucid.convolution.sheets.formulas import PixelScaling, layer_of
    from pellucid.convolution.sheets.sheet import INKS

    image = part[0].input[0].double().cpu().numpy()
    every, inks = list(range(len(image))), INKS.get(len(image), INKS[1])
    if normalize is not None:
        mean, std = _statistics(normalize, len(image))
        pixels = (image * std[:, None, None] + mean[:, None, None]) * 255
        whole = pixels.round()
        pixels = whole if abs(pixels - whole).max() < 0.01 else pixels
        stages = [Stage("pixels", None, pixels, every, "Image", "from 0 to 255", inks)]
        stages.append(Stage("input", PixelScaling(mean, std), image, every))
    elif part[0].source == IMAGE:
        stages = [Stage("image", None, image, every, "Image", "the network's input", inks)]
    else:
        stages = [Stage("input", None, image, every, "Input", f"what layer {part[0].name} is given")]
    n_convs = 0
    for call in part:
        n_convs += _is_convolution(call)
        layer = layer_of(call, n_convs)
        if layer is not None:
            values = call.output[0].double().cpu().numpy()
            stages[-1].frame = layer.frame
            stages.append(Stage(call.label, layer, values, list(range(len(values)))))
    return stages


def _statistics(normalize: tuple[Any, Any], n_channels: int) -> tuple[Any, Any]:
    """Mean and standard deviation of each channel."""
    import numpy as np

    try:
        mean, std = (np.broadcast_to(np.asarray(s, np.float64).ravel(), n_channels) for s in normalize)
    except ValueError:
        raise UsageError(
            f"normalize={normalize} must hold mean and standard deviation: a number each, or one for each of the "
            f"{n_channels} channels"
        ) from None
    if not (std > 0).all():
        raise UsageError(f"normalize needs positive standard deviations, not {std.tolist()}")
    return mean, std


def _choose_channels(stages: list[Stage], channels: int | Sequence[int] | None) -> None:
    """Keep the chosen channels of the last stage, and of those before what they are made of."""
    n = len(stages[-1].values)
    wanted = list(range(n))
    if isinstance(channels, int):
        if channels < 1:
            raise UsageError(f"channels={channels} shows nothing: give 1 to {n}, or None for all")
        wanted = wanted[:channels]
    elif channels is not None:
        wanted = sorted(set(channels))
        if not wanted or wanted[0] < 0 or wanted[-1] >= n:
            raise UsageError(f"channels={list(channels)}: layer {stages[-1].name!r} has channels 0 to {n - 1}")
    for stage in reversed(stages):
        stage.channels = wanted
        if stage.layer:
            wanted = sorted({source for channel in wanted for source in stage.layer.sources(channel)})


def _titles(model: nn.Module, found: list[Call], start: int, end: int) -> tuple[str, str]:
    """Title, and a line that says which part this is."""
    shown = ", ".join(f"{call.name} {type(call.module).__name__}".strip() for call in found[start:end])
    rest = "This is the last layer."
    if end < len(found):
        rest = f"The model goes on with {found[end].name} {type(found[end].module).__name__}."
    return f"{type(model).__name__}, from pixels to activations", f"Layers, in the model's names: {shown}. {rest}"
