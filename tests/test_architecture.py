"""The arrows between the floors, and habits that a reader should be able to rely on."""

import ast
import subprocess
import sys

import pytest
from paths import ROOT

FORBIDDEN = {"landscape": {"solvers", "probes", "runs"}, "solvers": {"probes", "runs"}, "probes": {"solvers", "runs"}}
FILES = [path for floor in FORBIDDEN for path in sorted((ROOT / floor).rglob("*.py"))]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path):
    floor = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text())
    assert not set(imported(tree)) & FORBIDDEN[floor]


@pytest.mark.parametrize(
    "path", [p for p in FILES if "landscape" in p.parts[-2:] or "spectra" in p.parts], ids=lambda p: p.name
)
def test_mathematics_prints_and_writes_nothing(path):
    calls = {
        n.func.id
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not calls & {"print", "open", "input"}


def test_no_backward_with_create_graph():
    for path in [*FILES, *sorted((ROOT / "runs").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "backward":
                assert not any(k.arg == "create_graph" for k in node.keywords), path


@pytest.mark.parametrize("code", ["from probes import Trace", "from probes.cli import main"])
def test_light_imports_leave_torch_out(code):
    check = f"import sys\n{code}\nassert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, timeout=120)
