"""All probes by the names that the command and the traces use: what each measures and costs, and how it is shown.

A probe is written down in its own file and in one entry here. Code is named as module:name and imported when it is
used, so that this table imports nothing.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Cell = tuple[str, str, str]  # what stands behind the probe's name in the heading, a field, the field of its error


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One probe, for the command, the tables and the pictures.

    Attributes:
        home: module:class below `probes.instruments`.
        measures, needs, cost, paper: for a reader, in the words of `COST_NOTES`.
        fields: the names by which records are recognised that do not say which probe they are of: one of these sets.
        picture: module:function below `probes.views.pictures`, of the columns and the settings. Beside `x_figure`
            there may be an `x_cells` in `probes.views.cells`, the columns that a record fills in a table, and an
            `x_summary`, of all records: what they amount to, in a sentence.
        cells: the columns where there is no such function; without any, all fields that are single numbers.
        note: what a reader of the cells must know.
    """

    home: str = ""
    measures: str
    needs: str
    cost: str
    paper: str = ""
    fields: str
    picture: str
    cells: tuple[Cell, ...] = ()
    note: str = ""

    @property
    def class_name(self) -> str:
        """Of the probe, as settings in a trace have it."""
        return self.home.partition(":")[2]

    def load(self) -> type[Any]:
        """The class of the probe."""
        return import_from("probes.instruments", self.home)

    def options(self) -> dict[str, str]:
        """What the command takes behind the probe's name, `spectrum:k=10`, with its default or the choices."""
        found = {}
        for name, parameter in inspect.signature(self.load()).parameters.items():
            if name not in PYTHON_ONLY:
                choices = re.fullmatch(r"Literal\[(.*)\]", str(parameter.annotation))
                found[name] = re.sub("['\" ]", "", choices[1]).replace(",", "|") if choices else str(parameter.default)
        return found


def import_from(package: str, place: str) -> Any:
    """What `place`, module:name, is below the package."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), name)


COST_NOTES = (
    "products with the matrix, by second derivatives; an optimizer, or lr=, for thresholds only",
    "cost of a first measurement with the default settings, on all data: a product is 2 gradients, a forward pass 1/3",
    "n: parameters; a paper by its number is on arXiv",
)

# Settings that the command does not take: its checkpoints are the schedule, the end point and the networks.
PYTHON_ONLY = ("every", "end", "through", "spread")

PROBES: Mapping[str, Entry] = {
    "spectrum": Entry(
        home="curvature:Spectrum",
        measures="the k largest or smallest eigenvalues",
        needs="products",
        cost="24 + 4 k",
        fields="values residuals",
        note="± is the largest residual, a bound on the error of each eigenvalue",
        picture="spectrum:spectrum_figure",
    ),
    "trace": Entry(
        home="curvature:CurvatureTrace",
        measures="the trace, with its standard error",
        needs="products",
        cost="up to 240",
        paper="2010.09649, 2301.07825",
        fields="value stderr",
        cells=(("", "value", "stderr"),),
        note="± one standard error",
        picture="curvature:trace_figure",
    ),
    "density": Entry(
        home="curvature:SpectralDensity",
        measures="the density of all eigenvalues",
        needs="products",
        cost="512",
        paper="Ubaru et al. 2017",
        fields="nodes weights n",
        picture="density:density_figures",
    ),
    "condition": Entry(
        home="curvature:ConditionNumber",
        measures="rank and condition number, at several thresholds",
        needs="products",
        cost="2 n; n > 2048: 400",
        fields="kappa rank thresholds",
        note="> t λ₁: how many eigenvalues exceed t times the largest (and κ, their condition number)",
        picture="curvature:condition_figure",
    ),
    "by-layer": Entry(
        home="by_layer:ByLayer",
        measures="every layer by itself: eigenvalues, trace, ranks",
        needs="products",
        cost="312; many layers: 94 each",
        fields="values residuals trace_stderr stable_rank effective_rank",
        picture="by_layer:by_layer_figure",
    ),
    "heterogeneity": Entry(
        home="by_layer:BlockHeterogeneity",
        measures="how unlike the layers' spectra are",
        needs="products",
        cost="312; many layers: 94 each",
        paper="2402.16788",
        fields="distances floor mean mean_floor",
        picture="by_layer:heterogeneity_figure",
    ),
    "gauss-newton": Entry(
        home="conditioning:GaussNewtonConditioning",
        measures="condition number, bounds, spectrum of (1/N) JᵀJ",
        needs="Jacobian",
        cost="2 + outputs",
        paper="2411.02139",
        fields="kappa rank neighbours bound",
        picture="conditioning:conditioning_figure",
    ),
    "sharpness": Entry(
        home="sharpness:Sharpness",
        measures="largest eigenvalue, and what the optimizer bears",
        needs="products, optimizer",
        cost="28; adaptive: 56",
        paper="2103.00065",
        fields="value residual threshold preconditioned preconditioned_residual",
        cells=(("", "value", "residual"), (": threshold", "threshold", "")),
        picture="sharpness:sharpness_figure",
    ),
    "threshold-spectrum": Entry(
        home="threshold:ThresholdSpectrum",
        measures="all eigenvalues above c / learning rate",
        needs="products, optimizer",
        cost="34",
        paper="2103.00065",
        fields="count values residuals marginal threshold more",
        note="(~): too close to the threshold to tell on which side; ± is the largest residual",
        picture="threshold:threshold_figure",
    ),
    "batch-sharpness": Entry(
        home="sharpness:BatchSharpness",
        measures="curvature of batches along their own gradients",
        needs="products, optimizer",
        cost="3",
        paper="2412.20553",
        fields="value stderr ratio_of_means threshold batches",
        cells=(("", "value", "stderr"), (": threshold", "threshold", "")),
        picture="sharpness:batch_sharpness_figure",
    ),
    "critical-sharpness": Entry(
        home="sharpness:CriticalSharpness",
        measures="2 / smallest step that raises the loss",
        needs="gradient, optimizer",
        cost="1 + 8 passes",
        paper="2601.16979",
        fields="value lower upper threshold",
        picture="sharpness:critical_sharpness_figure",
    ),
    "critical-step-curve": Entry(
        home="critical_steps:CriticalStepCurve",
        measures="the step that raises the loss, beside 2 / λ₁",
        needs="products",
        cost="29 + 8 passes",
        paper="2601.16979",
        fields="critical critical_lower critical_upper edge ratio lr",
        picture="sharpness:critical_step_curve_figure",
    ),
    "relative-critical-sharpness": Entry(
        home="relative_sharpness:RelativeCriticalSharpness",
        measures="2 / smallest step for a loss that raises another",
        needs="gradient, batch",
        cost="1 + 8 passes",
        paper="2601.16979",
        fields="value lower upper threshold ascent slope",
        picture="sharpness:relative_critical_sharpness_figure",
    ),
    "sam-sharpness": Entry(
        home="gradient:SAMSharpness",
        measures="rise of the loss at distance rho",
        needs="gradient",
        cost="1 + 1 pass",
        paper="2010.01412",
        fields="value error rho",
        cells=(("", "value", "error"),),
        picture="sharpness:sam_figure",
    ),
    "gradient": Entry(
        home="gradient:Gradient",
        measures="loss, gradient norm and noise scale",
        needs="gradient",
        cost="1 + 1 pass",
        paper="1812.06162",
        fields="loss norm noise_scale noise_scale_stderr",
        cells=((": norm", "norm", ""), (": noise scale", "noise_scale", "noise_scale_stderr")),
        picture="gradient:gradient_figure",
    ),
    "alignment": Entry(
        home="gradient:Alignment",
        measures="share of the gradient in the top k eigenvectors",
        needs="products",
        cost="29 + 4 k",
        paper="1812.04754",
        fields="cosines bounds total total_bound",
        cells=((": in the top vectors", "total", "total_bound"),),
        picture="gradient:alignment_figure",
    ),
    "updates": Entry(
        home="gradient:Updates",
        measures="how far each tensor moved, relative to its size",
        needs="the step before",
        cost="0",
        fields="ratio update weight steps",
        picture="gradient:updates_figure",
    ),
    "function-class": Entry(
        home="function_class:FunctionClass",
        measures="whether the run is alpha-beta, PL, aiming, ...",
        needs="gradient",
        cost="1 + 1 pass",
        paper="2410.12455",
        fields="inner final_loss infimum distance | infimum gradient_sketch position_sketch",
        picture="function_class:function_class_figures",
    ),
    "neural-collapse": Entry(
        home="neural_collapse:NeuralCollapse",
        measures="NC0 to NC4 of the last layer and its features",
        needs="features, labels",
        cost="1 or 2 passes",
        paper="2602.16642",
        fields="nc0 nc1 nc2 nc3 nc4 accuracy",
        picture="neural_collapse:neural_collapse_figure",
    ),
    "dual-gradient": Entry(
        home="dual_gradient:DualGradient",
        measures="gradient in dual norms, and over f - f*",
        needs="gradient",
        cost="1",
        paper="2502.07529, 2603.21191",
        fields="dual total gap mu",
        picture="gradient:dual_gradient_figure",
    ),
    "surface": Entry(
        home="surface:LossSurface",
        measures="the loss on a plane, beside its quadratic model",
        needs="products",
        cost="5 + 441 passes",
        paper="1712.09913",
        fields="x values quadratic curvature",
        cells=((": lowest", "lowest", ""), (": highest", "highest", "")),
        picture="surface:surface_figure",
    ),
    "snapshots": Entry(
        home="snapshots:Snapshots",
        measures="the network itself, as a checkpoint in the trace",
        needs="parameters",
        cost="0",
        fields="n bytes norm",
        picture="snapshots:snapshots_figure",
    ),
    "connection": Entry(
        home="connection.connection:Connection",
        measures="barriers and a low path between two networks",
        needs="gradient",
        cost="1200 + 132 passes",
        paper="1912.05671, 1802.10026, 2209.04836, 1906.06247",
        fields="t straight aligned trained height ends",
        picture="connection:connection_figure",
    ),
    "solver": Entry(
        home="solver_steps:SolverSteps",
        measures="what a second-order solver says of its last step",
        needs="optimizer",
        cost="0",
        fields="accepted decrease ratio used tries",
        picture="solver_steps:solver_steps_figure",
    ),
}

# Not a probe: what `landscape probe` measures at every checkpoint in any case.
LOSS = Entry(
    measures="the loss and the norm of its gradient",
    needs="gradient",
    cost="1",
    fields="value gradient_norm",
    picture="curvature:loss_figure",
)
