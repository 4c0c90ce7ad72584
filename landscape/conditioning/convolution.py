"""A one-dimensional convolution as a matrix, so that the closed forms for linear layers can be asked about it."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from landscape.conditioning.inputs import as_float64, require_memory


def convolution_matrix(kernel: Any, length: int) -> Tensor:
    """The block-Toeplitz matrix T of a 1-D convolution: T @ x.flatten() is `torch.nn.functional.conv1d(x, kernel)`.

    Stride 1, no padding ("valid"), no bias; the kernel is not flipped, as in torch. Networks of such layers are linear
    networks (arXiv 2411.02139, convolutional networks), but `linear_network` then speaks of the Gauss-Newton
    matrix by the entries of T as if each were a parameter of its own: of the network whose kernels are not shared
    between positions. Neither kappa nor the bounds carry over to the shared kernel.

    Args:
        kernel: `(out, in, size)`, a tensor of any device and dtype, a Parameter or a numpy array.
        length: positions of the input, at least size.

    Returns:
        `(out * (length - size + 1), in * length)` float64 on the host. Rows and columns run over channels first
        and positions within them, as `flatten` of a `(channels, positions)` tensor.

    Raises:
        TypeError: a complex kernel, or a length that is no integer.
        ValueError: a kernel that is not 3-D or not finite, or longer than the input.
        MemoryError: the matrix does not fit into half of the memory that is free.

    Example:
        >>> import torch
        >>> from landscape.conditioning import convolution_matrix
        >>> convolution_matrix(torch.tensor([[[1.0, 2.0]]]), 3)
        tensor([[1., 2., 0.],
                [0., 1., 2.]], dtype=torch.float64)
    """
    weight = as_float64(kernel, "kernel", ndim=3)
    length = operator.index(length)
    out, channels, size = weight.shape
    if size > length:
        raise ValueError(f"the kernel has {size} positions, the input only {length}: no output is left without padding")
    steps = length - size + 1
    require_memory(out * steps, channels * length, "the matrix", "shorten the input or take fewer channels", copies=1)
    T = torch.zeros(out, steps, channels, length, dtype=torch.float64)
    row = torch.arange(steps)
    for shift in range(size):
        T[:, row, :, row + shift] = weight[:, :, shift]
    return T.reshape(out * steps, channels * length)
