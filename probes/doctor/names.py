"""Files of the user's own that Python takes for a package, because the current folder is looked into first."""

from __future__ import annotations

import sys
from pathlib import Path

from probes.doctor.finding import Finding
from probes.errors import first_few

_OURS = ("landscape", "solvers", "probes", "runs")
_NEEDED = ("torch", "numpy", "scipy", "h5py", "matplotlib", "rich", "typer", "safetensors", "sklearn")


def shadows(folder: Path) -> list[str]:
    """Names in the folder that stand before a package of the same name, as they are on the disk: `torch.py`."""
    packages = {*_OURS, *_NEEDED, *sys.stdlib_module_names}
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        module = path.suffix == ".py" or (path / "__init__.py").is_file()
        if module and path.stem in packages and not path.name.startswith("__") and not _is_the_package(path):
            found.append(path.name)
    return found


def _is_the_package(path: Path) -> bool:
    """Whether this is the package itself: someone works in a checkout of it."""
    own = Path(__file__).resolve().parents[2]
    return path.stem in _OURS and path.resolve() == own / path.name


def names(folder: Path) -> Finding:
    """The finding on them: a failure where what is hidden is needed here."""
    found = shadows(folder)
    if not found:
        return Finding("names", "nothing in this folder hides a package", "ok", {"shadows": []})
    which = f"{first_few(found)} in {folder.resolve()} {'hides the package' if len(found) == 1 else 'hide packages'}"
    return Finding("names", f"{which} of that name: rename it, or start in another folder", "FAIL", {"shadows": found})
