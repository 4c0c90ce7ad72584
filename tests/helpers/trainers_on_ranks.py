"""Trainings by other people's trainers with our callback, in one process and by torchrun.

python trainers_on_ranks.py lightning|transformers TRACE
"""

import os
import sys
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from probes import Gradient, Spectrum

WORLD = int(os.environ.get("WORLD_SIZE", 1))
PROBES = [Spectrum(k=2, tol=1e-10, every=2), Gradient(every=2)]


def lightning(trace):
    import lightning
    from lightning.pytorch import LightningModule, Trainer

    from probes.integrations.lightning import MonitorCallback

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    lightning.seed_everything(0)
    module = Module()
    X = torch.randn(48, 6, dtype=torch.float64)
    loader = DataLoader(TensorDataset(X, (X[:, 0] > 0).long()), batch_size=8 // WORLD)
    trainer = Trainer(
        strategy="ddp" if WORLD > 1 else "auto",
        devices=WORLD,
        accelerator="cpu",
        max_steps=5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[MonitorCallback(PROBES, trace, samples=24)],
    )
    trainer.fit(module, loader)


def transformers(trace):
    import transformers

    from probes.integrations.transformers import MonitorCallback

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=8, n_positions=12, n_embd=4, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        setattr(config, name, 0.0)
    ids = torch.randint(0, 8, (16, 12))
    args = transformers.TrainingArguments(
        "out-" + str(WORLD),
        max_steps=5,
        per_device_train_batch_size=4 // WORLD,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = transformers.Trainer(
        transformers.GPT2LMHeadModel(config).double(),
        args,
        train_dataset=[{"input_ids": row, "labels": row} for row in ids],
        callbacks=[MonitorCallback(PROBES, trace, samples=16)],
    )
    trainer.train()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    globals()[sys.argv[1]](sys.argv[2])
