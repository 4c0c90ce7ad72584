"""What must hold on a CUDA device as well; skipped without one."""

import pytest
import torch
from operator_cases import CASES
from torch import nn
from torch.nn import functional as F

from landscape import EmpiricalFisher, GaussNewton, Hessian, MonteCarloFisher, Objective
from landscape.spectra import density, eigsh, trace

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def both(name, **options):
    case = CASES[name]()
    on_cpu = Objective(case.model, case.loss, case.batches, **case.options, **options)
    return on_cpu, Objective(case.model, case.loss, case.batches, device="cuda", **case.options, **options)


# losses and functions that hold CPU tensors of their own cannot follow to the device
MOVABLE = [n for n in CASES if n not in ("smoothed_and_weighted", "weighted_partial", "class_probabilities", "binary")]


@pytest.mark.parametrize("name", MOVABLE)
@pytest.mark.parametrize("operator", [Hessian, GaussNewton])
def test_products_are_those_of_the_cpu(name, operator):
    on_cpu, on_gpu = both(name)
    A, B = operator(on_cpu), operator(on_gpu)
    V = A.random(3, "normal", torch.Generator().manual_seed(0))
    expected = A @ V
    assert B.device.type == "cuda"
    for _ in range(2):
        result = B @ V
        assert result.device.type == "cuda"
        assert (result.cpu() - expected).norm() < 1e-10 * expected.norm().clamp_min(1e-12)
    one = B @ V[:, 0]
    assert (one.cpu() - expected[:, 0]).norm() < 1e-10 * expected.norm().clamp_min(1e-12)


def test_fisher_draws_are_those_of_the_cpu():
    on_cpu, on_gpu = both("relu")
    for make in (EmpiricalFisher, lambda o: MonteCarloFisher(o, 2, torch.Generator().manual_seed(0))):
        assert torch.allclose(make(on_cpu).to_dense(), make(on_gpu).to_dense().cpu(), rtol=1e-9, atol=1e-12)


def test_spectra_are_those_of_the_cpu():
    on_cpu, on_gpu = (Hessian(o) for o in both("tanh"))
    seeded = torch.Generator().manual_seed
    a, b = (eigsh(A, 3, tol=1e-8, generator=seeded(0)) for A in (on_cpu, on_gpu))
    assert torch.allclose(a.values, b.values, rtol=1e-7)
    assert b.values.device.type == "cpu"
    assert b.vectors.device.type == "cuda"
    a, b = (trace(A, matvecs=30, generator=seeded(0)) for A in (on_cpu, on_gpu))
    assert a.value == pytest.approx(b.value, rel=1e-9)
    a, b = (density(A, probes=2, steps=5, generator=seeded(0)) for A in (on_cpu, on_gpu))
    assert torch.allclose(torch.as_tensor(a.nodes), torch.as_tensor(b.nodes), rtol=1e-6, atol=1e-9)


def test_nothing_is_left_behind_and_nothing_is_stale():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).cuda()
    X, y = torch.randn(16, 4).cuda(), torch.randint(0, 3, (16,)).cuda()
    o = Objective(model, nn.CrossEntropyLoss(), [(X[:10], y[:10]), (X[10:], y[10:])])
    state, buffer = torch.cuda.get_rng_state(), model[1].running_mean.clone()
    H = Hessian(o)
    v = torch.ones(o.size)
    first = H @ v
    assert torch.equal(H @ v, first)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert torch.equal(model[1].running_mean, buffer)
    model[0].weight.data[0, 0] += 1.0
    assert torch.allclose(H @ v, Hessian(o) @ v)
    assert not torch.allclose(H @ v, first)


def test_release_gives_the_memory_back():
    model = nn.Sequential(nn.Linear(256, 512), nn.Tanh(), nn.Linear(512, 10)).cuda()
    X, y = torch.randn(512, 256).cuda(), torch.randint(0, 10, (512,)).cuda()
    o = Objective(model, nn.CrossEntropyLoss(), (X, y))
    v = torch.ones(o.size, device="cuda")
    Hessian(o) @ v
    before = torch.cuda.memory_allocated()
    H = Hessian(o)
    H @ v
    assert torch.cuda.memory_allocated() > before
    H.release()
    assert torch.cuda.memory_allocated() <= before


def test_half_precision_and_attention_kernels():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.head = nn.Linear(16, 48), nn.Linear(16, 5)

        def forward(self, x):
            q, k, v = self.qkv(x).view(len(x), -1, 2, 24).transpose(1, 2).chunk(3, -1)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.head(mixed.transpose(1, 2).flatten(2).mean(1))

    torch.manual_seed(0)
    model = Block().cuda()
    X, y = torch.randn(8, 6, 16).cuda(), torch.randint(0, 5, (8,)).cuda()
    exact = Hessian(Objective(model, nn.CrossEntropyLoss(), (X, y), dtype=torch.float64))
    v = exact.random(1, "normal", torch.Generator().manual_seed(0))
    truth = exact @ v
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.2)):
        H = Hessian(Objective(model, nn.CrossEntropyLoss(), (X, y), dtype=dtype))
        assert H.dtype == torch.float32
        assert (H @ v - truth).norm() < tolerance * truth.norm()
