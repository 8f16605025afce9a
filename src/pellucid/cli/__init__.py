"""The command line. Nothing heavy is imported before a command runs, so that --help answers at once."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from pellucid.cli.diagnosing import doctor
from pellucid.cli.evaluating import evaluate
from pellucid.cli.experiments import experiment
from pellucid.cli.explaining import arithmetic, explain
from pellucid.cli.listing import runs
from pellucid.cli.predicting import predict
from pellucid.cli.showing import show
from pellucid.cli.training import cache, summary, train
from pellucid.errors import PellucidError, UsageError
from pellucid.output import accept_every_character, complain, lost, say
from pellucid.text import printable

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=lambda asked: _version(asked), is_eager=True
        ),
    ] = False,
) -> None:
    """Train image classifiers you can see through."""


def _version(asked: bool) -> None:
    if asked:
        from pellucid import __version__

        say(f"pellucid {__version__}")
        raise typer.Exit


for command in (train, evaluate, predict, doctor, summary, show, runs, arithmetic, explain, experiment, cache):
    app.command()(command)


def main() -> None:
    """Run the command line; exit codes: 0, 2 for what the user got wrong, 1 for a failure (3: the doctor)."""
    lost.clear()
    accept_every_character()
    warnings.showwarning = lambda message, *_: complain(f"warning: {_shown(message)}")
    _treat_as_ctrl_c("SIGTERM", "SIGHUP")
    sys.exit(_flushed(_run()))


def _run() -> Any:
    try:
        _refuse_empty(sys.argv[1:])
        app()
    except SystemExit as done:
        return done.code
    except OSError as error:
        if not _is_of_help(error):
            raise
        lost.append(error)
    except PellucidError as error:
        complain(f"error: {_shown(error)}")
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _refuse_empty(words: list[str]) -> None:
    """An unset variable of a shell script must not stand for the current folder, which an empty path is to Python."""
    ours = words[: words.index("--")] if "--" in words else words  # what follows is for a script of the user's
    for before, word in zip(["", *ours], ours, strict=False):
        option = before if before.startswith("-") else ""
        if not word or (word.startswith("--") and word.endswith("=")):
            raise UsageError(
                f"{printable(word.rstrip('=') or option or 'an argument')} is empty; give it, or leave it out"
            )


def _treat_as_ctrl_c(*names: str) -> None:
    """End as Ctrl-C would, keeping what was trained, when the machine shuts down or the terminal closes."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for each in (getattr(signal, name, None) for name in names):  # Windows has one of the two
        if each is not None and signal.getsignal(each) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(each, interrupt)


def _is_of_help(error: OSError) -> bool:
    """Whether it was help that could not be written: typer and rich print it, not `say`."""
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    return bool(frame) and frame.tb_frame.f_globals["__name__"].startswith(("rich.", "typer.", "click."))


def _flushed(code: Any) -> Any:
    """Write out what waits on standard output while a failure can still be reported."""
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        lost.append(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter fails as it ends
    if lost and not isinstance(lost[0], BrokenPipeError):  # a reader that has seen enough is no failure to report
        complain(f"error: standard output cannot be written ({lost[0].strerror})")
    return code or int(bool(lost))


def _shown(message: object) -> str:
    """Line by line, for messages name files and classes of others."""
    return "\n".join(map(printable, str(message).split("\n")))
