"""The number of terms of each loss that torch has, on each shape that it takes: against the loss on all of the data."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from landscape.objective.losses import recognise


class Given(nn.Module):
    """The inputs times a number: outputs of any shape, with a graph."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, x):
        return self.scale * x


def real(*shape):
    return torch.randn(shape, dtype=torch.float64)


def share(*shape):
    return torch.rand(shape, dtype=torch.float64)


def signs(*shape):
    return 2.0 * torch.randint(0, 2, shape).double() - 1


def ones_and_zeros(*shape):
    return torch.randint(0, 2, shape).double()


def classes(*shape):
    y = torch.randint(0, 3, shape)
    if len(shape) and y.numel() > 2:
        y.view(-1)[::3] = -100
    return y


def sizes(*rest):
    """Shapes of batches of 3, 1 and 4 samples."""
    return [(n, *rest) for n in (3, 1, 4)]


def log_softmax(*shape):
    return F.log_softmax(real(*shape), min(1, len(shape) - 1))


def indices(*shape):
    return torch.randint(0, 3, shape)


def multilabel(*shape):
    """Class indices, padded with -1 as MultiLabelMarginLoss takes them."""
    return torch.tensor([1, 2, -1]).expand(*shape)


WEIGHT = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
ELEMENTS = [
    (nn.MSELoss(), real, real),
    (nn.L1Loss(), real, real),
    (nn.SmoothL1Loss(beta=0.5), real, real),
    (nn.HuberLoss(delta=0.5), real, real),
    (nn.PoissonNLLLoss(), real, share),
    (nn.PoissonNLLLoss(log_input=False, full=True), share, share),
    (nn.KLDivLoss(), real, share),
    (nn.KLDivLoss(log_target=True), real, real),
    (nn.BCELoss(), share, ones_and_zeros),
    (nn.BCEWithLogitsLoss(), real, ones_and_zeros),
    (nn.SoftMarginLoss(), real, signs),
    (nn.HingeEmbeddingLoss(), real, signs),
]
SHAPES = [(), (3,), (2, 3), (2, 2, 3)]
TABLE = [(loss, sizes(*rest), out, target, None) for loss, out, target in ELEMENTS for rest in SHAPES]
TABLE += [(nn.KLDivLoss(reduction="batchmean"), sizes(*rest), real, share, None) for rest in SHAPES]
TABLE += [
    (nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=2 * WEIGHT), sizes(3), real, ones_and_zeros, None),
    (nn.BCELoss(weight=WEIGHT), sizes(3), share, ones_and_zeros, None),
    (nn.MultiMarginLoss(), sizes(3), real, indices, 1),
    (nn.MultiMarginLoss(p=2, weight=WEIGHT), sizes(3), real, indices, 1),
    (nn.MultiLabelMarginLoss(), sizes(3), real, multilabel, None),
    (nn.MultiLabelSoftMarginLoss(), sizes(3), real, ones_and_zeros, None),
    (nn.MultiLabelSoftMarginLoss(weight=WEIGHT), sizes(2, 3), real, ones_and_zeros, None),
    (nn.MultiLabelSoftMarginLoss(), sizes(2, 2, 3), real, ones_and_zeros, None),
]
for rest in [(3,), (3, 2), (3, 2, 2)]:
    TABLE += [
        (nn.CrossEntropyLoss(), sizes(*rest), real, classes, 1),
        (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), sizes(*rest), real, classes, 1),
        (nn.CrossEntropyLoss(ignore_index=1), sizes(*rest), real, indices, 1),
        (nn.CrossEntropyLoss(weight=WEIGHT), sizes(*rest), real, share, None),
        (nn.NLLLoss(), sizes(*rest), log_softmax, classes, 1),
        (nn.NLLLoss(weight=WEIGHT, ignore_index=2), sizes(*rest), log_softmax, indices, 1),
    ]


def ids(case):
    return case.__class__.__name__ if isinstance(case, nn.Module) else None


def batches_of(shapes, outputs, targets, classes_at):
    """Outputs and targets by shape; `classes_at` is the dimension that class indices do not have."""
    torch.manual_seed(0)
    short = [s if classes_at is None else s[:classes_at] + s[classes_at + 1 :] for s in shapes]
    return [(outputs(*s), targets(*t)) for s, t in zip(shapes, short, strict=True)]


@pytest.mark.parametrize(("loss", "shapes", "outputs", "targets", "classes_at"), TABLE, ids=ids)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # KLDivLoss says so of itself
def test_batches_of_all_sizes_make_the_loss_on_all_of_the_data(loss, shapes, outputs, targets, classes_at):
    data = batches_of(shapes, outputs, targets, classes_at)
    whole = loss(torch.cat([o for o, _ in data]), torch.cat([t for _, t in data]))
    assert Objective(Given(), loss, data).value() == pytest.approx(float(whole), rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "shape", "terms"),
    [
        (nn.MSELoss(), (4, 2, 3), 24),
        (nn.KLDivLoss(reduction="batchmean"), (4, 2, 3), 4),
        (nn.MultiMarginLoss(), (4, 3), 4),
        (nn.MultiLabelSoftMarginLoss(), (4, 2, 3), 8),
    ],
    ids=ids,
)
def test_the_number_of_terms(loss, shape, terms):
    assert recognise(loss).count(real(*shape), real(*shape)) == terms


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (nn.CrossEntropyLoss(weight=WEIGHT), real, indices),
        (nn.NLLLoss(weight=WEIGHT), log_softmax, indices),
        (nn.MultiMarginLoss(), real, indices),
        (nn.CrossEntropyLoss(), real, lambda: share(3)),
        (nn.MultiLabelMarginLoss(), real, lambda: multilabel(3)),
        (nn.MultiLabelSoftMarginLoss(), real, lambda: ones_and_zeros(3)),
    ],
    ids=ids,
)
def test_one_sample_without_a_batch_dimension(loss, outputs, targets):
    torch.manual_seed(1)
    data = [(outputs(3), targets()) for _ in range(3)]
    whole = loss(torch.stack([o for o, _ in data]), torch.stack([t for _, t in data]))
    assert Objective(Given(), loss, data).value() == pytest.approx(float(whole), rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (nn.CrossEntropyLoss(), real, indices),
        (nn.MultiMarginLoss(), real, indices),
        (nn.MultiLabelMarginLoss(), real, lambda *n: multilabel(*n, 3)),
        (nn.MultiLabelSoftMarginLoss(), real, lambda *n: ones_and_zeros(*n, 3)),
    ],
    ids=ids,
)
def test_one_sample_beside_a_batch(loss, outputs, targets):
    torch.manual_seed(2)
    one, batch = (outputs(3), targets()), (outputs(4, 3), targets(4))
    whole = loss(torch.cat([one[0][None], batch[0]]), torch.cat([one[1][None], batch[1]]))
    assert Objective(Given(), loss, [one, batch]).value() == pytest.approx(float(whole), rel=1e-12)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.BCEWithLogitsLoss()], ids=ids)
def test_single_numbers(loss):
    data = [(real(), ones_and_zeros()) for _ in range(3)]
    whole = loss(torch.stack([o for o, _ in data]), torch.stack([t for _, t in data]))
    assert Objective(Given(), loss, data).value() == pytest.approx(float(whole), rel=1e-12)
