"""SDE models of first-order solvers: drift, diffusion, paths, and the solver itself to compare with.

An SDE is made of a problem (`Quadratic`, `Function`, `FiniteSum`) and a step size. `integrate` runs it by
Euler-Maruyama over many paths, `discrete` runs the solver that it models, `compare` says how far they are apart, and
`linearised` gives stationary covariances and rates on quadratics in closed form.
"""

from solvers.diffusion.adaptive import Adam, RMSprop
from solvers.diffusion.compare import Comparison, Difference, compare, weak_order
from solvers.diffusion.finite_sum import FiniteSum
from solvers.diffusion.integrate import Paths, Summary, covariance, discrete, integrate
from solvers.diffusion.noise import GaussianNoise, Noise, StudentNoise
from solvers.diffusion.problems import Function, Law, Problem, Quadratic, Spread
from solvers.diffusion.sam import DNSAM, SAM, USAM
from solvers.diffusion.sde import SDE, Terms
from solvers.diffusion.sgd import SGD
from solvers.diffusion.sign import SignSGD
from solvers.diffusion.stationary import LinearSDE, directions, linearised

Linear = LinearSDE  # its name in version 0.1

__all__ = [
    "DNSAM",
    "SAM",
    "SDE",
    "SGD",
    "USAM",
    "Adam",
    "Comparison",
    "Difference",
    "FiniteSum",
    "Function",
    "GaussianNoise",
    "Law",
    "Linear",
    "LinearSDE",
    "Noise",
    "Paths",
    "Problem",
    "Quadratic",
    "RMSprop",
    "SignSGD",
    "Spread",
    "StudentNoise",
    "Summary",
    "Terms",
    "compare",
    "covariance",
    "directions",
    "discrete",
    "integrate",
    "linearised",
    "weak_order",
]
