"""Two and three ranks against one process with all of the data: the same numbers, however the data is dealt out."""

import data_parallel_cases as cases
import pytest
import torch
from processes import on_ranks


@pytest.fixture(scope="module")
def one_process():
    return {name: cases.everything(cases.objective(name, cases.batches_of(name))) for name in cases.NAMES}


@pytest.mark.parametrize(
    ("world", "way"),
    [
        (2, "empty"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(2, "dealt"), (2, "unequal"), (3, "dealt")]),
    ],
)
def test_ranks_together_have_the_numbers_of_one_process(tmp_path, one_process, world, way):
    for found in on_ranks("data_parallel_cases:measured", world, tmp_path, way):
        for name, expected in one_process.items():
            for key, value in expected.items():
                if key == "MonteCarloFisher" and way != "dealt":
                    continue  # draws belong to numbers of batches
                a, b = torch.as_tensor(found[name][key]).double(), torch.as_tensor(value).double()
                error = float((a - b).norm() / b.norm().clamp_min(1e-300))
                assert error < 1e-10, f"{name}, {key}: {error}"
