"""What works for a process ends with it, however that ends."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import pytest
from paths import ROOT

from probes.processes import end, live_with_parent

HERE = """
import multiprocessing, test_processes
ours, theirs = multiprocessing.Pipe()
process = multiprocessing.get_context("{method}").Process(target=test_processes.busy, args=(theirs,))
process.start()
print(*ours.recv(), flush=True)
process.join()
"""


def busy(pipe):
    """A child with a child of its own."""
    live_with_parent()
    own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pipe.send((os.getpid(), own.pid))
    time.sleep(60)


def gone(pids, seconds=10.0):
    """Whether all of them end."""
    until = time.time() + seconds
    while time.time() < until:
        if not any(running(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as told:
            return told.read().rpartition(")")[2].split()[0] != "Z"  # one that nobody waits for is dead as well
    except OSError:
        return False


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks at processes in /proc")


@needs_proc
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_children_end_with_a_parent_that_is_killed(method):
    path = os.pathsep.join([str(ROOT), os.path.dirname(__file__), str(ROOT / "tests" / "helpers")])
    parent = subprocess.Popen(
        [sys.executable, "-c", HERE.format(method=method)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(running(pid) for pid in pids)
    parent.kill()
    assert parent.wait(10) == -signal.SIGKILL
    parent.stdout.close()
    assert gone(pids)


@needs_proc
@pytest.mark.parametrize("killed", [False, True])
def test_what_a_child_has_started_ends_with_it(killed):
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=busy, args=(theirs,))
    process.start()
    pids = ours.recv()
    if killed:
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
    end(process)
    assert gone(pids)
