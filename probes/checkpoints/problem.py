"""From a text on the command line to an `Objective`: `module:function`, `file.py:function` or `hf:task`.

The current folder and, for a file, the file's own folder are importable, as they are under `python file.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from probes.errors import UserError, did_you_mean, one_line

if TYPE_CHECKING:
    from landscape import Objective
    from probes.checkpoints.saved import Say
    from probes.checkpoints.texts import Texts

_HOW = "name it as module:function or file.py:function"
TASKS = ("causal-lm", "masked-lm", "sequence-classification", "seq2seq")
_OWN = "hf:"  # problems that need no Python: the model is the checkpoint's, the data a file of texts


def load_problem(spec: str) -> Callable[[], Any]:
    """The problem function that `spec` names, not yet called.

    Raises `UserError` when the text has no `:function` (status 2), or the module, the file or the function is
    not there, or importing it fails.
    """
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise UserError(f"{spec!r} names no problem function: {_HOW}", status=2)
    if source.endswith(".py"):
        module = _import_file(Path(source))
    elif os.sep in source or "/" in source:
        raise UserError(f"{source!r} is neither a module nor a .py file: {_HOW}", status=2)
    else:
        module = _import_module(source)
    try:
        function = getattr(module, name)
    except AttributeError:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        own = [key for key in known if getattr(vars(module)[key], "__module__", None) == module.__name__]
        near = did_you_mean(name, known)
        listing = f"; it has {', '.join(own[:5])}" if own and not near else ""
        raise UserError(f"{source} has no function {name!r}{near or listing}") from None
    if not callable(function) or isinstance(function, ModuleType):
        raise UserError(f"{spec} is a {type(function).__name__}, not a function that returns an Objective")
    return function


def check_problem(spec: str, data: Path | None) -> None:
    """Raise `UserError` (status 2) for a task that there is not, one without data, and data without a task."""
    task = spec.removeprefix(_OWN)
    if not spec.startswith(_OWN):
        if data is not None:
            raise UserError(f"--data goes with --problem hf:..., {spec} has its own data", status=2)
    elif task not in TASKS:
        near = did_you_mean(task, TASKS)
        known = "" if near else f": known are {', '.join(TASKS)}"
        raise UserError(f"there is no problem hf:{task}{near or known}", status=2)
    elif data is None:
        raise UserError(f"--problem {spec} needs texts: --data FILE.txt, FILE.jsonl or FILE.csv", status=2)


def build_objective(
    spec: str, checkpoint: Path | None = None, texts: Texts | None = None, seed: int = 0, say: Say | None = None
) -> Objective:
    """Load the problem function and call it; what it prints goes to stderr: stdout is for results.

    For a task, `hf:causal-lm`, the model is that of the `checkpoint`, a folder, on `texts`; `seed` says which tokens
    are masked, and `say` hears what was decided. Raises `UserError` when the function cannot be found, raises, or
    returns anything but an `Objective`, and when folder or texts do not fit the task.
    """
    if spec.startswith(_OWN):
        check_problem(spec, None if texts is None or checkpoint is None else texts.path)
        if texts is not None and checkpoint is not None:
            from probes.checkpoints.tasks import build_task

            return build_task(spec.removeprefix(_OWN), checkpoint, texts, seed, say or (lambda text: None))
    return as_objective(spec, call_problem(spec))


def call_problem(spec: str) -> Any:
    """What the problem function returns; what it prints goes to stderr.

    Raises `UserError` when it is not there, or raises.
    """
    with contextlib.redirect_stdout(sys.stderr):
        function = load_problem(spec)
        try:
            return function()
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"the problem function {spec} raised {_error_text(error)}; see it with --debug") from error


def as_objective(spec: str, result: Any) -> Objective:
    """What the problem function has returned, if it is an `Objective`. Raises `UserError` for anything else."""
    from landscape import Objective

    if isinstance(result, Objective):
        return result
    name = type(result).__name__
    what = "None" if result is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
    if inspect.isclass(result):
        what = f"the class {result.__name__}"
    elif inspect.iscoroutine(result) or inspect.isgenerator(result):
        what = f"{what} (it must be a plain function)"
        result.close()
    raise UserError(
        f"the problem function {spec} returned {what}: it must return landscape.Objective(model, loss, data)"
    )


def _import_file(path: Path) -> ModuleType:
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a Python file: {_HOW}")
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else [])
        raise UserError(f"there is no file {path}{near}")
    path = path.resolve()
    importable(path.parent)
    name = f"landscape_problem_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(module_spec)
    # registered before it runs: dataclasses and pickled data set workers look their module up by name
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"importing {path} raised {_error_text(error)}; see it with --debug") from error
    return module


def _import_module(name: str) -> ModuleType:
    importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent is not None and f"{name}.".startswith(f"{absent}."):
            near = did_you_mean(name, [p.stem for p in Path.cwd().glob("*.py")])
            hint = near or ": start in its folder, or give file.py:function"
            raise UserError(f"there is no module {name!r} here or installed{hint}") from error
        hint = "install it or " if absent else ""
        raise UserError(f"importing {name} raised {_error_text(error)}; {hint}see it with --debug") from error


def importable(folder: Path) -> None:
    """Have modules of the folder found."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _error_text(error: BaseException) -> str:
    text = one_line(error, limit=300)
    name = type(error).__name__
    return text if text.startswith(name) else f"{name}: {text}"
