"""Pictures of what the layers did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli.arguments import PICTURES, RunFolder
from pellucid.errors import UsageError

if TYPE_CHECKING:
    from pellucid.activations.history import History


def show(
    run: RunFolder,
    layer: Annotated[
        str | None, typer.Option(help="Number among the layers with parameters, such as -2, or name; default all.")
    ] = None,
    picture: Annotated[
        str | None, typer.Option(help="stats, colors, sheet, dead, gradients, kernels or hist; default fits.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Training step of kernels and hist; default the last.")] = None,
    out: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")] = Path("picture.png"),
) -> None:
    """Draw what the layers did while a run trained with --stats; works while it is still training."""
    import matplotlib

    matplotlib.use("Agg")
    from pellucid.runs import load_history

    history = load_history(run)
    idx = int(layer) if layer and layer.lstrip("-").isdigit() and layer not in _names(history) else layer
    kind = picture or ("sheet" if layer is None else "colors" if history.train.hist is not None else "stats")
    if idx is None and kind in ("stats", "colors", "hist"):
        raise UsageError(f"--picture {kind} needs --layer, such as --layer -2")
    drawings = {
        "stats": lambda: history.plot_layer_stats(idx or 0),
        "colors": lambda: history.color_dim(idx or 0),
        "sheet": history.plot,
        "dead": history.dead_chart,
        "gradients": history.plot_gradients,
        "kernels": lambda: history.show_kernels(step),
        "hist": lambda: history.plot_hist(idx or 0, step),
    }
    if kind not in drawings:
        raise UsageError(f"picture {kind!r} does not exist: use one of {', '.join(drawings)}")
    if out.suffix.lower() not in PICTURES:
        raise UsageError(f"{out}: a picture needs the ending .png, .svg or .pdf")
    out.parent.mkdir(parents=True, exist_ok=True)
    drawings[kind]().savefig(out, dpi=150)
    print(out)


def _names(history: History) -> list[str]:
    return [layer.name for layer in history.layers]
