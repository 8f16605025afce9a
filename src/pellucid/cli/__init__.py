"""The command line. Nothing heavy is imported before a command runs, so that --help answers at once."""

from __future__ import annotations

import sys
import warnings

import typer

from pellucid.cli.experiments import experiment
from pellucid.cli.explaining import arithmetic, explain
from pellucid.cli.showing import show
from pellucid.cli.training import cache, predict, summary, train
from pellucid.errors import PellucidError, UsageError

app = typer.Typer(
    help="Train image classifiers you can see through.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (train, predict, summary, show, arithmetic, explain, experiment, cache):
    app.command()(command)


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
