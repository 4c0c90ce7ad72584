"""Examples in docstrings are run, and every public class and function that a user calls has one."""

import doctest
import importlib
import pkgutil
from inspect import getdoc, isclass, isroutine

import pytest

import landscape
import probes
import solvers

FLOORS = (landscape, solvers, probes)
PUBLIC = (
    "landscape",
    "landscape.spectra",
    "landscape.conditioning",
    "landscape.regularity",
    "landscape.regularity.examples",
    "landscape.regularity.families",
    "landscape.collapse",
    "landscape.representation",
    "landscape.sharpness",
    "landscape.surface",
    "landscape.implicit",
    "solvers",
    "solvers.diffusion",
    "probes",
)
# What five lines cannot show: bases that a user's own class derives from, and what needs a long run before it.
WITHOUT = {
    "solvers.diffusion.Noise": "a base to derive from: six methods make a noise",
    "solvers.diffusion.Problem": "a base to derive from: eight methods make a problem",
}
# What functions, solvers and the monitor hand out: nobody makes one by hand.
RESULTS = {
    "landscape.spectra": "Applied BlockSpectra BlockSpectrum ConditionNumber Density Eigenpairs Estimate "
    "Heterogeneity Solution SpectralSum Tridiagonal",
    "landscape.conditioning": "Conditioning LayerFactors",
    "landscape.regularity": "AlphaBeta Bound Constant Envelope HuberLine",
    "landscape.collapse": "CollapseMetrics",
    "landscape.representation": "ActivationRanks HeadEntropies LayerRanks MatrixRanks",
    "landscape.sharpness": "Alignment BatchSharpness CriticalSharpness GradientProducts GradientStatistics "
    "LayerConstants RelativeCriticalSharpness SAMSharpness Stability",
    "landscape.implicit": "Hypergradient Influence",
    "landscape.surface": "Along Barrier Frame Path Surface",
    "solvers": "AlignmentTerms CubicStep NewtonStep",
    "solvers.diffusion": "Comparison Difference Law Linear Paths Spread Summary Terms",
    "probes": "Context Moment Outcome Pairs Previous",
}


def names():
    for floor in FLOORS:
        for found in pkgutil.walk_packages(floor.__path__, f"{floor.__name__}."):
            if not found.name.endswith("__main__"):
                yield found.name


@pytest.mark.parametrize("name", ["landscape", "solvers", "probes", *names()])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert not failed


def called():
    """What a user calls, by its public name: functions and classes but for results, errors and interfaces."""
    for home in PUBLIC:
        module = importlib.import_module(home)
        for name in getattr(module, "__all__", vars(module)):
            thing = getattr(module, name)
            if name.startswith("_") or not (isroutine(thing) or isclass(thing)):
                continue
            ours = thing.__module__.split(".")[0] == home.split(".")[0]
            interface = isclass(thing) and (issubclass(thing, BaseException) or getattr(thing, "_is_protocol", False))
            if ours and not interface and name not in RESULTS.get(home, "").split():
                yield f"{home}.{name}", thing


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*pair, id=pair[0]) for pair in called()])
def test_what_a_user_calls_has_an_example(name, thing):
    told = getdoc(thing)
    assert told, f"{name} has no docstring"
    assert (">>> " in told) != (name in WITHOUT), f"{name}: an example of about five lines, or a reason in WITHOUT"
