"""A monitor inside a loop under DistributedDataParallel, against the same loop in one process."""

import monitor_on_ranks as loops
import numpy as np
import pytest
from processes import on_ranks

from probes import Trace


def test_two_ranks_write_what_one_process_does(tmp_path):
    quiet = on_ranks("monitor_on_ranks:trained", 2, tmp_path, tmp_path / "two.h5")
    assert quiet == [[0, 0], [0, 0]]  # steps 1 and 5, where nothing is due, cost no communication
    loops.loop(tmp_path / "one.h5")
    two, one = Trace.open(tmp_path / "two.h5"), Trace.open(tmp_path / "one.h5")
    assert set(one) == set(two) == {"spectrum", "sharpness", "failing", "small loss"}
    for name in one:
        if name != "failing":
            assert (one[name]["step"] == two[name]["step"]).all()
    for name, field in (("spectrum", "values"), ("sharpness", "value"), ("small loss", "values")):
        np.testing.assert_allclose(two[name][field], one[name][field], rtol=1e-10)
    assert two["failing"]["step"].tolist() == [0, 6]
    reasons = dict(zip(two.events["step"].tolist(), two.events["reason"], strict=True))
    assert reasons == {2: "ValueError: not at step 2", 4: "ValueError: rank 1: not on the last rank"}


@pytest.mark.slow
def test_a_budget_is_the_first_ranks(tmp_path):
    on_ranks("monitor_on_ranks:budgeted", 2, tmp_path, tmp_path / "two.h5")
    trace = Trace.open(tmp_path / "two.h5")
    assert any("skipped" in reason or "waits" in reason for reason in trace.events["reason"])
