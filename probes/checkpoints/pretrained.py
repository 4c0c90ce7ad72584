"""Models and tokenizers of Hugging Face folders, by the library's own loaders and without the hub or remote code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.checkpoints.files import is_pretrained, locate
from probes.checkpoints.saved import Say
from probes.errors import UserError, first_few, import_extra, one_line

if TYPE_CHECKING:
    from torch import nn

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json")


def load_pretrained(folder: Path, kind: Any, say: Say | None = None) -> nn.Module:
    """The model of a folder in float32 and eval mode; `kind` is the class with the `from_pretrained` to use.

    `say` hears of weights in the folder that the model has no place for.

    Raises `UserError` when it is no such folder, when it does not hold all of the model's weights (a head that would
    be drawn at random), and when it is quantised.
    """
    _check_folder(folder)
    config = _config(folder)
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(
            f"{folder} holds quantised weights: they have no second derivatives; give the model before that"
        )
    with quiet():
        try:
            model, info = kind.from_pretrained(folder, output_loading_info=True, **_LOCAL)
        except Exception as error:  # the library raises anything
            raise UserError(f"{folder} cannot be loaded as {kind.__name__}: {one_line(error, limit=200)}") from error
    missing = sorted(map(str, info.get("missing_keys", ())))
    if missing:
        made = ", ".join(getattr(config, "architectures", None) or ["another model"])
        raise UserError(
            f"{folder} has no weights for {first_few(missing)} of {type(model).__name__}: it is a checkpoint of "
            f"{made}, and a part drawn at random says nothing"
        )
    unexpected = sorted(map(str, info.get("unexpected_keys", ())))
    if unexpected and say is not None:
        say(f"{first_few(unexpected)} left out: {type(model).__name__} has no place for them")
    model.config.use_cache = False
    return model.float().eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of the folder, or of the one above it (a trainer's output); None where there is none."""
    home = next((f for f in (folder, folder.resolve().parent) if any((f / n).is_file() for n in _TOKENIZER)), None)
    if home is None:
        return None
    transformers = import_transformers()
    with quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(home, **_LOCAL)
        except Exception as error:
            raise UserError(f"the tokenizer of {home} cannot be loaded: {one_line(error, limit=200)}") from error


def import_transformers() -> Any:
    """The library. Raises `MissingExtra` when it is not installed."""
    return import_extra("transformers", "--problem hf:...", extra="integrations")


def is_transformer(model: nn.Module) -> bool:
    """Whether the model is one of the library's, whose folders its own loader reads best."""
    import sys

    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


@contextmanager
def quiet() -> Iterator[None]:
    """The library without its bars and warnings: what matters of them is said here."""
    logging = import_transformers().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise UserError(
            f"there is no folder {folder}: hf: problems take folders of this machine, as save_pretrained writes them"
        )
    if not folder.is_dir() or not is_pretrained(folder):
        raise UserError(
            f"{folder} is no folder with a config.json: hf: problems take what model.save_pretrained writes"
        )
    locate(folder)


def _config(folder: Path) -> Any:
    transformers = import_transformers()
    with quiet():
        try:
            return transformers.AutoConfig.from_pretrained(folder, **_LOCAL)
        except Exception as error:
            raise UserError(f"the config.json of {folder} cannot be used: {one_line(error, limit=200)}") from error
