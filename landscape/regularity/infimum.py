"""An estimate of inf f_k for a mini-batch: the lowest value that a minimisation on a copy comes to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from landscape.objective import Objective

Array = np.ndarray[Any, np.dtype[np.float64]]


def estimate_infimum(objective: Objective, starts: Iterable[Tensor], *, iterations: int = 200) -> float:
    """The lowest value of f that L-BFGS reaches from the starts `(n,)` and from the parameters as they stand.

    An upper bound of inf f; the model is as before. Each start takes at most `iterations` steps (about as many
    gradients), fewer when it has converged. Raises `ValueError` for a start of another length.
    """

    def function(x: Array) -> tuple[float, Array]:
        theta = torch.from_numpy(x).to(device=objective.device)
        with objective.at(theta):
            value, gradient = objective.value_and_gradient()
        if not np.isfinite(value):
            return np.inf, np.zeros_like(x)
        return value, gradient.double().cpu().numpy()

    lowest = np.inf
    for start in [objective.theta(), *starts]:
        if start.shape != (objective.size,):
            raise ValueError(f"a start has shape {tuple(start.shape)}, the parameters ({objective.size},)")
        x = start.detach().double().cpu().numpy()
        found = minimize(function, x, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
        lowest = min(lowest, function(x)[0], float(found.fun))
    return float(lowest)
