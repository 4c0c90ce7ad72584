"""The pictures of `landscape plot` as SVG inside a page, for where there is no plotly."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from probes.views.pictures.style import style

_NUMBERS = re.compile(r' (?:d|x|y|points)="[^"]*"')
_DIGITS = re.compile(r"(\.\d\d)\d+")
_IDS = re.compile(r'(\bid="|url\(#|href="#)')


def svgs(block_pictures: Any, prefix: str, label: str) -> list[str]:
    """Each picture of a block as an `<svg>`, whose names of parts begin with `prefix`."""
    from matplotlib import rc_context

    with style(), rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix, "savefig.transparent": True}):
        made: Mapping[str, Any] = block_pictures()
        return [_svg(figure, f"{prefix}{ending}-", label) for ending, figure in made.items()]


def _svg(figure: Any, prefix: str, label: str) -> str:
    from html import escape

    target = io.StringIO()
    figure.set_dpi(72)
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _IDS.sub(lambda found: f"{found[1]}{prefix}", text)
    # a hundredth of a point is finer than any screen
    text = _NUMBERS.sub(lambda found: _DIGITS.sub(r"\1", found[0]), text)
    head, rest = text.split(">", 1)
    head = re.sub(r' (?:width|height|version)="[^"]*"', "", head)
    width = round(96 * figure.get_figwidth())  # at its own size, so that text is as large in each
    return f'{head} style="max-width:{width}px" role="img" aria-label="{escape(label, quote=True)}">{rest}'
