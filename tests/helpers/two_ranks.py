"""One of two ranks, `python two_ranks.py RANK FOLDER`: what an `Objective` says of models that both hold together."""

import sys
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard

from landscape import Objective


def main(rank, folder):
    """Leaves the two messages in the folder."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=100)
    )
    said = []
    for wrap in (nn.parallel.DistributedDataParallel, fully_shard):
        try:
            Objective(wrap(nn.Linear(4, 3)), nn.CrossEntropyLoss(), (torch.ones(2, 4), torch.zeros(2).long())).value()
        except ValueError as error:
            said.append(str(error))
    Path(f"{folder}/{rank}.txt").write_text("\n".join(said))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
