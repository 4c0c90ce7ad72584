"""The probes of all layers: rows against the same measured layer by layer, and what they share."""

import numpy as np
import pytest
import torch
from torch import nn

import landscape.operators.blocks.block_diagonal as home
from landscape import Hessian, Objective
from landscape.spectra import eigsh
from probes import BlockHeterogeneity, ByLayer, Context, Monitor, Trace, measure_once

FAST = {"probes": 2, "steps": 6}


@pytest.fixture
def objective():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return Objective(model, nn.CrossEntropyLoss(), (torch.randn(30, 4).double(), torch.randint(0, 3, (30,))))


def measured(objective, probe, path, **options):
    with Trace.create(path / "t.h5", seed=1, overwrite=True) as trace:
        return measure_once(objective, [probe], trace, step=3, on_error="raise", **options)[probe.name].values


def test_a_row_is_what_each_layer_has_by_itself(objective, tmp_path):
    found = measured(objective, ByLayer(k=2, tol=1e-8, **FAST), tmp_path)
    assert found["converged"]
    for i, layer in enumerate(("0", "2", "4")):
        block = Hessian(objective).restrict(f"{layer}.*")
        values = torch.linalg.eigvalsh(block.to_dense()).numpy()
        assert np.allclose(found["values"][i], values[:-3:-1], atol=1e-8)
        assert found["smallest"][i] == pytest.approx(values[0], abs=1e-8)
        assert found["size"][i] == len(values)
        assert abs(found["trace"][i] - values.sum()) <= 3 * found["trace_stderr"][i]
        assert abs(found["frobenius"][i] - np.linalg.norm(values)) <= 3 * found["frobenius_stderr"][i]
        assert found["weights"][i].sum(axis=1) == pytest.approx(1)
    gauss_newton = measured(objective, ByLayer(operator="gauss-newton", **FAST), tmp_path)
    assert np.isnan(gauss_newton["smallest"]).all()


def test_fields_are_labelled_by_the_layers(objective):
    fields = ByLayer(by="parameter", parameters=("0.*", "4.bias")).fields(Context(objective))
    assert fields["trace"].labels == ("0.weight", "0.bias", "4.bias")
    assert fields["values"].shape == (3, 1)
    named = BlockHeterogeneity(by=1).fields(Context(objective))["distances"]
    assert (named.shape, named.labels) == ((3, 3), ("0", "2", "4"))
    with pytest.raises(ValueError, match="there is one layer, 0, and nothing to compare"):
        BlockHeterogeneity(parameters=("0.*",)).fields(Context(objective))


def test_more_eigenvalues_than_a_layer_has_are_nan(objective, tmp_path):
    found = measured(objective, ByLayer(by="parameter", k=5, **FAST), tmp_path)
    missing = np.isnan(found["values"]).sum(axis=1)
    assert missing.tolist() == [0, 0, 0, 1, 0, 2]


def test_both_probes_of_a_step_share_the_products(objective, tmp_path):
    products, real = [], home.BlockDiagonal._matmat
    with pytest.MonkeyPatch.context() as patch, Trace.create(tmp_path / "t.h5", seed=0) as trace:
        patch.setattr(home.BlockDiagonal, "_matmat", lambda self, V: products.append(1) or real(self, V))
        monitor = Monitor(objective, [ByLayer(**FAST)], trace, on_error="raise")
        monitor(0)
        alone = len(products)
    with pytest.MonkeyPatch.context() as patch, Trace.create(tmp_path / "both.h5", seed=0) as trace:
        products.clear()
        patch.setattr(home.BlockDiagonal, "_matmat", lambda self, V: products.append(1) or real(self, V))
        monitor = Monitor(objective, [ByLayer(**FAST), BlockHeterogeneity(**FAST)], trace, on_error="raise")
        both = monitor(0)
        assert len(products) == alone
        assert both["heterogeneity"].values["matvecs"] == both["by-layer"].values["matvecs"]
    apart = measured(objective, BlockHeterogeneity(**FAST), tmp_path)
    assert 0 < apart["mean"] <= 1
    assert np.array_equal(apart["distances"], apart["distances"].T)
    assert apart["mean"] == pytest.approx(apart["distances"][np.triu_indices(3, 1)].mean())


def test_layers_left_out_are_noted(objective, tmp_path):
    found = measured(objective, BlockHeterogeneity(by="parameter", normalise="tenth", **FAST), tmp_path)
    assert found["note"] == "left out: 0.bias, 2.bias, 4.weight, 4.bias"  # few entries, or no tenth positive eigenvalue
    assert np.isnan(found["distances"][1]).all()


@pytest.mark.parametrize(("setting", "value"), [("by", 0), ("heads", 0), ("by", "block"), ("steps", 0)])
def test_wrong_settings(setting, value):
    with pytest.raises(ValueError, match=f"{setting}={value!r} is not possible"):
        ByLayer(**{setting: value})


def test_what_it_finds_is_the_largest_of_the_whole_at_most(objective, tmp_path):
    found = measured(objective, ByLayer(**FAST), tmp_path)
    whole = eigsh(Hessian(objective), 1, tol=1e-6)
    assert found["values"].max() <= float(whole.values[0]) * (1 + 1e-6)
