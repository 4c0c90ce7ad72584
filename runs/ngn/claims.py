"""The claims of `runs.ngn` in the order of the table: the paper's small problems, theorems, networks."""

from __future__ import annotations

from runs.ngn import bound_claims, network_claims, score_claims, step_claims, toy_claims

CLAIMS = (*toy_claims.CLAIMS, *bound_claims.CLAIMS, *network_claims.CLAIMS, *score_claims.CLAIMS, *step_claims.CLAIMS)
