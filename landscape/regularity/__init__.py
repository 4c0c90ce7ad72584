"""Function classes along a trajectory (arXiv 2410.12455): the alpha-beta-condition, exact, and its competitors."""

from landscape.regularity.adaptive_theorems import adagrad_norm_max, dec_sps, sps_max
from landscape.regularity.alpha_beta import (
    AlphaBeta,
    admissible,
    alpha_beta,
    alpha_beta_frontier,
    best_ratio,
    margins,
    violated,
)
from landscape.regularity.conditions import (
    Constant,
    aiming,
    angles,
    error_bound,
    kurdyka_lojasiewicz,
    polyak_lojasiewicz,
    quadratic_growth,
    quasar_convexity,
    restricted_secant,
    star_convexity,
)
from landscape.regularity.lines import HuberLine, huber_line
from landscape.regularity.smoothness import Envelope, smoothness
from landscape.regularity.summary import describe
from landscape.regularity.theorems import (
    Bound,
    ProblemConstants,
    ngn_constant,
    ngn_decreasing,
    one_step_decrease,
    sgd_constant,
    sgd_decreasing,
)
from landscape.regularity.trajectory import Trajectory

__all__ = [
    "AlphaBeta",
    "Bound",
    "Constant",
    "Envelope",
    "HuberLine",
    "ProblemConstants",
    "Trajectory",
    "adagrad_norm_max",
    "admissible",
    "aiming",
    "alpha_beta",
    "alpha_beta_frontier",
    "angles",
    "best_ratio",
    "dec_sps",
    "describe",
    "error_bound",
    "huber_line",
    "kurdyka_lojasiewicz",
    "margins",
    "ngn_constant",
    "ngn_decreasing",
    "one_step_decrease",
    "polyak_lojasiewicz",
    "quadratic_growth",
    "quasar_convexity",
    "restricted_secant",
    "sgd_constant",
    "sgd_decreasing",
    "smoothness",
    "sps_max",
    "star_convexity",
    "violated",
]
