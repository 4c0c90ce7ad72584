"""English text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from probes.errors import UserError
from runs.engine.options import FOLDER

_WHOLE = "gen1:1-rev22:21"


@lru_cache(maxsize=1)
def english() -> str:
    """About 4 million letters of English, a verse of the King James Bible a line, without their numbers.

    From `english.txt` in the folder of LANDSCAPE_DATA, which may be any text, or from the program `bible`, which has it
    in a compressed form. Raises `UserError` where neither is.
    """
    given = os.environ.get(FOLDER)
    own = Path(given).expanduser() / "english.txt" if given else None
    if own is not None and own.is_file():
        return own.read_text()
    program = shutil.which("bible")
    if program is None:
        looked = f"looked for {own} and" if own else "looked for"
        raise UserError(
            "no English text is on this machine: `apt install bible-kjv`; or put an english.txt into the folder of "
            f"--data or {FOLDER}; {looked} the program bible"
        )
    done = subprocess.run([program, "-f", _WHOLE], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        raise UserError(f"`{program} -f {_WHOLE}` gave no text: {done.stderr.strip() or done.returncode}")
    return re.sub(r"^\S+ ", "", done.stdout, flags=re.MULTILINE)
