"""plotly.js for a page: the whole library out of the package `plotly`, packed so that it takes 2 MB."""

from __future__ import annotations

import base64
import gzip
from functools import cache
from importlib import resources

_PLACE = "plotly"
HINT = "pip install 'landscape-engine[report]'"


def is_there() -> bool:
    """Whether plotly is installed, without importing it."""
    try:
        return _file().is_file()
    except (ModuleNotFoundError, TypeError, OSError):
        return False


def _file() -> resources.abc.Traversable:
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec(_PLACE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(_PLACE)
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


@cache
def packed() -> str:
    """The library, gzipped and in base64, which the page unpacks by itself."""
    return packed_text(_file().read_bytes())


def packed_text(data: bytes) -> str:
    """Bytes for a page, the same ones each time."""
    return base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode("ascii")
