"""The callback under a real Lightning trainer: its numbers, its steps, and that nobody notices it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from landscape import Objective
from probes import Alignment, BatchSharpness, Every, Gradient, Monitor, Spectrum, Trace

lightning = pytest.importorskip("lightning")
torchmetrics = pytest.importorskip("torchmetrics")
from lightning.pytorch.loggers import CSVLogger, Logger  # noqa: E402

from probes.integrations.lightning import MonitorCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(num_workers|log_every_n_steps|srun|litlogger|GPU available)"),
    pytest.mark.filterwarnings("ignore:.*(LeafSpec|treespec|isinstance):"),
]


class Module(lightning.LightningModule):
    """A step as people write it: dropout, running statistics, a metric, a list of its own, things logged."""

    def __init__(self, dropout=0.0, fail_at=None):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 2))
        self.accuracy = torchmetrics.MeanMetric()
        self.losses = []
        self.logged = {}

    def on_train_batch_start(self, batch, batch_idx):
        if self.global_step == self.hparams.fail_at:
            raise RuntimeError("the power is out")

    def training_step(self, batch, batch_idx):
        x, y, weight = batch
        loss = (F.cross_entropy(self.net(x), y, reduction="none") * weight).mean()
        self.accuracy(loss.detach())
        self.losses.append(loss.detach())
        self.log("loss", loss)
        self.logged[self.global_step] = float(self.accuracy.compute())
        return {"loss": loss}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Weights(lightning.Callback):
    def __init__(self):
        self.at = {}

    def on_train_batch_end(self, trainer, module, *_):
        self.at[trainer.global_step] = {k: v.clone() for k, v in module.state_dict().items()}


@pytest.fixture
def data():
    torch.manual_seed(0)
    X = torch.randn(64, 6)
    return X, (X[:, 0] > 0).long(), torch.rand(64)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(module, data, *callbacks, epochs=2, checkpoint=None, loader=None, **settings):
    torch.manual_seed(1)
    loader = loader if loader is not None else DataLoader(TensorDataset(*data), 16, shuffle=True)
    settings = {"enable_checkpointing": False, "logger": False} | settings
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **settings,
    )
    trainer.fit(module, loader, ckpt_path=checkpoint)
    return trainer


def exact(state, data):
    """The two largest eigenvalues of the mean loss over the batches of 16, by double backward in float64."""
    module = Module().double().train()
    module.load_state_dict(state)
    parameters = dict(module.net.named_parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
    shapes = [p.shape for p in parameters.values()]

    def f(theta):
        pieces = [t.reshape(s) for t, s in zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)]
        total = 0.0
        for x, y, weight in zip(*(t.split(16) for t in data), strict=True):
            outputs = torch.func.functional_call(module.net, dict(zip(parameters, pieces, strict=True)), (x.double(),))
            total = total + (F.cross_entropy(outputs, y, reduction="none") * weight).mean()
        return total / 4

    H = torch.autograd.functional.hessian(f, flat)
    return torch.linalg.eigvalsh(H).flip(0)[:2].numpy()


def test_the_numbers_are_those_of_the_saved_weights(folder, data):
    weights = Weights()
    fit(Module(), data, MonitorCallback([Spectrum(k=2)], "run.h5", every=3, on_error="raise"), weights)
    found = Trace.open("run.h5")["spectrum"]
    assert found["step"].tolist() == [0, 3, 6]
    for step, values in zip(found["step"][1:], found["values"][1:], strict=True):
        np.testing.assert_allclose(values, exact(weights.at[step], data), rtol=2e-3)


def test_mixed_precision_is_measured_without_autocast(folder, data):
    weights = Weights()
    callback = MonitorCallback([Spectrum(k=2)], "run.h5", every=4, on_error="raise")
    fit(Module(), data, callback, weights, precision="bf16-mixed")
    found = Trace.open("run.h5")["spectrum"]
    np.testing.assert_allclose(found["values"][-1], exact(weights.at[8], data), rtol=2e-3)


def test_training_is_what_it_is_without(folder, data):
    plain, watched = Module(dropout=0.5), Module(dropout=0.5)
    watched.load_state_dict(plain.state_dict())
    fit(plain, data, logger=CSVLogger("."))
    fit(
        watched,
        data,
        MonitorCallback([Spectrum(), BatchSharpness()], "run.h5", on_error="raise"),
        logger=CSVLogger("."),
    )
    assert len(Trace.open("run.h5")["spectrum"]) == 9
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert watched.losses == plain.losses
    assert watched.logged == plain.logged
    assert vars(watched).keys() == vars(plain).keys()


def test_steps_are_updates(folder, data):
    callback = MonitorCallback([Gradient(), Spectrum(every=2, k=1)], "run.h5", every=Every(1), on_error="raise")
    module = Module()
    fit(module, data, callback, accumulate_grad_batches=2)
    trace = Trace.open("run.h5")
    assert trace["gradient"]["step"].tolist() == [0, 1, 2, 3, 4]
    assert trace["spectrum"]["step"].tolist() == [0, 2, 4]
    assert trace["gradient"]["epoch"].tolist() == [0, 0.5, 1, 1.5, 2]
    assert trace["training"]["step"].tolist() == [1, 2, 3, 4]
    assert trace["training"]["loss"] == pytest.approx([float(loss) for loss in module.losses[1::2]])
    assert trace.config == {"dropout": 0.0, "fail_at": None}


def test_a_run_that_is_resumed_has_the_trace_of_one_that_was_not(folder, data, monkeypatch):
    def callback(name):
        return MonitorCallback([Spectrum(k=2, warm=False)], Trace.create(name, seed=5), every=3, on_error="raise")

    torch.manual_seed(0)
    start = Module().state_dict()
    whole, first, second = Module(), Module(), Module()
    whole.load_state_dict(start)
    first.load_state_dict(start)
    loader = DataLoader(TensorDataset(*data), 16)
    fit(whole, data, callback("whole.h5"), epochs=4, loader=loader)
    half = callback("half.h5")
    trainer = fit(first, data, half, epochs=2, loader=loader)
    trainer.save_checkpoint("two.ckpt")
    given, load = [], Monitor.load_state_dict
    monkeypatch.setattr(Monitor, "load_state_dict", lambda self, state: given.append(state) or load(self, state))
    state = half.state_dict()["monitor"]
    fit(second, data, half, epochs=4, checkpoint="two.ckpt", loader=loader)
    assert given == [state]
    expected, found = Trace.open("whole.h5"), Trace.open("half.h5")
    assert found["spectrum"]["step"].tolist() == [0, 3, 6, 9, 12, 15]
    assert len(found.periods) == 2
    np.testing.assert_array_equal(found["spectrum"]["values"], expected["spectrum"]["values"])


def test_an_exception_closes_the_trace(folder, data):
    callback = MonitorCallback([Spectrum(k=1)], "run.h5", on_error="raise")
    with pytest.raises(RuntimeError, match="power"):
        fit(Module(fail_at=3), data, callback)
    with Trace.resume("run.h5") as trace:  # nobody writes it any more
        assert trace["spectrum"]["step"].tolist() == [0, 1, 2, 3]


def test_an_existing_trace_is_not_replaced_unasked(folder, data):
    fit(Module(), data, MonitorCallback([Gradient()], "run.h5"), epochs=1)
    with pytest.raises(OSError, match="overwrite=True"):
        fit(Module(), data, MonitorCallback([Gradient()], "run.h5"), epochs=1)
    fit(Module(), data, MonitorCallback([Gradient(every=2)], "run.h5", overwrite=True), epochs=1)
    assert Trace.open("run.h5")["gradient"]["step"].tolist() == [0, 2, 4]


def test_an_objective_of_the_users_own(folder, data):
    def of(module):
        return Objective(module.net, nn.CrossEntropyLoss(), data[:2], mode="eval")

    fit(Module(), data, callback := MonitorCallback([Gradient(every=8)], "run.h5", objective=of, on_error="raise"))
    kept = callback._training.monitor.objective
    assert Trace.open("run.h5")["gradient"]["norm"][-1] == pytest.approx(float(kept.gradient().norm()), rel=1e-5)


class Pairs(lightning.LightningModule):
    """A step that writes to the logger itself."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 2)

    def training_step(self, batch):
        x, y = batch
        if self.logger is not None:
            self.logger.log_metrics({"seen": float(len(x))}, step=self.global_step)
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Counted(Logger):
    name, version = "counted", 0

    def __init__(self):
        super().__init__()
        self.seen = []

    def log_metrics(self, metrics, step=None):
        if "seen" in metrics:
            self.seen.append(step)

    def log_hyperparams(self, *_, **__):
        pass


def test_a_logger_hears_of_the_training_alone(folder, data):
    logger = Counted()
    loader = DataLoader(TensorDataset(*data[:2]), 16)
    callback = MonitorCallback([Gradient()], "run.h5", on_error="raise")
    fit(Pairs(), None, callback, epochs=1, loader=loader, logger=logger)
    assert logger.seen == [0, 1, 2, 3]


def test_an_objective_of_the_users_own_is_given_the_batch_as_it_is(folder, data):
    def of(module):
        return Objective(module.net, nn.CrossEntropyLoss(), data[:2])

    loader = DataLoader(TensorDataset(*data[:2]), 16)
    callback = MonitorCallback([Alignment(k=1, of="batch", every=2)], "run.h5", objective=of, on_error="raise")
    fit(Pairs(), None, callback, epochs=1, loader=loader)
    assert Trace.open("run.h5")["alignment"]["step"].tolist() == [0, 2, 4]


def test_batches_of_the_users_own_count_the_same_whatever_their_size(folder, data):
    chosen = [(data[0][:3], data[1][:3]), (data[0][3:20], data[1][3:20])]
    module = Pairs()
    callback = MonitorCallback([Gradient(every=4)], "run.h5", data=chosen, on_error="raise")
    fit(module, None, callback, epochs=1, loader=DataLoader(TensorDataset(*data[:2]), 16))
    expected = torch.stack([F.cross_entropy(module.net(x), y) for x, y in chosen]).mean().item()
    assert Trace.open("run.h5")["gradient"]["loss"][-1] == pytest.approx(expected, rel=1e-5)


class Always:
    def due(self, now, before):
        return True


def test_a_step_of_several_batches_is_measured_once(folder, data):
    """Also by a schedule that is due each time that it is asked."""
    callback = MonitorCallback([Gradient(every=Always())], "run.h5", on_error="raise")
    fit(Module(), data, callback, epochs=1, accumulate_grad_batches=2)
    assert Trace.open("run.h5")["gradient"]["step"].tolist() == [0, 1, 2]


class Tokens(lightning.LightningModule):
    """A loss over the tokens that are not ignored: batches have more and fewer of them."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 3)

    def training_step(self, batch):
        return F.cross_entropy(self.net(batch["x"]).transpose(1, 2), batch["labels"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_batches_count_the_same_whatever_they_hold(folder):
    torch.manual_seed(0)
    x, y = torch.randn(32, 5, 6), torch.randint(0, 3, (32, 5))
    y[torch.rand(32, 5) > 0.5] = -100
    rows = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
    module = Tokens()
    callback = MonitorCallback([Gradient(every=4)], "run.h5", on_error="raise")
    fit(module, None, callback, epochs=1, loader=DataLoader(rows, 8))
    batches = [{"x": a, "labels": b} for a, b in zip(x.split(8), y.split(8), strict=True)]
    expected = torch.stack([module.training_step(batch) for batch in batches]).mean().item()
    assert Trace.open("run.h5")["gradient"]["loss"][-1] == pytest.approx(expected, rel=1e-5)
    assert abs(expected - module.training_step({"x": x, "labels": y}).item()) > 1e-3  # the mean of all tokens


class Manual(Module):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(6), torch.tensor(0), torch.tensor(1.0)


@pytest.mark.parametrize(
    ("module", "settings", "words"),
    [
        (Manual(), {}, r"automatic_optimization=False.*objective="),
        (Module(), {"loader": DataLoader(Endless(), 4)}, r"pass data="),
    ],
)
def test_what_cannot_be_measured_is_refused(folder, data, module, settings, words):
    with pytest.raises(ValueError, match=words):
        fit(module, data, MonitorCallback([Gradient()], "run.h5"), **settings)


def test_a_model_in_parts_is_refused(folder, data):
    callback = MonitorCallback([Gradient()], "run.h5")

    class Two(lightning.Trainer):
        world_size = 2

    trainer = Two(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match=r"whole in every process.*this training has 2"):
        callback.on_train_start(trainer, Module())
    assert not list(folder.iterdir())


def test_settings_are_checked_before_training():
    with pytest.raises(ValueError, match="samples"):
        MonitorCallback([Gradient()], "run.h5", samples=0)
    with pytest.raises(ValueError, match="not both"):
        MonitorCallback([Gradient()], "run.h5", objective=lambda module: None, data=[])
    with pytest.raises(ValueError, match="every"):
        MonitorCallback([Gradient()], "run.h5", every=0)
