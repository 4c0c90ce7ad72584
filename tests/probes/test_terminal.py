"""Warnings of the package: one line each at the command, and left out by their names."""

import sys
import warnings

import pytest
import typer

from probes import LandscapeWarning, NoiseWarning, ProbeWarning, TraceWarning, terminal
from probes.cli import main, options
from probes.terminal import resumed, run


@pytest.fixture
def warned(capsys):
    """What a command that warns four times prints, and its exit status."""
    app = typer.Typer()
    app.callback()(options)

    @app.command()
    def warn():
        with warnings.catch_warnings():
            for number, kind in enumerate((ProbeWarning, NoiseWarning, TraceWarning, UserWarning)):
                warnings.warn(f"number {number}", kind, stacklevel=1)

    def call(*words):
        with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, category, *_: print(
                f"{category.__name__}: {message}", file=sys.stderr
            )
            run(app, [*words, "warn"])
        return stopped.value.code, [line for line in capsys.readouterr().err.splitlines() if "number" in line]

    return call


def test_each_warning_is_a_line_that_names_its_kind(warned):
    status, lines = warned()
    assert status == 0
    assert lines[:2] == [
        "landscape: number 0 (--quiet probe leaves this out)",
        "landscape: number 1 (--quiet noise leaves this out)",
    ]
    assert "UserWarning: number 3" in lines[3]  # another package's stays as it is


@pytest.mark.parametrize(
    ("names", "left"),
    [(["noise"], "023"), (["probe"], "23"), (["trace"], "013"), (["noise", "trace"], "03"), (["all"], "3")],
)
def test_a_kind_is_left_out_by_its_name(warned, names, left):
    _, lines = warned(*(word for name in names for word in ("--quiet", name)))
    assert [number for number in "0123" if any(f"number {number}" in line for line in lines)] == list(left)


def test_an_unknown_kind_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--quiet", "nois", "probes"])
    assert stopped.value.code == 2
    assert "did you mean 'noise'" in capsys.readouterr().err


def test_filters_outlive_no_command(warned):
    before = list(warnings.filters)
    warned("--quiet", "all")
    assert list(warnings.filters) == before


def test_kinds_are_python_warnings():
    assert issubclass(NoiseWarning, ProbeWarning)
    for kind in (ProbeWarning, NoiseWarning, TraceWarning):
        assert issubclass(kind, LandscapeWarning)
        assert issubclass(kind, UserWarning)


# -- the command that goes on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "flag", "command"),
    [
        (["probe", "a.pt"], "--resume", "landscape probe a.pt --resume"),
        (["probe", "--resume", "a.pt"], "--resume", "landscape probe a.pt --resume"),
        (["probe", "a.pt", "--overwrite"], "--resume", "landscape probe a.pt --resume"),
        (["probe", "--", "-a.pt"], "--resume", "landscape probe --resume -- -a.pt"),
        (["probe", "a b.pt", "$x"], "--resume", "landscape probe 'a b.pt' '$x' --resume"),
        (["sweep", "--lr", "1e-3:1:4", "--fresh"], "", "landscape sweep --lr 1e-3:1:4"),
    ],
)
def test_the_command_that_goes_on(words, flag, command):
    assert resumed(flag, words) == command


def test_the_command_is_started_as_it_was(monkeypatch):
    assert resumed(arguments=["probe"]) == "landscape probe --resume"
    monkeypatch.setattr(sys, "argv", [terminal.__file__.replace("terminal", "__main__"), "probe", "a.pt"])
    assert resumed() == "python -m probes probe a.pt --resume"
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert resumed() == "torchrun --nproc-per-node 2 -m probes probe a.pt --resume"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # two machines: how they find each other is not known
    assert resumed() == "torchrun ... -m probes probe a.pt --resume"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert resumed() == "accelerate launch --num_processes 2 -m probes probe a.pt --resume"


def test_what_keeps_nothing_says_how_to_begin_again(capsys):
    app = typer.Typer()
    app.callback()(options)

    @app.command()
    def long(output: str, overwrite: bool = False):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run(app, ["long", "a b", "--overwrite"])
    assert stopped.value.code == 130
    told = capsys.readouterr().err.strip()
    assert told == "landscape: interrupted; begin again with: landscape long 'a b' --overwrite"
