"""How activations come about: traces, spreadsheets and layer arithmetic."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.arguments import LAYER, Allow, RunFolder, layer_of, open_run
from pellucid.cli.pictures import PICTURES, save_picture
from pellucid.errors import UsageError
from pellucid.output import say
from pellucid.text import drawable, printable

if TYPE_CHECKING:
    from pellucid.convolution.tracing.precedents import Trace


def explain(
    run: RunFolder,
    image: Annotated[Path, typer.Argument(help="An image file.")],
    layer: Annotated[str | None, typer.Option(help=f"{LAYER}; default the last.")] = None,
    at: Annotated[str | None, typer.Option(help="row,column in its map, such as 3,5; default the strongest.")] = None,
    channel: Annotated[int | None, typer.Option(help="Default the strongest there.")] = None,
    out: Annotated[Path | None, typer.Option(help="trace.html to click in, or a .png, .svg or .pdf picture.")] = None,
    xlsx: Annotated[Path | None, typer.Option(help="Write layers as a spreadsheet of live formulas.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to show, such as 0,1; in a spreadsheet also how many.")
    ] = None,
    allow: Allow = None,
) -> None:
    """Show what made an activation: which pixels, with which weights."""
    import matplotlib

    matplotlib.use("Agg")
    from pellucid import convolution as cv

    page = out or (None if xlsx else Path("trace.html"))
    if page is None and (layer or at or channel is not None):
        raise UsageError("--layer, --at and --channel choose what --out shows; a spreadsheet takes --layers")
    if page and page.suffix.lower() not in (".html", *PICTURES):
        raise UsageError(f"{printable(page)}: needs the ending .html for a page, or .png, .svg or .pdf for a picture")
    opened = open_run(run, allow)
    batch = opened.batch([image])
    chosen = [layer_of(part) for part in layers.split(",")] if layers else None
    if page:
        asked = None if layer is None else layer_of(layer)
        trace = cv.trace(opened.model, batch, asked, _position(at), channel=channel)
        (said,) = opened.predict([image])
        answer = f"{said.label} {said.probabilities[said.label]:.4f}"
        text = _with_class(trace, opened.vocab)
        if page.suffix.lower() in PICTURES:
            save_picture(trace.show(title=f"{drawable(f'{image.name}: {answer}')}\n{drawable(text)}"), page, dpi=150)
        else:
            trace.animate(page, layers=chosen, classes=opened.vocab, source=image.name)
        say(f"{printable(text)}\n{printable(page)}")
    if xlsx:
        part = int(layers) if layers and layers.isdecimal() else chosen or 2
        normalize = opened.pipeline.normalization if opened.pipeline else None
        cv.to_spreadsheet(opened.model, batch, xlsx, layers=part, normalize=normalize)
        say(printable(xlsx))


def arithmetic(
    layers: Annotated[str, typer.Argument(help="Layers, such as 'conv 1 8 k5 s2 p2, relu, conv 8 16 k3 s2 p1'.")],
    input_size: Annotated[str, typer.Option("--input", help="Channels and pixels of one image, such as 1x28x28.")],
    channels: Annotated[
        bool, typer.Option("--channels", help="Compare channels kept and channels doubled at each stride instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Print shapes, parameters, multiplications and receptive fields of a network written as a line of words.

    Layers: conv, dwconv (depthwise), deconv (transposed), maxpool, avgpool, gap (global average), bn, relu, leaky,
    gelu, silu, sigmoid, tanh, flatten, linear. Plain numbers are channels in and out. k3 or k3x5 kernel, s2 stride,
    p1 or p same padding, d2 dilation, g4 groups, op1 output padding, ceil, nobias.
    """
    from dataclasses import asdict

    from pellucid.convolution.channels import compare_channels
    from pellucid.convolution.notation import read_size
    from pellucid.convolution.summary import layer_counts

    table = (compare_channels if channels else layer_counts)(layers, read_size(input_size))
    say(json.dumps(asdict(table), indent=2) if as_json else str(table))


def _with_class(trace: Trace, vocab: Sequence[Any]) -> str:
    """The trace as text; an output of the network with the name of its class."""
    if trace.place < trace.network.answer:
        return str(trace)
    return str(trace).replace(f"channel {trace.channel}", f"channel {trace.channel} ({vocab[trace.channel]})", 1)


def _position(at: str | None) -> tuple[int, ...] | None:
    if at is None:
        return None
    try:
        return tuple(int(part) for part in at.split(","))
    except ValueError:
        raise UsageError(f"--at {at}: give row,column, such as --at 3,5") from None
