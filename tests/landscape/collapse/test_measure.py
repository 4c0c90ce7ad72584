"""`collapse.measure`: the head is found, its features are those of the model, and nothing is left behind."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective
from landscape.collapse import CollapseStatistics, gather, gather_agreement, measure


def mlp(classes=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, classes))


def cnn(classes=4):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, classes, bias=False),
    )


class Classifier(nn.Module):
    """In the manner of Hugging Face: keyword inputs, an output object with logits, a loss when there are labels."""

    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, 8)
        self.dense = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(8, classes)

    def forward(self, input_ids, attention_mask=None, labels=None):
        h = self.embedding(input_ids)
        h = h if attention_mask is None else h * attention_mask.unsqueeze(-1)
        logits = self.classifier(input=self.dropout(torch.tanh(self.dense(h.mean(1)))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)


def vectors(n=60, classes=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=generator), torch.randint(0, classes, (n,), generator=generator)


def images(n=60, classes=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.randint(0, classes, (n,), generator=generator)


def split(X, y, size=17):
    return list(zip(X.split(size), y.split(size), strict=True))


def by_hand(features, labels, head):
    statistics = CollapseStatistics(head.out_features, head.in_features)
    statistics.update(features, labels)
    statistics.update_agreement(features, labels, head.weight, head.bias)
    return statistics.metrics(head.weight, head.bias)


def assert_same(found, expected):
    for name, value in vars(expected).items():
        other = getattr(found, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(other, value)
        else:
            assert other == pytest.approx(value, rel=1e-6, nan_ok=True), name


@pytest.mark.parametrize("memory", ["auto", 0])
def test_an_mlp(memory):
    model, (X, y) = mlp(), vectors()
    expected = by_hand(model[:-1](X), y, model[-1])
    assert_same(measure(Objective(model, nn.CrossEntropyLoss(), split(X, y), memory=memory)), expected)
    assert expected.accuracy == (model(X).argmax(1) == y).double().mean()
    assert math.isnan(measure(Objective(model, nn.CrossEntropyLoss(), (X, y)), nc4=False).nc4)


def test_a_cnn_in_evaluation_mode():
    model, (X, y) = cnn(), images()
    objective = Objective(model, nn.CrossEntropyLoss(), split(X, y), mode="eval")
    found = measure(objective)
    assert model.training
    model.eval()
    assert_same(found, by_hand(model[:-1](X), y, model[-1]))


def test_a_classifier_that_returns_an_object():
    model = Classifier().eval()
    generator = torch.Generator().manual_seed(1)
    ids, y = torch.randint(0, 20, (30, 5), generator=generator), torch.randint(0, 4, (30,), generator=generator)
    mask = (torch.rand(30, 5, generator=generator) < 0.8).float()
    batches = [
        {"input_ids": ids[i : i + 8], "attention_mask": mask[i : i + 8], "labels": y[i : i + 8]}
        for i in range(0, 30, 8)
    ]
    h = torch.tanh(model.dense((model.embedding(ids) * mask.unsqueeze(-1)).mean(1)))
    expected = by_hand(h, y, model.classifier)
    logits = Objective(model, nn.CrossEntropyLoss(), batches, forward=lambda model, inputs: model(**inputs).logits)
    assert_same(measure(logits), expected)
    whole = Objective(model, lambda outputs, labels: outputs.loss, batches, count=lambda outputs, labels: len(labels))
    assert_same(measure(whole), expected)


def test_tokens_have_a_class_each_and_some_are_ignored():
    torch.manual_seed(0)
    body, head = nn.Linear(6, 5), nn.Linear(5, 3)
    model = nn.Sequential(body, nn.Tanh(), head)
    X, y = torch.randn(7, 4, 6), torch.randint(0, 3, (7, 4))
    y[:, 3] = -100

    def flat(model, x):
        return model(x).flatten(0, 1)

    expected = by_hand(torch.tanh(body(X))[y >= 0], y[y >= 0], head)
    assert_same(measure(Objective(model, nn.CrossEntropyLoss(), [(X, y.flatten())], forward=flat)), expected)
    odd = torch.where(y < 0, 2, y)
    found = measure(Objective(model, nn.CrossEntropyLoss(ignore_index=2), [(X, odd.flatten())], forward=flat))
    assert found.counts[2] == 0


def test_a_loader_and_an_iterator_that_is_read_once():
    model, (X, y) = mlp(), vectors()
    expected = by_hand(model[:-1](X), y, model[-1])
    loader = DataLoader(TensorDataset(X, y), batch_size=16, shuffle=True)
    assert_same(measure(Objective(model, nn.CrossEntropyLoss(), loader)), expected)
    assert_same(measure(Objective(model, nn.CrossEntropyLoss(), iter(split(X, y)))), expected)


def test_another_precision_and_the_parameters_of_at():
    model, (X, y) = mlp(), vectors()
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y), dtype=torch.float64)
    double = mlp().double()
    for head in (None, "4", model[4]):
        assert_same(measure(objective, head=head), by_hand(double[:-1](X.double()), y, double[-1]))
    theta = 2.0 * objective.theta()
    with torch.no_grad():
        for p in double.parameters():
            p.mul_(2.0)
    with objective.at(theta):
        assert_same(measure(objective), by_hand(double[:-1](X.double()), y, double[-1]))


def test_train_and_test_side_by_side():
    model, (X, y) = mlp(), vectors()
    test_X, test_y = vectors(40)
    objective = Objective(model, nn.CrossEntropyLoss(), split(X, y))
    statistics = gather(objective)
    gather_agreement(objective.on((test_X, test_y)), statistics)
    head = model[-1]
    found = statistics.metrics(head.weight, head.bias)
    h, mu = model[:-1](test_X).double(), statistics.means
    nearest = torch.cdist(h, mu).argmin(1)
    said = (h @ head.weight.double().T).argmax(1)
    assert found.nc4 == (said == nearest).double().mean()
    assert found.accuracy == (model(test_X).argmax(1) == test_y).double().mean()
    halves = gather(objective.on((X[:30], y[:30]))).merge(gather(objective.on((X[30:], y[30:]))))
    assert halves.metrics(head.weight).nc1 == pytest.approx(found.nc1, rel=1e-9)


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_mark(fails):
    model, (X, y) = cnn(), images()
    model[0].weight.requires_grad_(False)
    model(X).sum().backward()
    model[1].eval()
    handle = model[-1].register_forward_hook(lambda module, args, output: None)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.grad if p.grad is None else p.grad.clone() for p in model.parameters()]
    flags = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    required = [p.requires_grad for p in model.parameters()]
    versions = [t._version for t in (*model.parameters(), *model.buffers())]
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    objective = Objective(model, nn.CrossEntropyLoss(), split(X, y + 1 if fails else y), mode="train")
    if fails:
        with pytest.raises(ValueError, match="outside"):
            measure(objective)
    else:
        first = measure(objective)
        assert_same(measure(objective), first)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(g is p.grad is None or torch.equal(g, p.grad) for g, p in zip(grads, model.parameters(), strict=True))
    assert [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == required
    assert [t._version for t in (*model.parameters(), *model.buffers())] == versions
    handle.remove()


@pytest.mark.parametrize("scope", [torch.no_grad, torch.inference_mode])
def test_under_no_grad_and_inference_mode(scope):
    model, (X, y) = mlp(), vectors()
    objective = Objective(model, nn.CrossEntropyLoss(), split(X, y))
    with scope():
        found = measure(objective)
    assert_same(found, by_hand(model[:-1](X), y, model[-1]))


# -- which head ------------------------------------------------------------------------------------------------------


class Twins(nn.Module):
    """Two layers with the same weights; the outputs are those of either, or what `out` makes of them."""

    def __init__(self, out):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(6, 4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.load_state_dict(self.first.state_dict())
        self.out = out

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return self.out(self.first(h), self.second(h))


def test_of_equal_layers_the_one_whose_output_it_is():
    X, y = vectors()
    model = Twins(lambda a, b: a)
    measure(Objective(model, nn.CrossEntropyLoss(), (X, y)))
    ambiguous = Objective(Twins(lambda a, b: a.clone()), nn.CrossEntropyLoss(), (X, y))
    with pytest.raises(ValueError, match=r"several Linear layers .*first \(4 -> 4\), second \(4 -> 4\)"):
        measure(ambiguous)
    assert measure(ambiguous, head="second").nc0 > 0


@pytest.mark.parametrize(
    "out", [lambda a, b: a + b, lambda a, b: a.log_softmax(1), lambda a, b: a.mul_(2.0), lambda a, b: a[:, :3]]
)
def test_a_head_whose_output_is_changed_is_not_found(out):
    X, y = vectors(classes=3)
    objective = Objective(Twins(out), nn.CrossEntropyLoss(), (X, y))
    with pytest.raises(ValueError, match=r"head=, of body \(6 -> 4\), first \(4 -> 4\), second \(4 -> 4\)$") as raised:
        measure(objective)
    assert "\n" not in str(raised.value)
    assert measure(objective, head="first", num_classes=3).samples == 60


def test_a_head_at_zero_is_found():
    model, (X, y) = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4)), vectors()
    for p in model.parameters():
        nn.init.zeros_(p)
    nn.init.normal_(model[0].weight)
    assert measure(Objective(model, nn.CrossEntropyLoss(), (X, y))).nc0 == 0.0
    nn.init.zeros_(model[0].weight)
    assert measure(Objective(model, nn.CrossEntropyLoss(), (X, y))).rank == 0


def test_heads_that_are_refused():
    X, y = vectors()
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 4))
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
    with pytest.raises(ValueError, match=r"no layer 'fc': its Linear layers are 0 \(6 -> 4\), 3 \(4 -> 4\)"):
        measure(objective, head="fc")
    with pytest.raises(ValueError, match=r"Linear is no part of the model"):
        measure(objective, head=nn.Linear(6, 4))
    with pytest.raises(ValueError, match=r"'2' is no head: .* it is \(4,\)"):
        measure(objective, head="2")
    with pytest.raises(ValueError, match=r"'1' is no head: .* none"):
        measure(objective, head=model[1])
    with pytest.raises(TypeError, match="not int"):
        measure(objective, head=3)
    with pytest.raises(ValueError, match="4 outputs, which does not make 5 classes"):
        measure(objective, num_classes=5)
    single = Objective(nn.Linear(6, 1), nn.CrossEntropyLoss(), (X, y))
    with pytest.raises(ValueError, match="1 output, which does not make 2 classes"):
        measure(single)
    with pytest.raises(ValueError, match="no Linear layer"):
        measure(Objective(nn.Conv1d(6, 4, 1), nn.CrossEntropyLoss(), (X.unsqueeze(2), y.unsqueeze(1))))
    shared = nn.Linear(6, 6)
    twice = Objective(nn.Sequential(shared, nn.Tanh(), shared), nn.CrossEntropyLoss(), (X, y))
    with pytest.raises(ValueError, match="used 2 times"):
        measure(twice)
    pair = Objective(Twins(lambda a, b: (a, b)), lambda outputs, y: outputs[0].sum(), (X, y))
    with pytest.raises(TypeError, match="tuple without logits"):
        measure(pair)


def test_a_head_of_another_class():
    class Cosine(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return nn.functional.normalize(x) @ nn.functional.normalize(self.weight).T

    X, y = vectors()
    found = measure(Objective(nn.Sequential(nn.Tanh(), Cosine()), nn.CrossEntropyLoss(), (X, y)), head="1")
    assert math.isnan(found.bias_sum)


def test_data_that_is_refused():
    model, (X, y) = mlp(), vectors()
    loss = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match=r"outside 0 \.\. 3, such as 7"):
        measure(Objective(model, loss, (X, y + 7)))
    with pytest.raises(ValueError, match="only class 2 has samples"):
        measure(Objective(model, loss, (X, torch.full_like(y, 2))))
    with pytest.raises(ValueError, match="no class has samples"):
        measure(Objective(model, loss, (X, torch.full_like(y, -100))))
    with pytest.raises(ValueError, match="not finite"):
        measure(Objective(model, loss, (X * torch.nan, y)))
    with pytest.raises(TypeError, match=r"class indices .*float32"):
        measure(Objective(model, loss, (X, nn.functional.one_hot(y, 4).float())))
    with pytest.raises(TypeError, match=r"class indices .*NoneType"):
        measure(Objective(model, loss, [{"input": X}], forward=lambda model, batch: model(batch["input"])))
    with pytest.raises(ValueError, match=r"targets of shape \(59,\) do not go with features of shape \(60, 9\)"):
        measure(Objective(model, loss, (X, y[1:])))
    nn.init.constant_(model[4].weight, torch.nan)
    with pytest.raises(ValueError, match="last layer has entries that are not finite"):
        measure(Objective(model, loss, (X, y)))
