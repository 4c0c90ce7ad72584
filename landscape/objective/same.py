"""Whether the vectors of two objectives stand for the same parameters."""

from __future__ import annotations

from landscape.objective.objective import Objective


def same_parameters(first: Objective, second: Objective) -> None:
    """Raise `ValueError` for two objectives whose vectors do not stand for the same parameters, object by object.

    Those of a copy of the model have the same names, and values of their own.
    """
    ours, theirs = first.leaves(), second.leaves()
    if len(ours) != len(theirs) or any(p is not q for p, q in zip(ours, theirs, strict=True)):
        raise ValueError(
            f"the two objectives have different parameters ({first.size} and {second.size} numbers): make the second "
            "one of the same model and parameters=, or by objective.on(data)"
        )
