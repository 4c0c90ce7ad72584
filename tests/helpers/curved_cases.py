"""Solvers with random probes beside plain references: the probes that a run has drawn, and runs of both."""

import numpy as np
import torch
from newton_cases import network, quadratic

from solvers.preconditioned import hutchinson

# (problem, steps): each step doubles rounding errors of a network or so
PROBLEMS = {"quadratic": (quadratic, 120), "network": (network, 40)}


def recorded(monkeypatch, home=hutchinson):
    """The list of all random vectors that are drawn from here on in this module."""
    drawn, draw = [], home.draw

    def recording(leaves, kind, generator):
        pieces = draw(leaves, kind, generator)
        drawn.append(torch.cat([z.reshape(-1) for z in pieces]).numpy())
        return pieces

    monkeypatch.setattr(home, "draw", recording)
    return drawn


def check_against_reference(monkeypatch, make, reference, name, tolerance=1e-9, most=120):
    """The solver's way and that of `reference(fgh, w, probe)`, a generator of points; `probe()` is the next z."""
    drawn = recorded(monkeypatch)
    build, steps = PROBLEMS[name]
    problem = build()
    start = problem.flat()
    solver = make(problem.parameters)
    ends = []
    for _ in range(min(steps, most)):
        problem_loss = problem.fgh.f(problem.flat())
        np.testing.assert_allclose(float(solver.step(problem.closure)), problem_loss, rtol=1e-12)
        ends.append(problem.flat())
    probes = iter(drawn)
    path = reference(problem.fgh, start, lambda: next(probes))
    for w in ends:
        np.testing.assert_allclose(next(path), w, rtol=0, atol=tolerance)
    assert next(probes, None) is None  # all probes have been used
    assert np.linalg.norm(ends[-1] - start) > 1e-2
    return solver


def dense_hessian(loss, parameters):
    """The Hessian of a closure, column by column in float64."""
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(), parameters, create_graph=True)])
    rows = [
        torch.cat(
            [g.reshape(-1) for g in torch.autograd.grad(one, parameters, retain_graph=True, materialize_grads=True)]
        )
        for one in gradient
    ]
    return torch.stack(rows)
