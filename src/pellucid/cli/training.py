"""Train, and use what was trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pellucid.cli.arguments import Allow, RunFolder, open_run
from pellucid.errors import PellucidError, UsageError
from pellucid.output import say
from pellucid.text import printable

if TYPE_CHECKING:
    from pellucid.runs import Run

ARCHS = lambda: ["simple_cnn", "plain_cnn", "small_resnet", *(f"efficientnet_lite{i}" for i in range(3))]


def _schedules() -> list[str]:
    from pellucid.runs import SCHEDULES

    return list(SCHEDULES)


def _data_sets() -> list[str]:
    from pellucid.data.catalogue import DATA_SETS

    return list(DATA_SETS)


def _splits() -> list[str]:
    from pellucid.data.splitting import WAYS

    return list(WAYS)


def train(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            help="mnist, mnist_sample, a folder of images or IDX files, or a CSV of path,label.",
            autocompletion=lambda: _data_sets(),
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            help="simple_cnn, plain_cnn, small_resnet, efficientnet_lite0 to 2, timm:NAME or torchvision:NAME; default "
            "fits the images.",
            autocompletion=ARCHS,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 5,
    probe: Annotated[
        bool, typer.Option("--probe", help="Only the best linear head of a pretrained network: an answer in seconds.")
    ] = False,
    freeze_epochs: Annotated[
        int, typer.Option(min=0, help="Passes with the head alone, after the probe and before those of --epochs.")
    ] = 0,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate, above 0; default 5e-3, pretrained 1e-3.")
    ] = None,
    bs: Annotated[int | None, typer.Option(min=1, help="Images a batch; default fits the size of the set.")] = None,
    size: Annotated[
        int | None,
        typer.Option(min=0, help="Side in pixels; default 224 or 128, less for small files; 0 keeps their own."),
    ] = None,
    resize: Annotated[
        Literal["crop", "pad", "squish"], typer.Option(help="Cut the middle out, add black, or distort.")
    ] = "crop",
    valid_pct: Annotated[
        float | None, typer.Option(help="Validate on this share instead of a sub-folder, such as 0.2.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="stratified, random, folders or column:NAME of a CSV; default folders if there are, else stratified.",
            autocompletion=lambda: _splits(),
        ),
    ] = "auto",
    group_by: Annotated[
        str | None,
        typer.Option(help="Keep images of one group on one side: a regex in the path, or column:NAME of a CSV."),
    ] = None,
    balance: Annotated[
        Literal["none", "loss", "sample"],
        typer.Option(help="Classes with few images: weigh them in the loss, or draw them more often."),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the order of images.")] = 42,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default the accelerator if there is one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoder processes; default one a core.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; default a new one under runs/.")] = None,
    schedule: Annotated[
        str,
        typer.Option(
            help="Such as one_cycle or constant (of a wrong name, all are listed).", autocompletion=_schedules
        ),
    ] = "one_cycle",
    precision: Annotated[
        Literal["fp32", "bf16", "fp16", "auto"],
        typer.Option(help="What the network computes in; auto times both for a second. fp16 is for GPUs."),
    ] = "fp32",
    compile_: Annotated[
        bool, typer.Option("--compile", help="torch.compile: slow to start, faster in long trainings on GPUs.")
    ] = False,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop when accuracy has not risen for so many epochs; default never.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Random changes of training images: none, light or strong; default light if pretrained.",
            autocompletion=lambda: ["none", "light", "strong"],
        ),
    ] = None,
    on_error: Annotated[
        Literal["raise", "skip"], typer.Option(help="Damaged images: raise lists them, skip leaves them out.")
    ] = "raise",
    stats: Annotated[bool, typer.Option("--stats", help="Record what every layer does, for `pellucid show`.")] = False,
    no_doctor: Annotated[
        bool, typer.Option("--no-doctor", help="Do not examine the training, which takes up to 5 % of its time.")
    ] = False,
    stop_when_sick: Annotated[
        bool,
        typer.Option("--stop-when-sick", help="End early, with exit code 3, when the doctor is sure of an error."),
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the training of this run folder, which was killed or interrupted.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option(help="Begin at a kept step of another run, RUN@step300, with what is given changed.")
    ] = None,
    checkpoint_s: Annotated[
        float, typer.Option(min=0, help="Seconds between two checkpoints, which --resume goes on from; 0 for none.")
    ] = 60.0,
    checkpoint_steps: Annotated[
        int | None, typer.Option(min=1, help="Keep a checkpoint at every n-th step as well.")
    ] = None,
    keep: Annotated[
        int, typer.Option(min=0, help="Last checkpoints that stay once it is done, and the best one, for --branch.")
    ] = 0,
    path_col: Annotated[str | None, typer.Option(help="Column of files in a CSV, by name or number from 0.")] = None,
    label_col: Annotated[str | None, typer.Option(help="Column of labels in a CSV, likewise; several: a,b,c.")] = None,
    label_delim: Annotated[str | None, typer.Option(help="Between the labels of one cell, such as ' '.")] = None,
    suffix: Annotated[str, typer.Option(help="Put after the names in a CSV, such as .jpg after ids.")] = "",
    image_folder: Annotated[str | None, typer.Option(help="Folder of a CSV's files, from its own.")] = None,
) -> None:
    """Train a classifier and write a run folder."""
    from pellucid import runs

    options: dict[str, Any] = {
        "arch": arch,
        "epochs": epochs,
        "probe": probe,
        "freeze_epochs": freeze_epochs,
        "lr": lr,
        "bs": bs,
        "size": size,
        "resize": resize,
        "valid_pct": valid_pct,
        "split": split,
        "group_by": group_by,
        "balance": balance,
        "seed": seed,
        "device": device,
        "workers": workers,
        "schedule": schedule,
        "precision": precision,
        "compile": compile_,
        "augment": augment,
        "patience": patience,
        "on_error": on_error,
        "stats": stats,
        "doctor": not no_doctor,
        "stop_when_sick": stop_when_sick,
        "checkpoint_s": checkpoint_s,
        "checkpoint_steps": checkpoint_steps,
        "keep": keep,
        "path_col": path_col,
        "label_col": label_col,
        "label_delim": label_delim,
        "suffix": suffix,
        "image_folder": image_folder,
    }
    given = _given(context, options)
    try:
        if resume is not None:
            _refuse(resume=resume, source=source, branch=branch, out=out)
            run = runs.resume(resume, **given)
        elif branch is not None:
            _refuse(branch=branch, source=source)
            run = runs.branch(branch, out, **given)
        elif source is None:
            raise UsageError("give what to train on: a folder of images, a label file or the name of a data set")
        else:
            run = runs.train(runs.Settings(source, **options), out)
    except KeyboardInterrupt as stop:
        raise PellucidError(f"interrupted; {str(stop) or 'nothing was trained yet'}") from None
    say(f"\n{_verdict(run)}\nrun saved in {printable(run.folder)}{_which_epoch(run)}")
    if run.stopped is not None:
        raise typer.Exit(3)


def _given(context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The options that stand on the command line."""
    names = {"compile": "compile_", "doctor": "no_doctor"}
    sources = {name: context.get_parameter_source(names.get(name) or name) for name in options}
    return {name: options[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def _refuse(**options: Any) -> None:
    """Refuse options beside the first one, where what they say is known from its folder."""
    first, *others = options
    if found := [name for name in others if options[name] is not None]:
        names = ", ".join("a source" if name == "source" else f"--{name}" for name in found)
        raise UsageError(f"--{first} {printable(options[first])} says itself what is trained where; leave {names} out")


def _which_epoch(run: Run) -> str:
    n, start = len(run.results), run.settings.get("start")
    if run.epoch is None and start and n:
        return f", with the model of the {start['of']}, which no epoch was better than"
    return "" if run.epoch is None or n < 2 else f", as it was after epoch {run.epoch}, the best of {n}"


def _verdict(run: Run) -> str:
    """The accuracy beside what an answer without looking would reach."""
    n = run.settings["n_valid"]
    if run.settings.get("multi"):
        right, f1 = (run.result[name] or 0.0 for name in ("accuracy_multi", "f1_score_multi"))
        return f"{right:.4f} of the labels right and a mean F1 of {f1:.4f} on {n:,} validation images"
    reached = run.result["accuracy"] or 0.0
    name, share = run.settings["majority"]
    line = f"accuracy {reached:.4f} on {n:,} validation images; always answering '{printable(name)}' gives {share:.4f}"
    if reached <= share:
        return (
            f"{line}\nnothing was learnt that helps: try another --lr, more --epochs, or look at the images and labels"
        )
    # Two standard deviations of the number of right answers of a classifier that does not look.
    chance = 2 * math.sqrt(share * (1 - share) / n)
    if reached - share < chance:
        return f"{line}\nthat may be chance: among {n:,} images, differences up to {chance:.4f} say nothing"
    return line


def summary(run: RunFolder, allow: Allow = None) -> None:
    """Print the layer table of a run's model."""
    say(str(open_run(run, allow).summary()))


def cache(clear: Annotated[bool, typer.Option("--clear", help="Delete all pixel stores.")] = False) -> None:
    """Show how much the pixel stores take on disk, or delete them (they are rebuilt when needed)."""
    from pellucid.data.store import BUDGET_BYTES, evict, stores_folder

    if clear:
        say(f"freed {evict(budget_bytes=0) / 1e6:,.0f} MB")
    used = sum(file.stat().st_size for file in stores_folder().glob("*/*"))
    say(f"{stores_folder()}: {used / 1e6:,.0f} MB of at most {BUDGET_BYTES / 1e9:,.0f} GB")
