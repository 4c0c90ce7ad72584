"""The terminal: results on stdout; progress, notes and errors on stderr; a failure as one line and a status."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from probes.errors import LandscapeWarning, NoiseWarning, ProbeWarning, TraceWarning, UserError, check_choice, one_line
from probes.ranks import is_first, launcher, quiet, says

if TYPE_CHECKING:
    from rich.console import Console

_TOGETHER = ("probe", "surface", "connect")

# Wide enough that a table in a pipe or a file is not cut to 80 columns.
_PIPE_WIDTH = 200

_ANEW = ("--overwrite", "--fresh")  # options that throw away what is there
_typed: ContextVar[Sequence[str]] = ContextVar("typed", default=())  # the arguments of the command that runs


def out() -> Console:
    """The console of results."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH, highlight=False)


def err() -> Console:
    """The console of progress and notes."""
    from rich.console import Console

    class Unheard(Console):
        """Goes quiet when nobody reads it any more. rich ends the program then, and its stdout before that."""

        def on_broken_pipe(self) -> None:
            self.quiet = True

    return Unheard(stderr=True, highlight=False)


def tell(note: str) -> None:
    """A note for the person at the command, in a line."""
    typer.echo(f"note: {note}", err=True)


def run(command: typer.Typer, arguments: Sequence[str]) -> NoReturn:
    """Run the command and exit: 0, 1 for a failure, 2 for bad arguments, 130 for Ctrl-C.

    `--debug` may stand anywhere and shows the traceback of a failure.
    """
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # an ASCII terminal gets "?" for "±", not a traceback
            stream.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning(warnings.showwarning)
        _run(command, arguments, debug)


def _run(command: typer.Typer, arguments: Sequence[str], debug: bool) -> NoReturn:
    typed = _typed.set(arguments)
    try:
        with quiet():
            status = command([a for a in arguments if a != "--debug"], prog_name="landscape", standalone_mode=False)
        if status == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        _fail(_interrupted(), 130, error, debug)
    except UserError as error:
        _fail(str(error), error.status, error, debug)
    except Exception as error:
        _fail(*_explain(error), error, debug)
    finally:
        _typed.reset(typed)
    sys.exit(status if isinstance(status, int) else 0)


def resumed(flag: str = "--resume", arguments: Sequence[str] | None = None) -> str:
    """The command to type that goes on with what the one that runs has begun, quoted for a shell.

    It has the same arguments with `flag`, which is empty for a command that goes on by itself, and without the options
    that throw away what is there.

    Example:
        >>> from probes.terminal import resumed
        >>> resumed(arguments=["probe", "a b.pt", "--problem", "p.py:f", "--overwrite"])
        "landscape probe 'a b.pt' --problem p.py:f --resume"
    """
    words = list((_typed.get() or sys.argv[1:]) if arguments is None else arguments)
    words = [word for word in words if word not in (*_ANEW, flag)]
    end = words.index("--") if "--" in words else len(words)  # behind it all are names of files
    return _command([*words[:end], *[flag] * bool(flag), *words[end:]])


def _interrupted() -> str:
    return f"interrupted; begin again with: {_command(_typed.get())}"


def _command(arguments: Sequence[str]) -> str:
    """What starts the command as it was started, with these arguments."""
    as_module = Path(sys.argv[0]) == Path(__file__).with_name("__main__.py")
    return shlex.join([*(launcher() or (["python", "-m", "probes"] if as_module else ["landscape"])), *arguments])


def begin(command: str | None, names: Sequence[str]) -> None:
    """Before a command: of several ranks all measure checkpoints, the others leave the rest to the first one.

    Leaves out the warnings of these kinds until the command ends. Raises `UserError` (status 2) for no such kind.
    """
    if command not in _TOGETHER and not is_first():
        raise typer.Exit
    kinds = {kind.name: kind for kind in (LandscapeWarning, ProbeWarning, NoiseWarning, TraceWarning)}
    for name in names:
        check_choice("--quiet", name, kinds)
        warnings.filterwarnings("ignore", category=kinds[name])


def _show_warning(other: Callable[..., None]) -> Callable[..., None]:
    """The package's own warnings as one line on stderr; those of others as they were."""

    def show(message: Warning | str, category: type[Warning], *args: Any) -> None:
        if issubclass(category, LandscapeWarning):
            typer.echo(f"landscape: {message} (--quiet {category.name} leaves this out)", err=True)
        else:
            other(message, category, *args)

    return show


def _explain(error: Exception) -> tuple[str, int]:
    """The line and the exit status of a failure from below, or from the reading of the arguments."""
    if hasattr(error, "format_message"):  # typer's own, and click's under older typers
        where = getattr(getattr(error, "ctx", None), "command_path", None) or "landscape"
        return f"{one_line(error.format_message())} (see {where} --help)", int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        return _interrupted(), 130
    if isinstance(error, MemoryError):
        return one_line(error) if error.args else "out of memory: use fewer vectors or less data", 1
    if isinstance(error, OSError | ValueError | RuntimeError):
        return one_line(error), 1
    return f"{type(error).__name__}: {one_line(error)}; this is a defect, see it with --debug", 1


def _fail(message: str, status: int, error: BaseException, debug: bool) -> NoReturn:
    if not says(error):
        sys.exit(status)
    if debug:
        err().print_exception() if sys.stderr.isatty() else sys.excepthook(type(error), error, error.__traceback__)
    typer.echo(f"landscape: {message}", err=True)
    sys.exit(status)
