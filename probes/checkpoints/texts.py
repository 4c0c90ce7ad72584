"""Texts for `--problem hf:...`: a file of lines, of JSON objects or of comma-separated columns, as rows.

FILE.txt            one text a line, under the name "text"
FILE.jsonl          one object a line: text and label, source and target, or input_ids
FILE.csv, .tsv      a heading with the names, and one row a line
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError, one_line

Row = dict[str, Any]

# Under which names a column is known, the first one being what the lines about it say.
_NAMES = {
    "text": ("text", "sentence", "content"),
    "label": ("label", "labels"),
    "source": ("source", "input"),
    "target": ("target", "output", "summary"),
    "input_ids": ("input_ids",),
}


@dataclass(frozen=True)
class Texts:
    """What `--data` and the options beside it say.

    Attributes:
        path: the file.
        length: tokens of one text at most; the rest is cut off.
        samples: how many texts from the beginning of the file.
        batch_size: texts of one batch.
    """

    path: Path
    length: int = 128
    samples: int = 256
    batch_size: int = 8

    @property
    def config(self) -> dict[str, Any]:
        """What the trace keeps of it."""
        sizes = {"length": self.length, "samples": self.samples, "batch size": self.batch_size}
        return {"data": str(self.path), **sizes}


def read_rows(path: Path) -> list[Row]:
    """The rows of the file; blank lines are none.

    Raises `UserError` for a file that is missing, empty, no text, or of another kind, with the number of a line that
    cannot be read.
    """
    kind = path.suffix.lower()
    readers = {".txt": _lines, ".jsonl": _objects, ".csv": _columns, ".tsv": _columns}
    if kind not in readers:
        raise UserError(f"--data takes a .txt, .jsonl, .csv or .tsv file, not {path}", status=2)
    if path.is_dir():
        raise UserError(f"--data {path} is a folder: name the file of texts in it")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {one_line(error)}") from error
    rows = readers[kind](content, path)
    if not rows:
        raise UserError(f"{path} has no texts in it")
    return rows


def column(rows: Sequence[Row], name: str, path: Path) -> list[Any]:
    """The values under a name, or under another one that is known for it.

    Raises `UserError` when there is no such column (it names those that there are) and for a row without a value.
    """
    known = next((key for key in _NAMES[name] if key in rows[0]), None)
    if known is None:
        there = ", ".join(map(str, rows[0])) or "none"
        raise UserError(f"{path} has no column {name!r}: its columns are {there}; rename the one that is meant")
    for number, row in enumerate(rows, 1):
        if row.get(known) is None:
            raise UserError(f"{path} has no {known!r} in its text number {number}")
    return [row[known] for row in rows]


def has_column(rows: Sequence[Row], name: str) -> bool:
    """Whether there is such a column."""
    return any(key in rows[0] for key in _NAMES[name])


def _lines(content: str, path: Path) -> list[Row]:
    return [{"text": line.strip()} for line in content.splitlines() if line.strip()]


def _objects(content: str, path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"line {number} of {path} is no JSON: {one_line(error)}") from error
            if not isinstance(row, str | dict):
                raise UserError(f"line {number} of {path} is a {type(row).__name__}: write one object a line")
            rows.append({"text": row} if isinstance(row, str) else row)
    return rows


def _columns(content: str, path: Path) -> list[Row]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        rows = list(csv.DictReader(content.splitlines(keepends=True), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is no table: {one_line(error)}") from error
    for number, row in enumerate(rows, 1):
        if None in row:
            raise UserError(f"{path} has more columns in its text number {number} than in its heading: quote the texts")
    return rows
