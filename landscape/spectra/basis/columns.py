"""Room for columns: rows of a tensor on the device, in host memory, or in a file that is gone afterwards."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile

import torch
from torch import Tensor

from landscape.memory import in_words, scratch_folder
from landscape.operators.vectors import VectorSpace
from landscape.spectra.basis.place import Where


def allocate(space: VectorSpace, count: int, where: Where) -> Tensor:
    """`(count, numbers of a vector on this rank)`, not initialised: each column contiguous.

    A file has no name, or loses it when the last tensor on it does, whatever ends the process. Its blocks are
    reserved at once, so that a disk that fills up later harms nobody here.

    Raises `MemoryError` where the file cannot be made or does not fit.
    """
    shape = (count, math.prod(space.shape))
    if where == "disk":
        return _mapped(math.prod(shape) * space.dtype.itemsize, space.dtype).reshape(shape)
    return torch.empty(shape, dtype=space.dtype, device=space.device if where == "device" else "cpu")


def _mapped(size: int, dtype: torch.dtype) -> Tensor:
    if size == 0:
        return torch.empty(0, dtype=dtype)
    folder = "the folder for temporary files"
    try:
        folder = scratch_folder()
        with tempfile.TemporaryFile(prefix="landscape-basis-", dir=folder) as file:
            _reserve(file.fileno(), size, folder)
            content = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise MemoryError(
            f"a basis on disk needs {in_words(size)} in {folder}: {error.strerror or error}; set TMPDIR to a folder "
            "that has them, or basis='device' to do with the memory"
        ) from error
    return torch.frombuffer(content, dtype=dtype)


def _reserve(file: int, size: int, folder: str) -> None:
    """Give the file its blocks: a write to a page that the disk has no block for would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(None, f"{in_words(free)} are free")
    os.truncate(file, size)
