"""`landscape` on several ranks: by torchrun, or with the environment that it sets, each rank's output by itself."""

import socket
import subprocess
import sys

from processes import ended, environment


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def started(arguments, folder, world=2):
    """The processes, one a rank, as a launcher starts them; `folder` may be one for each."""
    folders = folder if isinstance(folder, list) else [folder] * world
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-m", "probes", *map(str, arguments)],
            env=environment(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            cwd=folders[rank],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def on_ranks(arguments, folder, world=2, seconds=100):
    return ended(started(arguments, folder, world), seconds)


def torchrun(arguments, folder, world=2, seconds=150):
    """The launcher itself: (status, stdout, stderr) of all ranks together."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    done = subprocess.run(
        [*command, "-m", "probes", *map(str, arguments)],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    return done.returncode, done.stdout, done.stderr


def lines_of(text):
    return [line for line in text.splitlines() if line.startswith("landscape: ")]
