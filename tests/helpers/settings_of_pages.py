"""What pages take for granted before their first block: names, or files in the current folder."""

from pathlib import Path

import pytest
import torch
from pages import blocks
from paths import ROOT
from pretrained_folders import save_causal
from torch import nn

from landscape import Hessian, Objective
from landscape.spectra import density, footprint


def objective():
    torch.manual_seed(0)
    data = (torch.randn(32, 4), torch.randint(0, 2, (32,)))
    return Objective(nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 2)), nn.CrossEntropyLoss(), data)


def memory():
    return {"A": Hessian(objective()), "footprint": footprint, "density": density}


def pretrained():
    """Two checkpoints of a small causal language model and its texts."""
    save_causal(Path("checkpoint-500"), seed=500)
    save_causal(Path("checkpoint-1000"), seed=1000)
    Path("lines.txt").write_text("the cat sat\nthe dog ran home\n" * 8)
    return {}


def readme():
    """What its commands are run on: a problem, two checkpoints of it, and pretrained folders."""
    pytest.importorskip("xarray")
    pytest.importorskip("pandas")
    problem = next(b for b in blocks(ROOT / "docs/guides/checkpoints.md") if b.title == "problem.py")
    Path("problem.py").write_text(problem.code)
    for step in (0, 10):
        torch.manual_seed(step)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        torch.save(model.state_dict(), f"step{step}.pt")
    return pretrained()


def trainer():
    """A trainer, settings that keep it quiet, a module and its data."""
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2)

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    samples = torch.utils.data.TensorDataset(torch.randn(160, 3), torch.randint(0, 2, (160,)))
    return {
        "Trainer": lightning.Trainer,
        "settings": {**quiet, "max_epochs": 1, "enable_model_summary": False},
        "module": Module(),
        "loader": torch.utils.data.DataLoader(samples, 8),
    }


def traces():
    pytest.importorskip("xarray")
    pytest.importorskip("pandas")
    return {}


SETTINGS = {
    "README.md": readme,
    "docs/guides/checkpoints.md": pretrained,
    "docs/guides/traces.md": traces,
    "docs/guides/training-loop.md": trainer,
    "docs/memory.md": memory,
}
