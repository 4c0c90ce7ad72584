"""The probe of two sets of data: it keeps what the function says of the sets that it was asked for."""

import math

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.sharpness import gradient_products
from probes import GradientProducts, Trace, measure_once
from probes.seeds import derive_seed


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=4) as trace:
        yield trace


def problem(n=40):
    torch.manual_seed(0)
    X, y = torch.randn(n, 4).double(), torch.randint(0, 3, (n,))
    return Objective(nn.Linear(4, 3).double(), nn.CrossEntropyLoss(), (X, y))


def measured(probe, trace, objective, **options):
    return measure_once(objective, [probe], trace, 0, on_error="raise", **options)[probe.name].values


def test_it_keeps_what_the_function_says(trace):
    f = problem()
    batch = (torch.randn(24, 4).double() + 1, torch.randint(0, 3, (24,)))
    row = measured(GradientProducts(parts=4), trace, f, batch=batch)
    generator = torch.Generator().manual_seed(derive_seed(4, "hgp", 0))
    found = gradient_products(f, f.on(batch), parts=4, generator=generator)
    for name in set(row) - {"noise", "checked", "note"}:
        assert row[name] == getattr(found, name), name
    assert row["samples"] == 6
    other = GradientProducts(second=f.on(batch), parts=2, name="own")
    assert other.needs == {"gradient", "graph"}
    assert math.isinf(measured(other, trace, f)["distance_stderr"])
    assert trace["own"].settings["second"] == "CrossEntropyLoss on 24 samples in one batch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": "data"}, "first is one of objective, batch, or an Objective"),
        ({"second": "objective"}, "the first one again"),
        ({"parts": 3}, "even number"),
        ({"parts": 0}, "at least 1|even"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        GradientProducts(**options)


def test_other_parameters_and_too_few_samples_are_refused(trace):
    f = problem()
    with pytest.raises(ValueError, match="different parameters"):
        measured(GradientProducts(second=problem()), trace, f)
    with pytest.raises(ValueError, match="8 parts of 5 samples"):
        measured(GradientProducts(name="few"), trace, f, batch=(torch.randn(5, 4).double(), torch.zeros(5).long()))
