"""Pictures of what a training did."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli.arguments import LAYER, RunFolder, layer_of
from pellucid.errors import UsageError
from pellucid.output import say
from pellucid.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.history.history import History
    from pellucid.history.pictures import NamedPicture

LETTERS_PER_INCH = 11  # of a title, at most


def show(
    run: RunFolder,
    layer: Annotated[str | None, typer.Option(help=f"{LAYER}; default all.")] = None,
    picture: Annotated[
        str | None,
        typer.Option(
            help="Such as sheet, loss, colors, dead or gradients (of a wrong name, all are listed); default fits.",
            autocompletion=lambda: list(_pictures()),
        ),
    ] = None,
    step: Annotated[int | None, typer.Option(help="Training step of kernels and hist; default the last.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Width and height in pixels, such as 1200x800; default fits a screen.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="The picture: .png, .svg or .pdf; - draws on the terminal, or sends PNG down a pipe.")
    ] = Path("picture.png"),
) -> None:
    """Draw the loss of a run, and what its layers did if it trained with --stats; works while it is still training."""
    import matplotlib

    matplotlib.use("Agg")
    from pellucid.cli.pictures import TERMINAL, check_target, fit, read_size, save_picture
    from pellucid.runs import describe_run, load_history
    from pellucid.text import drawable

    if picture is not None and picture not in _pictures():
        raise UsageError(f"picture {picture!r} does not exist: use one of {', '.join(_pictures())}")
    check_target(out)
    wanted = read_size(size)
    figure = _drawn(load_history(run), layer, picture, step)
    letters = int(LETTERS_PER_INCH * figure.get_figwidth())
    figure.suptitle(textwrap.fill(drawable(describe_run(run)), letters), fontsize="medium")
    save_picture(figure, out, fit(figure, wanted))
    if out != TERMINAL:
        say(printable(out))


def _pictures() -> dict[str, NamedPicture]:
    """All there are, by name."""
    from pellucid.history.pictures import PICTURES

    return PICTURES


def _drawn(history: History, layer: str | None, kind: str | None, step: int | None) -> Figure:
    if kind is None and layer is None:
        kind = "sheet" if history.layers else "loss"
    kind = kind or ("stats" if history.train.hist is None else "colors")
    picture, options = _pictures()[kind], {}
    of_layer = [name for name, each in _pictures().items() if each.of_layer]
    of_step = [name for name, each in _pictures().items() if each.of_step]
    if picture.of_layer and layer is None:
        raise UsageError(f"--picture {kind} needs --layer, such as --layer -2")
    for name, value, kinds in (("--layer", layer, of_layer), ("--step", step, of_step)):
        if value is not None and kind not in kinds:
            raise UsageError(f"{name} is for --picture {' or '.join(kinds)}, not for {kind}")
    if picture.of_layer:
        options["idx"] = None if layer is None else layer_of(layer)
    if picture.of_step:
        options["step"] = step
    return picture.draw(history, **options)
