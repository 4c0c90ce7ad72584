"""The block diagonal part of a matrix against the blocks of the dense one, and its heads against what heads do."""

import pytest
import torch
from operator_cases import CASES, classification, dense, perceptron
from torch import nn

from landscape import (
    BlockDiagonal,
    EmpiricalFisher,
    FiniteDifferenceHessian,
    FunctionalHessian,
    GaussNewton,
    Hessian,
    MatrixOperator,
    MonteCarloFisher,
    Objective,
    TangentKernel,
)

KINDS = {"hessian": Hessian, "gauss-newton": GaussNewton, "functional": FunctionalHessian}


def build(name, **options):
    case = CASES[name]()
    return case, Objective(case.model, case.loss, case.batches, **options, **case.options)


def masked(matrix, objective, groups):
    """The matrix with zeros between parameters of different groups."""
    label = torch.empty(objective.size, dtype=torch.long)
    for i, names in enumerate(groups):
        for name in names:
            label[objective.slices[name]] = i
    return torch.where(label[:, None] == label, matrix, 0.0)


@pytest.mark.parametrize("budget", ["auto", 0], ids=["kept", "rebuilt"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gelu_one_batch", "multihead", "tied_and_ignored", "frozen_by_name", "penalised"])
def test_products_are_those_of_the_dense_blocks(name, kind, budget):
    case, objective = build(name, memory=budget)
    _, hessian, gauss_newton = dense(case, objective.names)
    matrix = {"hessian": hessian, "gauss-newton": gauss_newton, "functional": hessian - gauss_newton}[kind]
    layers = {}
    for parameter in objective.names:
        layers.setdefault(parameter.rpartition(".")[0], []).append(parameter)
    A = KINDS[kind](objective)
    for by, groups in ("layer", list(layers.values())), ("parameter", [[one] for one in objective.names]):
        D = BlockDiagonal(A, by)
        V = D.random(3, "normal", torch.Generator().manual_seed(0))
        assert [list(block.names) for block in D.layout.values()] == groups
        expected, scale = masked(matrix, objective, groups) @ V, float((hessian @ V).norm())
        assert float((D @ V - expected).norm()) < 1e-10 * scale
        assert float((D @ V[:, 0] - expected[:, 0]).norm()) < 1e-10 * scale
        assert D.matvecs == 4
        assert D.noise == 0.0
        assert D.positive_semidefinite == A.positive_semidefinite


@pytest.mark.parametrize("kind", [Hessian, GaussNewton, EmpiricalFisher, MonteCarloFisher, FunctionalHessian])
def test_each_block_is_the_restricted_matrix(kind):
    _, objective = build("multihead")
    A = kind(objective)
    D = BlockDiagonal(A, {"norm": "norm.*", "attention": ["heads.*", "qkv.*"], "head": "head.*"})
    assert D.sizes == {"norm": 8, "attention": 140, "head": 15}
    with D.keeping():
        for name, block in D.blocks.items():
            alone = A.restrict(D.layout[name].names)
            V = alone.random(2, "normal", torch.Generator().manual_seed(1))
            torch.testing.assert_close(block @ V, alone @ V, rtol=1e-12, atol=1e-14)


def test_vectors_may_be_zero_in_some_blocks():
    _, objective = build("multihead")
    D = BlockDiagonal(Hessian(objective))
    V = D.random(3, "normal", torch.Generator().manual_seed(0))
    pieces = {name: piece * torch.tensor([0.0, 1.0, 0.0 if name == "qkv" else 1.0]) for name, piece in D.cut(V).items()}
    expected = {name: D.blocks[name].to_dense() @ piece for name, piece in pieces.items()}
    torch.testing.assert_close(D @ D.joined(pieces), D.joined(expected), rtol=1e-10, atol=1e-12)


def test_vectors_are_cut_and_joined():
    _, objective = build("multihead")
    D = BlockDiagonal(Hessian(objective), by="layer", heads=None)
    V = D.random(2, "normal", torch.Generator().manual_seed(0))
    assert torch.equal(D.joined(D.cut(V)), V)
    pieces = D.cut(V)
    one = D.joined({"head": pieces["head"][:, :1], "qkv": pieces["qkv"]})
    assert torch.equal(D.cut(one)["qkv"], pieces["qkv"])
    assert torch.equal(D.cut(one)["head"], pieces["head"] * torch.tensor([1.0, 0.0]))
    assert not bool(D.cut(one)["norm"].any())


@pytest.mark.parametrize("budget", ["auto", 0], ids=["kept", "rebuilt"])
def test_the_model_runs_once_for_all_blocks(budget, monkeypatch):
    _, objective = build("gelu_one_batch", memory=budget)
    D, runs, vjps = BlockDiagonal(Hessian(objective)), [], []
    v = torch.ones(objective.size).double()
    _ = D @ v, D.noise  # what checks run is run now
    D.release()
    real = type(objective).evaluate
    monkeypatch.setattr(type(objective), "evaluate", lambda *args: runs.append(1) or real(*args))
    import landscape.operators.hessian as home

    derive = home.vjp
    monkeypatch.setattr(home, "vjp", lambda *args, **kw: vjps.append(1) or derive(*args, **kw))
    for _ in range(3):
        _ = D @ v
    assert (len(runs), len(vjps)) == ((1, 9) if budget == "auto" else (3, 9))
    vjps.clear()
    _ = D.blocks["4"] @ torch.ones(18)
    assert len(vjps) == 1  # the other blocks cost nothing
    D.release()
    runs.clear()
    _ = D @ v
    assert len(runs) == 1


def test_a_change_of_the_model_is_seen():
    case, objective = build("tanh")
    D, v = BlockDiagonal(Hessian(objective)), torch.ones(objective.size).double()
    before = D @ v
    with torch.no_grad():
        case.model[0].weight.mul_(1.5)
    assert not torch.allclose(D @ v, before)
    assert torch.allclose(D @ v, BlockDiagonal(Hessian(objective)) @ v)


def test_restricting_keeps_what_is_left_of_the_blocks():
    _, objective = build("tanh")
    D = BlockDiagonal(Hessian(objective), {"outer": ["0.*", "4.*"], "inner": "2.*"})
    part = D.restrict(["*.weight"])
    assert {name: block.names for name, block in part.layout.items()} == {
        "outer": ("0.weight", "4.weight"),
        "inner": ("2.weight",),
    }
    expected = Hessian(objective).restrict(["0.weight", "4.weight"]).to_dense()
    torch.testing.assert_close(part.blocks["outer"].to_dense(), expected)
    assert list(D.restrict("2.*").layout) == ["inner"]
    torch.testing.assert_close(D.blocks["outer"].restrict(["0.weight", "4.weight"]).to_dense(), expected)
    with pytest.raises(ValueError, match=r"'0\.weight' is not in block 'inner', which has 2\.weight, 2\.bias"):
        D.blocks["inner"].restrict("*.weight")


def test_a_block_has_its_share_of_the_memory():
    _, objective = build("tanh", memory=1 << 30)
    D = BlockDiagonal(Hessian(objective), "parameter")
    share = {name: block.memory / 2**30 for name, block in D.blocks.items()}
    assert share["2.weight"] == pytest.approx(30 / objective.size)
    small = BlockDiagonal(Hessian(build("tanh", memory=1 << 20)[1])).blocks["4"]
    assert small.memory == 1 << 20


def test_layers_whose_names_begin_alike_and_parametrizations():
    model = nn.ModuleDict({"h": nn.ModuleList([perceptron(nn.Tanh()), perceptron(nn.Tanh())]), "out": nn.Linear(3, 3)})
    nn.utils.parametrizations.weight_norm(model["out"])
    objective = Objective(
        model.double(),
        nn.CrossEntropyLoss(),
        classification(torch.randn(9, 4).double(), sizes=(9,)),
        forward=lambda m, x: m["out"](m["h"][0](x) + m["h"][1](x)),
    )
    assert list(BlockDiagonal(Hessian(objective), by=2).layout) == ["h.0", "h.1", "out"]
    layers = BlockDiagonal(Hessian(objective)).layout
    assert list(layers) == [f"h.{i}.{j}" for i in (0, 1) for j in (0, 2, 4)] + ["out"]
    assert len(layers["out"].names) == 3
    alone = Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), classification(torch.randn(9, 4), sizes=(9,)))
    assert list(BlockDiagonal(Hessian(alone)).layout) == ["Linear"]


# -- heads ----------------------------------------------------------------------------------------------------------


class Written(nn.Module):
    """Attention with names of other libraries; two key and value heads for four query heads where `shared`."""

    def __init__(self, fused="", shared=False):
        super().__init__()
        self.fused, self.groups = fused, 2 if shared else 1
        rows = 16 // self.groups
        if fused:
            setattr(self, fused, nn.Linear(16, 16 + 2 * rows))
        else:
            self.q_proj, self.k_proj, self.v_proj = nn.Linear(16, 16), nn.Linear(16, rows), nn.Linear(16, rows)
        self.o_proj = nn.Linear(16, 16)

    def forward(self, x):
        b, t, rows = len(x), x.shape[1], 16 // self.groups
        if self.fused == "query_key_value":
            q, k, v = getattr(self, self.fused)(x).view(b, t, 4, 3, 4).unbind(3)
        else:
            every = getattr(self, self.fused)(x).split([16, rows, rows], -1) if self.fused else ()
            every = every or (self.q_proj(x), self.k_proj(x), self.v_proj(x))
            q, k, v = (one.view(b, t, -1, 4) for one in every)
        k, v = (one.repeat_interleave(self.groups, 2) for one in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        return self.o_proj(torch.einsum("bhqk,bkhd->bqhd", scores, v).flatten(2))


def gpt2():
    config = pytest.importorskip("transformers").GPT2Config(n_embd=16, n_head=4, n_layer=1, vocab_size=5)
    return pytest.importorskip("transformers").models.gpt2.modeling_gpt2.GPT2Attention(config).eval(), "c_proj"


def bert():
    config = pytest.importorskip("transformers").BertConfig(
        hidden_size=16, num_attention_heads=4, num_hidden_layers=1, intermediate_size=8, vocab_size=5
    )
    return pytest.importorskip("transformers").models.bert.modeling_bert.BertAttention(config).eval(), "output.dense"


MODELS = {
    "separate": lambda: (Written(), "o_proj"),
    "shared": lambda: (Written(shared=True), "o_proj"),
    "fused": lambda: (Written("qkv"), "o_proj"),
    "fused and shared": lambda: (Written("qkv_proj", shared=True), "o_proj"),
    "by head": lambda: (Written("query_key_value"), "o_proj"),
    "torch": lambda: (nn.MultiheadAttention(16, 4, batch_first=True), "out_proj"),
    "gpt2": gpt2,
    "bert": bert,
}


def run(model, x):
    found = model(x, x, x, need_weights=False) if isinstance(model, nn.MultiheadAttention) else model(x)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("name", MODELS)
def test_heads_are_what_feeds_their_part_of_the_output(name):
    torch.manual_seed(0)
    model, place = MODELS[name]()
    projection, model = model.get_submodule(place), model.double()
    x = torch.randn(2, 5, 16).double()
    objective = Objective(model, lambda z, _: z.square().mean(), (x, None), forward=run)
    D = BlockDiagonal(Hessian(objective), heads=4)
    parts = {label: block for label, block in D.layout.items() if label[-1].isdigit() and ", " in label}
    for head in range(4):
        own = (projection.weight.T if type(projection).__name__ == "Conv1D" else projection.weight).data
        own.copy_(torch.eye(16))  # what comes out is what the heads bring
        outputs = run(model, x)
        if name == "bert":  # a norm and a way around come behind it
            seen = []
            hook = projection.register_forward_pre_hook(lambda m, args: seen.append(args[0]))  # noqa: B023
            run(model, x)
            hook.remove()
            outputs = seen[0]
        mine = outputs[..., 4 * head : 4 * head + 4]
        gradient = torch.autograd.grad(mine.square().sum() + mine.sum(), list(model.parameters()), allow_unused=True)
        filled = {
            n: torch.zeros_like(p) if g is None else g
            for (n, p), g in zip(model.named_parameters(), gradient, strict=True)
        }
        moved = {
            label: float(block.take({n: g[None] for n, g in filled.items()}).norm()) for label, block in parts.items()
        }
        for label, size in moved.items():
            role, number = label.rpartition(", ")[2].split()
            if role != "projection":
                groups = 4 // len([one for one in parts if f", {role} " in one])
                assert (size > 1e-10) == (int(number) == head // groups), (label, head)
    assert len([one for one in parts if "projection" in one]) == 4
    if name != "bert":
        weights = {n: p.detach()[None] for n, p in model.named_parameters()}
        for label, block in parts.items():
            if ", value " in label:  # what comes out is linear in the values
                block.put(torch.zeros_like(block.take(weights)), weights)
        projection.bias.data.zero_()
        assert float(run(model, x).detach().abs().max()) < 1e-12
    columns = parts[next(one for one in parts if one.endswith("projection 2"))]
    weight = {f"{place}.weight": torch.zeros(1, *projection.weight.shape)}
    reads = weight[f"{place}.weight"][0]
    (reads.T if type(projection).__name__ == "Conv1D" else reads)[:, 8:12] = 1.0  # what multiplies inputs 8 to 11
    assert columns.names == (f"{place}.weight",)
    assert bool(columns.take(weight).all())
    assert columns.take(weight).shape[1] == 64
    assert sum(D.sizes.values()) == objective.size


def test_products_of_heads_are_those_of_the_dense_blocks():
    torch.manual_seed(0)
    model = Written("qkv").double()
    objective = Objective(model, lambda z, _: z.square().mean(), (torch.randn(2, 3, 16).double(), None))
    A = GaussNewton(objective)
    D = BlockDiagonal(A, heads={"*": 4})
    where = D.cut(torch.arange(objective.size).double()[:, None])
    v = D.random(1, "normal", torch.Generator().manual_seed(0))
    expected = torch.zeros_like(v)
    matrix = A.to_dense()
    for rows in where.values():
        index = rows[:, 0].long()
        expected[index] = matrix[index[:, None], index] @ v[index]
    torch.testing.assert_close(D @ v, expected)
    index = where["qkv, key 1"][:, 0].long()
    torch.testing.assert_close(D.blocks["qkv, key 1"].to_dense(), matrix[index[:, None], index])
    with pytest.raises(TypeError, match="parts of its parameters only"):
        D.blocks["qkv, key 1"].restrict("qkv.weight")


def test_heads_of_several_attentions_in_one_block_stay_apart():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Written("qkv"), Written("qkv")

        def forward(self, x):
            return self.b(self.a(x))

    objective = Objective(Two(), lambda z, _: z.mean(), (torch.randn(2, 3, 16), None))
    layout = BlockDiagonal(Hessian(objective), {"all": "*"}, heads={"b": 2}).layout
    assert list(layout) == [
        "all",
        *(f"all, {role} {h}" for role in ("query", "key", "value", "projection") for h in (0, 1)),
    ]
    assert "all: a, key 3" in BlockDiagonal(Hessian(objective), {"all": "*"}, heads=4).layout


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "heads", "message"),
    [
        (["0.*", "2.*", "5.*"], None, "block '5.*': '5.*' matches none of 0.weight"),
        ({"a": "0.*", "b": ["*.bias", "2.weight", "4.weight"]}, None, "'0.bias' would be in two blocks, 'a' and 'b'"),
        (["0.*"], None, "2.weight, 2.bias, 4.weight and 1 more belong to no block"),
        ("module", None, 'by is "layer", "parameter"'),
        (0, None, 'by is "layer"'),
        ("layer", 2, "heads=2: no attention is found"),
    ],
)
def test_what_makes_no_blocks_is_refused(by, heads, message):
    _, objective = build("tanh")
    with pytest.raises(ValueError, match=message.replace("*", r"\*").replace(".", r"\.")):
        BlockDiagonal(Hessian(objective), by, heads)


@pytest.mark.parametrize(
    ("heads", "message"),
    [(3, "says that it has 2 heads, not 3"), (0, "heads is a whole number"), ({"heads": 3}, "do not divide by 3")],
)
def test_wrong_heads_are_refused(heads, message):
    model = nn.ModuleDict({"heads": nn.MultiheadAttention(16, 2)})
    objective = Objective(
        model, nn.MSELoss(), (torch.ones(1, 2, 16), None), forward=lambda m, x: m["heads"](x, x, x)[0]
    )
    with pytest.raises(ValueError, match=message):
        BlockDiagonal(Hessian(objective), heads=heads)
    with pytest.raises(ValueError, match="does not say how many heads"):
        BlockDiagonal(Hessian(Objective(Written(), nn.MSELoss(), (torch.ones(1, 2, 16), None))), heads="auto")


def test_other_operators_are_refused():
    _, objective = build("tanh")
    H = Hessian(objective)
    for A in H + H, MatrixOperator(torch.eye(2)), TangentKernel(objective), FiniteDifferenceHessian(objective):
        with pytest.raises(TypeError, match="is of a curvature matrix of an objective"):
            BlockDiagonal(A)
    with pytest.raises(TypeError, match="has its blocks"):
        BlockDiagonal(BlockDiagonal(H))
    both = BlockDiagonal(H) + BlockDiagonal(GaussNewton(objective))
    assert both.shape == H.shape
