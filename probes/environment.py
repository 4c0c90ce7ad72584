"""What a result depends on beside its inputs: versions and machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

_PACKAGES = ("landscape-engine", "torch", "numpy", "scipy", "h5py")


def environment(*more: str) -> dict[str, Any]:
    """Python, system, processors and package versions (of `more` packages too), without importing any of them."""
    versions = {package: version_of(package) for package in (*_PACKAGES, *more)}
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {package: version for package, version in versions.items() if version is not None},
    }


def version_of(package: str) -> str | None:
    """The version of a package, from its metadata; None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def version_text() -> str:
    """`landscape-engine 0.1.0 (torch 2.13.0, Python 3.12.3)`, without importing any of them."""
    own = version_of("landscape-engine") or "(not installed: a checkout)"
    return f"landscape-engine {own} (torch {version_of('torch') or 'missing'}, Python {platform.python_version()})"
