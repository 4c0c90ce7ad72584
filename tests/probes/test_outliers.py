"""Outliers counted from a density are those counted from the eigenvalues."""

import numpy as np
import torch

from landscape import MatrixOperator
from landscape.spectra import density
from probes.outliers import outliers, single_ritz_values


def test_a_density_counts_what_the_eigenvalues_do():
    values = np.concatenate([np.linspace(1.6, 3.7, 9), np.geomspace(0.21, 1e-6, 291)])
    expected = outliers(values)
    assert (expected.count, round(expected.ratio, 1)) == (9, 7.6)
    basis = torch.linalg.qr(torch.randn(300, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    A = MatrixOperator((basis * torch.tensor(values)) @ basis.T)
    for seed in range(20):  # one weight of nine is large by chance in most of them
        found = density(A, probes=8, steps=40, generator=torch.Generator().manual_seed(seed))
        counted = outliers(single_ritz_values(found.nodes.numpy(), found.weights.numpy(), 300), least=2)
        assert (counted.count, round(counted.ratio, 1)) == (9, 7.6), seed
