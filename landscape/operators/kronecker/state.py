"""Blocks as plain arrays by name, and back: what fits a file of any format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.operators.kronecker.blocks import Block, Product, Spectrum
from landscape.operators.kronecker.factored import Factored
from landscape.operators.kronecker.layers.layer import Affine, Layer, Stacked
from landscape.operators.kronecker.sides import Basis, Side

State = dict[str, np.ndarray[Any, Any]]
_LAYERS: dict[str, type[Layer]] = {"affine": Affine, "stacked": Stacked}


def to_arrays(K: Factored) -> State:
    """One JSON text as bytes, `description`, and the arrays of each block."""
    arrays: State = {}
    blocks = []
    for i, block in enumerate(K.blocks):
        kind = next(name for name, layer in _LAYERS.items() if isinstance(block.layer, layer))
        blocks.append({"kind": kind, "layer": asdict(block.layer)})
        for name, t in _tensors(block).items():
            arrays[f"{i}.{name}"] = t.cpu().numpy()
    slices = {name: [s.start, s.stop] for name, s in K.slices.items()}
    about = {"size": K.size, "limit": K.limit, "notes": K.notes, "slices": slices, "blocks": blocks}
    text = json.dumps(about | {"dtype": str(K.dtype).removeprefix("torch.")})
    return {"description": np.frombuffer(text.encode(), dtype=np.uint8), **arrays}


def from_arrays(state: Mapping[str, Any], device: torch.device) -> Factored:
    """Raises `ValueError` for what is none."""
    try:
        about = json.loads(bytes(np.asarray(state["description"], dtype=np.uint8)))
        blocks = [
            _block(_layer(found), {name: _tensor(state.get(f"{i}.{name}"), device) for name in _NAMES})
            for i, found in enumerate(about["blocks"])
        ]
        slices = {name: slice(*ends) for name, ends in about["slices"].items()}
        dtype = getattr(torch, about["dtype"])
        return Factored(blocks, slices, about["size"], about["limit"], tuple(about["notes"]), dtype, device)
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise ValueError(f"this is no state of KFAC or EKFAC: {type(error).__name__}: {error}") from error


_NAMES = ("B", "A", "B_values", "A_values", "B_vectors", "A_vectors", "values")


def _tensors(block: Block) -> dict[str, Tensor]:
    if isinstance(block, Product):
        return {"B": block.B.matrix, "A": block.A.matrix}
    assert isinstance(block, Spectrum)
    found = {"B_values": block.B.values, "A_values": block.A.values, "values": block.values}
    vectors = {"B_vectors": block.B.vectors, "A_vectors": block.A.vectors}
    return found | {name: t for name, t in vectors.items() if t is not None}


def _block(layer: Layer, found: dict[str, Tensor | None]) -> Block:
    B, A, values = found["B"], found["A"], found["values"]
    if B is not None and A is not None:
        return Product(layer, Side(B), Side(A))
    B_values, A_values = found["B_values"], found["A_values"]
    if values is None or B_values is None or A_values is None:
        raise KeyError("arrays are missing")
    return Spectrum(layer, Basis(B_values, found["B_vectors"]), Basis(A_values, found["A_vectors"]), values)


def _layer(found: Mapping[str, Any]) -> Layer:
    fields = dict(found["layer"])
    if "pieces" in fields:
        fields["pieces"] = tuple((name, size) for name, size in fields["pieces"])
    return _LAYERS[found["kind"]](**fields)


def _tensor(array: Any, device: torch.device) -> Tensor | None:
    return None if array is None else torch.from_numpy(np.array(array)).to(device)
