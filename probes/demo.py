"""The demo: two small networks trained on real data with probes in the loop, and their checkpoints probed again.

What it does with `mlp` and `cnn` is what a user does with a network of their own: `Monitor` in the training
loop, `torch.save(model.state_dict())` now and then, and `landscape probe` on the files afterwards.
"""

from __future__ import annotations

import shlex
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from landscape import Objective
from landscape.clock import stopwatch
from probes.checkpoints import run
from probes.checkpoints.arguments import parse_probes
from probes.checkpoints.steps import checkpoint_steps
from probes.digits import CLASSES, NETWORKS, accuracy, build_network, digits
from probes.display.progress import progress_bar
from probes.errors import UserError
from probes.instruments.curvature import CurvatureTrace, Spectrum
from probes.monitor.monitor import Monitor
from probes.numbers import at_thresholds, plus_minus, round_to_error, short
from probes.outliers import outliers
from probes.probe import Probe
from probes.terminal import resumed
from probes.trace.trace import Trace
from probes.views.pictures.draw import plot_trace
from probes.views.report.write import report
from probes.views.tables import table

_BATCH, _RATE, _MOMENTUM = 64, 0.05, 0.9
_NOTE = (
    "Small networks on 8 x 8 images of digits, trained by momentum SGD. Traces named training were taken inside the "
    "loop, the others at saved checkpoints."
)
_RANKS = {1e-2: "rank above 1e-2 λ₁ (Gauss-Newton)", 1e-4: "rank above 1e-4 λ₁", 1e-6: "rank above 1e-6 λ₁"}


@dataclass(frozen=True)
class Plan:
    """How much the demo does; `quick` is for tests."""

    networks: tuple[str, ...] = ("mlp", "cnn")
    epochs: int = 30
    every: int = 60
    checkpoints: int = 4
    probes: tuple[str, ...] = ("spectrum:k=20", "trace:matvecs=96")
    density: str = "density:probes=4,steps=64"


_QUICK = Plan(("mlp",), 2, 21, 2, ("spectrum:k=10", "trace:matvecs=30"), "density:probes=2,steps=16")


def mlp() -> Objective:
    """The problem of `--problem probes.demo:mlp`: cross-entropy of the MLP on the training images."""
    return _objective(build_network(NETWORKS["mlp"], 0))


def cnn() -> Objective:
    """The problem of `--problem probes.demo:cnn`: cross-entropy of the CNN on the training images."""
    return _objective(build_network(NETWORKS["cnn"], 0))


def _objective(network: nn.Module) -> Objective:
    return Objective(network, nn.CrossEntropyLoss(), digits().train)


def default_folder() -> Path:
    """`runs/out/demo` in a checkout of this project, `landscape-demo` in the current folder elsewhere."""
    here = Path.cwd()
    project = here / "pyproject.toml"
    if (here / "runs").is_dir() and project.is_file() and 'name = "landscape-engine"' in project.read_text():
        return Path("runs/out/demo")
    return Path("landscape-demo")


def run_demo(folder: Path | None, *, seed: int, quick: bool, console: Console, progress: Console) -> None:
    """Train, probe, print the table, write pictures and report; the demo's own files in the folder are replaced."""
    started = time.perf_counter()
    plan = _QUICK if quick else Plan()
    folder = default_folder() if folder is None else folder
    _make_folder(folder)
    # matrices this small are slower on several threads than on one, and much slower on a busy machine
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        written, columns = _measure(plan, folder, seed, progress)
    except (KeyboardInterrupt, UserError) as error:
        if isinstance(error, UserError) and error.status != 130:
            raise
        text = f"interrupted; the checkpoints and traces so far are kept in {folder}, begin again with"
        raise UserError(text, status=130, command=resumed("")) from error
    finally:
        torch.set_num_threads(threads)
    page = _report(plan, folder)
    console.print(_table(plan, columns))
    console.print(_next_steps(folder, written, page, time.perf_counter() - started), soft_wrap=True)


def _measure(plan: Plan, folder: Path, seed: int, progress: Console) -> tuple[list[Path], list[dict[str, str]]]:
    """Everything but the printing: the pictures written, and the table's columns."""
    written: list[Path] = []
    columns = []
    for name in plan.networks:
        checkpoints = train(name, folder, seed, plan, progress)
        output = folder / f"{name}.h5"
        files = checkpoint_steps(checkpoints)
        problem = f"probes.demo:{name}"
        first = run.Request(files, problem, parse_probes(plan.probes, "hessian"), output, seed=seed, overwrite=True)
        run.run(first, progress)
        # what costs hundreds of products: the density where training began and ended, the ranks, which take as
        # many products as there are parameters, at the end
        density = parse_probes([plan.density], "hessian")
        run.run(run.Request([files[0], files[-1]], problem, density, output, seed=seed, resume=True), progress)
        ranks = parse_probes(["condition"], "gauss-newton")
        run.run(run.Request(files[-1:], problem, ranks, output, "gauss-newton", seed, resume=True), progress)
        for path in (folder / f"{name}-training.h5", output):
            with Trace.open(path) as trace:
                written += plot_trace(trace, folder, prefix=path.stem)
        columns.append(_column(name, files[-1][1], output))
    return written, columns


def train(name: str, folder: Path, seed: int, plan: Plan, progress: Console) -> list[Path]:
    """Momentum SGD with a monitor in the loop; the checkpoints written, the first at step 0."""
    network = build_network(NETWORKS[name], seed)
    objective = _objective(network)
    (x, y), loss = digits().train, nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=_RATE, momentum=_MOMENTUM)
    shuffle = torch.Generator().manual_seed(seed)
    steps = plan.epochs * -(-len(x) // _BATCH)
    saved_at = {round(i * steps / (plan.checkpoints - 1)) for i in range(plan.checkpoints)}
    for old in folder.glob(f"{name}-step*.pt"):
        old.unlink()
    saved: list[Path] = []

    def save(step: int) -> None:
        if step in saved_at:
            saved.append(folder / f"{name}-step{step}.pt")
            torch.save(network.state_dict(), saved[-1])

    config = {"network": name, "rate": _RATE, "momentum": _MOMENTUM, "batch": _BATCH, "epochs": plan.epochs}
    probes: list[Probe] = [Spectrum(k=5, every=plan.every), CurvatureTrace(every=2 * plan.every, matvecs=60)]
    path = folder / f"{name}-training.h5"
    with Trace.create(path, config=config, seed=seed, overwrite=True) as trace, progress_bar(progress, steps) as show:
        what = f"training {name} with probes in the loop"
        show(what, 0)
        monitor = Monitor(objective, probes, trace)
        monitor(0)
        save(0)
        step = 0
        for epoch in range(plan.epochs):
            for batch in torch.randperm(len(x), generator=shuffle).split(_BATCH):
                optimizer.zero_grad()
                value = loss(network(x[batch]), y[batch])
                value.backward()
                optimizer.step()
                step += 1
                show(what, step)
                monitor(step, loss=value, epoch=epoch)
                save(step)
    return saved


# -- the table ----------------------------------------------------------------------------------------------


def _column(name: str, checkpoint: Path, output: Path) -> dict[str, str]:
    """What the table says of one network under its headings, from its trace and last checkpoint on the disk."""
    from probes.checkpoints.load import load_checkpoint

    objective = _objective(NETWORKS[name]())
    load_checkpoint(checkpoint, objective.model)
    gradient = statistics.median(stopwatch(objective.gradient, objective.device)[0] for _ in range(9))
    data = digits()
    with Trace.open(output) as trace:
        rows = {group: trace[group].row(-1) for group in trace}
        earlier = [outliers(values) for values in trace["spectrum"]["values"][:-1]]
    spectrum, density = rows["spectrum"], rows["density"]
    values, residual = spectrum["values"], float(max(spectrum["residuals"]))
    largest = [round_to_error(float(v), residual, 5) for v in values[:5]]
    found = outliers(values)
    ranks = at_thresholds(rows["condition"], _RANKS)
    bound, sign = ("", "=") if bool(rows["condition"]["converged"]) else ("≥ ", "≥")
    shares = {group: float(rows[group]["cost"]) / gradient for group in ("spectrum", "trace", "density", "condition")}
    costs = ", ".join(f"{group} {float(f'{share:.2g}'):.0f}" for group, share in shares.items())
    accuracies = [f"{100 * accuracy(objective.model, part):.1f} %" for part in (data.train, data.test)]
    return {
        "parameters": str(int(density["n"])),
        "loss": f"{rows['loss']['value']:.4f}",
        "accuracy, train / test": " / ".join(accuracies),
        "largest eigenvalues (Hessian)": f"{', '.join(largest)} ± {residual:.0e}",
        "trace (Hessian)": plus_minus(float(rows["trace"]["value"]), float(rows["trace"]["stderr"])),
        "outliers among the largest": f"{found.count} of {len(values)} (gap × {short(found.ratio, 3)})",
        "  at the earlier checkpoints": ", ".join(f"{past.count} (× {short(past.ratio, 3)})" for past in earlier),
        "classes": str(CLASSES),
        **{_RANKS[threshold]: f"{bound}{rank}, κ {sign} {short(kappa, 3)}" for threshold, rank, kappa in ranks},
        "cost in gradients": f"{costs} ({1e3 * gradient:.1f} ms each)",
    }


def _table(plan: Plan, columns: list[dict[str, str]]) -> Table:
    view = table(
        title="Digits (8 x 8), momentum SGD, at the last checkpoint",
        caption=(
            "Eigenvalues ± the largest residual, a bound; trace ± one standard error. Outliers: the "
            "eigenvalues above the widest gap in log spacing, among the computed ones (its upper side "
            "at least 1 % of the largest); the gap is the ratio of its two sides, near 1 there is no separation. "
            "κ: condition number of the eigenvalues above the threshold. Cost: seconds of measuring over those of one "
            "gradient on the same data."
        ),
    )
    view.add_column("")
    for name in plan.networks:
        view.add_column(name, overflow="fold")
    for heading in columns[0]:
        view.add_row(heading, *(column[heading] for column in columns))
    return view


def _report(plan: Plan, folder: Path) -> Path:
    """The page of all that was measured."""
    traces = [folder / f"{name}{part}.h5" for name in plan.networks for part in ("", "-training")]
    what = " and ".join(name.upper() for name in plan.networks)
    return report(traces, folder / "report.html", title=f"Digits: loss landscape of {what}", note=_NOTE)


def _next_steps(folder: Path, written: list[Path], page: Path, seconds: float) -> str:
    where = shlex.quote(str(folder))
    lines = [
        f"Done in {seconds:.0f} s. Pictures:",
        *(f"  {path}" for path in written),
        f"Report: {page}",
        "Next:",
        f"  landscape show {where}/mlp.h5",
        f"  landscape plot {where}/mlp-training.h5 -o {where}",
        f"  landscape probe {where}/mlp-step*.pt --problem probes.demo:mlp --operator fisher -o fisher.h5",
    ]
    return "\n".join(lines)


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: --out names the folder for the results")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): choose another --out") from error
