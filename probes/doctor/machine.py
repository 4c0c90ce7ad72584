"""What works on this machine: versions, devices, memory, and the few operations that curvature needs."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from probes.doctor.finding import Finding, finding
from probes.doctor.names import names
from probes.environment import version_of
from probes.errors import one_line


def examine_machine(folder: Path) -> Iterator[Finding]:
    """Every finding, one after the other; nothing raises."""
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("landscape-engine", version_of("landscape-engine") or "not installed, running from a checkout")
    for package in ("torch", "numpy", "scipy", "h5py", "matplotlib", "rich", "typer", "safetensors", "scikit-learn"):
        version = version_of(package)
        missing = "missing: pip install landscape-engine installs it"
        yield Finding(package, version or missing, "ok" if version else "FAIL")
    yield finding("HDF5", _hdf5)
    yield finding("folder", partial(_writable, folder))
    yield finding("names", partial(names, folder))
    try:
        import torch
    except Exception as error:  # a broken installation raises anything, from ImportError to OSError
        yield Finding("torch", f"cannot be imported: {one_line(error)}", "FAIL")
        return
    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    for device in devices:
        yield finding(str(device), partial(_device, device))
        for what, check in _CHECKS.items():
            yield finding(f"{device} {what}", partial(check, device))


def _hdf5() -> str:
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.h5"
        with h5py.File(path, "w", libver="latest") as file:
            rows = file.create_dataset("rows", (0,), dtype="f8", maxshape=(None,), chunks=(8,))
            file.swmr_mode = True
            rows.resize((1,))
            rows.flush()
            # the follower's view of a file that is being written: what `landscape show` does during a run
            with h5py.File(path, "r", libver="latest", swmr=True) as reader:
                seen = reader["rows"].shape
    if seen != (1,):
        raise RuntimeError("a reader does not see what a writer flushed")
    return f"{h5py.version.hdf5_version}, readable while written"


def _writable(folder: Path) -> str:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * 4096)
        file.flush()
    return f"{folder.resolve()} is writable, {shutil.disk_usage(folder).free / 2**30:.1f} GiB free"


def _device(device: Any) -> str:
    import torch

    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{torch.cuda.get_device_name(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if device.type == "cpu":
        from landscape.memory import available_memory

        # half of what is free is the budget that operators take by themselves
        budget = available_memory(device) / 2**30
        return f"{torch.get_num_threads()} threads, memory budget of one operator {budget:.1f} GiB"
    return "available"


def _double_backward(device: Any) -> str:
    import torch

    x = torch.linspace(0.1, 1.0, 8, device=device, requires_grad=True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(torch.tanh(x).square().sum(), x, create_graph=True)
        (product,) = torch.autograd.grad(gradient.sum(), x)
    t = torch.tanh(x.detach())
    exact = 2 * (1 - t**2) ** 2 - 4 * t**2 * (1 - t**2)
    if not torch.allclose(product, exact, atol=1e-4):
        raise RuntimeError("the second derivative is wrong")
    return "works"


def _attention(device: Any) -> str:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q = torch.randn(1, 1, 4, 8, device=device, requires_grad=True)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        output = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        (gradient,) = torch.autograd.grad(output.square().sum(), q, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), q)
    return "works (math kernel)"


def _float64(device: Any) -> str:
    import torch

    A = torch.eye(4, dtype=torch.float64, device=device)
    if float((A @ A).sum()) != 4.0:
        raise RuntimeError("a float64 product is wrong")
    return "works"


_CHECKS: dict[str, Callable[[Any], str]] = {
    "double backward": _double_backward,
    "attention, twice differentiated": _attention,
    "float64": _float64,
}
