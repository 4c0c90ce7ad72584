"""What layers people have: every kind of use has the trace of its exact block, or is refused by name."""

import functools

import pytest
import torch
from kronecker_cases import exact_blocks, relative
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from landscape import EKFAC, KFAC, Objective


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classifier(net, X, classes=3, **options):
    y = torch.randint(0, classes, (len(X),), generator=torch.Generator().manual_seed(1))
    # layers are what is tested here, and each check of derivatives takes longer than the rest
    return Objective(net.double(), nn.CrossEntropyLoss(), (X, y), check=False, **options)


def holds(f, note=""):
    """The trace of EKFAC is that of the exact blocks, which only right inputs and derivatives give."""
    E = EKFAC(f)
    G = exact_blocks(E)
    assert abs(E.trace() / float(G.trace()) - 1) < 1e-9
    assert E.note == note
    return E, G


CONVOLUTIONS = {
    "groups": (2, (4, 6, 3), {"groups": 2}),
    "depthwise": (2, (4, 4, 3), {"groups": 4, "bias": False}),
    "stride, padding, dilation": (2, (2, 3, (3, 2)), {"stride": (2, 1), "padding": (2, 1), "dilation": (1, 2)}),
    "same": (2, (2, 3, (4, 3)), {"padding": "same", "dilation": (1, 2)}),
    "reflect": (2, (2, 3, 3), {"padding": (2, 1), "padding_mode": "reflect"}),
    "circular": (1, (2, 3, 3), {"padding": 2, "padding_mode": "circular"}),
    "one dimension": (1, (2, 3, 3), {"stride": 2}),
    "three dimensions": (3, (2, 2, 2), {"padding": 1}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("name", "share"), [*((name, "expand") for name in CONVOLUTIONS), ("groups", "reduce"), ("one dimension", "reduce")]
)
def test_convolutions(name, share):
    dims, size, options = CONVOLUTIONS[name]
    torch.manual_seed(0)
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](*size, **options)
    net = nn.Sequential(layer, nn.ReLU(inplace=True), nn.Flatten())
    X = normal(4, size[0], *((6, 5) if dims < 3 else (3, 2, 2))[:dims])
    net.append(nn.Linear(net.double()(X).shape[1], 3))
    f = classifier(net, X)
    K, E = KFAC(f, share=share), EKFAC(f, share=share)
    G = exact_blocks(E)
    assert abs(E.trace() / float(G.trace()) - 1) < 1e-9
    assert float((G - E.to_dense()).norm()) <= float((G - K.to_dense()).norm())


class Net(nn.Module):
    """Layers given by name, and a forward of one's own."""

    def __init__(self, forward, **layers):
        super().__init__()
        torch.manual_seed(0)
        for name, make in layers.items():
            made = make()
            setattr(self, name, nn.Parameter(made) if isinstance(made, torch.Tensor) else made)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def linear(*size):
    return functools.partial(nn.Linear, *size)


TOKENS = torch.randint(0, 6, (4, 5), generator=torch.Generator().manual_seed(2))

COVERED = {
    "a weight without its module": (
        lambda m, x: F.linear(torch.tanh(m.a(x)), m.b.weight, m.b.bias),
        {"a": linear(4, 5), "b": linear(5, 3)},
        normal(6, 4),
    ),
    "matrix products": (
        lambda m, x: torch.tanh(x @ m.W + m.c) @ m.V.T,
        {"W": lambda: normal(4, 5), "c": lambda: normal(5), "V": lambda: normal(3, 5)},
        normal(6, 4),
    ),
    "addmm": (lambda m, x: torch.addmm(m.c, x, m.W), {"W": lambda: normal(4, 3), "c": lambda: normal(3)}, normal(6, 4)),
    "used twice": (lambda m, x: m.b(m.a(torch.tanh(m.a(x)))), {"a": linear(4, 4), "b": linear(4, 3)}, normal(6, 4)),
    "overwritten": (lambda m, x: m.b(m.a(x).mul_(2).tanh_()), {"a": linear(4, 5), "b": linear(5, 3)}, normal(6, 4)),
    "checkpointed": (
        lambda m, x: m.b(torch.tanh(checkpoint(m.a, x, use_reentrant=False))),
        {"a": linear(4, 5), "b": linear(5, 3)},
        normal(6, 4),
    ),
    "time first": (
        lambda m, x: m.b(torch.tanh(m.a(x.transpose(0, 1)))).mean(0),
        {"a": linear(4, 5), "b": linear(5, 3)},
        normal(6, 6, 4),
    ),
    "flattened": (
        lambda m, x: m.b(torch.tanh(m.a(x.reshape(-1, 4)))).reshape(len(x), -1, 3).mean(1),
        {"a": linear(4, 5), "b": linear(5, 3)},
        normal(6, 3, 4),
    ),
    "positions looked up": (
        lambda m, x: m.b(torch.tanh(m.t(x) + m.p(torch.arange(x.shape[1])))).mean(1),
        {"t": lambda: nn.Embedding(6, 4), "p": lambda: nn.Embedding(8, 4), "b": linear(4, 3)},
        TOKENS,
    ),
    "as many positions as samples": (
        lambda m, x: m.b(torch.tanh(m.t(x) + m.p(torch.arange(x.shape[1])[None]))).mean(1),
        {"t": lambda: nn.Embedding(6, 4), "p": lambda: nn.Embedding(8, 4), "b": linear(4, 3)},
        TOKENS[:, :4],
    ),
    "positions as a table": (
        lambda m, x: m.b(torch.tanh(m.t(x) + m.p[: x.shape[1]])).mean(1),
        {"t": lambda: nn.Embedding(6, 4, padding_idx=2), "p": lambda: normal(8, 4), "b": linear(4, 3)},
        TOKENS,
    ),
    "a scale of 1 + w": (
        lambda m, x: m.b(torch.tanh(m.a(x)) * (1.0 + m.w)),
        {"a": linear(4, 5), "w": lambda: normal(5), "b": linear(5, 3)},
        normal(6, 4),
    ),
    "norms": (
        lambda m, x: m.b(m.g(torch.tanh(m.i(m.c(x)))).flatten(1)),
        {
            "c": lambda: nn.Conv1d(2, 4, 3),
            "i": lambda: nn.InstanceNorm1d(4, affine=True),
            "g": lambda: nn.GroupNorm(2, 4),
            "b": linear(16, 3),
        },
        normal(6, 2, 6),
    ),
    "root mean square": (
        lambda m, x: m.b(m.r(m.l(m.a(x)))),
        {"a": linear(4, 5), "l": lambda: nn.LayerNorm(5), "r": lambda: nn.RMSNorm(5), "b": linear(5, 3)},
        normal(6, 4),
    ),
    "a token before the others": (
        lambda m, x: m.b(torch.tanh(m.a(torch.cat([m.w.expand(len(x), 1, 4), x], 1))))[:, 0] + m.b(m.a(x)).mean(1),
        {"a": linear(4, 5), "w": lambda: normal(1, 1, 4), "b": linear(5, 3)},
        normal(6, 3, 4),
    ),
    "added in place": (
        lambda m, x: m.b(torch.tanh(m.a(x).add_(m.w))),
        {"a": linear(4, 5), "w": lambda: normal(5), "b": linear(5, 3)},
        normal(6, 4),
    ),
    "derived from another weight": (
        lambda m, x: m.b(torch.tanh(m.a(x)) * F.softplus(m.w)),
        {"a": linear(4, 5), "w": lambda: normal(5), "b": linear(5, 3)},
        normal(6, 4),
    ),
}


CALLED_TWICE = {"used twice": "a", "a token before the others": "ab"}


@pytest.mark.parametrize("name", COVERED)
def test_uses(name):
    forward, layers, X = COVERED[name]
    told = "{0}.weight and {0}.bias: called 2 times in a pass, each call as further positions"
    note = "; ".join(told.format(layer) for layer in CALLED_TWICE.get(name, ""))
    E, G = holds(classifier(Net(forward, **layers), X), note)
    assert E.factored().uncovered == 0
    assert relative(E.to_dense(), G) < 0.8


class Own(torch.autograd.Function):
    """x W^T where nothing of torch sees the weight."""

    @staticmethod
    def forward(ctx, x, W):
        ctx.save_for_backward(x, W)
        return x @ W.T

    @staticmethod
    def backward(ctx, g):
        x, W = ctx.saved_tensors
        return g @ W, g.T @ x


REFUSED = {
    "a function of somebody's own": (
        lambda m, x: m.b(torch.tanh(m.a(x))) + Own.apply(x, m.b.weight[:, :4].clone()),
        {"a": linear(4, 5), "b": linear(5, 3)},
        normal(6, 4),
        "b.weight",
    ),
    "attention": (
        lambda m, x: m.b(m.a(x, x, x, need_weights=False)[0].mean(1)),
        {"a": lambda: nn.MultiheadAttention(4, 2, batch_first=True), "b": linear(4, 3)},
        normal(6, 3, 4),
        r"a.in_proj_weight \(in torch's multi_head_attention_forward\)",
    ),
    "a recurrent layer": (
        lambda m, x: m.b(m.a(x)[0][:, -1]),
        {"a": lambda: nn.GRU(4, 5, batch_first=True), "b": linear(5, 3)},
        normal(6, 3, 4),
        r"a.weight_ih_l0 \(in torch's gru\)",
    ),
    "a normalised weight": (
        lambda m, x: m.b(torch.tanh(m.a(x))),
        {"a": lambda: parametrizations.weight_norm(nn.Linear(4, 5)), "b": linear(5, 3)},
        normal(6, 4),
        "a.parametrizations.weight.original0",
    ),
    "a masked weight": (
        lambda m, x: m.b(torch.tanh(m.a(x))),
        {"a": lambda: prune.random_unstructured(nn.Linear(4, 5).double(), "weight", 0.5), "b": linear(5, 3)},
        normal(6, 4),
        "a.weight_orig",
    ),
    "a namesake with other arguments": (
        lambda m, x: m.b(torch.layer_norm(m.a(x), (5,), m.n.weight, m.n.bias, 1e-5, False)),
        {"a": linear(4, 5), "n": lambda: nn.LayerNorm(5), "b": linear(5, 3)},
        normal(6, 4),
        r"n.weight \(in torch's layer_norm\)",
    ),
    "overwritten after it was added in place": (
        lambda m, x: m.b(m.a(x).add_(m.w).tanh_()),
        {"a": linear(4, 5), "w": lambda: normal(5), "b": linear(5, 3)},
        normal(6, 4),
        "the derivative in w is not what",
    ),
    "a transposed convolution": (
        lambda m, x: m.b(torch.tanh(m.a(x)).flatten(1)),
        {"a": lambda: nn.ConvTranspose1d(2, 3, 2), "b": linear(15, 3)},
        normal(6, 2, 4),
        r"a.weight \(in torch's conv_transpose1d\)",
    ),
    "a scale that data is not alone in": (
        lambda m, x: m.b(torch.tanh(m.a(x)) * m.w.mean()),
        {"a": linear(4, 5), "w": lambda: normal(5), "b": linear(5, 3)},
        normal(6, 4),
        None,
    ),
    "a shared output that is summed over": (
        lambda m, x: m.b(torch.tanh(m.a(x) + m.p(torch.arange(3)).sum(0))),
        {"a": linear(4, 5), "p": lambda: nn.Embedding(3, 5), "b": linear(5, 3)},
        normal(7, 4),
        "p.weight",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_parameters_and_say_what_to_do(name):
    forward, layers, X, match = REFUSED[name]
    f = classifier(Net(forward, **layers), X)
    if match is None:
        holds(f)
        return
    with pytest.raises(TypeError, match=match) as raised:
        KFAC(f).trace()
    assert "KFAC.covered(objective)" in str(raised.value)
    covered = KFAC.covered(f)
    assert "b.bias" in covered
    holds(f.restrict(covered))


def test_dropout_is_one_function():
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))
    holds(classifier(net.train(), normal(9, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "vit"])
def test_models_of_transformers(name):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    torch.manual_seed(0)
    if name == "gpt2":
        small = {"n_positions": 8, "n_embd": 4, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
        config = transformers.GPT2Config(vocab_size=9, attn_implementation="eager", tie_word_embeddings=False, **small)
        model = transformers.GPT2LMHeadModel(config)
        ids = torch.randint(0, 9, (3, 4))
        data = {"input_ids": ids, "labels": ids}
    else:
        small = {"hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = transformers.ViTForImageClassification(
            transformers.ViTConfig(image_size=4, patch_size=2, num_labels=3, **small)
        )
        data = {"pixel_values": normal(3, 3, 4, 4), "labels": torch.tensor([0, 2, 1])}
    f = Objective(model.double().eval(), lambda outputs, _: outputs.loss, data)
    E, _ = holds(f)
    assert E.factored().uncovered == 0
