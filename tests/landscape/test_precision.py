"""Sums in float64 on devices that have none of it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from landscape import precision
from landscape.operators.vectors import VectorSpace


class NoFloat64(TorchDispatchMode):
    """A device without float64: whatever computes in it there fails; conversions on the way to the host may not."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError(f"{func} makes float64")
        return result


@pytest.mark.parametrize("rows", [5, 1 << 17])
def test_inner_products_leave_the_device_before_they_become_float64(rows, monkeypatch):
    X = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))
    space = VectorSpace(rows, torch.float32, X.device)
    with pytest.raises(TypeError, match="float64"), NoFloat64():
        space.inner(X, X)
    moved = []
    monkeypatch.setattr(precision, "_WITHOUT", {"cpu"})
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: moved.append(t.dtype) or t)
    found = space.inner(X, X)
    torch.testing.assert_close(found, X.double().T @ X.double(), rtol=1e-13, atol=1e-10)
    assert moved[:1] == [torch.float32]
