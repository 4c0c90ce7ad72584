"""The probe of the loss surface keeps what `landscape.surface` finds, in the loop and for checkpoints."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.surface import plane, random_directions
from probes import LossSurface, Monitor, Trace, measure_once
from probes.seeds import derive_seed


def objective():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    X, y = torch.randn(17, 4, dtype=torch.float64), torch.randint(0, 3, (17,))
    return Objective(model, nn.CrossEntropyLoss(), list(zip(X.split(6), y.split(6), strict=True)))


def measured(f, path, **options):
    with Trace.create(path, seed=3) as trace:
        return measure_once(f, [LossSurface(points=5, **options)], trace, step=7, on_error="raise")["surface"].values


def test_random_planes_are_those_of_the_seed(tmp_path):
    f = objective()
    found = measured(f, tmp_path / "run.h5", span=0.5)
    D = random_directions(f, 2, generator=torch.Generator().manual_seed(derive_seed(3, "surface", 7)))
    expected = plane(f, D, span=0.5, points=5)
    np.testing.assert_array_equal(found["values"], expected.values)
    np.testing.assert_array_equal(found["quadratic"], expected.quadratic)
    np.testing.assert_allclose(found["length"], D.norm(dim=0), rtol=1e-12)
    assert found["lowest"] == found["values"].min()
    assert found["highest"] == found["values"].max()
    assert found["values"][2, 2] == pytest.approx(f.value(), rel=1e-12)


@pytest.mark.parametrize("kind", ["eigenvectors", "gradient"])
def test_directions_are_as_long_as_the_parameters_and_orthogonal(tmp_path, kind):
    f = objective()
    found = measured(f, tmp_path / "run.h5", directions=kind, span=1e-3)
    size = float(f.theta().norm())
    np.testing.assert_allclose(found["length"], [size, size], rtol=1e-10)
    # so near the model is the loss
    np.testing.assert_allclose(found["values"], found["quadratic"], atol=1e-7)
    slope = float(f.gradient().norm()) * size
    if kind == "gradient":
        np.testing.assert_allclose(np.abs(found["gradient"]), [slope, 0.0], atol=1e-10)
    else:
        from landscape import Hessian

        top = torch.linalg.eigvalsh(Hessian(f).to_dense())[-2:].flip(0)
        np.testing.assert_allclose(found["curvature"], np.diag(top) * size**2, atol=2e-3 * float(top[0]) * size**2)


def test_in_a_loop_it_measures_where_training_is(tmp_path):
    f = objective()
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        monitor = Monitor(f, [LossSurface(points=3, every=2)], trace, on_error="raise")
        before = f.value()
        for step in range(4):
            monitor(step)
            with torch.no_grad():
                for p in f.model.parameters():
                    p.mul_(0.9)
    rows = Trace.open(tmp_path / "run.h5")["surface"]
    assert rows["step"].tolist() == [0, 2]
    assert rows["values"][0, 1, 1] == pytest.approx(before, rel=1e-12)
    assert rows["values"][1, 1, 1] != rows["values"][0, 1, 1]


@pytest.mark.parametrize(("options", "words"), [({"points": 2}, "points=2"), ({"span": 0.0}, "span must be positive")])
def test_what_is_no_grid_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LossSurface(**options)
