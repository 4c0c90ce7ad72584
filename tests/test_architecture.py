"""The plan of the house: which floor and which room may import which, and habits that a reader can rely on."""

import ast
import importlib
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest
from paths import ROOT

# Rooms are folders and loose files. Each imports only from rooms of earlier lines, never from one of its own line.
ROOMS = {
    "landscape": [
        {"clock", "exports", "memory", "norms", "precision", "randomness", "ranks", "statistics"},
        {"tuning"},
        {"objective"},
        {"operators"},
        {"spectra"},
        {"surface", "conditioning", "regularity", "collapse", "representation", "sharpness", "implicit"},
    ],
    "solvers": [
        {"distributed", "parametrizations", "repeatable"},
        {"base"},
        {"first_order", "second_order"},
        {"preconditioned", "diffusion"},
        {"regularizers"},
    ],
    "probes": [
        {"environment", "errors", "hashes", "numbers", "outliers", "schedules", "seeds"},
        {"ranks"},
        {"files", "processes", "specs", "terminal"},
        {"display", "trace"},
        {"mirrors"},
        {"session"},
        {"context"},
        {"probe"},
        {"instruments"},
        {"monitor"},
        {"checkpoints"},
        {"views"},
        {"commands", "integrations", "sweep", "digits", "doctor"},
        {"demo"},
        {"cli"},
        {"__main__"},
    ],
    "runs": [
        {"engine"},
        {"shared"},
        {"sweep"},
        {
            "edge_of_stability",
            "function_class",
            "gauss_newton_conditioning",
            "neural_collapse",
            "ngn",
            "scion",
            "second_order",
            "sde",
            "sscn",
        },
        {"benchmarks", "findings"},
        {"scale"},
    ],
}
BELOW = {"landscape": set(), "solvers": {"landscape"}, "probes": {"landscape"}, "runs": {*ROOMS} - {"runs"}}
LIMIT = 300
WRITERS = {"write_text", "write_bytes", "mkdir", "touch", "unlink", "savefig", "save", "savez", "savetxt", "tofile"}


@cache
def modules():
    """Every module of the four floors by its dotted name."""
    found = {}
    for floor in ROOMS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path):
    return ast.parse(path.read_text())


@cache
def imports(name):
    """The modules of the house that a module imports, wherever in it: also in functions and for the type checker."""
    found = set()
    for node in ast.walk(tree(modules()[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in modules() else node.module for one in full}
    return {one for one in found if one.split(".")[0] in ROOMS} - {name}


def room(name):
    parts = name.split(".")
    return parts[0], parts[1] if len(parts) > 1 else "__init__"


def storey(floor, noun):
    found = [i for i, line in enumerate(ROOMS[floor]) if noun in line]
    assert found, f"{floor}/{noun} is in no line of the plan: say in ROOMS what it may import"
    return found[0]


@pytest.mark.parametrize("name", modules())
def test_imports_only_go_down(name):
    floor, noun = room(name)
    for other in imports(name):
        its_floor, its_noun = room(other)
        if its_floor != floor:
            assert its_floor in BELOW[floor], f"{name} imports {other}: another floor's"
        elif "__init__" not in (noun, its_noun) and its_noun != noun:
            alone = floor == "runs" and its_noun == "sweep" and noun not in ("ngn", "benchmarks")
            assert storey(floor, its_noun) < storey(floor, noun), f"{name} imports {other}: not below it"
            assert not alone, f"{name} imports {other}: another experiment's"
        else:
            assert its_noun != "__init__", f"{name} imports the floor's front door: it would go in a circle"


def test_no_imports_in_a_circle():
    try:
        tuple(TopologicalSorter({name: imports(name) for name in modules()}).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", [name for name in modules() if name.startswith("landscape")])
def test_mathematics_prints_and_writes_nothing(name):
    for node in ast.walk(tree(modules()[name])):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "open", "input"}, f"{name}:{node.lineno}"
            elif isinstance(node.func, ast.Attribute):
                assert node.func.attr not in WRITERS, f"{name}:{node.lineno}"


def test_the_rule_on_printing_reaches_every_room():
    rooms = {room(name)[1] for name in modules() if name.startswith("landscape.")}
    assert {"objective", "operators", "spectra", "conditioning", "regularity", "collapse", "sharpness"} <= rooms


def test_no_backward_with_create_graph():
    for name, path in modules().items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "backward":
                assert not any(k.arg == "create_graph" for k in node.keywords), name


@pytest.mark.parametrize("name", modules())
def test_a_file_is_read_in_one_sitting(name):
    lines = modules()[name].read_text().splitlines()
    assert len(lines) < LIMIT
    assert not [line for line in lines if "# fmt:" in line], "the formatter lays out all lines"


def test_tests_lie_where_their_subject_does():
    floors = [folder for folder in (ROOT / "tests").iterdir() if folder.name in ROOMS]
    assert len(floors) == len(ROOMS)
    for floor in floors:
        for path in floor.rglob("test_*.py"):
            subject = ROOT / path.parent.relative_to(ROOT / "tests")
            assert subject.is_dir() or subject.with_suffix(".py").is_file(), path


LIGHT = ("from probes import Trace", "from probes.cli import main", "import landscape.regularity")


@pytest.mark.parametrize("code", LIGHT)
def test_light_imports_leave_torch_out(code):
    check = f"import sys\n{code}\nassert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, timeout=120)


@pytest.mark.parametrize("package", ["landscape", "probes"])
def test_exports_are_those_that_type_checkers_see(package):
    module = importlib.import_module(package)
    (block,) = (node for node in tree(ROOT / package / "__init__.py").body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == {name: module._HOME[name] for name in module.__all__}
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018
