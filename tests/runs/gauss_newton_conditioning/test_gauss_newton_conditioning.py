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
from runs.engine.claims import Claim, ClaimResult, Results
from runs.gauss_newton_conditioning import EXPERIMENT, batch_norm, criteria, data, jobs, pruning, training
from runs.gauss_newton_conditioning import depth_claims as depth
from runs.gauss_newton_conditioning import layer_claims as layers
from runs.gauss_newton_conditioning import linear_claims as linear
from runs.gauss_newton_conditioning import training_claims as trained
from runs.shared.data import Images
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


def answers(claim: Claim, results: Results) -> tuple[bool | None, bool | None]:
    """What the rule says, and what it says of the claim's control."""
    found = claim.measure(results)
    assert "not measured:" not in found.measured, found.measured
    return found.holds, found.control.holds if found.control else None


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
    assert criteria.rank_correlation([3, 2, 1]) == pytest.approx(-1)
    assert criteria.rank_correlation([6, 5, 4, 3, 1, 2]) == pytest.approx(1 - 6 * 68 / 210)
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
    steps = {"first-1": {"data": "fashion", "inputs": 40}, "second-1": {"data": "mnist", "inputs": 34}}
    better = grid(lambda c, d: 1 / d, [200, 400], [2, 8], ("factor", "depth"))
    better["fixed"] = np.zeros(len(better["kappa"]))

    def judged(claim: Claim, function: Any, **changed: Any) -> tuple[bool | None, bool | None]:
        found = grid(function, [50, 100, 200], [2, 4, 8], ("width", "depth"))
        found |= {name: change(found) for name, change in changed.items()}
        return answers(claim, MadeUp({"first-1": found, "second-1": found, "proportional-1": better}, steps))

    def usual(width: float, depth: float) -> float:
        return depth ** (6 - width / 40) * 100 / width

    def loose(t: Any) -> Any:
        return np.where(t["width"] < 80, 30, 2) * t["kappa"]

    for claim in (depth.deeper, depth.quadratic, depth.wider, depth.close):
        assert judged(claim, usual) == (True, False), claim.name
    assert judged(depth.deeper, lambda w, d: 10 - d)[0] is False
    assert judged(depth.quadratic, lambda w, d: d ** (7 - w / 50))[0] is False  # ends at 3
    assert judged(depth.quadratic, lambda w, d: d ** (w / 60))[0] is False  # rises
    assert judged(depth.quadratic, lambda w, d: d ** (7 - w / 40)) == (True, True)  # 5 is passed as well
    assert judged(depth.wider, lambda w, d: w * d**2)[0] is False
    assert judged(depth.close, usual, bound=lambda t: 2.6 * t["kappa"])[0] is False
    assert judged(depth.close, usual, bound=lambda t: 0.9 * t["kappa"])[0] is False
    assert judged(linear.far_deeper, usual, loose=loose) == (True, False)  # 50 is judged, 100 and 200 for the control
    assert judged(linear.far_deeper, usual, loose=lambda t: 7 * t["kappa"])[0] is False


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
    def judged(claim: Claim, proportional: float, fixed: float) -> tuple[bool | None, bool | None]:
        part = [grid(lambda f, d, p=p: d**p, [50, 200], [2, 10], ("factor", "depth")) for p in (proportional, fixed)]
        both = {name: np.concatenate([part[0][name], part[1][name]]) for name in part[0]}
        both["fixed"] = np.repeat([0.0, 1.0], len(part[0]["kappa"]))
        return answers(claim, MadeUp({"proportional-1": both}))

    assert judged(depth.slower, 0.5, 2) == (True, False)
    assert judged(depth.slower, 2, 0.5) == (False, True)
    assert judged(depth.improves, -0.5, 2) == (True, False)
    assert judged(depth.improves, 0.5, 2)[0] is False


def test_bounds() -> None:
    hidden = table([5.0, 5.0, 5.0], width=[15, 64, 200])
    two = grid(lambda w, d: 5.0, [64], [2, 3], ("width", "depth"))
    equal = two | {"bound": np.array([5.0, 5.0, 8.0, 8.0])}

    def judged(bound: list[float], **others: Any) -> bool | None:
        jobs = {"hidden": hidden | {"bound": np.array(bound)}, "first-1": equal, "second-1": equal}
        return linear.equality.measure(MadeUp(jobs | others)).holds

    assert judged([5.0, 5.0 * (1 + 1e-12), 5.0])
    assert judged([5.0, 5.1, 5.0]) is False
    assert judged([5.0, 5.0, 5.0], **{"first-1": two}) is False

    def far(*loose: float) -> tuple[bool | None, bool | None]:
        found = hidden | {"bound": hidden["kappa"], "loose": np.array(loose)}
        return answers(linear.far, MadeUp({"hidden": found}, {"hidden": {"inputs": 48}}))

    assert far(math.inf, 11.0, 6.0) == (True, False)
    assert far(math.inf, 9.0, 6.0)[0] is False
    assert far(math.inf, 11.0, 11.0)[1] is True


def test_white_data_and_skips() -> None:
    def data_claim(claim: Claim, raw: Any) -> tuple[bool | None, bool | None]:
        found = grid(lambda white, d: d if white else raw(d), [0, 1], [2, 4], ("white", "depth"))
        return answers(claim, MadeUp({"whitening": found}, {"whitening": {"kappa_data": 200.0, "inputs": 9}}))

    for claim, least in ((linear.unwhitened, 10), (linear.by_covariance, 20)):
        assert data_claim(claim, lambda d, least=least: (least + 1) * d)[0]
        assert data_claim(claim, lambda d, least=least: (least - 1) * d)[0] is False
    assert data_claim(linear.unwhitened, lambda d: 11 * d)[1] is False
    assert data_claim(linear.gap, lambda d: 20 * d**2)[0]
    assert data_claim(linear.gap, lambda d: 20)[0] is False

    def skip_claim(claim: Claim, job: str, lowered: set[int]) -> tuple[bool | None, bool | None]:
        found = grid(lambda s, d: d / 2 if s in lowered else d, list(range(6)), [2, 3, 4], ("skip", "depth"))
        return answers(claim, MadeUp({job: found}, {job: {"widths": [48, 64, 10]}}))

    for claim, job in ((linear.skips, "skip-64"), (linear.square_skips, "skip-square")):
        assert skip_claim(claim, job, {4}) == (True, False)
        assert skip_claim(claim, job, {1, 2, 3, 5}) == (False, True)
    assert skip_claim(linear.all_skips, "skip-all", {4})[0]
    assert skip_claim(linear.all_skips, "skip-all", {1, 2, 3, 5})[0] is False


def test_leaky_relu() -> None:
    def judged(claim: Claim, **changed: list[float]) -> tuple[bool | None, bool | None]:
        slopes = table([10.0, 20.0], b15=[20, 30], b2=[40, 50])
        small = slopes | {"made": np.array([0.0, 1.0])}
        small |= {name: np.array(values) for name, values in changed.items()}
        return answers(claim, MadeUp({"slopes": slopes, "small": small}))

    assert judged(layers.leaky, b2=[40.0, 19.0]) == (True, False)
    assert judged(layers.leaky, bound=[9.0, 30.0])[0] is False
    assert judged(layers.leaky, bound=[math.inf, 30.0])[0]
    assert judged(layers.estimates)[0]
    assert judged(layers.estimates, b2=[40.0, 19.0])[0] is False


def test_convolutions() -> None:
    def judged(claim: Claim, function: Any) -> bool | None:
        parts = [grid(f, [2, 3, 4], [7, 9], ("filters", "kernel")) for f in (function, lambda f, k: 1.0)]
        both = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        both["half"] = np.repeat([0.0, 1.0], len(parts[0]["kappa"]))
        found = claim.measure(MadeUp({"convolution": both}))
        assert "does not show" in found.measured
        return found.holds

    assert judged(layers.filters, lambda f, k: f / k)
    assert judged(layers.filters, lambda f, k: abs(f - 2.9)) is False
    assert judged(layers.kernels, lambda f, k: f / k)
    assert judged(layers.kernels, lambda f, k: f * k) is False


def test_norm() -> None:
    def judged(claim: Claim, *by_norm: float, power: float = -1) -> tuple[bool | None, bool | None]:
        found = grid(lambda norm, width: by_norm[int(norm)] * width**power, [0, 1, 2], [8.0, 16.0], ("norm", "width"))
        return answers(claim, MadeUp({"norm-1": found}))

    assert judged(layers.norm, 10, 9, 5) == (True, False)
    assert judged(layers.norm, 10, 4, 6) == (False, True)
    assert judged(layers.norm_width, 1, 1, 1) == (True, False)
    assert judged(layers.norm_width, 1, 1, 1, power=1) == (False, True)


def test_pruning_claims() -> None:
    def pruned(function: Any) -> tuple[bool | None, bool | None]:
        found = grid(function, [0, 5], [0.0, 0.4, 0.8], ("epochs", "fraction"))
        return answers(trained.pruned, MadeUp({"pruning-0": found, "pruning-1": found}))

    assert pruned(lambda epoch, fraction: 1 + fraction) == (True, False)
    assert pruned(lambda epoch, fraction: 2 - fraction)[0] is False
    assert pruned(lambda epoch, fraction: 1 + fraction if epoch else 1)[0] is False

    def loss(values: list[float]) -> ClaimResult:
        trace = {"loss": {"fraction": np.repeat([0.0, 0.4], 2), "value": np.array(values)}}
        return trained.pruned_loss.measure(MadeUp({"pruning-0": trace, "pruning-1": trace}))

    found = loss([3.0, 1.0, 3.5, 1.5])
    assert found.holds
    assert found.control is not None
    assert found.control.holds is False
    assert loss([3.0, 1.0, 2.0, 1.5]).holds is False
    assert found.numbers["last"] == {"0": 1.0, "0.4": 1.5}


def test_training_claims() -> None:
    resnet = table([1.0, 9.0], fraction=[0.0, 0.0])

    def judged(claim: Claim, kappa: list[float], **changed: list[float]) -> tuple[bool | None, bool | None]:
        found = table(kappa) | {name: np.array(values) for name, values in changed.items()}
        known = {"training-0": {"first": 1.0, "last": 0.5}}
        return answers(claim, MadeUp({"training-0": found, "pruning-0": resnet}, known))

    assert judged(trained.steady, [6.0, 11.9, 8.0]) == (True, False)
    assert judged(trained.steady, [6.0, 12.1, 8.0])[0] is False
    assert judged(trained.stays_close, [6.0, 8.0]) == (True, False)
    assert judged(trained.stays_close, [6.0, 8.0], bound=[12.1, 8.0])[0] is False
    assert judged(trained.stays_close, [6.0, 8.0], bound=[6.0, 7.9])[0] is False

    def wide(function: Any, best: float = 0.1) -> MadeUp:
        """At every width the step size `best` has the lower loss; at 0.4 a run diverged and left no rows."""
        found = {}
        for width in (15.0, 20.0, 50.0, 100.0, 150.0, 200.0):
            lines = [(rate, epoch, init) for rate in (0.1, 0.2, 0.4) for epoch in (0, 5) for init in (0, 1)]
            lines = [one for one in lines if one[0] < 0.4 or one[2] == 0]
            value = [function(width) * (1 if rate == best else 0.01 if rate == 0.4 else 2) for rate, _, _ in lines]
            keys = dict(zip(("rate", "epochs", "init"), zip(*lines, strict=True), strict=True))
            found[f"wide-{width:g}"] = {"networks": table(value, width=[width] * len(lines), loss=value, **keys)}
        return MadeUp(found)

    assert set(trained.best_rates(wide(lambda w: 1 / w, 0.2)).values()) == {0.2}
    for claim in (trained.faster, trained.conditioned):
        assert answers(claim, wide(lambda w: 1 / w)) == (True, False)
        assert answers(claim, wide(lambda w: w)) == (False, True)
        assert answers(claim, wide(lambda w: abs(w - 60)))[0] is False


def test_data() -> None:
    x = data.pixels("digits", 1347)
    assert x.shape == (1347, 61)  # three of the 64 pixels never change
    u = data.white(x)
    torch.testing.assert_close(u.T @ u, torch.eye(61, dtype=torch.float64), rtol=0, atol=1e-10)
    few = data.white(data.pixels("digits", 40))
    torch.testing.assert_close(few @ few.T, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="no full rank"):
        data.white(torch.cat([x, x[:, :1]], dim=1))


def test_pixels_are_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(2 * 784.0).reshape(2, 1, 28, 28)
    monkeypatch.setattr(data, "fashion_mnist", lambda: Images("made up", (x, torch.tensor([3, 4])), (x, x)))
    found, labels = data.labelled("fashion", 1, 4)
    assert found[0, 0, 1].tolist() == [112.0 + 4 * column for column in range(7)]
    assert labels.tolist() == [3]
    assert data.labelled("fashion")[0].shape == (2, 1, 14, 14)


def test_two_convolutions_are_the_linear_network_of_their_matrices() -> None:
    first, second = torch.randn(2, 1, 11), torch.randn(2, 2, 11)
    found = jobs.toeplitz(first, second)
    whole = linear_network([convolution_matrix(first, 36), convolution_matrix(second, 26)])
    assert found.kappa == pytest.approx(whole.kappa, rel=1e-8)
    assert len(found.eigenvalues) == len(whole.eigenvalues)


def brute(model: nn.Module, x: torch.Tensor, floor: float) -> float:
    """kappa of J J^T by autograd over the outputs of all samples together, of eigenvalues above `floor`."""
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def outputs(p: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(model, (p, {n: b.clone() for n, b in buffers.items()}), (x,)).flatten()

    J = torch.cat([j.flatten(1) for j in torch.func.jacrev(outputs)(parameters).values()], dim=1)
    values = torch.linalg.eigvalsh(J @ J.T)
    values = values[values > floor]
    return float(values[-1] / values[0])


def test_the_pruned_network() -> None:
    """All parameters are pruned, stay at 0 in training, and are in J."""
    model, x = build_network(pruning.resnet, 1).double(), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    pruning.prune(model, 0.5)
    shares = {name: float((p == 0).double().mean()) for name, p in model.named_parameters()}
    assert all(share >= 0.5 for share in shares.values())
    assert {share for name, share in shares.items() if name.endswith("weight")} == {0.5}
    zero = {name: p == 0 for name, p in model.named_parameters() if name.endswith("weight")}
    model(x).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1).step()
    assert all(bool(((p == 0) == zero[name]).all()) for name, p in model.named_parameters() if name in zero)
    found = pruning.pruned_kappa(model, x)
    assert found.threshold == pytest.approx(pruning.THRESHOLD / 3)
    pruning.recalibrate(model, x)
    assert found.kappa == pytest.approx(brute(model, x, pruning.THRESHOLD), rel=1e-6)


@pytest.mark.parametrize("norm", batch_norm.NORMS)
def test_batch_norm(norm: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x, V, W = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((9, 5), (4, 5), (3, 4)))
    middle = nn.Identity() if norm == "none" else nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(5, 4, bias=False), middle, nn.Linear(4, 3, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(V)
        model[-1].weight.copy_(W)
    pruning.recalibrate(model, x)
    model.train(norm == "train")
    found = batch_norm.normed(V, W, x, norm)
    assert found.rank == (15 if norm == "none" else 18)
    assert found.kappa == pytest.approx(brute(model, x, 1e-9), rel=1e-8)


def test_the_fully_skipped_network_is_what_autograd_has() -> None:
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((5, 3), (5, 5), (4, 5), (2, 4))]

    def outputs(*layers: torch.Tensor) -> torch.Tensor:
        """F(I), which is F itself: white data."""
        before = [torch.eye(3, dtype=torch.float64)]
        for W in layers:
            skipped = sum(torch.eye(len(W), len(h), dtype=torch.float64) @ h for h in before)
            before.append(W @ before[-1] + 0.7 * skipped)
        return before[-1].flatten()

    J = torch.cat([j.flatten(1) for j in torch.func.jacrev(outputs, argnums=(0, 1, 2, 3))(*weights)], dim=1)
    values = torch.linalg.eigvalsh(J @ J.T)
    found = jobs.fully_skipped(weights, 0.7)
    assert found.kappa == pytest.approx(float(values[-1] / values[0]), rel=1e-9)
    assert found.largest == pytest.approx(float(values[-1]), rel=1e-9)
    assert jobs.fully_skipped(weights, 0.0).kappa == pytest.approx(linear_network(weights).kappa, rel=1e-9)


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
    done = training.training(context("training"), "digits", epochs=4, every=2)
    assert done["last"] < done["first"]
    with Trace.open(tmp_path / "training.h5") as trace:
        kappa, spectrum = trace["networks"]["kappa"], trace["spectrum"]["eigenvalues"]
    np.testing.assert_allclose(spectrum[:, -1] / spectrum[:, 0], kappa[[0, -1]])
    jobs.products(context("products"), "digits", 64, [3], 1)
    with Trace.open(tmp_path / "products.h5") as trace:
        made = trace["products"].read()
    assert made["layer"].tolist() == [1, 2, 3]
    assert made["right"][0] == made["left"][2] == 1  # nothing stands before the first layer, nor behind the last
    assert made["right"][2] > made["right"][1] > 1
    training.wide(context("wide"), "digits", 15, [0.05, 50.0], epochs=2, every=1, inits=1)
    with Trace.open(tmp_path / "wide.h5") as trace:
        found = trace["networks"].read()
    assert found["rate"].tolist() == [0.05] * 3  # with 50 it diverges
    assert found["loss"][-1] < found["loss"][0]


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
    pictures = {path.stem for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {"overview", "skips", "layers", "batch-norm", "pruning", "spectra", "training"}
