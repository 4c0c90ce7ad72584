"""Gene expressions: few samples `(n, genes)` in float64, thousands of columns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from probes.errors import UserError
from runs.shared.data.places import files, package

_ISLP = "`pip install --no-deps islp`, whose files are read without its dependencies"


@dataclass(frozen=True)
class Samples:
    """Rows `x` `(n, d)` in float64 and the number of each one's class `(n,)` among `classes`."""

    name: str
    x: Tensor
    y: Tensor
    classes: tuple[str, ...]


@lru_cache(maxsize=1)
def nci60() -> Samples:
    """64 cell lines of 14 kinds of cancer, 6,830 genes. Raises `UserError` where they are not."""
    also = [package("ISLP", "data")]
    values, labels = files("NCI60", ["NCI60data.npy", "NCI60labs.csv"], also=also, get=_ISLP)
    return _samples("NCI60", np.load(values, allow_pickle=False), [row[-1] for row in _rows(labels)[1:]], values)


@lru_cache(maxsize=1)
def khan() -> Samples:
    """83 tumours of 4 kinds, 2,308 genes; the first 63 are those to train on. Raises `UserError` where they are not."""
    names = [f"Khan_{side}{part}.csv" for side in "xy" for part in ("train", "test")]
    *values, train, test = files("Khan", names, also=[package("ISLP", "data")], get=_ISLP)
    table = [row for path in values for row in _rows(path)[1:]]
    labels = [row[-1] for path in (train, test) for row in _rows(path)[1:]]
    return _samples("Khan", np.array(table, dtype=np.float64), labels, values[0])


@lru_cache(maxsize=1)
def leukemia() -> Samples:
    """38 bone marrows of two kinds of leukemia, ALL and AML, 3,051 genes (Golub et al. 1999), standardised by sample.

    Raises `UserError` where they are not, or where rdata, which reads R's files, is not.
    """
    folder = Path("/usr/lib/R/site-library/multtest/data")
    get = "`apt install r-bioc-multtest`, which has it as one file of R"
    (path,) = files("the leukemia set of Golub et al.", ["golub.RData"], also=[folder], get=get)
    try:
        import rdata
    except ImportError:
        raise UserError(f"{path} is a file of R, which rdata reads: `pip install rdata`") from None
    found = rdata.read_rda(path, default_encoding="ascii")
    kinds = [("ALL", "AML")[int(label)] for label in found["golub.cl"]]
    return _samples("leukemia", np.asarray(found["golub"]).T, kinds, path)


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as lines:
        return [row for row in csv.reader(lines) if row]


def _samples(name: str, x: np.ndarray, labels: Sequence[str], path: Path) -> Samples:
    if x.ndim != 2 or len(x) != len(labels):
        raise UserError(f"{path} and its labels do not belong together: {x.shape} and {len(labels)}")
    classes = tuple(sorted(set(labels)))
    y = torch.tensor([classes.index(label) for label in labels])
    return Samples(name, torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)), y, classes)
