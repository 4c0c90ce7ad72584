"""Counts that a loss of one's own does not divide by are refused with the one that would be right; others are not."""

import re

import pytest
import torch
from objective_cases import network, objective, samples
from torch import nn
from torch.nn import functional as F

from landscape import Hessian, Objective


class Tagger(nn.Module):
    """Logits for each token, `(N, T, 5)`; with `second` the classes are in dimension 1."""

    def __init__(self, second=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head, self.second = nn.Embedding(9, 4), nn.Linear(4, 5), second

    def forward(self, ids):
        logits = self.head(torch.tanh(self.embed(ids)))
        return logits.movedim(-1, 1) if self.second else logits


def sentences(sizes=((3, 7), (2, 4), (4, 5))):
    torch.manual_seed(1)
    return [torch.randint(0, 9, s) for s in sizes]


def labelled(sizes=((3, 7), (2, 4), (4, 5)), ignored=None):
    """Pairs of tokens and their classes; `ignored` stands in half of the first row of each batch."""
    pairs = []
    for ids in sentences(sizes):
        y = ids % 5
        if ignored is not None:
            y[0, : y.shape[1] // 2] = ignored
        pairs.append((ids, y))
    return pairs


def tokens(o, y):
    return F.cross_entropy(o.flatten(0, 1), y.flatten())


def next_tokens(o, y):
    return F.cross_entropy(o[:, :-1].flatten(0, 1), y[:, 1:].flatten())


def unpadded(o, y):
    return F.cross_entropy(o.flatten(0, 1), y.flatten(), ignore_index=0)


def smooth(o, y):
    return F.cross_entropy(o.flatten(0, 1), y.flatten(), label_smoothing=0.1)


def masked(o, y):
    each = F.cross_entropy(o.flatten(0, 1), y["y"].flatten(), reduction="none")
    return (each * y["mask"].flatten()).sum() / y["mask"].sum()


def with_mask(pairs):
    """Another share of the tokens counts in each batch."""
    torch.manual_seed(2)
    return [(x, {"y": y, "mask": (torch.rand(y.shape) < 0.3 + 0.3 * i).float()}) for i, (x, y) in enumerate(pairs)]


EQUAL = ((3, 6), (3, 6), (3, 6))
WRONG = {
    "tokens of ragged sentences": (tokens, labelled()),
    "one batch that is ragged, and comes late": (tokens, labelled(((3, 6), (3, 6), (2, 4)))),
    "next tokens of ragged sentences": (next_tokens, labelled()),
    "a loss with smoothed labels": (smooth, labelled()),
    "a mask among the targets": (masked, with_mask(labelled())),
    "a mask, batches of one size": (masked, with_mask(labelled(EQUAL))),
    "padding of a class of its own": (unpadded, labelled(ignored=0)),
    "-100": (tokens, labelled(ignored=-100)),
    "-100, next tokens": (next_tokens, labelled(ignored=-100)),
}


def whole(model, loss, data):
    """The loss on all of the data, padded to one length with what has no term."""
    losses, counts = [], []
    for x, y in data:
        o = model(x)
        labels = y["y"] if isinstance(y, dict) else y
        if loss is next_tokens:
            o, labels = o[:, :-1], labels[:, 1:]
        smoothing = 0.1 if loss is smooth else 0.0
        each = F.cross_entropy(o.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=smoothing)
        kept = y["mask"].flatten() if isinstance(y, dict) else (labels.flatten() != -100).float()
        kept = (labels.flatten() != 0).float() if loss is unpadded else kept
        losses.append((each * kept).sum())
        counts.append(kept.sum())
    return float((sum(losses) / sum(counts)).detach())


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_count_is_refused_and_the_advised_one_is_right(kind):
    loss, data = WRONG[kind]
    model = Tagger()
    f = Objective(model, loss, data)
    with pytest.raises(ValueError, match="count=lambda") as refusal:
        f.value()
    assert "\n" not in str(refusal.value)
    advised = re.search(r"lambda outputs, targets: (.*?)( \(check|,? so that)", str(refusal.value)).group(1)
    count = eval(f"lambda outputs, targets: {advised}")
    right = Objective(model, loss, data, count=count)
    assert right.value() == pytest.approx(whole(model, loss, data), rel=1e-5)
    Hessian(right) @ torch.ones(right.size)
    with pytest.raises(ValueError, match="count=lambda"):
        Hessian(Objective(model, loss, data)) @ torch.ones(right.size)
    with pytest.raises(ValueError, match="count="):
        Objective(model, loss, data, count=lambda outputs, targets: len(outputs)).value()


def test_a_count_that_forgets_the_shift_is_refused():
    data = labelled(ignored=-100)
    forgets = Objective(Tagger(), next_tokens, data, count=lambda o, y: (y != -100).sum())
    with pytest.raises(ValueError, match=re.escape("(targets[:, 1:] != -100).sum()")):
        forgets.value()
    taken = Objective(Tagger(), next_tokens, data, count=lambda o, y: (y != -100).sum(), check=False)
    assert taken.value() != pytest.approx(whole(Tagger(), next_tokens, data), rel=1e-6)


def test_a_sum_is_refused_where_batches_differ():
    X, y = samples()
    total = lambda o, t: F.cross_entropy(o, t, reduction="sum")  # noqa: E731
    with pytest.raises(ValueError, match='reduction="sum"'):
        objective(data=[(X[:12], y[:12]), (X[12:], y[12:])], loss=total).value()
    same = objective(data=[(X[:9], y[:9]), (X[9:18], y[9:18])], loss=total).value()
    assert same == pytest.approx(total(network()(X[:18]), y[:18]).item() / 2, rel=1e-6)
    sums = objective(data=[(X[:12], y[:12]), (X[12:], y[12:])], loss=total, reduction="sum")
    assert sums.value() == pytest.approx(total(network()(X), y).item(), rel=1e-6)


def test_time_in_the_first_dimension_is_not_taken_for_samples():
    model = nn.GRU(2, 3)
    data = [(torch.randn(5, n, 2), torch.randint(0, 3, (n,))) for n in (4, 2)]
    f = Objective(model, lambda o, y: F.cross_entropy(o[1][0], y), data)
    with pytest.raises(ValueError, match="cannot be told"):
        f.value()
    last = Objective(model, lambda o, y: F.cross_entropy(o, y), data, forward=lambda m, x: m(x)[1][0])
    with pytest.raises(ValueError, match=re.escape("count=lambda outputs, targets: (targets != -100).sum()")):
        last.value()


def contrastive(o, y):
    z = F.normalize(o, dim=1)
    return F.cross_entropy(z @ z.T / 0.5 - 9 * torch.eye(len(z)), torch.arange(len(z)).roll(1))


def pairwise(o, y):
    return torch.cdist(o, o).square().mean()


def two_means(o, y):
    return F.cross_entropy(o, y) + 0.1 * o.square().sum()


def noisy(o, y):
    return F.cross_entropy(o + torch.randn_like(o), y)


def margin(o, y):
    return F.triplet_margin_loss(o, o.roll(1, 0), o.roll(2, 0))


def focal(o, y):
    each = F.cross_entropy(o, y, reduction="none")
    return ((1 - torch.exp(-each)) ** 2 * each).mean()


@pytest.mark.parametrize("loss", [contrastive, pairwise, two_means, noisy, margin, focal])
def test_losses_that_are_right_or_no_means_are_not_refused(loss):
    X, y = samples()
    f = objective(data=[(X[:12], y[:12]), (X[12:], y[12:])], loss=loss)
    one, two = (f.on([b]) for b in ((X[:12], y[:12]), (X[12:], y[12:])))
    if loss is not noisy:
        assert f.value() == pytest.approx((12 * one.value() + 7 * two.value()) / 19, rel=1e-6)
    assert f.value() == f.value()


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, y: F.gaussian_nll_loss(o[:, 0], y.float(), o[:, 1].exp()),
        lambda o, y: F.cosine_embedding_loss(o, o.detach().roll(1, 1), 2 * (y > 0).long() - 1),
        lambda o, y: F.margin_ranking_loss(o[:, 0], o[:, 1], 2.0 * (y > 0) - 1),
        lambda o, y: F.triplet_margin_with_distance_loss(o, o.detach() + 1, o.detach() - 1),
        lambda o, y: F.multi_margin_loss(o, y),
    ],
    ids=["gaussian_nll", "cosine_embedding", "margin_ranking", "triplet_with_distance", "multi_margin"],
)
def test_torch_losses_of_several_arguments_are_means_over_samples(loss):
    X, y = samples()
    f = objective(data=[(X[:12], y[:12]), (X[12:], y[12:])], loss=loss)
    assert f.value() == pytest.approx(loss(network()(X), y).item(), rel=1e-6)


def test_variational_autoencoders_are_not_refused():
    class Auto(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.code, self.back = nn.Linear(4, 4), nn.Linear(2, 4)

        def forward(self, x):
            mean, spread = self.code(x).chunk(2, 1)
            return self.back(mean + torch.exp(spread / 2) * torch.randn_like(mean)), mean, spread

    def elbo(out, x):
        back, mean, spread = out
        return F.mse_loss(back, x) - 0.5 * (1 + spread - mean**2 - spread.exp()).sum(1).mean()

    X, _ = samples()
    f = Objective(Auto(), elbo, [(X[:12], X[:12]), (X[12:], X[12:])])
    assert f.value() == f.value()


def test_equal_batches_of_tokens_are_not_refused():
    data = labelled(EQUAL)
    model = Tagger()
    assert Objective(model, tokens, data).value() == pytest.approx(whole(model, tokens, data), rel=1e-6)
    assert Objective(model, next_tokens, data).value() == pytest.approx(whole(model, next_tokens, data), rel=1e-6)


def test_what_inputs_and_targets_count_differently_is_refused_where_nothing_can_be_measured():
    model = nn.Linear(2, 3)

    def ctc(o, y):
        steps = torch.full((o.shape[1],), o.shape[0])
        return F.ctc_loss(o.log_softmax(2), y["y"], steps, torch.full((o.shape[1],), 2))

    data = [(torch.randn(6, n, 2), {"y": torch.randint(1, 3, (n, 2))}) for n in (4, 2)]
    with pytest.raises(ValueError, match="cannot be told"):
        Objective(model, ctc, data).value()
    right = Objective(model, ctc, data, count=lambda o, y: o.shape[1])
    together = (torch.cat([x for x, _ in data], 1), {"y": torch.cat([y["y"] for _, y in data])})
    assert right.value() == pytest.approx(ctc(model(together[0]), together[1]).item(), rel=1e-6)


class OwnLoss(nn.Module):
    """A model that returns nothing but its loss."""

    def __init__(self, loss):
        super().__init__()
        self.tagger, self.loss = Tagger(), loss

    def forward(self, x, labels):
        return self.loss(self.tagger(x), labels)


@pytest.mark.parametrize(
    ("loss", "data"),
    [
        (tokens, labelled()),
        (next_tokens, labelled()),
        (lambda o, y: (o.sum(-1) - y).square().mean(), labelled()),
        (lambda o, y: F.mse_loss(o.sum(-1), y.float()), labelled()),
        (lambda o, y: (o.sum(-1) - y).square().sum() / (y > -1).sum(), labelled()),
        (lambda o, y: tokens(o, y) + 0.1 * (1 + o[:1, :1].square().sum()), labelled()),
        (lambda o, y: 0.5 * tokens(o, y), labelled()),
        (lambda o, y: (o.sum(-1) - y).square().sum() * (1 / (y > -1).sum()), labelled()),
    ],
    ids=["tokens", "next tokens", "mean", "mse", "quotient", "with a penalty", "half", "product"],
)
def test_a_loss_inside_the_model_is_asked_what_it_divides_by(loss, data):
    data = [{"x": x, "labels": y} for x, y in data]
    model = OwnLoss(loss)
    with pytest.raises(ValueError, match="count=lambda") as refusal:
        Objective(model, lambda value, _: value, data).value()
    advised = re.search(r"lambda outputs, targets: (.*) \(check", str(refusal.value)).group(1)
    f = Objective(model, lambda value, _: value, data, count=eval(f"lambda outputs, targets: {advised}"))
    counts = [d["labels"][:, 1:].numel() if loss is next_tokens else d["labels"].numel() for d in data]
    expected = sum(c * model(**d).item() for c, d in zip(counts, data, strict=True)) / sum(counts)
    assert f.value() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="denominators in the ratio"):
        Objective(model, lambda value, _: value, data, count=lambda *_: 1).value()


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, y: tokens(o, y) + 0.1 * F.cross_entropy(o.sum(1), y[:, 0]),
        lambda o, y: F.cross_entropy(o.sum(1), y[:, 0]),
        lambda o, y: torch.cdist(o.sum(1), o.sum(1)).square().mean(),
    ],
    ids=["two terms", "samples", "pairs"],
)
def test_a_loss_inside_that_is_right_or_cannot_be_read_is_not_refused(loss):
    data = [{"x": x, "labels": y} for x, y in labelled()]
    model = OwnLoss(loss)
    f = Objective(model, lambda value, _: value, data)
    expected = sum(len(d["x"]) * model(**d).item() for d in data) / 9
    assert f.value() == pytest.approx(expected, rel=1e-6)


class Masked(nn.Module):
    """Logits with what says which tokens are there: a mask of truth values or numbers, or lengths."""

    def __init__(self, kind):
        super().__init__()
        self.tagger, self.kind = Tagger(), kind

    def forward(self, ids):
        there = ids != 0
        extra = {"truth": there, "numbers": there.float(), "lengths": there.sum(1)}[self.kind]
        return self.tagger(ids), extra


@pytest.mark.parametrize("kind", ["truth", "numbers", "lengths"])
def test_a_mask_that_the_model_returns_is_seen(kind):
    def loss(out, y):
        logits, extra = out
        mask = torch.arange(y.shape[1]) < extra[:, None] if kind == "lengths" else extra
        each = F.cross_entropy(logits.movedim(-1, 1), y, reduction="none")
        return (each * mask).sum() / mask.sum()

    data = []
    for ids, lengths in zip(sentences(), ([7, 2, 1], [4, 3], [5, 1, 1, 2]), strict=True):
        ids = torch.where(torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None], ids.clamp(min=1), 0)
        data.append((ids, ids % 5))
    model = Masked(kind)
    with pytest.raises(ValueError, match="does not divide by the number of samples"):
        Objective(model, loss, data).value()
    count = lambda o, y: float((o[1] if kind == "lengths" else o[1].float()).sum())  # noqa: E731
    counts = [float((ids != 0).sum()) for ids, _ in data]
    expected = sum(c * loss(model(x), y).item() for c, (x, y) in zip(counts, data, strict=True)) / sum(counts)
    assert Objective(model, loss, data, count=count).value() == pytest.approx(expected, rel=1e-6)


def test_batches_that_agree_by_chance_are_told_by_their_parts():
    y = [torch.tensor([[1, 2, 3, 4, 1], [1, 2, 0, 0, 0], [1, 0, 0, 0, 0]]), torch.tensor([[1, 2, 3, 4], [1, 2, 3, 0]])]
    data = [{"x": t, "labels": t} for t in y]  # 8 tokens in 3 samples, 7 in the first 2 and in the others 2
    model = OwnLoss(lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten(), ignore_index=0))
    with pytest.raises(ValueError, match="different numbers of samples have denominators") as refusal:
        Objective(model, lambda value, _: value, data).value()
    assert "count=lambda outputs, targets: (targets != 0).sum()" in str(refusal.value)


def test_a_loss_that_draws_from_a_generator_of_its_own_is_the_same_at_its_first_and_later_values():
    generator = torch.Generator().manual_seed(0)
    f = objective(
        data=[samples(), samples(7)],
        loss=lambda z, y: (1 + torch.rand((), generator=generator)) * F.cross_entropy(z, y),
    )
    before = generator.get_state()
    first = f.value()
    assert f.value() == first
    assert torch.equal(generator.get_state(), before)


def test_the_mean_over_batches_may_be_asked_for():
    """Whatever the loss of each divides by: two batches of 2 and 6 samples count the same, inside a model too."""
    model = nn.Linear(3, 2)
    batches = [(torch.randn(n, 3), torch.randint(0, 2, (n,))) for n in (2, 6)]
    means = [F.cross_entropy(model(x), y).item() for x, y in batches]
    own = Objective(model, lambda o, t: F.cross_entropy(o, t), batches, count="batches")
    assert own.value() == pytest.approx(sum(means) / 2, rel=1e-6)
    data = [((x, y), None) for x, y in batches]
    inside = Objective(
        model, lambda o, _: o, data, forward=lambda m, b: F.cross_entropy(m(b[0]), b[1]), count="batches"
    )
    assert inside.value() == pytest.approx(sum(means) / 2, rel=1e-6)
    with pytest.raises(TypeError, match="count must be"):
        Objective(model, nn.MSELoss(), batches, count=1)
