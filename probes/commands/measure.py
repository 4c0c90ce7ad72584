"""What the commands that measure checkpoints have in common: a probe from what was typed, and the end of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from probes.errors import UserError, one_line
from probes.ranks import is_first
from probes.terminal import err, out

if TYPE_CHECKING:
    from probes.checkpoints.run import Request
    from probes.instruments.base import Instrument

Kind = TypeVar("Kind", bound="Instrument")


def probe_of(made: Callable[..., Kind], /, **settings: Any) -> Kind:
    """A probe with these settings. Raises `UserError` (status 2) for one that is not possible."""
    try:
        return made(**settings)
    except ValueError as error:
        raise UserError(one_line(error), status=2) from error


def measure(request: Request, *, drawn: bool) -> None:
    """Measure, say what was found, and draw it if that is asked for."""
    from probes.checkpoints.run import run

    notes = err()
    made = run(request, notes)
    if is_first():
        from probes.views.tables import tell_drawn, tell_measured

        (tell_drawn if drawn else tell_measured)(request.output, made, out(), notes)
