"""Durability at length: two hundred kills at random moments, and a minute of reading beside writers.

Slow; `test_crash.py` has the short forms of both. Every writer goes on where the trace ends, so that a kill
hits creating, declaring, flushing, resuming and closing alike, and a trace has many lives.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from trace_cases import check

from probes import Trace, TraceError, TraceSet
from probes.trace.state import state_of

# Forks a writer for every line it reads, because a new interpreter takes longer than most of these lives.
# A writer says on the pipe which record was flushed last, right after the flush.
NURSERY = """
import os, sys
import numpy as np
from probes import Field, Trace

FIELDS = {"v": Field(), "a": Field((3,)), "r": Field((None,)), "s": Field(dtype="str")}

def live(path, every, lives):
    trace = Trace.resume(path) if os.path.exists(path) else Trace.create(path, seed=1)
    trace.declare("x", FIELDS)
    start = len(trace["x"])
    for i in range(start, start + 100_000):
        trace.record("x", i, v=i, a=np.full(3, i), r=np.full(i % 3, i), s=str(i))
        if i == start + 50:
            trace.declare(f"late{lives}", {"v": Field()})
        if i % every == 0:
            trace.flush()
            os.write(1, b"%d " % i)
        if i == start + 150 and lives % 5 == 4:
            trace.close()
            os.write(1, b"%d " % i)
            os._exit(0)

for line in sys.stdin:
    path, every, lives = line.rsplit(" ", 2)
    child = os.fork()
    if child == 0:
        live(path, int(every), int(lives))
    os.write(1, b"pid %d " % child)
    os.waitpid(child, 0)
    os.write(1, b"end\\n")
"""


def one_life(nursery, path, every, lives, seconds):
    """The last record that was flushed before the writer was killed (or closed), -1 for none."""
    nursery.stdin.write(f"{path} {every} {lives}\n".encode())
    nursery.stdin.flush()
    said = b""
    killer = None
    deadline = None
    while not said.endswith(b"end\n"):
        said += os.read(nursery.stdout.fileno(), 65536)
        if killer is None and b"pid " in said:
            killer = int(said.split(b"pid ")[1].split()[0])
            deadline = time.monotonic() + seconds
        if deadline is not None:
            time.sleep(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.kill(killer, signal.SIGKILL)
            deadline = None
    words = said.decode().replace(f"pid {killer} ", "").replace("end\n", "").split()
    return max((int(word) for word in words), default=-1)


@pytest.mark.slow
def test_two_hundred_kills(tmp_path):
    rng = random.Random(0)
    command = [sys.executable, "-c", NURSERY]
    ends = {"crashed": 0, "closed": 0, "none": 0}
    resumed = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as nursery:
        for trace in range(10):
            path = tmp_path / f"run{trace}.h5"
            rows = 0
            for lives in range(20):
                flushed = one_life(nursery, path, rng.choice((1, 7, 40)), lives, rng.uniform(0, 0.25))
                if not path.exists():
                    assert flushed == -1
                    ends["none"] += 1
                    continue
                ends[state_of(path).kind] += 1
                columns = Trace.open(path)["x"].read() if "x" in Trace.open(path) else {"step": np.empty(0)}
                if len(columns["step"]):
                    check(columns)  # 0, 1, 2, ...: nothing lost, nothing doubled, every value right
                assert len(columns["step"]) >= max(rows, flushed + 1), (trace, lives)
                resumed += len(columns["step"]) > rows > 0
                rows = len(columns["step"])
            with Trace.resume(path) as last:
                assert len(last["x"]) == rows
                last.record("x", rows, v=rows, a=np.full(3, rows), r=np.full(rows % 3, rows), s=str(rows))
            check(Trace.open(path)["x"].read())
            with h5py.File(path, "r") as file:  # closed cleanly, for any program
                assert file["probes/x/step"].shape == (rows + 1,)
            assert not list(tmp_path.glob(".*.lock"))
        nursery.stdin.close()
    print(ends, "resumed and went on:", resumed)
    assert sum(ends.values()) == 200
    assert ends["crashed"] > 100
    assert resumed > 60


@pytest.mark.slow
def test_a_minute_of_reading_while_it_is_written(tmp_path):
    """A writer that keeps dying and resuming; readers of whole tables, single columns, the set, and headers."""
    path = tmp_path / "run.h5"
    code = NURSERY.replace("if i == start + 150 and lives % 5 == 4", "if i == start + 3000")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as nursery:
        for life in range(200):  # as many lines as a pipe holds: more would wait here for lives to end
            nursery.stdin.write(f"{path} 3 {life}\n")
        nursery.stdin.flush()
        while not path.exists() or "x" not in Trace.open(path):
            time.sleep(0.01)
        reader = Trace.open(path)
        reads = rows = 0
        end = time.monotonic() + 60
        while time.monotonic() < end:
            columns = reader["x"].read()
            check(columns)
            assert len(columns["step"]) >= rows
            rows = len(columns["step"])
            assert len(reader["x"]["v"]) >= rows
            assert reader["x"].row()["step"] >= rows - 1
            assert TraceSet.open(tmp_path).unreadable == {}
            assert reader.seed == 1
            state_of(path)
            reads += 1
        nursery.kill()
    print(reads, "rounds of reading,", rows, "rows,", len(Trace.open(path).periods), "lives")
    assert reads > 50
    assert rows > 1000
    with contextlib.suppress(TraceError), Trace.resume(path) as trace:  # its last writer may still live
        assert len(trace["x"]) >= rows
