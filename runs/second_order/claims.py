"""All claims of `runs.second_order`; each group has its own module of them."""

from __future__ import annotations

from runs.second_order import factors_claims, heterogeneity_claims, preconditioning_claims, widths_claims

CLAIMS = (*factors_claims.CLAIMS, *preconditioning_claims.CLAIMS, *heterogeneity_claims.CLAIMS, *widths_claims.CLAIMS)
