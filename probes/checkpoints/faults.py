"""Lines about checkpoints that cannot be used, where several places say the same."""

from __future__ import annotations

from pathlib import Path

from probes.errors import UserError, one_line

SAVE = "save torch.save(model.state_dict(), path) where it was made"


def truncation(path: Path, error: BaseException | str) -> UserError:
    """The line about a file that is not whole."""
    return UserError(f"the checkpoint {path} is truncated or corrupt ({one_line(error, limit=120)}): copy it again")


def sharded(path: str | Path) -> UserError:
    """The line about a file of one rank."""
    return UserError(
        f"{path} holds the shards of one rank (DTensor): save it with torch.distributed.checkpoint, or the full state "
        "dict, get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))"
    )
