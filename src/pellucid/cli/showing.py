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


KINDS = ("sheet", "loss", "colors", "stats", "hist", "dead", "gradients", "kernels")
OF_ONE_LAYER = ("stats", "colors", "hist")
OF_ONE_STEP = ("kernels", "hist")
LETTERS_PER_INCH = 11  # of a title, at most


def show(
    run: RunFolder,
    layer: Annotated[str | None, typer.Option(help=f"{LAYER}; default all.")] = None,
    picture: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}; default fits.", autocompletion=lambda: list(KINDS)),
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
    from pellucid.runs import describe_run
    from pellucid.runs.statistics import has_record, has_statistics
    from pellucid.text import drawable

    if picture is not None and picture not in KINDS:
        raise UsageError(f"picture {picture!r} does not exist: use one of {', '.join(KINDS)}")
    check_target(out)
    wanted = read_size(size)
    if picture is None and layer is None and has_record(run) and not has_statistics(run):
        picture = "loss"
    if picture == "loss":
        _only_for(("--layer", layer, OF_ONE_LAYER), ("--step", step, OF_ONE_STEP), kind="loss")
    figure = _loss(run) if picture == "loss" else _layers(run, layer, picture, step)
    letters = int(LETTERS_PER_INCH * figure.get_figwidth())
    figure.suptitle(textwrap.fill(drawable(describe_run(run)), letters), fontsize="medium")
    save_picture(figure, out, fit(figure, wanted))
    if out != TERMINAL:
        say(printable(out))


def _loss(run: Path) -> Figure:
    from pellucid.plot.figure import figure_of
    from pellucid.plot.training import plot_loss
    from pellucid.runs import load_history, load_record
    from pellucid.runs.statistics import has_record, has_statistics

    if has_record(run) or not has_statistics(run):
        record = load_record(run)
        valid = record["epoch_values"][:, 1].tolist() if record["epoch_values"].size else []
        losses, ends = record["smooth_loss"].tolist(), record["epoch_end"].tolist()
        return figure_of(plot_loss(losses, valid, ends, train_at=record["step"]))
    return load_history(run).plot_loss()


def _layers(run: Path, layer: str | None, picture: str | None, step: int | None) -> Figure:
    from pellucid.runs import load_history

    history = load_history(run)
    idx = None if layer is None else layer_of(layer)
    kind = picture or ("sheet" if layer is None else "colors" if history.train.hist is not None else "stats")
    if idx is None and kind in OF_ONE_LAYER:
        raise UsageError(f"--picture {kind} needs --layer, such as --layer -2")
    _only_for(("--layer", layer, OF_ONE_LAYER), ("--step", step, OF_ONE_STEP), kind=kind)
    drawings = {
        "stats": lambda: history.plot_layer_stats(idx or 0),
        "colors": lambda: history.color_dim(idx or 0),
        "sheet": history.plot,
        "dead": history.dead_chart,
        "gradients": history.plot_gradients,
        "kernels": lambda: history.show_kernels(step),
        "hist": lambda: history.plot_hist(idx or 0, step),
    }
    return drawings[kind]()


def _only_for(*options: tuple[str, object, tuple[str, ...]], kind: str) -> None:
    for name, value, kinds in options:
        if value is not None and kind not in kinds:
            raise UsageError(f"{name} is for --picture {' or '.join(kinds)}, not for {kind}")
