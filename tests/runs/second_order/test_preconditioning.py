"""Preconditioned condition numbers: rates against plain steps, turned coordinates, the claims, a run cut short."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from landscape import Objective
from probes.digits import build_network, digits
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.engine.claims import ClaimResult, Results
from runs.second_order import preconditioning, rates
from runs.second_order import preconditioning_claims as claims
from runs.second_order.preconditioners import Rotated, dense
from solvers import SOAP, AdamCoupled

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(30) % 4


def positive(n: int, seed: int) -> torch.Tensor:
    Z = torch.randn(n, n + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Z @ Z.T


def test_condition_numbers_are_those_of_the_pencil() -> None:
    G, P = positive(5, 0), positive(5, 1)
    values = torch.linalg.eigvals(torch.linalg.solve(P, G)).real.sort(descending=True).values
    w, Q = torch.linalg.eigh(G)
    found = rates.kappas((Q * w.sqrt()) @ Q.T, torch.linalg.inv(P), [1, 3, 5])
    assert found == pytest.approx([1.0, float(values[0] / values[2]), float(values[0] / values[4])])


def test_steps_are_those_that_descent_takes() -> None:
    """On a singular quadratic, by plain steps; the bound of kappa is not reached and not passed."""
    values, vectors = torch.linalg.eigh(positive(6, 2))
    values, vectors, S = values[2:], vectors[:, 2:], positive(6, 3)
    A = (vectors * values) @ vectors.T
    g = A @ torch.ones(6, dtype=torch.float64)
    found = rates.quadratic(values, vectors, S, g)
    own = torch.linalg.eigvals(S @ A).real.sort(descending=True).values[:4]
    assert found["kappa"] == pytest.approx(float(own[0] / own[-1]))
    assert found["largest"] == pytest.approx(float(own[0]))
    d, least = torch.zeros(6, dtype=torch.float64), -0.5 * float(g.sum())
    gaps = []
    for _ in range(int(found["taken"]) + 1):
        gaps.append(float(g @ d + 0.5 * d @ A @ d) - least)
        d = d - 2.0 / float(own[0] + own[-1]) * S @ (g + A @ d)
    assert gaps[-1] <= rates.SHARE * gaps[0] < gaps[-2]
    worst = ((found["kappa"] - 1) / (found["kappa"] + 1)) ** 2
    assert found["predicted"] == pytest.approx(math.log(rates.SHARE) / math.log(worst))
    assert found["taken"] <= math.ceil(found["predicted"])


def test_descent_on_the_loss() -> None:
    model = torch.nn.Linear(3, 4).double()
    objective = Objective(model, torch.nn.CrossEntropyLoss(), (X, Y), check=False)
    S = positive(16, 4)
    found = rates.descent(objective, S, 100.0, 3)
    for _ in range(3):
        gradients = torch.autograd.grad(F.cross_entropy(model(X), Y), list(model.parameters()))
        d = S @ torch.cat([g.reshape(-1) for g in gradients]) / 100.0
        with torch.no_grad():
            model.weight -= d[:12].view(4, 3)
            model.bias -= d[12:]
    assert found == pytest.approx(float(F.cross_entropy(model(X), Y).detach()))
    assert rates.descent(objective, S, 1e-310, 3) is None


def stepped(solver: Any, model: torch.nn.Module, steps: int = 4) -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        chosen = torch.randint(30, (8,), generator=generator)
        parameters = list(model.parameters())
        loss = F.cross_entropy(model(X[chosen]), Y[chosen])
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = g
        solver.step()


def test_turned_coordinates() -> None:
    """Adam's diagonal in them is that of turned gradients; SOAP finds its own, and does not mind."""
    model = torch.nn.Linear(3, 4).double()
    weights = [model.weight]
    generator = torch.Generator().manual_seed(1)
    solver = Rotated(weights, lambda leaves: AdamCoupled(leaves, 0.0, betas=(0.0, 0.0), eps=1e-3), generator)
    stepped(solver, model)
    (L, R), g = solver._turns[0], model.weight.grad
    assert g is not None
    Q = torch.kron(L, R)
    expected = Q @ torch.diag(1.0 / ((Q.T @ g.reshape(-1)).abs() + 1e-3)) @ Q.T
    torch.testing.assert_close(dense(solver), expected)

    def make(leaves: list[torch.Tensor]) -> SOAP:
        return SOAP(leaves, 0.0, every=2, eps=1e-3)

    for one in (own := make(weights), other := Rotated(weights, make, generator)):
        stepped(one, model)
    torch.testing.assert_close(dense(own), dense(other))


def seen(scale: float, ends: float) -> dict[str, Any]:
    """Condition numbers at the four thresholds: K-FAC below SOAP below Shampoo below Adam below none."""
    order = ["kfac", "soap", "shampoo", "adam", "none", "rotated"]
    kappa = {name: scale * 10.0**i for i, name in enumerate(order)}
    kappa |= {f"{name} squared": kappa[name] / 2 for name in preconditioning.ROOTS}
    kappa |= {f"kfac {d:g}": d for d in preconditioning.DAMPINGS}
    model = {
        name: {"kappa": kappa[name], "largest": -i, "taken": kappa[name], "predicted": 1.7 * kappa[name]}
        for i, name in enumerate(order)
    }
    rows = {name: [k * 2.0**i for i in range(len(preconditioning.THRESHOLDS))] for name, k in kappa.items()}
    return {"kappa": rows, "model": model, "descended": {name: ends * kappa[name] for name in order}}


def results(change: Any = lambda found: None) -> Results:
    """`change` is made to the first two seeds of the MLP at the end."""
    made = {}
    for job in preconditioning.plan(False):
        moments = {moment: seen(10.0 + i, 0.1) for i, moment in enumerate(preconditioning.EPOCHS)}
        if job.settings["network"] == "mlp" and job.name[-1] in "012":
            change(moments["end"])
        made[job.name] = JobResult({"network": job.settings["network"], "moments": moments}, Path("none.h5"))
    return Results(made)


def judged(claim: Any, found: Results) -> ClaimResult:
    return claim.measure(found)


def test_claims_hold_on_made_up_results() -> None:
    for claim in claims.CLAIMS:
        found = judged(claim, results())
        assert found.holds, claim.name
        assert found.control is None or found.control.holds is False, claim.name


def higher(name: str) -> Any:
    """A change at one threshold: a million times the condition number."""

    def change(found: dict[str, Any]) -> None:
        found["kappa"][name][2] *= 1e6

    return change


def changed(key: str, name: str, value: Any, inner: str = "") -> Any:
    def change(found: dict[str, Any]) -> None:
        if inner:
            found[key][name][inner] = value
        else:
            found[key][name] = value

    return change


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        *[(claims.lowers, higher(name)) for name in preconditioning.SOLVERS],
        (claims.turned, higher("none")),
        (claims.coordinates, higher("adam")),
        (claims.soap, higher("soap")),
        (claims.kfac, higher("kfac")),
        (claims.roots, higher("soap squared")),
        (claims.damping, higher("kfac 0.01")),
        (claims.trained, changed("kappa", "soap", [0.1] * 4)),
        (claims.bounds, changed("model", "adam", 1e9, "taken")),
        (claims.orders, changed("model", "soap", 1e9, "taken")),
        (claims.reaches, changed("descended", "kfac", None)),
        (claims.reaches, changed("descended", "kfac", 30.0)),
    ],
)
def test_claims_can_fail(claim: Any, change: Any) -> None:
    assert judged(claim, results(change)).holds is False


def test_condition_numbers_that_are_alike_are_not_ordered() -> None:
    found = results(changed("model", "soap", 120.0, "kappa"))
    assert judged(claims.orders, found).holds  # that of K-FAC is 12, of Shampoo 1200


@pytest.fixture(scope="module")
def followed() -> dict[str, Any]:
    context = JobContext("job", 3, Path("none.h5"), lambda done, planned: None)
    return preconditioning.follow(context, network="small", epochs={"start": 0, "end": 1}, steps_down=3)


def test_a_run(followed: dict[str, Any]) -> None:
    json.dumps(followed, allow_nan=False)
    start, end = followed["moments"].values()
    model = build_network(preconditioning.small, 3).double()
    x, y = (part[: preconditioning.IMAGES] for part in digits().train)
    initial = float(F.cross_entropy(model(x.double()), y).detach())
    assert start["loss"] == pytest.approx(initial)  # the first epoch is only looked at
    assert end["loss"] < initial
    assert set(start["model"]) == {"none", "rotated", *preconditioning.SOLVERS}
    for found in (start, end):
        assert found["ranks"] == sorted(found["ranks"])
        ideal = [1.0 / threshold for threshold in preconditioning.THRESHOLDS]
        assert all(0.05 * most < k <= most for k, most in zip(found["kappa"]["none"], ideal, strict=True))
        assert found["kappa"]["kfac"] == found["kappa"][f"kfac {preconditioning.DAMPING:g}"]
        for model in found["model"].values():
            assert model["taken"] <= math.ceil(model["predicted"])
