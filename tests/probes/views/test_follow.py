"""landscape show --follow: every measurement once and in order, through rebuilds, resumes, crashes and removals."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from paths import ROOT

from probes import Field, Trace
from probes.views.follow import Follower, Measurement, line_of

WRITER = """
import sys, time
from probes import Field, Trace
trace = Trace.create(sys.argv[1])
trace.declare("loss", {"value": Field(), "layers": Field((3,), labels=("a", "b", "c"))})
print("ready", flush=True)
for i in range(40):
    trace.record("loss", i, value=i / 4, layers=[i, i, i])
    if i == 15:
        trace.declare("late", {"v": Field()})
    if i > 15:
        trace.record("late", i, v=i)
    trace.flush()
    time.sleep(0.05)
{end}
"""


def start(*command, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment} | options
    return subprocess.Popen([sys.executable, *map(str, command)], **options)


def writer(path, end="trace.close()"):
    process = start("-c", WRITER.replace("{end}", end), path)
    assert process.stdout.readline() == "ready\n"
    return process


def show(path, *words, **options):
    return start("-m", "probes.cli", "show", path, "--follow", "--interval", "0.1", *words, **options)


def steps_of(out, probe):
    return [int(line.split()[0]) for line in out.splitlines() if line.split()[1] == probe]


def test_a_pipe_gets_a_line_per_measurement_until_the_writer_closes(tmp_path):
    path = tmp_path / "run.h5"
    process = writer(path)
    follower = show(path)
    out, err = follower.communicate(timeout=60)
    process.communicate()
    assert process.returncode == 0
    assert follower.returncode == 0
    assert err == f"{path} was closed by its writer\n"
    assert steps_of(out, "loss")[-20:] == list(range(20, 40))
    assert steps_of(out, "loss") == list(range(steps_of(out, "loss")[0], 40))  # none twice, none missing
    assert steps_of(out, "late") == list(range(max(16, steps_of(out, "late")[0]), 40))
    assert "      24  loss  value=6 layers.a=24 layers.b=24 layers.c=24" in out.splitlines()


def test_a_crash_is_told_from_a_close(tmp_path):
    path = tmp_path / "run.h5"
    process = writer(path, end="import os; os.kill(os.getpid(), 9)")
    follower = show(path, "--last", "3")
    out, err = follower.communicate(timeout=60)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert follower.returncode == 1
    assert err.startswith("landscape: the writer of ")
    assert "gone without closing it" in err
    assert err.count("\n") == 1
    assert steps_of(out, "late")[-1] == 39


def test_interrupt_is_quiet(tmp_path):
    path = tmp_path / "run.h5"
    with Trace.create(path) as trace:
        trace.declare("x", {"v": Field()})
        trace.record("x", 7, v=1)
        trace.flush()
        follower = show(path)
        assert follower.stdout.readline().split() == ["7", "x", "v=1"]
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=30)
        assert follower.returncode == 130
        assert err == ""


def test_a_reader_that_leaves_is_no_failure(tmp_path):
    path = tmp_path / "run.h5"
    with Trace.create(path) as trace:
        trace.declare("x", {"v": Field()})
        trace.record("x", 0, v=1)
        trace.flush()
        follower = show(path)
        assert follower.stdout.readline()
        follower.stdout.close()
        trace.record("x", 1, v=1)
        trace.flush()
        assert follower.wait(timeout=30) == 1
        with follower.stderr as err:
            assert err.read() == ""


def test_a_terminal_gets_a_table(tmp_path):
    path = tmp_path / "run.h5"
    process = writer(path)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    follower = show(path, "--last", "5", stdout=theirs, env=environment)
    os.close(theirs)
    seen = bytearray()

    def drain():
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 4096):
                seen.extend(data)

    reader = threading.Thread(target=drain)
    reader.start()
    _, err = follower.communicate(timeout=60)
    reader.join()
    os.close(ours)
    process.communicate()
    assert follower.returncode == 0
    assert err == f"{path} was closed by its writer\n"
    text = seen.decode()
    assert "writing (process" in text
    final = text[text.rindex("loss: value") :]
    assert [line.split()[0] for line in final.splitlines()[2:7]] == ["35", "36", "37", "38", "39"]
    assert "the last 5 of 40 steps" in final


def test_resumed_traces_show_new_records_only(tmp_path):
    path = tmp_path / "run.h5"
    with Trace.create(path) as trace:
        trace.declare("x", {"v": Field()})
        follower = Follower(path)
        for i in range(5):
            trace.record("x", i, v=i)
        trace.flush()
        assert [record.step for record in follower.poll()] == [0, 1, 2, 3, 4]
        assert follower.poll() == []
    with Trace.resume(path, step=1) as trace:
        trace.record("x", 2, v=20)
        trace.flush()
        assert [(record.step, record.values["v"]) for record in follower.poll()] == [(2, 20)]
        for i in range(3, 9):
            trace.record("x", i, v=10 * i)
    assert [record.step for record in follower.poll()] == [3, 4, 5, 6, 7, 8]
    with Trace.resume(path, step=0) as trace:  # more new records than were dropped, between two looks
        for i in range(1, 20):
            trace.record("x", i, v=i)
    assert [record.step for record in follower.poll()] == list(range(1, 20))
    with Trace.create(path, overwrite=True) as trace:
        trace.declare("x", {"v": Field()})
        trace.record("x", 0, v=1)
    assert [record.step for record in follower.poll()] == [0]
    assert "replaced by a new trace" in follower.note


def test_records_of_several_probes_come_in_order(tmp_path):
    with Trace.create(tmp_path / "run.h5") as trace:
        for name in ("b", "a"):
            trace.declare(name, {"v": Field()})
        for i in range(6):
            trace.record("ab"[i % 2], i, v=i)
        trace.flush()
        assert [record.step for record in Follower(trace.path).poll()] == [0, 1, 2, 3, 4, 5]
        assert [record.step for record in Follower(trace.path).poll(last=1)] == [4, 5]


def test_a_file_that_is_removed(tmp_path):
    path = tmp_path / "run.h5"
    code = """
import os, sys, time
from probes import Field, Trace
trace = Trace.create(sys.argv[1])
trace.declare("x", {"v": Field()})
trace.record("x", 0, v=1)
trace.flush()
print("ready", flush=True)
sys.stdin.readline()
os.unlink(sys.argv[1])
print("removed", flush=True)
sys.stdin.readline()
trace.record("x", 1, v=2)
trace.flush()
sys.stdin.readline()
os.unlink(sys.argv[1])
os.kill(os.getpid(), 9)
"""
    process = start("-W", "ignore", "-c", code, path, stdin=subprocess.PIPE, bufsize=1)
    assert process.stdout.readline() == "ready\n"
    follower = show(path)
    assert follower.stdout.readline().split() == ["0", "x", "v=1"]
    process.stdin.write("\n")
    assert process.stdout.readline() == "removed\n"
    time.sleep(0.3)
    assert follower.poll() is None  # the writer lives, and puts it back
    process.stdin.write("\n")
    assert follower.stdout.readline().split() == ["1", "x", "v=2"]
    process.stdin.write("\n")
    out, err = follower.communicate(timeout=30)
    assert (follower.returncode, out) == (1, "")
    assert err == f"landscape: {path} was removed, and nobody writes it any more\n"
    process.communicate()


def test_lines_are_short():
    values = {f"values.{i}": float(i) for i in range(9)}
    assert line_of(Measurement(0.0, "spectrum", 3, values)).endswith("values.5=5.0 (+3)")


def test_nan_is_shown_in_front_only():
    nan = np.float64("nan")
    line = line_of(Measurement(0.0, "sharpness", 3, {"value": nan, "residual": 0.5, "other": nan, "threshold": 2.0}))
    assert line.endswith("sharpness  value=nan residual=0.5 threshold=2.0 (+1)")


def test_bad_traces_are_one_line(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    for name, text in (("none.h5", "there is no trace"), ("text.h5", "not an HDF5 file"), ("", "is a folder")):
        done = show(tmp_path / name)
        out, err = done.communicate(timeout=60)
        assert (done.returncode, out, err.count("\n")) == (1, "", 1)
        assert text in err
