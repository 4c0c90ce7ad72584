"""What contradicts a publication or a library, each reproduced in less than a minute.

python -m runs.findings [NAME ...]
"""

from runs.findings import adam_sde, alpha_beta, convolutions, leaky_relu, ratio_rule, sam_covariance, sign_limits
from runs.findings.finding import Finding, Seen
from runs.findings.second_derivatives import LAYER_NORM, WEIGHT_NORM

FINDINGS = {
    found.name: found
    for found in (
        leaky_relu.FINDING,
        convolutions.FINDING,
        ratio_rule.FINDING,
        sam_covariance.FINDING,
        adam_sde.FINDING,
        sign_limits.FINDING,
        alpha_beta.FINDING,
        WEIGHT_NORM,
        LAYER_NORM,
    )
}

__all__ = ["FINDINGS", "Finding", "Seen"]
