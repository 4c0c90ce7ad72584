"""Each probe in two processes, with a model that both hold and with one that they share, against one process."""

import probes_on_ranks as cases
import pytest
import torch
from processes import on_ranks

from probes.instruments.registry import PROBES

REFUSED = {
    "batch-sharpness",
    "critical-sharpness",
    "critical-step-curve",
    "relative-critical-sharpness",
    "sam-sharpness",
    "hgp",
    "updates",
    "function-class",
    "dual-gradient",
    "batch-rule",
    "surface",
    "connection",
    "by-layer",
    "heterogeneity",
    "effective-rank",
    "attention-entropy",
}
# estimated otherwise by several ranks, or not known of shares, in words of their own
DEALT = {"cosine", "cosine_within", "distance", "distance_within", "excess"}
APART = {
    "hgp": DEALT | {f"{name}_stderr" for name in DEALT},
    "gradient": {"noise_trace_stderr", "noise_scale_stderr"},
    "batch-rule": {"sigma_stderr"},
    "gauss-newton": {"matvecs"},
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return cases.measured(0, 1, "one", tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["parallel", "sharded"])
def test_every_probe_is_right_or_refused(tmp_path, expected, way):
    for found in on_ranks("probes_on_ranks:measured", 2, tmp_path, way, tmp_path):
        assert set(found) == set(PROBES)
        for name, values in expected.items():
            if name == "solver":
                assert "SGD does not" in found[name]
            elif way == "sharded" and name in REFUSED:
                assert "is not for sharded models" in found[name], name
            else:
                compare(name, found[name], values, way)


def compare(name, found, expected, way):
    assert isinstance(found, dict), f"{name}: {found}"
    assert set(found) == set(expected)
    for field in set(expected) - APART.get(name, set()):
        unknown = way == "sharded" and name == "gradient" and field in {"terms", "noise_trace", "noise_scale"}
        value = torch.full_like(expected[field], torch.nan) if unknown else expected[field]
        message = f"{name}, {field}: {found[field]}, not {value}"
        torch.testing.assert_close(found[field], value, rtol=1e-6, atol=1e-12, equal_nan=True, msg=message)
