"""Conditioning of the Gauss-Newton matrix: criteria on made-up data, the jobs' parts, its pages, (-m slow) the run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import check_committed, check_needs, check_page, reduced
from torch import nn

from landscape.conditioning import convolution_matrix, linear_network
from probes import Trace
from probes.digits import build_network
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.engine.claims import ClaimResult, Results
from runs.gauss_newton_conditioning import EXPERIMENT, criteria, data, jobs, networks
from runs.gauss_newton_conditioning import depth_claims as depth
from runs.gauss_newton_conditioning import linear_claims as linear
from runs.gauss_newton_conditioning import network_claims as more
from runs.shared.tables import falling, rising


class MadeUp(Results):
    """Results whose traces are columns, by job and group."""

    def __init__(self, traces: dict[str, dict[str, Any]], data: dict[str, Any] | None = None) -> None:
        known = data or {}
        super().__init__({name: JobResult(known.get(name, {}), Path(f"{name}.h5")) for name in traces})
        self.traces = traces

    def trace(self, name: str) -> Any:
        content = self.traces[name]
        return _Trace(content if "networks" in content or "loss" in content else {"networks": content})


class _Trace(dict):  # type: ignore[type-arg]
    def __getitem__(self, group: str) -> Any:
        return _Group(super().__getitem__(group))

    def __enter__(self) -> _Trace:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Group(dict):  # type: ignore[type-arg]
    read = dict.copy


def table(kappa: list[float], **columns: list[float]) -> dict[str, Any]:
    """Rows of full rank whose bound is 1.5 kappa and whose loose bound 30 kappa."""
    values = np.array(kappa)
    full = {"rank": np.full(len(values), 610.0), "size": np.full(len(values), 610.0)}
    made = {"kappa": values, "bound": 1.5 * values, "loose": 30 * values, **full}
    return made | {name: np.array(column, dtype=float) for name, column in columns.items()}


def grid(function: Any, first: list[float], second: list[float], names: tuple[str, str]) -> dict[str, Any]:
    """A table of two initialisations over two keys."""
    keys = [(a, b) for a in first for b in second for _ in range(2)]
    found = table([function(a, b) for a, b in keys], **{names[0]: [a for a, _ in keys], names[1]: [b for _, b in keys]})
    return found


def test_numbers() -> None:
    assert criteria.geometric(np.array([1.0, 100.0])) == pytest.approx(10)
    assert criteria.geometric(np.array([1.0, math.inf])) == math.inf
    assert criteria.spread(np.array([1.0, math.e])) == pytest.approx(math.exp(2**-0.5))
    assert criteria.spread(np.array([3.0])) == 1.0
    assert criteria.exponent([2, 4, 8], [12, 48, 192]) == pytest.approx(2)
    assert rising([1, 2, 3])
    assert not rising([1, 1, 3])
    assert not rising([1])
    assert falling([3, 2])
    assert criteria.within(np.array([9.0, 11.0]), 12.0, 2) == pytest.approx(2 / 2**0.5)
    assert [criteria.number(v) for v in (13.62, 1234.4, 2.34e6, math.inf)] == ["13.6", "1234", "2.3e6", "∞"]
    rows = table([2.0, 3.0, 5.0], width=[64, 64, 8], depth=[2, 2, 2])
    assert {k: v.tolist() for k, v in criteria.grouped(rows, "width", "depth").items()} == {
        (8, 2): [5],
        (64, 2): [2, 3],
    }
    assert criteria.chosen(rows, width=64)["kappa"].tolist() == [2, 3]
    assert criteria.exceeding(rows) == 0
    assert criteria.exceeding(rows | {"bound": np.array([2.0 * (1 - 1e-12), 2.9, 6.0])}) == 1
    assert criteria.deficiency(rows) == "ranks full"
    short = rows | {"rank": np.array([610.0, 600.0, 500.0])}
    assert criteria.deficiency(short) == "rank deficient in 2 of 3 networks, down to 500 of 610"
    assert criteria.kept({(64.0, 2.0): np.array([math.inf])}) == {"64, 2": {"mean": None, "spread": 1.0, "networks": 1}}


def test_depth_and_width() -> None:
    def judged(claim: Any, function: Any, **changed: Any) -> bool | None:
        found = grid(function, [64, 200], [2, 4, 8], ("width", "depth"))
        found |= {name: change(found) for name, change in changed.items()}
        return claim.measure(MadeUp({"digits-1": found, "random-1": found})).holds

    def usual(width: float, depth: float) -> float:
        return depth**2 * 100 / width

    for claim in (depth.deeper, depth.quadratic, depth.wider, depth.close, linear.far_deeper):
        assert judged(claim, usual), claim.name
    assert judged(depth.deeper, lambda w, d: 10 - d) is False
    assert judged(depth.quadratic, lambda w, d: d**3) is False
    assert judged(depth.quadratic, lambda w, d: d) is False
    assert judged(depth.wider, lambda w, d: w * d**2) is False
    assert judged(depth.close, usual, bound=lambda t: 2.1 * t["kappa"]) is False
    assert judged(depth.close, usual, bound=lambda t: 0.9 * t["kappa"]) is False
    assert judged(linear.far_deeper, usual, loose=lambda t: 9 * t["bound"]) is False


def test_the_reference_is_met_within_three_errors() -> None:
    def judged(**changed: float) -> bool | None:
        """Ten kappas about the reference at each depth, shifted by so many standard errors of the difference."""
        kappa, depths = [], []
        for level, mean in jobs.REFERENCE.items():
            values = mean * (1 + 0.1 * np.linspace(-1, 1, 10))
            error = values.std(ddof=1) * math.sqrt(1 / 10 + 1 / 3)
            kappa += list(values + changed.get(f"L{level}", 0.0) * error)
            depths += [level] * 10
        return depth.agrees.measure(MadeUp({"reference": table(kappa, depth=depths)})).holds

    assert judged()
    assert judged(L2=2.9, L6=-2.9)
    assert judged(L3=3.1) is False
    assert judged(L6=-3.1) is False


def test_proportional() -> None:
    def judged(claim: Any, proportional: float, fixed: float) -> bool | None:
        part = [grid(lambda f, d, p=p: d**p, [10, 160], [2, 10], ("factor", "depth")) for p in (proportional, fixed)]
        both = {name: np.concatenate([part[0][name], part[1][name]]) for name in part[0]}
        both["fixed"] = np.repeat([0.0, 1.0], len(part[0]["kappa"]))
        return claim.measure(MadeUp({"proportional-1": both})).holds

    assert judged(depth.slower, 0.5, 2)
    assert judged(depth.slower, 2, 0.5) is False
    assert judged(depth.improves, -0.5, 2)
    assert judged(depth.improves, 0.5, 2) is False


def test_bounds() -> None:
    hidden = table([5.0, 5.0], width=[15, 64])
    two = grid(lambda w, d: 5.0, [64], [2, 3], ("width", "depth"))
    equal = two | {"bound": np.array([5.0, 5.0, 8.0, 8.0])}

    def judged(bound: list[float], **others: Any) -> bool | None:
        jobs = {"hidden": hidden | {"bound": np.array(bound)}, "digits-1": equal, "random-1": equal}
        return linear.equality.measure(MadeUp(jobs | others)).holds

    assert judged([5.0, 5.0 * (1 + 1e-12)])
    assert judged([5.0, 5.1]) is False
    assert judged([5.0, 5.0], **{"digits-1": two}) is False
    assert linear.far.measure(MadeUp({"hidden": hidden | {"loose": np.array([math.inf, 60.0])}})).holds
    assert linear.far.measure(MadeUp({"hidden": hidden | {"loose": np.array([math.inf, 40.0])}})).holds is False


def test_white_data_and_skips() -> None:
    def data_claim(claim: Any, raw: Any) -> bool | None:
        found = grid(lambda white, d: d if white else raw(d), [0, 1], [2, 4], ("white", "depth"))
        return claim.measure(MadeUp({"whitening": found})).holds

    assert data_claim(linear.unwhitened, lambda d: 20 * d)
    assert data_claim(linear.unwhitened, lambda d: 5 * d) is False
    assert data_claim(linear.gap, lambda d: 20 * d**2)
    assert data_claim(linear.gap, lambda d: 20) is False

    def skip_claim(claim: Any, job: str, lowered: set[int]) -> bool | None:
        found = grid(lambda s, d: d / 2 if s in lowered else d, list(range(6)), [2, 3, 4], ("skip", "depth"))
        return claim.measure(MadeUp({job: found}, {job: {"widths": [61, 64, 10]}})).holds

    assert skip_claim(linear.skips, "skip-64", {1, 2, 3, 4})
    assert skip_claim(linear.skips, "skip-64", {1, 2, 4}) is False
    assert skip_claim(linear.square_skips, "skip-square", {3, 4, 5})
    assert skip_claim(linear.square_skips, "skip-square", {4, 5}) is False


def test_leaky_relu() -> None:
    def judged(claim: Any, **changed: list[float]) -> bool | None:
        slopes = table([10.0, 20.0], b15=[20, 30], b2=[40, 50])
        small = slopes | {"made": np.array([0.0, 1.0])}
        small |= {name: np.array(values) for name, values in changed.items()}
        return claim.measure(MadeUp({"slopes": slopes, "small": small})).holds

    assert judged(more.leaky)
    assert judged(more.leaky, bound=[9.0, 30.0]) is False
    assert judged(more.leaky, bound=[math.inf, 30.0])
    assert judged(more.estimates)
    assert judged(more.estimates, b2=[40.0, 19.0]) is False


def test_convolutions() -> None:
    def judged(claim: Any, function: Any) -> bool | None:
        found = grid(function, [2, 3, 4], [7, 9], ("filters", "kernel"))
        twice = {name: np.concatenate([values, values]) for name, values in found.items()}
        twice["shared"] = np.repeat([0.0, 1.0], len(found["kappa"]))
        return claim.measure(MadeUp({"convolution": twice})).holds

    assert judged(more.filters, lambda f, k: f / k)
    assert judged(more.filters, lambda f, k: abs(f - 2.9)) is False
    assert judged(more.kernels, lambda f, k: f / k)
    assert judged(more.kernels, lambda f, k: f * k) is False


def test_norm_and_pruning() -> None:
    def norm(claim: Any, function: Any) -> bool | None:
        found = grid(function, [0, 1, 2], [20, 40], ("norm", "width"))
        return claim.measure(MadeUp({"norm-1": found, "many-1": found})).holds

    for claim in (more.norm, more.norm_many, more.norm_training, more.norm_width):
        assert norm(claim, lambda kind, width: (4 - kind) / width), claim.name
        assert norm(claim, lambda kind, width: (1 + kind) * width) is False, claim.name

    def pruned(claim: Any, function: Any) -> bool | None:
        found = grid(function, [0, 1], [0.0, 0.4, 0.8], ("trained", "fraction"))
        twice = {name: np.concatenate([values, values]) for name, values in found.items()}
        twice["left_out"] = np.repeat([0.0, 1.0], len(found["kappa"]))
        return claim.measure(MadeUp({"pruning-0": twice, "pruning-1": twice})).holds

    for claim in (more.pruned, more.pruned_inside):
        assert pruned(claim, lambda trained, fraction: 1 + fraction)
        assert pruned(claim, lambda trained, fraction: 2 - fraction) is False

    def loss(values: list[float]) -> ClaimResult:
        trace = {"loss": {"fraction": np.repeat([0.0, 0.4], 2), "value": np.array(values)}}
        return more.pruned_loss.measure(MadeUp({"pruning-0": trace, "pruning-1": trace}))

    assert loss([3.0, 1.0, 3.5, 1.5]).holds
    assert loss([3.0, 1.0, 2.0, 1.5]).holds is False
    assert loss([3.0, 1.0, 3.5, 1.5]).numbers["last"] == {"0": 1.0, "0.4": 1.5}


def test_training() -> None:
    def judged(claim: Any, kappa: list[float], **changed: list[float]) -> bool | None:
        found = table(kappa) | {name: np.array(values) for name, values in changed.items()}
        return claim.measure(MadeUp({"training-0": found}, {"training-0": {"first": 1.0, "last": 0.5}})).holds

    assert judged(more.steady, [6.0, 11.9, 8.0])
    assert judged(more.steady, [6.0, 12.1, 8.0]) is False
    assert judged(more.stays_close, [6.0, 8.0])
    assert judged(more.stays_close, [6.0, 8.0], bound=[12.1, 8.0]) is False
    assert judged(more.stays_close, [6.0, 8.0], bound=[6.0, 7.9]) is False


def test_data() -> None:
    x = data.images()
    assert x.shape == (1347, 61)  # three of the 64 pixels never change
    u = data.white(x)
    torch.testing.assert_close(u.T @ u, torch.eye(61, dtype=torch.float64), rtol=0, atol=1e-10)
    few = data.white(data.images(40))
    torch.testing.assert_close(few @ few.T, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="no full rank"):
        data.white(torch.cat([x, x[:, :1]], dim=1))


def test_two_convolutions_are_the_linear_network_of_their_matrices() -> None:
    first, second = torch.randn(2, 1, 11), torch.randn(2, 2, 11)
    found = jobs.toeplitz(first, second)
    whole = linear_network([convolution_matrix(first, 36), convolution_matrix(second, 26)])
    assert found.kappa == pytest.approx(whole.kappa, rel=1e-8)
    assert len(found.eigenvalues) == len(whole.eigenvalues)


def brute(model: nn.Module, x: torch.Tensor, masks: dict[str, torch.Tensor]) -> float:
    """kappa of J J^T by autograd over the outputs of all samples together."""
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def outputs(p: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(model, (p, {n: b.clone() for n, b in buffers.items()}), (x,)).flatten()

    J = torch.func.jacrev(outputs)(parameters)
    J = torch.cat([(j * masks.get(name, 1)).flatten(1) for name, j in J.items()], dim=1)
    values = torch.linalg.eigvalsh(J @ J.T)
    values = values[values > len(values) * 2.3e-16 * values[-1]]
    return float(values[-1] / values[0])


@pytest.mark.parametrize("left_out", [False, True])
def test_the_pruned_jacobian(left_out: bool) -> None:
    model, x = build_network(networks.resnet, 1), torch.randn(4, 1, 8, 8, dtype=torch.float64)
    masks = networks.magnitude_masks(model, 0.5)
    assert {name: float(1 - mask.mean()) for name, mask in masks.items()} == dict.fromkeys(masks, 0.5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in masks:
                assert weight[masks[name] == 0].abs().max() <= weight[masks[name] == 1].abs().min()
                weight.mul_(masks[name])
    found = networks.pruned_kappa(model, masks, x, left_out=left_out)
    model = model.double()
    networks.recalibrate(model, x)
    assert found.kappa == pytest.approx(brute(model, x, masks if left_out else {}), rel=1e-6)


def test_batch_norm(tmp_path: Path) -> None:
    context = JobContext("norm", 3, tmp_path / "norm.h5", lambda done, planned: None)
    networks.batch_norm(context, width=6, samples=7, inits=1)
    with Trace.open(tmp_path / "norm.h5") as trace:
        kappa = trace["networks"]["kappa"]
    x = data.images(7)
    for number in range(3):
        model = networks.hidden(x.shape[1], 6, norm=number > 0).double()
        source = data.generator(context, 0)
        for layer in (model[0], model[-1]):
            nn.init.kaiming_normal_(layer.weight, generator=source)
        networks.recalibrate(model, x)
        if number == 1:
            normed = model[:3](x)
            assert normed.mean(dim=0).abs().max() < 1e-10
        model.train(number == 2)
        assert kappa[number] == pytest.approx(brute(model, x, {}), rel=1e-5), number


def test_jobs_leave_rows(tmp_path: Path) -> None:
    def context(name: str) -> JobContext:
        return JobContext(name, 5, tmp_path / f"{name}.h5", lambda done, planned: None)

    jobs.depth(context("depth"), "digits", 64, [2, 3], 2)
    jobs.small(context("small"), 20)
    with Trace.open(tmp_path / "depth.h5") as trace:
        found = trace["networks"].read()
    assert found["depth"].tolist() == [2, 3, 2, 3]
    assert len(set(found["kappa"].tolist())) == 4
    assert (found["rank"] == 610).all()
    assert (found["threshold"] < found["smallest"]).all()
    with Trace.open(tmp_path / "small.h5") as trace:
        made = trace["networks"].read()
    assert made["kappa"][-1] > 50 * made["b2"][-1]
    assert len(made["kappa"]) == 21
    done = networks.training(context("training"), epochs=4, every=2)
    assert done["last"] < done["first"]


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(EXPERIMENT)
    assert not [c.name for c in found if c.holds is None]


def test_the_documents_have_the_committed_table() -> None:
    check_page(EXPERIMENT)


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(EXPERIMENT, tmp_path)
    found = {one["name"]: one for one in report["claims"]}
    assert found["one hidden layer: the bound is kappa"]["holds"] is True
    assert found["leaky ReLU: the bound holds"]["holds"] is True
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    pictures = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {"overview.png", "skips.png", "layers.png", "batch-norm.png", "pruning.png", "training.png"}
