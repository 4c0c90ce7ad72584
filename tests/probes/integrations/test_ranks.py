"""The callbacks in trainings by two processes: before the first update they measure what they do in one."""

import subprocess
import sys

import numpy as np
import pytest
from processes import HELPERS, environment

from probes import Trace

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["lightning", "transformers"])
def test_two_processes_measure_what_one_does(tmp_path, trainer):
    pytest.importorskip(trainer)
    script = str(HELPERS / "trainers_on_ranks.py")
    for name, launcher in (("one", []), ("two", LAUNCHER)):
        done = subprocess.run(
            [sys.executable, *launcher, script, trainer, f"{name}.h5"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = Trace.open(tmp_path / "one.h5"), Trace.open(tmp_path / "two.h5")
    assert two["spectrum"]["step"].tolist() == one["spectrum"]["step"].tolist() == [0, 2, 4]
    np.testing.assert_allclose(two["spectrum"]["values"][0], one["spectrum"]["values"][0], rtol=1e-10)
    assert np.isfinite(two["spectrum"]["values"]).all()
    assert not len(two.events)
