"""One seed for each named piece of work, from the one seed of a trace or an experiment."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: object) -> int:
    """The seed of what these names and numbers tell apart, in [0, 2**63): `derive_seed(seed, "spectrum", step)`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
