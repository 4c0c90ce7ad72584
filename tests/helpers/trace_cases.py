"""A process that writes a trace until it is killed, and what must be in the trace then."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np

from probes import Field, Trace

WRITER = """
import sys
import numpy as np
from probes import Field, Trace
path, every = sys.argv[1], int(sys.argv[2])
trace = Trace.create(path, seed=1)
fields = {"v": Field(), "a": Field((3,)), "r": Field((None,)), "s": Field(dtype="str")}
trace.declare("x", fields)
for i in range(10_000_000):
    trace.record("x", i, v=i, a=np.full(3, i), r=np.full(i % 3, i), s=str(i))
    if i == 200:
        trace.declare("late", {"v": Field()})
    if i % every == 0:
        trace.flush()
        print(i, flush=True)
"""


def scalars(path, *values, **options):
    """A new trace that is being written, with these values of x.v at steps 0, 1, ..."""
    trace = Trace.create(path, **options)
    trace.declare("x", {"v": Field()})
    for step, value in enumerate(values):
        trace.record("x", step, v=value)
    return trace


def start(path, every=1, code=WRITER, **options):
    command = [sys.executable, "-c", code, str(path), str(every)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def check(columns):
    steps = columns["step"]
    np.testing.assert_array_equal(steps, np.arange(len(steps)))
    np.testing.assert_array_equal(columns["v"], steps)
    np.testing.assert_array_equal(columns["a"], np.repeat(steps[:, None], 3, axis=1))
    assert columns["s"].tolist() == [str(i) for i in steps]
    for i, part in zip(steps, columns["r"], strict=True):
        assert part.tolist() == [i] * (i % 3)


def killed(path, rows=3000):
    """A trace whose writer was killed after a flush."""
    code = f"""
import os, sys
from probes import Field, Trace
trace = Trace.create(sys.argv[1])
trace.declare("x", {{"v": Field(), "r": Field((None,))}})
trace.declare("y", {{"v": Field((40,))}})
for i in range({rows}):
    trace.record("x", i, v=i, r=[i] * (i % 3))
    trace.record("y", i, v=[i] * 40)
trace.flush()
os.kill(os.getpid(), 9)
"""
    process = start(path, 0, code)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
