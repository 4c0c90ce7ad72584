"""Names of torch's functions, as a function mode meets them."""

from __future__ import annotations

from typing import Any

_OPERATORS = {
    f"{side}{name}": name for name in ("add", "sub", "mul", "div", "truediv", "pow", "matmul") for side in ("i", "r")
}


def name_of(function: Any) -> str:
    """`add` for `torch.add`, `Tensor.add_`, `Tensor.__iadd__`; the attribute for `Tensor.T.__get__`."""
    name = str(getattr(function, "__name__", function))
    if name == "__get__":
        return str(getattr(function.__self__, "__name__", "an attribute"))
    bare = name.strip("_")
    return _OPERATORS.get(bare, bare) if name.startswith("__") else bare
