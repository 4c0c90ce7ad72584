"""What is written down of a probe beside its own file: an entry of the registry."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from typing import Any

Cell = tuple[str, str, str]  # what stands behind the probe's name in the heading, a field, the field of its error


NAMED = "NamedObjective"  # in the annotation of a setting that may be an objective
TEXT_FILES = (".txt", ".jsonl", ".csv", ".tsv")
# Settings that the command does not take: its checkpoints are the schedule, the end point and the networks.
PYTHON_ONLY = ("every", "end", "through", "spread")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One probe, for the command, the tables and the pictures.

    Attributes:
        home: module:class below `probes.instruments`.
        measures, needs, cost, paper: for a reader, in the words of `COST_NOTES`.
        fields: the names by which records are recognised that do not say which probe they are of: one of these sets.
        picture: module:function below `probes.views.pictures`, of the columns and the settings. Beside `x_figure`
            there may be an `x_cells` in `probes.views.cells`, the columns that a record fills in a table, and an
            `x_summary`, of all records: what they amount to, in a sentence.
        cells: the columns where there is no such function; without any, all fields that are single numbers.
        note: what a reader of the cells must know.
    """

    home: str = ""
    measures: str
    needs: str
    cost: str
    paper: str = ""
    fields: str
    picture: str
    cells: tuple[Cell, ...] = ()
    note: str = ""

    @property
    def class_name(self) -> str:
        """Of the probe, as settings in a trace have it."""
        return self.home.partition(":")[2]

    def load(self) -> type[Any]:
        """The class of the probe."""
        return import_from("probes.instruments", self.home)

    def options(self) -> dict[str, str]:
        """What the command takes behind the probe's name, `spectrum:k=10`, with its default or the choices."""
        found = {}
        for name, parameter in inspect.signature(self.load()).parameters.items():
            if name not in PYTHON_ONLY:
                choices = re.fullmatch(r"Literal\[(.*)\]", str(parameter.annotation))
                found[name] = re.sub("['\" ]", "", choices[1]).replace(",", "|") if choices else str(parameter.default)
                if NAMED in str(parameter.annotation):
                    found[name] += "|module:function"
        return found

    def names_objective(self, option: str, value: str) -> bool:
        """Whether the value is the name of an objective, or of a file of texts, for this option."""
        if NAMED not in str(inspect.signature(self.load()).parameters[option].annotation):
            return False
        return ":" in value or value.endswith(TEXT_FILES)


def import_from(package: str, place: str) -> Any:
    """What `place`, module:name, is below the package."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), name)
