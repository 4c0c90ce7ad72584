"""What is not installed by default: one clear line instead of a failed import."""

from __future__ import annotations

import importlib
from typing import Any

from probes.errors import UserError


class MissingExtra(UserError, ImportError):
    """A package of the extra `analysis` is not installed; the message says how to install it."""


def needed(package: str, what: str) -> Any:
    """The package, imported. Raises `MissingExtra` naming `what` needs it when it is not there."""
    try:
        return importlib.import_module(package)
    except ImportError:
        message = f'{what} needs {package}, which is not installed: pip install "landscape-engine[analysis]"'
        raise MissingExtra(message) from None
