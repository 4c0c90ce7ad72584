"""Where random numbers come from: a generator that the caller gives, or a fresh one whose seed is kept."""

from __future__ import annotations

import torch


def seeded(generator: torch.Generator | None) -> tuple[torch.Generator, int]:
    """The generator to draw from and the seed that a result keeps."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator, generator.initial_seed()
