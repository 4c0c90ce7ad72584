"""Entropies of attention against the weights that modules return, and bounds computed row by row."""

import math

import pytest
import torch
from operator_cases import CASES
from sharpness_cases import Unchanged
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from landscape.representation import attention_entropy, attention_heads, entropy_bound

LOSS = nn.MSELoss()


def by_hand(P, keep=None):
    """Means over rows of the entropies of attention weights (N, H, L, S), and the lowest; `keep` (N, L)."""
    E = -(P.double() * P.double().clamp_min(1e-300).log()).sum(-1)
    rows = torch.ones(E.shape[0], E.shape[2], dtype=torch.bool) if keep is None else keep
    E = E.transpose(0, 1)[:, rows]
    return E.mean(1), E.amin(1)


def agrees(found, P, keep=None, tol=1e-6):
    entropy, least = by_hand(P, keep)
    torch.testing.assert_close(found.entropy, entropy, rtol=tol, atol=tol)
    torch.testing.assert_close(found.least, least, rtol=tol, atol=tol)
    assert bool((found.loose_bound <= found.bound + 1e-12).all())
    assert bool((found.bound <= found.entropy + 1e-9).all())
    assert bool((found.entropy <= found.uniform + 1e-9).all())


class Mixed(nn.Module):
    """One nn.MultiheadAttention, called in the ways that it can be."""

    def __init__(self, need=False, cross=False, **options):
        super().__init__()
        self.attn = nn.MultiheadAttention(6, 3, batch_first=options.pop("batch_first", True), **options)
        self.need, self.cross = need, cross
        if self.attn.in_proj_bias is not None:
            nn.init.normal_(self.attn.in_proj_bias)

    def forward(self, x, **masks):
        y = x.flip(1)[..., : self.attn.kdim] if self.cross else x
        if not self.attn.batch_first:
            x, y = x.transpose(0, 1), y.transpose(0, 1)
        x, y = (x, x) if not self.cross else (x, y)
        self.weights = (masks, x, y)
        return self.attn(x, y, y, need_weights=self.need, **masks)[0]


def weights_of(model, x, masks):
    with torch.no_grad():
        model(x, **masks)
        _, q, k = model.weights
        return model.attn(q, k, k, need_weights=True, average_attn_weights=False, **masks)[1]


CAUSAL = torch.ones(4, 4).triu(1).bool()
PADDED = torch.tensor([[False] * 4, [False, False, False, True], [False, False, True, True]])
WAYS = {
    "plain": ({}, {}),
    "weights": ({"need": True}, {"attn_mask": CAUSAL}),
    "causal": ({}, {"attn_mask": CAUSAL}),
    "padded": ({}, {"key_padding_mask": PADDED}),
    "both": ({"batch_first": False}, {"attn_mask": CAUSAL, "key_padding_mask": PADDED}),
    "added": ({}, {"attn_mask": torch.linspace(-2, 2, 16).reshape(4, 4).double()}),
    "cross": ({"cross": True, "kdim": 5, "vdim": 5}, {}),
    "extra keys": ({"add_bias_kv": True, "add_zero_attn": True}, {"attn_mask": CAUSAL}),
    "no bias": ({"bias": False}, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_torchs_own_module(way):
    torch.manual_seed(0)
    options, masks = WAYS[way]
    model, x = Mixed(**options).double().eval(), 2 * torch.randn(3, 4, 6).double()
    P = weights_of(model, x, masks)
    keep = ~masks["key_padding_mask"] if "key_padding_mask" in masks else None
    shape = x.shape if model.attn.batch_first else (4, 3, 6)
    f = Objective(model, LOSS, (x, torch.zeros(shape).double()), forward=lambda m, inputs: m(inputs, **masks))
    unchanged = Unchanged(model)
    found = attention_entropy(f)["attn"]
    unchanged.check()
    assert found.rows == (12 if keep is None else int(keep.sum()))
    assert found.of_weights == (way != "extra keys")
    agrees(found, P, keep)
    assert attention_heads(f) == {"attn": 3}


def test_the_bounds_row_by_row():
    """From weights and inputs, with the bias of queries; that of keys changes nothing."""
    torch.manual_seed(1)
    model, x = Mixed().double(), torch.randn(3, 4, 6).double()
    f = Objective(model, LOSS, (x, x), forward=lambda m, inputs: m(inputs, attn_mask=CAUSAL, key_padding_mask=PADDED))
    found = attention_entropy(f)["attn"]
    W, b = model.attn.in_proj_weight.detach(), model.attn.in_proj_bias.detach()
    for h in range(3):
        part = slice(2 * h, 2 * h + 2)
        M = torch.cat([W[:6][part], b[:6][part, None]], 1).T @ W[6:12][part]
        rows, loose, seen = [], [], []
        for n in range(3):
            X = x[n][~PADDED[n]]
            ones = torch.cat([X, torch.ones(len(X), 1).double()], 1)
            size, middle = torch.linalg.matrix_norm(M, 2) / math.sqrt(2), X - X.mean(0)
            keys = torch.arange(1, len(X) + 1)
            rows += entropy_bound(ones.norm(dim=1) * size * torch.linalg.matrix_norm(middle, 2), keys).tolist()
            size = size * torch.linalg.matrix_norm(X, 2) * torch.linalg.matrix_norm(ones, 2)
            loose += entropy_bound(size.expand(len(X)), keys).tolist()
            seen += keys.double().log().tolist()
        assert float(found.bound[h]) == pytest.approx(sum(rows) / 9)
        assert float(found.loose_bound[h]) == pytest.approx(sum(loose) / 9)
        assert float(found.uniform[h]) == pytest.approx(sum(seen) / 9)
    with torch.no_grad():
        model.attn.in_proj_bias[6:12] += 3.0
    torch.testing.assert_close(attention_entropy(f)["attn"].bound, found.bound)


def test_what_is_added_to_logits_adds_its_norm():
    """Of weights that are 0 a bias of positions is all there is; what masks add is nothing."""
    model, x = Mixed().double(), torch.randn(2, 4, 6).double()
    with torch.no_grad():
        model.attn.in_proj_weight.zero_()
    B = torch.randn(4, 4).double().masked_fill(CAUSAL, -math.inf)
    f = Objective(model, LOSS, (x, x), forward=lambda m, inputs: m(inputs, attn_mask=B))
    found = attention_entropy(f)["attn"]
    expected = [float(entropy_bound((B[i, : i + 1] - B[i, : i + 1].mean()).norm(), i + 1)) for i in range(4)]
    torch.testing.assert_close(found.bound, torch.full((3,), sum(expected) / 4).double())
    assert float(found.entropy[0]) < float(found.uniform[0])


def test_no_row_passes_its_bound():
    """Of sharp attention, of which a single row may come near: sequences of length 3 one by one."""
    torch.manual_seed(7)
    model, x = Mixed().double(), torch.randn(60, 3, 6).double()
    with torch.no_grad():
        model.attn.in_proj_weight.mul_(torch.tensor([0.3, 3.0, 1.0]).repeat_interleave(6)[:, None])
    for one in x.split(1):
        found = attention_entropy(Objective(model, LOSS, (one, one), forward=lambda m, inputs: m(inputs), check=False))
        assert bool((found["attn"].least >= 0).all() & (found["attn"].entropy >= found["attn"].bound).all())


class Written(nn.Module):
    """Heads by hand: fused or grouped projections, kernels of torch or products, with what may stand between."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.num_heads = kind, 4
        self.q_proj, self.o_proj = nn.Linear(8, 8), nn.Linear(8, 8)
        self.k_proj, self.v_proj = nn.Linear(8, 4), nn.Linear(8, 4)  # two heads for four of the queries

    def forward(self, x):
        n, t, _ = x.shape
        q = self.q_proj(x).view(n, t, 4, 2).transpose(1, 2)
        k, v = (f(x).view(n, t, 2, 2).transpose(1, 2) for f in (self.k_proj, self.v_proj))
        mask, big = torch.ones(t, t, dtype=torch.bool).tril(), torch.finfo(torch.float32).min
        if self.kind == "grouped":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
            if self.kind == "kernel":
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=2**-0.5)
            elif self.kind == "einsum":
                z = torch.einsum("nhsd,nlhd->nhls", k, q.transpose(1, 2) * 2**-0.5)
                y = z.masked_fill(~mask, -math.inf).softmax(-1) @ v
            elif self.kind == "folded":
                z = torch.bmm(q.reshape(-1, t, 2), k.reshape(-1, t, 2).mT) / 2**0.5
                z = z.view(n, 4, t, t) + torch.where(mask, 0.0, big).to(z)
                y = torch.softmax(z.view(-1, t, t), dim=-1) @ v.reshape(-1, t, 2)
                y = y.view(n, 4, t, 2)
            else:
                z = q * 2**-0.5 @ k.mT
                if self.kind == "rotated":
                    q = q.flip(-1) * torch.tensor([1.0, -1.0]).to(q)
                    z = q @ k.mT * 2**-0.5
                z = z.masked_fill(~mask, -1e4)
                y = F.dropout(F.softmax(z, dim=-1), 0.5, self.training) @ v
        return self.o_proj(y.transpose(1, 2).reshape(n, t, 8))


@pytest.mark.parametrize("kind", ["written", "rotated", "einsum", "folded", "kernel", "grouped"])
def test_heads_by_hand(kind):
    torch.manual_seed(2)
    block, x = Written(kind).double(), 2 * torch.randn(5, 6, 8).double()
    model = nn.Sequential(nn.LayerNorm(8), block).double().train()
    f = Objective(model, LOSS, [(a, torch.zeros_like(a)) for a in x.split(2)])
    found = attention_entropy(f)
    assert list(found) == ["1"]
    y = model[0](x)
    q, k = block.q_proj(y).view(5, 6, 4, 2).transpose(1, 2), block.k_proj(y).view(5, 6, 2, 2).transpose(1, 2)
    k = k.repeat_interleave(2, 1)
    if kind == "rotated":
        q = q.flip(-1) * torch.tensor([1.0, -1.0]).double()
    z = (q @ k.mT / 2**0.5).masked_fill(~torch.ones(6, 6).tril().bool(), -math.inf).detach()
    agrees(found["1"], z.softmax(-1))
    assert found["1"].of_weights == (kind != "rotated")
    assert found["1"].rows == 30
    if kind != "rotated":  # from weights and inputs, wherever they are scaled
        x, W = (
            torch.cat([y, torch.ones(5, 6, 1).double()], -1).detach(),
            [p.weight.detach() for p in (block.q_proj, block.k_proj)],
        )
        near = torch.linalg.matrix_norm((y - y.mean(1, keepdim=True)).detach(), 2)[:, None]
        for h in range(4):
            rows, b = slice(2 * h, 2 * h + 2), block.q_proj.bias.detach()
            M = torch.cat([W[0][rows], b[rows, None]], 1).T @ W[1][2 * (h // 2) : 2 * (h // 2) + 2]
            s = x.norm(dim=-1) * near * torch.linalg.matrix_norm(M, 2) / 2**0.5
            expected = entropy_bound(s, torch.arange(1, 7).expand_as(s)).mean()
            torch.testing.assert_close(found["1"].bound[h], expected)
    if kind == "rotated":  # from queries and keys themselves
        near = (k - k.mean(2, keepdim=True)).detach()
        s = q.norm(dim=-1).detach() * torch.linalg.matrix_norm(near, 2).unsqueeze(-1) / 2**0.5
        expected = entropy_bound(s, torch.arange(1, 7).expand_as(s)).mean((0, 2))
        torch.testing.assert_close(found["1"].bound, expected)


def test_rows_that_see_nothing_are_none():
    """A row without keys has no attention, in torch's kernel it is nan; a position whose key nobody sees is padding."""
    q = torch.randn(1, 2, 3, 4)
    model = nn.Linear(1, 1)
    seen = torch.tensor([[True, False, False], [False, False, False], [True, True, True]])

    def forward(model, x):
        return F.scaled_dot_product_attention(q, q, q, attn_mask=seen)[0, 0, :1, :1].nan_to_num() * model(x)

    f = Objective(model, LOSS, (torch.ones(1, 1), torch.zeros(1, 1)), forward=forward)
    found = attention_entropy(f)["Linear"]
    assert found.rows == 2
    assert found.least.tolist() == [0.0, 0.0]
    expected = torch.special.entr((q @ q.mT / 2)[0, :, 2].double().softmax(-1)).sum(-1) / 2
    torch.testing.assert_close(found.entropy, expected, rtol=1e-5, atol=1e-7)


def transformer(name, attention):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 11, "attn_implementation": attention}
    if name == "bert":
        sizes |= {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
        return transformers.BertForMaskedLM(transformers.BertConfig(**sizes, max_position_embeddings=16)).eval()
    if name == "gpt2":
        sizes |= {"n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    sizes |= {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, intermediate_size=8)).eval()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_models_of_transformers(name, attention):
    torch.manual_seed(3)
    model = transformer(name, attention)
    with torch.no_grad():  # small initial weights would leave attention uniform
        for p in model.parameters():
            p.mul_(4.0 if p.ndim == 2 else 1.0)
    ids = torch.randint(0, 11, (4, 6))
    mask = (torch.arange(6) < torch.tensor([[6], [4], [3], [6]])).long()
    data = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    f = Objective(model, lambda outputs, _: outputs.loss, data, count="batches", check=False)
    found = attention_entropy(f)
    eager = transformer(name, "eager")
    eager.load_state_dict(model.state_dict())
    P = eager(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    assert len(found) == 2
    for one, weights in zip(found.values(), P, strict=True):
        assert one.rows == int(mask.sum())
        agrees(one, weights, mask.bool(), tol=1e-4)
        assert one.of_weights == (name != "llama")  # which rotates queries and keys


def test_layers_are_chosen_and_what_cannot_be_seen_is_refused():
    torch.manual_seed(4)
    layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 2, enable_nested_tensor=False)
    x = torch.randn(3, 5, 8)
    f = Objective(layers, LOSS, (x, x))
    assert list(attention_entropy(f)) == ["layers.0.self_attn", "layers.1.self_attn"]
    assert attention_heads(f, "*.1.*") == {"layers.1.self_attn": 2}
    with pytest.raises(ValueError, match=r"no attention is seen in 'h\.0': there is attention in layers\.0\.self_attn"):
        attention_entropy(f, "h.0")
    with pytest.raises(ValueError, match=r"no attention is seen in the forward pass: it has to go through nn\.Mult"):
        attention_entropy(Objective(nn.Linear(8, 8), LOSS, (x, x)))

    class Hidden(Written):
        def forward(self, x):
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
            weights = (q[..., :4] @ k.mT).exp()  # softmax of its own
            return self.o_proj(torch.cat([weights @ v / weights.sum(-1, keepdim=True)] * 2, -1))

    mixed = nn.Sequential(Written("written"), Hidden("own"))
    with pytest.raises(ValueError, match=r"the attention of '1' is not seen: .* or leave it out with layers="):
        attention_entropy(Objective(mixed, LOSS, (x, x)))
    assert list(attention_entropy(Objective(mixed, LOSS, (x, x)), ["0"])) == ["0"]


def test_layers_that_only_lie_in_a_container():
    """The module that is known as attention is never called: the block does its work."""
    torch.manual_seed(6)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.ModuleDict({"c_attn": nn.Linear(8, 24), "c_proj": nn.Linear(8, 8)})

        def forward(self, x):
            q, k, v = (a.unflatten(-1, (2, 4)).transpose(1, 2) for a in self.attn["c_attn"](x).chunk(3, -1))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return x + self.attn["c_proj"](y.transpose(1, 2).flatten(2))

    x = torch.randn(3, 5, 8)
    found = attention_entropy(Objective(nn.Sequential(Block(), Block()), LOSS, (x, x)))
    assert list(found) == ["0.attn", "1.attn"]
    assert all(one.of_weights and one.rows == 15 for one in found.values())


@pytest.mark.parametrize("name", ["layernorm_attention", "sdpa", "multihead"])
def test_on_every_case_with_attention(name):
    case = CASES[name]()
    f = Objective(case.model, case.loss, case.batches, **case.options)
    unchanged = Unchanged(case.model)
    (found,) = attention_entropy(f).values()
    unchanged.check()
    assert found.rows == 33
    assert bool((found.loose_bound <= found.bound).all() & (found.bound <= found.entropy).all())


def test_half_precision_and_a_second_call():
    torch.manual_seed(5)

    class Twice(Written):
        def forward(self, x):
            return super().forward(x) + super().forward(x.flip(1))

    model = Twice("grouped").bfloat16()
    x = torch.randn(3, 5, 8).bfloat16()
    found = attention_entropy(Objective(model, LOSS, (x, x)))
    assert list(found) == ["Twice", "Twice (2)"]
    wide = attention_entropy(
        Objective(Twice("grouped").load_state_dict(model.state_dict()) and model, LOSS, (x, x), dtype=torch.float64)
    )
    torch.testing.assert_close(found["Twice"].entropy, wide["Twice"].entropy, rtol=0.03, atol=0.03)
    assert found["Twice (2)"].of_weights
