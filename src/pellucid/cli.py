"""The command line. Nothing heavy is imported before a command runs, so that --help answers at once."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.errors import PellucidError, UsageError

if TYPE_CHECKING:
    from pellucid.activations.history import History

app = typer.Typer(
    help="Train image classifiers you can see through.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PICTURES = (".png", ".svg", ".pdf")
RunFolder = Annotated[Path, typer.Argument(help="A run folder, as `pellucid train` writes it.")]


@app.command()
def train(
    source: Annotated[
        str, typer.Argument(help="mnist, mnist_sample, a folder of images or IDX files, or a CSV of path,label.")
    ],
    arch: Annotated[
        str | None, typer.Option(help="simple_cnn, plain_cnn or small_resnet; default fits the images.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 5,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 5e-3,
    bs: Annotated[int | None, typer.Option(min=1, help="Images a batch; default fits the size of the set.")] = None,
    size: Annotated[
        int | None, typer.Option(min=0, help="Side in pixels; default 128 for folders and CSV, 0 keeps the files' own.")
    ] = None,
    valid_pct: Annotated[
        float | None, typer.Option(help="Validate on this random share instead of a sub-folder, such as 0.2.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the order of images.")] = 42,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default the accelerator if there is one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoder processes; default one a core.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; default a new one under runs/.")] = None,
    schedule: Annotated[str, typer.Option(help="one_cycle, one_cycle_linear, flat_cos or constant.")] = "one_cycle",
    on_error: Annotated[str, typer.Option(help="Damaged images: raise lists them, skip leaves them out.")] = "raise",
    stats: Annotated[bool, typer.Option("--stats", help="Record what every layer does, for `pellucid show`.")] = False,
) -> None:
    """Train a classifier and write a run folder."""
    from pellucid import runs

    options = {name: value for name, value in locals().items() if name not in ("source", "runs")}
    try:
        run = runs.train(source, **options)
    except KeyboardInterrupt as stop:
        raise PellucidError(f"interrupted; {stop or 'nothing was trained yet'}") from None
    print(f"\naccuracy {run.results[-1]['accuracy']:.4f} on {run.settings['n_valid']:,} validation images")
    print(f"run saved in {run.folder}")


@app.command()
def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of lines.")] = False,
) -> None:
    """Print the class of each image and its probabilities."""
    from pellucid.runs import load_run

    predictions = load_run(run).predict(images)
    if as_json:
        print(json.dumps([vars(p) for p in predictions], indent=2))
        return
    for p in predictions:
        best = "  ".join(f"{name} {value:.4f}" for name, value in list(p.probabilities.items())[:3])
        print(f"{p.source}: {p.label}   ({best})")


@app.command()
def summary(run: RunFolder) -> None:
    """Print the layer table of a run's model."""
    from pellucid.runs import load_run

    print(load_run(run).summary())


@app.command()
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


@app.command()
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
    from pellucid.convolution.counts import layer_counts
    from pellucid.convolution.notation import read_size

    table = (compare_channels if channels else layer_counts)(layers, read_size(input_size))
    print(json.dumps(asdict(table), indent=2) if as_json else table)


@app.command()
def explain(
    run: RunFolder,
    image: Annotated[Path, typer.Argument(help="An image file.")],
    layer: Annotated[str | None, typer.Option(help="Layer by name or number; default the last.")] = None,
    at: Annotated[str | None, typer.Option(help="row,column in its map, such as 3,5; default the strongest.")] = None,
    channel: Annotated[int | None, typer.Option(help="Default the strongest there.")] = None,
    out: Annotated[Path | None, typer.Option(help="trace.html to click in, or a .png, .svg or .pdf picture.")] = None,
    xlsx: Annotated[Path | None, typer.Option(help="Write layers as a spreadsheet of live formulas.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to show, by name, such as 0,1; in a spreadsheet also how many.")
    ] = None,
) -> None:
    """Show what made an activation: which pixels, with which weights."""
    import matplotlib

    matplotlib.use("Agg")
    from pellucid import convolution as cv
    from pellucid.runs import load_run

    page = out or (None if xlsx else Path("trace.html"))
    if page is None and (layer or at or channel is not None):
        raise UsageError("--layer, --at and --channel choose what --out shows; a spreadsheet takes --layers")
    if page and page.suffix.lower() not in (".html", *PICTURES):
        raise UsageError(f"{page}: needs the ending .html for a page, or .png, .svg or .pdf for a picture")
    opened = load_run(run)
    batch = opened.batch([image])
    chosen = layers.split(",") if layers else None
    if page:
        trace = cv.trace(opened.model, batch, layer, _position(at), channel=channel)
        page.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix.lower() in PICTURES:
            trace.show().savefig(page, dpi=150)
        else:
            trace.animate(page, layers=chosen)
        print(f"{trace}\n{page}")
    if xlsx:
        parts = 2 if not chosen else int(chosen[0]) if len(chosen) == 1 and chosen[0].isdigit() else chosen
        norm = opened.settings["normalize"]
        cv.to_spreadsheet(opened.model, batch, xlsx, layers=parts, normalize=(norm["mean"], norm["std"]))
        print(xlsx)


@app.command()
def experiment(
    name: Annotated[str | None, typer.Argument(help="Which; without one they are listed.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each variant.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 2,
    images: Annotated[int, typer.Option(help="Training images; fewer than all for a quick look.")] = 60_000,
    out: Annotated[Path, typer.Option(help="Parent of the result folder; a second call continues there.")] = Path(
        "experiments"
    ),
) -> None:
    """Compare variants of a network over seeds: norms, order, pooling, kernel, batch-size, colour."""
    import matplotlib

    matplotlib.use("Agg")
    from pellucid import experiments

    if name is None:
        width = max(map(len, experiments.EXPERIMENTS))
        print("\n".join(f"{each.name:{width}}  {each.question}" for each in experiments.EXPERIMENTS.values()))
        return
    chosen = experiments.experiment_named(name)
    try:
        results = experiments.run(chosen, seeds, out, epochs=epochs, images=images)
    except KeyboardInterrupt:
        raise PellucidError("interrupted; finished cells are kept, the same command goes on from there") from None
    print(f"\n{chosen.question}\n\n{results}\n{out / name}: table.md, table.csv, values.csv, picture.png")


@app.command()
def cache(clear: Annotated[bool, typer.Option("--clear", help="Delete all pixel stores.")] = False) -> None:
    """Show how much the pixel stores take on disk, or delete them (they are rebuilt when needed)."""
    from pellucid.data.store import BUDGET_BYTES, evict, stores_folder

    if clear:
        print(f"freed {evict(budget_bytes=0) / 1e6:,.0f} MB")
    used = sum(file.stat().st_size for file in stores_folder().glob("*/*"))
    print(f"{stores_folder()}: {used / 1e6:,.0f} MB of at most {BUDGET_BYTES / 1e9:,.0f} GB")


def _position(at: str | None) -> tuple[int, ...] | None:
    if at is None:
        return None
    try:
        return tuple(int(part) for part in at.split(","))
    except ValueError:
        raise UsageError(f"--at {at}: give row,column, such as --at 3,5") from None


def _names(history: History) -> list[str]:
    return [layer.name for layer in history.layers]


def main() -> None:
    """Run the command line; exit codes: 0, 2 for what the user got wrong, 1 for a failure."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        app()
    except UsageError as error:
        sys.exit(_report(error, 2))
    except PellucidError as error:
        sys.exit(_report(error, 1))


def _report(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
