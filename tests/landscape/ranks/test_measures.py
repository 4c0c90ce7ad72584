"""What reads the batches of an objective by itself: two and three ranks against one process with all of the data."""

import measure_cases as cases
import pytest
import torch
from processes import on_ranks

# Differences of gradients and a minimisation: their steps are decided by comparisons of roundings.
COARSE = {"differences, product": 1e-5, "regularity, estimated": 1e-3, "regularity, infimum": 1e-3}


@pytest.fixture(scope="module")
def one_process():
    return {name: cases.everything(name, cases.objective(name, cases.batches_of(name))) for name in cases.NAMES}


@pytest.mark.parametrize(("world", "way"), [(2, "empty"), pytest.param(3, "dealt", marks=pytest.mark.slow)])
def test_ranks_together_measure_what_one_process_does(tmp_path, one_process, world, way):
    wrong = []
    for rank, found in enumerate(on_ranks("measure_cases:measured", world, tmp_path, way, seconds=300)):
        for name, expected in one_process.items():
            assert found[name].keys() == expected.keys()
            for key, value in expected.items():
                if key == "kernel, gram" and way != "dealt":  # rows are in the order in which batches are dealt out
                    continue
                error = distance(found[name][key], value)
                if not error < COARSE.get(key, 1e-10):
                    wrong.append(f"rank {rank}: {name}, {key}: {error} ({found[name][key]} against {value})")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_a_sharded_model_has_the_collapse_and_the_kappa_of_the_whole_one(tmp_path):
    for found in on_ranks("measure_cases:sharded", 2, tmp_path, seconds=300):
        for name in ("mlp", "batch norm"):
            expected = cases.of_any_model(cases.objective(name, cases.batches_of(name)))
            for key, value in expected.items():
                error = distance(found[name][key], value)
                kappa = found[name]["kappa, kappa"] if "kappa" in key else 1.0
                assert error < max(1e-10, 2.3e-16 * kappa), f"{name}, {key}: {error} ({found[name][key]}, {value})"
        for kind, text, together in found["refused"]:
            assert kind == "TypeError"
            assert "not for sharded models" in text
            assert together
        scale, reason = found["noise"]
        assert scale != scale
        assert "a sharded model" in reason


def distance(found, expected):
    """Relative; of condition numbers in units of what they lose, so that 1e-10 or eps * kappa will do."""
    if isinstance(expected, str) or expected is None:
        return 0.0 if found == expected else 1.0
    a, b = (torch.as_tensor(x).double() for x in (found, expected))
    if a.shape != b.shape:
        return 1.0
    if torch.equal(a, b) or bool((a.isnan() & b.isnan()).all()):
        return 0.0
    return float((a - b).norm() / b.norm().clamp_min(1e-300))
