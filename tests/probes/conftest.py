"""Fixtures of the tests of probes."""

from __future__ import annotations

import pytest
from command_line import Landscape, Result

from probes.cli import main


@pytest.fixture
def landscape(capfd: pytest.CaptureFixture[str]) -> Landscape:
    """`landscape("probe", ...)` as it is typed: its exit status, and what it wrote to stdout and stderr."""

    def call(*words: str) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(list(words))
        captured = capfd.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return call
