"""RS-RNM against a plain reference."""

import numpy as np
import pytest
import torch
from newton_cases import PROBLEMS, check_step_by_step, generator

from solvers import RSRNM


def rs_rnm_reference(fgh, w, s, generator):
    while True:
        P = torch.randn(len(w), s, generator=generator, dtype=torch.float64).numpy().T / s
        f, g, H = fgh(w)
        S = P @ H @ P.T
        eta = 2 * max(0.0, -np.linalg.eigvalsh(S)[0]) + np.linalg.norm(g) ** 0.5
        d = -P.T @ np.linalg.solve(S + eta * np.eye(s), P @ g)
        t = 1.0
        while f - fgh.f(w + t * d) < -0.3 * t * (g @ d):
            t /= 2
        w = w + t * d
        yield w, 1.0


CASES = {
    "rs-rnm": (lambda p: RSRNM(p, 5, generator=generator()), lambda fgh, w: rs_rnm_reference(fgh, w, 5, generator()))
}


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(case, name):
    check_step_by_step(*CASES[case], name)
