"""K-FAC from its definition, on sequences of layers, with nothing that the implementation has."""

import torch
from torch import nn
from torch.nn import functional as F

from landscape import GaussNewton


def blocks_of(K):
    """Indices of each layer's parameters in the flat vector."""
    K = K.factored()
    for block in K.blocks:
        yield torch.cat([torch.arange(K.slices[n].start, K.slices[n].stop) for n in block.layer.names])


def on_blocks(K, G):
    """A dense matrix with all but K's blocks set to 0."""
    kept = torch.zeros_like(G)
    for index in blocks_of(K):
        kept[index[:, None], index] = G[index[:, None], index]
    return kept


def exact_blocks(K):
    """Of Gauss-Newton."""
    return on_blocks(K, GaussNewton(K.objective).to_dense())


def relative(A, B):
    return float((A - B).norm() / B.norm())


def identity(n):
    return torch.eye(n, dtype=torch.float64)


def by_definition(net, X, y, share):
    """B (x) A of each Linear or Conv2d of an `nn.Sequential` with cross-entropy, in the order of its layers."""
    p = net(X).softmax(1).detach()
    H = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    blocks = []
    for i, layer in enumerate(net):
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        a = net[:i](X).detach()
        s = layer(a).detach()
        J = torch.func.vmap(torch.func.jacrev(lambda t, i=i: net[i + 1 :](t.unsqueeze(0))[0]))(s).detach()
        if isinstance(layer, nn.Conv2d):
            a = F.unfold(a, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
            J = J.flatten(3).permute(0, 3, 1, 2)
        else:
            a, J = a.unsqueeze(1), J.unsqueeze(1)
        a = torch.cat([a, torch.ones_like(a[..., :1])], dim=2)
        if share == "reduce":
            a, J = a.mean(1, keepdim=True), J.sum(1, keepdim=True)
        A = torch.einsum("nri,nrj->ij", a, a) / a.shape[:2].numel()
        B = torch.einsum("nrco,ncd,nrdp->op", J, H, J) / len(X)
        K = torch.einsum("op,ij->oipj", B, A)
        inner = a.shape[2] - 1  # the flat vector has the whole weight before the bias
        order = torch.arange(B.shape[0] * (inner + 1)).reshape(B.shape[0], inner + 1)
        order = torch.cat([order[:, :inner].reshape(-1), order[:, inner]])
        K = K.reshape(len(order), len(order))
        blocks.append(K[order][:, order])
    return torch.block_diag(*blocks)
