"""Where random numbers come from: a generator that the caller gives, or a fresh one whose seed is kept."""

from __future__ import annotations

import torch


def fresh_generator() -> torch.Generator:
    """A generator on the host, seeded from the system: the global random state is not ours to move."""
    generator = torch.Generator()
    generator.seed()
    return generator


def generator_and_seed(generator: torch.Generator | None) -> tuple[torch.Generator, int]:
    """The generator to draw from, a fresh one for None, and the seed that a result keeps."""
    generator = generator or fresh_generator()
    return generator, generator.initial_seed()


def drawn_seed(generator: torch.Generator | None) -> int:
    """A seed for what draws anew at each use: from a generator, which moves on, or from the system for None."""
    if generator is None:
        return fresh_generator().initial_seed() % (1 << 62)
    return int(torch.randint(0, 1 << 62, (1,), generator=generator, device=generator.device))
