"""Run somebody's script as `python train.py …` does, watched, and say afterwards what is wrong with its training.

`pellucid doctor train.py` starts `python -m pellucid.doctor.script OPTIONS train.py …` in a process of its own. The
script finds sys.argv, sys.path, `__main__`, the working folder and the streams as it would without us, and torch is not
imported before it asks for it, so that what it puts into os.environ counts. Its traceback is the one it would have.

Exit code: 0 healthy, 3 sick, 1 the script failed, 2 there was nothing to diagnose.
"""

# ruff: noqa: E402
from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.pop(0)  # the working folder, which `-m` looks in: nothing of ours may be found there
OURS = sys.path[:]

import atexit
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from pellucid.errors import PellucidError, UsageError
from pellucid.output import accept_every_character, complain, say
from pellucid.text import printable

if TYPE_CHECKING:
    from pellucid.doctor.evidence.attending import Attending
    from pellucid.doctor.report import Report

HEALTHY, FAILED, NOTHING, SICK = 0, 1, 2, 3  # exit codes
_DOCTOR = os.path.dirname(os.path.abspath(__file__)) + os.sep
CHILDREN_TRAINED_S = 5  # of CPU in processes that the script started: more than loading data in a short script takes


@dataclass(frozen=True)
class Options:
    """What is wanted of the diagnosis.

    Attributes:
        as_json: Print the report as one JSON object.
        html: Page to write, an absolute path; None for none.
        patch: Print the changes that the remedies make to the script.
        trials: Try suspicions on copies of the model.
        budget_s: Seconds for that; None takes a tenth of the watched time.
    """

    as_json: bool = False
    html: str | None = None
    patch: bool = False
    trials: bool = True
    budget_s: float | None = None

    def command(self, script: Path, arguments: list[str]) -> list[str]:
        """The command that runs a script with these."""
        return [sys.executable, "-m", __spec__.name, json.dumps(asdict(self)), str(script), *arguments]


class _Attendance:
    """Begins to watch when torch has been imported, whoever imports it."""

    def __init__(self) -> None:
        self.attending: Attending | None = None
        self._stack = ExitStack()

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As a finder of modules: torch's own, which begins the watching at its end."""
        if name != "torch":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        loader: Any = spec and spec.loader
        if loader is None:
            return spec
        load = loader.exec_module

        def load_and_watch(module: ModuleType) -> None:
            load(module)
            self._begin()

        loader.exec_module = load_and_watch
        return spec

    def _begin(self) -> None:
        sys.meta_path.remove(self)  # pyright: ignore[reportArgumentType]
        with _own_modules():
            from pellucid.doctor.evidence.attending import attend
        self.attending = self._stack.enter_context(attend())

    def end(self, error: BaseException | None) -> None:
        """Leave everything as it was, and keep what the script failed with."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)  # pyright: ignore[reportArgumentType]
        try:
            self._stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except BaseException as same:
            if same is not error:
                raise


def main() -> None:
    """Run the script that the command line names, and end with the exit code."""
    options = Options(**json.loads(sys.argv[1]))
    sys.argv[:] = sys.argv[2:]
    file, process = os.path.abspath(sys.argv[0]), os.getpid()
    attendance = _Attendance()
    sys.meta_path.insert(0, attendance)  # pyright: ignore[reportArgumentType]
    error = _run(file)
    code = _as_python_would(error, file)
    if os.getpid() != process:  # a child that the script forked came here, too
        sys.exit(code)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    attendance.end(error)
    atexit._run_exitfuncs()  # the script's last words come before ours
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # some put a log there
    accept_every_character()
    with _own_modules():
        sys.exit(_conclude(attendance, Path(file), options, error if code != 0 else None))


def _run(file: str) -> BaseException | None:
    """Run the script as `__main__`; returns what it ended with."""
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(os.path.realpath(file)))
    module = ModuleType("__main__")
    vars(module).update(
        __file__=file,
        __builtins__=sys.modules["builtins"],
        __cached__=None,
        __loader__=SourceFileLoader("__main__", file),
    )
    sys.modules["__main__"] = module
    try:
        exec(compile(Path(file).read_bytes(), file, "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        return error
    return None


def _as_python_would(error: BaseException | None, file: str) -> int:
    """Report how the script ended, as the interpreter does; the exit code that it would give."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    if error is None:
        return 0
    trace = _without_ours(error.__traceback__)
    sys.excepthook(type(error), error.with_traceback(trace), trace)
    return 1


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the lines of the doctor, around the script and between its calls of torch."""
    if trace is None:
        return None
    rest = _without_ours(trace.tb_next)
    if os.path.abspath(trace.tb_frame.f_code.co_filename).startswith(_DOCTOR):
        return rest
    trace.tb_next = rest
    return trace


@contextmanager
def _own_modules() -> Iterator[None]:
    """Import what we need from where it is installed, whatever files lie beside the script."""
    theirs = sys.path[:]
    sys.path[:] = OURS
    try:
        yield
    finally:
        sys.path[:] = theirs


def _conclude(attendance: _Attendance, file: Path, options: Options, failure: BaseException | None) -> int:
    """Diagnose, print, and say how to exit; `failure` is what the script ended with if it failed."""
    try:
        report = _diagnosis(attendance, printable(file.name), options, failure)
        from pellucid.doctor.patches import located

        report = located(report, file)
        _print(report, file, options)
    except PellucidError as error:
        complain(f"error: {error}")
        return NOTHING if failure is None else FAILED
    return FAILED if failure is not None else HEALTHY if report.healthy else SICK


def _diagnosis(attendance: _Attendance, name: str, options: Options, failure: BaseException | None) -> Report:
    """The report on a script.

    Raises:
        UsageError: nothing was trained; it says why, as far as that can be known.
    """
    attending = attendance.attending
    if attending is None:
        raise UsageError(_nothing(name, failure) or f"{name} does not import torch, so there is nothing to diagnose")
    from pellucid.doctor.diagnosis import diagnose
    from pellucid.doctor.failing import place

    history, evidence = attending.history, attending.evidence()
    trained = history is not None and evidence.loop.backwards > 0
    failed_at = "" if failure is None else place(failure)
    if history is None or not (trained or failure):
        raise UsageError(
            _nothing(name, failure, failed_at)
            or f"{name} trained nothing: backward() was never called on a loss of the output of an nn.Module"
        )
    specimen = attending.specimen() if options.trials and trained else None
    report = diagnose(history, evidence, specimen, options.budget_s)
    if not trained and not report.findings:
        raise UsageError(_nothing(name, failure, failed_at))
    if failed_at:
        report.notes.append(failed_at)
    return report


def _nothing(name: str, failure: BaseException | None, failed_at: str = "") -> str:
    """Why nothing was trained, where it can be told from outside."""
    if failure is not None:
        why = f": {failed_at}" if failed_at else ", so there is nothing to diagnose"
        return f"{name} failed before it trained anything{why}"
    elsewhere = os.times().children_user
    if elsewhere > CHILDREN_TRAINED_S:
        return (
            f"{name} trained nothing in its own process, but processes that it started took {elsewhere:.0f} s of CPU "
            "time. The doctor only sees the first process: train in one process (one device, no mp.spawn)"
        )
    return ""


def _print(report: Report, file: Path, options: Options) -> None:
    from pellucid.doctor.patches import patches

    if not options.as_json:
        say(f"\n{report}")
    for change in patches(report, file) if options.patch else []:
        say(f"\n{change}".rstrip())
    if options.html:
        say(printable(report.to_html(options.html)))
    if options.as_json:
        say(json.dumps(report.json(), indent=2))


if __name__ == "__main__":
    main()
