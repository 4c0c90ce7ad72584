"""What a result depends on beside its inputs: versions and machine."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from typing import Any

_PACKAGES = ("landscape-engine", "torch", "numpy", "scipy", "h5py")


def environment() -> dict[str, Any]:
    """Python, system, processors and package versions, from metadata: importing torch would take a second."""
    versions = {}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": versions,
    }
