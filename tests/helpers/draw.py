"""Runs a page and keeps what it prints and draws: `python tests/helpers/draw.py docs/concepts/hessian-bulk.md`."""

import os
import sys
import tempfile
from pathlib import Path

from pages import FENCE, execute, name_of


def draw(page: Path) -> str:
    """The page with its `text` blocks as they are printed; pictures are written beside it."""
    text, names, printed, kept, end = page.read_text(), {"__name__": "page"}, None, "", 0
    for found in FENCE.finditer(text):
        if found["language"] == "python":
            printed = execute(found["code"], names, name_of(page), text[: found.start()].count("\n"))
        elif found["language"] == "text" and printed is not None:
            kept += text[end : found.start("code")] + printed
            end = found.end("code")
    return kept + text[end:]


if __name__ == "__main__":
    for page in [Path(name).resolve() for name in sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            told = draw(page)
            for picture in Path(folder).glob("*.png"):
                (page.parent / picture.name).write_bytes(picture.read_bytes())
            os.chdir("/")
        page.write_text(told)
