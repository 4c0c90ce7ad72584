"""Bars, lines, and their ends: on a console that is a file, with threads that look every few milliseconds."""

import io
import re
import sys
import threading
import time

import pytest
import torch
from rich.console import Console

from landscape import MatrixOperator
from landscape.operators.linear import LinearOperator
from landscape.spectra import RunningEstimate, density, eigsh, trace
from probes import progress
from probes.display import faces
from probes.display.progress import progress_bar
from probes.sweep.display import Bars
from probes.terminal import err


def terminal(width=100):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=10)


def pipe():
    return Console(file=io.StringIO(), force_terminal=False, width=100)


def text(console):
    """What was written, without what moves the cursor and colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


@pytest.fixture
def quick(monkeypatch):
    for face in (faces.Terminal, faces.Pipe):
        monkeypatch.setattr(face, "every", 0.005)


def wait_for(console, words):
    deadline = time.monotonic() + 10
    while words not in text(console):
        assert time.monotonic() < deadline, text(console)
        time.sleep(0.005)


def looking():
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


class Slow(MatrixOperator):
    """Calls that take 30 ms."""

    def _matmat(self, V):
        time.sleep(0.03)
        return super()._matmat(V)


A = torch.diag(torch.linspace(-1.0, 3.0, 300))


def test_a_bar_of_a_command(quick):
    console = terminal()
    with progress_bar(console, 12) as show:
        callback = show("step 100 spectrum", 4)
        callback(27, 1000, RunningEstimate(12.3, 0.2, "lambda_1"))
        wait_for(console, "λ₁ = 12.3 ± 0.2")
        drawn = text(console).split("\r")[-1]
        for words in ("step 100 spectrum", "━", "4 of 12", "27 of 1000 products"):
            assert words in drawn
        show("step 200 spectrum", 5)
        wait_for(console, "step 200 spectrum")
        assert "λ₁" not in text(console).split("\r")[-1]  # that was of the step before
    assert looking() == []
    assert console.file.getvalue().endswith("\x1b[2K")  # wiped away


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_bar_is_one_line_on_a_narrow_terminal(quick, width):
    console = terminal(width)
    with progress_bar(console, 12) as show:
        show("step 100 spectrum", 4)(27, 1000, RunningEstimate(12.3, 0.2, "lambda_1"))
        wait_for(console, "step")
    assert "\n" not in text(console).strip()


def test_the_first_line_in_a_pipe_comes_after_a_minute():
    assert faces.Pipe.every == 60
    console = pipe()
    with progress_bar(console, 2) as show:
        show("step 0 loss", 0)(1, 2, 3.0)
    eigsh(MatrixOperator(A), 2, callback=progress("eigsh", console=console))
    assert text(console) == ""


def test_lines_in_a_pipe(quick):
    console = pipe()
    with progress_bar(console, 2) as show:
        show("step 0 [loss]", 1)(1, 2, 3.0)
        wait_for(console, "step 0 [loss]: 1 of 2, 3, 1 of 2, 0 s\n")
    assert "\r" not in text(console)


def test_jobs_have_a_bar_each(quick):
    console = terminal()
    with Bars(console, 3) as bars:
        bars.tell("one", 1, 4)
        bars.tell("two", 3, 4)
        wait_for(console, "3 of 4")
        assert "0 of 3 runs" in text(console)
        assert "2 at work" in text(console)
        assert "one" in text(console)


def test_the_terminal_of_a_notebook_has_one_row(quick, monkeypatch):
    monkeypatch.setenv("JPY_PARENT_PID", "1")  # in which `!landscape sweep` cannot move the cursor up
    console = terminal()
    with Bars(console, 3) as bars:
        bars.tell("one", 1, 4)
        bars.tell("two", 3, 4)
        wait_for(console, "2 at work")
    assert "one" not in text(console)
    assert "\n" not in text(console).strip()


@pytest.mark.parametrize(
    ("algorithm", "options", "words"),
    [
        (
            eigsh,
            {"k": 1, "tol": 0.05, "confirm": False},
            r"what: λ₁ = \S+ ± \S+, \d+ of 1000 products, \d+ s, at most \d+ s",
        ),
        (trace, {"matvecs": 200}, r"what: trace = \d+ ± \S+, \d+ of 200 products"),
        (density, {"probes": 2, "steps": 15}, r"what: largest \|node\| = \S+ ± \S+, \d+ of 30 products"),
    ],
)
def test_a_callback_shows_an_algorithm_and_goes_with_it(quick, algorithm, options, words):
    console = pipe()
    algorithm(Slow(A), **options, callback=progress("what", console=console))
    assert re.search(words, text(console)), text(console)
    assert looking() == []


def test_a_callback_in_a_with_block_goes_with_the_block(quick):
    console = terminal()
    with progress("what", console=console) as callback:
        wait_for(console, "what")  # before the first product
        callback(3, 10, 1.5)
        wait_for(console, "3 of 10")
    assert looking() == []
    callback(4, 10, 1.5)  # and comes again
    wait_for(console, "4 of 10")
    callback.close()
    assert looking() == []


def test_another_algorithm_has_its_own_time(quick, monkeypatch):
    now = [0.0]
    console = pipe()
    callback = progress("both", console=console)
    monkeypatch.setattr(callback._state, "_clock", lambda: now[0])
    callback._doing.clock = callback._state._clock
    callback._state.restart()
    now[0] = 50.0
    callback(100, 100)
    now[0] = 60.0
    callback(1, 10)
    now[0] = 61.0
    callback(2, 10)
    assert callback._state.left == pytest.approx(4.0)
    callback.close()


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])  # nobody reads, and a file that was closed
@pytest.mark.parametrize("drawn", [True, False])
def test_what_goes_wrong_on_the_display_reaches_nobody(quick, monkeypatch, capfd, drawn, error):
    class Broken(io.StringIO):
        def write(self, text):
            raise error

        def isatty(self):
            return drawn

    monkeypatch.setattr(sys, "stderr", Broken())
    with progress_bar(err(), 2) as show:
        show("x", 0)(1, 2, object())
        time.sleep(0.05)
    assert eigsh(MatrixOperator(A), 1, callback=progress("x")).converged
    print("a result")
    sys.stdout.flush()
    assert capfd.readouterr().out == "a result\n"


def test_results_in_a_file_are_not_drawn_on_the_terminal(quick, capsys):
    console = terminal()  # stderr, where stdout is a file
    with progress_bar(console, 1) as show:
        show("x", 0)
        print("a result")
    assert "a result" not in text(console)
    assert capsys.readouterr().out == "a result\n"


def test_a_call_costs_nothing_that_counts():
    callback = progress("fast", console=pipe())
    estimate = RunningEstimate(1.0, 0.1, "trace")
    callback(0, 10, estimate)
    start = time.perf_counter()
    for i in range(10_000):
        callback(i, 10_000, estimate)
    assert (time.perf_counter() - start) / 10_000 < 20e-6
    callback.close()


def test_a_failure_at_a_prompt_ends_what_was_shown(quick, monkeypatch):
    class Failing(LinearOperator):
        def _matmat(self, V):
            if self.matvecs > 3:
                raise KeyboardInterrupt
            return V * torch.linspace(0.0, 1.0, 40)[:, None]

    monkeypatch.setattr(sys, "last_traceback", None, raising=False)
    console = pipe()
    with pytest.raises(KeyboardInterrupt) as kept:  # the traceback holds on to the callback, as a prompt does
        eigsh(Failing(40, torch.float32, "cpu"), 1, callback=progress("what", console=console))
    wait_for(console, "what")
    monkeypatch.setattr(sys, "last_traceback", kept.tb)
    deadline = time.monotonic() + 5
    while looking():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_other_ranks_are_silent(quick, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    console = pipe()
    with progress("what", console=console) as callback:
        callback(1, 2, 3.0)
        time.sleep(0.05)
    assert text(console) == ""
