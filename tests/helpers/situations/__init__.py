"""Situations that people come with, each with an oracle: what the table in docs/works-with.md is made of."""

from situations import inputs, kinds, language, layers, losses, refusals
from situations.situation import Case, Situation

SITUATIONS: list[Situation] = [
    *language.SITUATIONS,
    *layers.SITUATIONS,
    *kinds.SITUATIONS,
    *inputs.SITUATIONS,
    *losses.SITUATIONS,
    *refusals.SITUATIONS,
]

__all__ = ["SITUATIONS", "Case", "Situation"]
