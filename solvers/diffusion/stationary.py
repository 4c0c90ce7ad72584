"""Where paths settle on a quadratic f = x^T H x / 2 with Gaussian noise, and how fast: dY = -A Y dt + Q^{1/2} dW.

SGD's SDE is of that form; the others are near the minimum, to leading order in eta. With D = diag(Sigma), decays l
(coupled) and w (decoupled):

    SGD       A = H + l                              Q = eta Sigma
    SignSGD   A = sqrt(2/pi) D^{-1/2} (H + l) + w    Q = eta 2/pi arcsin(correlation)          (its phase 3)
    RMSprop   A = D^{-1/2} (H + l) + w               Q = eta correlation
    Adam      of (X, M), from drift and diffusion with V = D
    USAM      A = H + rho H^2                        Q = eta (I + rho H) Sigma (I + rho H)
    SAM       A = H (I + rho H C Sigma^{-1})         Q = eta Cov(z + rho H z / |z|),  C = E[z z^T / |z|]

Euler-Maruyama with step dt settles at A S + S A^T - dt A S A^T = Q (dt = 0: the SDE). Where H and Sigma commute and
eta is small these are SGD (eta/2) Sigma H^{-1} (eta Sigma / (2H - dt H^2) at a step dt), SignSGD (eta/2) sqrt(pi/2)
Sigma^{1/2} H^{-1}: linear in the noise's standard deviation, not quadratic, RMSpropW (eta/2)(H Sigma^{-1/2} + w)^{-1},
AdamW the same times r_1 / (r_1 + w), coupled decay in the last three (eta/2) Sigma^{1/2} (H + l)^{-1} (in SignSGD
times sqrt(pi/2)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from solvers.base import check
from solvers.diffusion.adaptive import Adam, RMSprop
from solvers.diffusion.noise import GaussianNoise
from solvers.diffusion.problems import Quadratic
from solvers.diffusion.sam import SAM, USAM
from solvers.diffusion.sde import SDE
from solvers.diffusion.sgd import SGD
from solvers.diffusion.sign import SignSGD


@dataclass(frozen=True)
class LinearSDE:
    """dY = -A Y dt + Q^{1/2} dW; Y is the point `(n,)`, or the point above the running mean of gradients `(2n,)`.

    Attributes:
        A, Q: `(m, m)`.
        n: how many entries of Y are the point.

    Example:
        >>> import torch
        >>> from solvers.diffusion import LinearSDE
        >>> sde = LinearSDE(A=torch.diag(torch.tensor([1.0, 4.0])), Q=torch.eye(2), n=2)
        >>> sde.rates().tolist(), [round(v, 3) for v in sde.covariance().diagonal().tolist()]
        ([1.0, 4.0], [0.5, 0.125])
    """

    A: Tensor
    Q: Tensor
    n: int

    def covariance(self, dt: float = 0.0) -> Tensor:
        """The stationary covariance of the point, `(n, n)`, of Euler-Maruyama with step `dt`, of the SDE with 0.

        Raises:
            ValueError: there is none, the paths leave.
        """
        check(dt=(dt, 0 <= dt < math.inf))
        if float(self.rates(dt).min()) <= 0:
            raise ValueError(f"there is no stationary state: with dt={dt:g} a direction does not contract")
        A, Q = self.A.cpu().numpy(), self.Q.cpu().numpy()
        if dt == 0:
            S = linalg.solve_continuous_lyapunov(A, Q)
        else:
            S = linalg.solve_discrete_lyapunov(np.eye(len(A)) - dt * A, dt * Q)
        return torch.from_numpy(S).to(self.A)[: self.n, : self.n]

    def rates(self, dt: float = 0.0) -> Tensor:
        """`(m,)`, ascending: the mean's components fall as exp(-rate t), the loss's as exp(-2 rate t).

        With dt > 0 those of Euler-Maruyama; not positive where it does not contract.
        """
        values = torch.linalg.eigvals(self.A)
        return (values.real if dt == 0 else -(1 - dt * values).abs().log() / dt).sort().values

    def moments(self, y0: Tensor, dt: float, steps: int) -> tuple[Tensor, Tensor]:
        """Exact mean `(m,)` and covariance `(m, m)` of Euler-Maruyama after `steps` steps from the fixed y0 `(m,)`."""
        G = torch.eye(len(self.A)).to(self.A) - dt * self.A
        mean, S = y0.clone(), torch.zeros_like(self.A)
        for _ in range(steps):
            mean, S = G @ mean, G @ S @ G.T + dt * self.Q
        return mean, S


def linearised(sde: SDE) -> LinearSDE:
    """The SDE near the minimum of its quadratic; see the module for each of them.

    Raises:
        ValueError: the problem is no `Quadratic` with a noise that has the law needed, or the SDE has no such form
            (DNSAM's is singular at the minimum).

    Example:
        >>> import torch
        >>> from solvers.diffusion import Quadratic, SignSGD, linearised
        >>> sde = SignSGD(Quadratic(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 1.0])), eta=0.1)
        >>> [round(float(v), 3) for v in linearised(sde).rates()]  # sqrt(2 / pi) Sigma^(-1/2) H
        [0.798, 3.192]
        >>> round(float(linearised(sde).covariance()[0, 0]), 4)
        0.0627
    """
    problem, eta = sde.problem, sde.eta
    if not isinstance(problem, Quadratic):
        raise ValueError("a stationary covariance in closed form needs a Quadratic")
    H, noise, identity = problem.H, problem.noise, torch.eye(problem.n).to(problem.H)
    if isinstance(sde, SGD):
        return LinearSDE(H + sde.weight_decay * identity, eta * noise.covariance, problem.n)
    if isinstance(sde, SignSGD):
        slope = noise.density / noise.scale[:, None]
        A = slope * (H + sde.coupled * identity) + sde.decoupled * identity
        return LinearSDE(A, eta * noise.sign_covariance(torch.zeros_like(noise.scale)[None])[0], problem.n)
    if isinstance(sde, RMSprop | Adam):
        return _adaptive(sde, H + sde.coupled * identity, noise.covariance)
    if isinstance(sde, USAM):
        raised = identity + sde.rho * H
        return LinearSDE(H @ raised, eta * raised @ noise.covariance @ raised, problem.n)
    if isinstance(sde, SAM) and isinstance(noise, GaussianNoise):
        if float(torch.linalg.eigvalsh(noise.covariance)[0]) <= 0:
            raise ValueError("SAM has a linear form near a minimum only where Sigma is positive definite")
        C, U = directions(noise.covariance)
        cross = H @ C
        A = H + sde.rho * H @ cross @ torch.linalg.inv(noise.covariance)
        Q = noise.covariance + sde.rho * (cross + cross.T) + sde.rho**2 * H @ U @ H
        return LinearSDE(A, eta * Q, problem.n)
    raise ValueError(f"{type(sde).__name__} with {type(noise).__name__} has no linear form near a minimum")


def directions(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """E[z z^T / |z|] and E[z z^T / |z|^2] for z ~ N(0, covariance), `(n, n)` each.

    From 1/|z| = 2/sqrt(pi) int exp(-s^2 |z|^2) ds and 1/|z|^2 = int 2 s exp(-s^2 |z|^2) ds over s > 0; the mean under
    the integral is a product over eigendirections.

    Example:
        >>> import torch
        >>> from solvers.diffusion import directions
        >>> first, second = directions(torch.eye(2, dtype=torch.float64))
        >>> round(float(first[0, 0]), 4), round(float(second[0, 0]), 4)
        (0.6267, 0.5)
    """
    values, vectors = torch.linalg.eigh(covariance)
    unit = float(values.mean())
    nodes, weights = np.polynomial.legendre.leggauss(400)
    angle = torch.from_numpy((nodes + 1) * math.pi / 4).to(covariance)
    s = angle.tan()  # of the integral over s > 0, in units of the mean eigenvalue's root
    measure = torch.from_numpy(weights).to(covariance) * math.pi / 4 * (1 + s.square())
    shrink = 1 / (1 + 2 * s.square()[:, None] * values / unit)
    mean = values * shrink * shrink.sqrt().prod(1, keepdim=True)
    first = 2 / math.sqrt(math.pi) * (measure[:, None] * mean).sum(0) / math.sqrt(unit)
    second = (measure[:, None] * 2 * s[:, None] * mean).sum(0) / unit
    return vectors @ torch.diag(first) @ vectors.T, vectors @ torch.diag(second) @ vectors.T


def _adaptive(sde: RMSprop | Adam, H: Tensor, covariance: Tensor) -> LinearSDE:
    n = len(H)
    P = (covariance.diagonal().sqrt() + sde.eps)[:, None]
    identity = torch.eye(n).to(H)
    if isinstance(sde, RMSprop):
        return LinearSDE(H / P + sde.decoupled * identity, sde.eta * covariance / (P * P.T), n)
    r1 = sde.r[0]
    new = sde.eta * r1  # the share of the new gradient in the mean that a step uses
    point = torch.cat([new * H / P + sde.decoupled * identity, (1 - new) * identity / P], 1)
    mean = torch.cat([-r1 * H, r1 * identity], 1)
    noise = torch.cat([-sde.ahead * r1 * identity / P, r1 * identity])
    return LinearSDE(torch.cat([point, mean]), sde.eta * noise @ covariance @ noise.T, n)
