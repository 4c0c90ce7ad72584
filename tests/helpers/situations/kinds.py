"""Kinds of training, beyond a network and a label."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import Objective
from situations.layers import data, mlp
from situations.situation import Case, Situation

GROUP = "Kinds of training"


def network(inner: int, outer: int, hidden: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inner, hidden), nn.Tanh(), nn.Linear(hidden, outer)).double()


def slope(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """u and du/dx, by autograd inside the forward pass."""
    x = x.detach().requires_grad_()
    u = model(x)
    return u, torch.autograd.grad(u.sum(), x, create_graph=True)[0]


def pinn() -> Case:
    """u' = -u, u(0) = 1."""
    model, x = network(1, 1), torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]

    def residual(model: nn.Module, x: Tensor) -> Tensor:
        u, du = slope(model, x)
        return du + u

    return Case(
        Objective(model, nn.MSELoss(), (x, torch.zeros_like(x)), forward=residual),
        lambda: residual(model, x).square().mean(),
    )


def forces() -> Case:
    model, (x, _) = network(3, 1), data(6, 3)
    target = torch.ones(6, 3, dtype=torch.float64)

    def force(model: nn.Module, x: Tensor) -> Tensor:
        return -slope(model, x)[1]

    return Case(Objective(model, nn.MSELoss(), (x, target), forward=force), lambda: F.mse_loss(force(model, x), target))


def score_matching() -> Case:
    model, (x, _) = network(2, 2), data(6, 2)

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        s = model(x)
        trace = sum(torch.autograd.grad(s[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2))
        return trace + s.square().sum(1) / 2

    return Case(Objective(model, lambda out, _: out.mean(), x, forward=forward), lambda: forward(model, x).mean())


def autoencoder() -> Case:
    model, (x, _) = network(4, 4), data(6, 4)
    return Case(Objective(model, nn.MSELoss(), (x, x)), lambda: F.mse_loss(model(x), x))


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, spread = self.encoder(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (spread / 2).exp()
        return self.decoder(z), mean, spread


def elbo(outputs: Any, x: Tensor) -> Tensor:
    decoded, mean, spread = outputs
    divergence = (mean.square() + spread.exp() - 1 - spread).sum(1) / 2
    return ((decoded - x).square().sum(1) + divergence).mean()


def seeded(f: Any) -> Any:
    def run() -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0x5EED)  # what every batch's forward pass starts from
            return f()

    return run


def vae() -> Case:
    torch.manual_seed(0)
    model, (x, _) = VAE().double(), data(6, 4)
    return Case(Objective(model, elbo, (x, x)), seeded(lambda: elbo(model(x), x)))


def diffusion() -> Case:
    """Noise predicted at a random time, drawn in the forward pass."""
    model, (x, _) = network(5, 4), data(6, 4)

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        t, noise = torch.rand(len(x), 1, dtype=x.dtype), torch.randn_like(x)
        return model(torch.cat([(1 - t).sqrt() * x + t.sqrt() * noise, t], 1)) - noise

    loss = seeded(lambda: forward(model, x).square().mean())
    return Case(Objective(model, lambda out, _: out.square().mean(), x, forward=forward), loss)


def gan(of: str) -> Case:
    """Generator and discriminator in one module, the objective in the parameters of one of them."""
    model = nn.ModuleDict({"generator": network(2, 4), "critic": network(4, 1)})
    (z, _), (x, _) = data(6, 2), data(6, 4)

    def forward(model: Any, batch: Any) -> Tensor:
        real, fake = model["critic"](batch[1]), model["critic"](model["generator"](batch[0]))
        return F.softplus(-fake) if of == "generator" else F.softplus(fake) + F.softplus(-real)

    f = Objective(model, lambda out, _: out.mean(), [((z, x), None)], forward=forward, parameters=f"{of}.*")
    return Case(f, lambda: forward(model, (z, x)).mean(), list(model[of].parameters()))


def contrastive() -> Case:
    model, (x, _), y = network(4, 3), data(6, 4), torch.arange(6)

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        z = F.normalize(model(x))
        return z @ F.normalize(model(x + 0.1)).T / 0.2

    return Case(
        Objective(model, nn.CrossEntropyLoss(), (x, y), forward=forward), lambda: F.cross_entropy(forward(model, x), y)
    )


def penalty() -> Case:
    """Weight decay in the loss."""
    torch.manual_seed(0)
    model, (x, y) = mlp(nn.Tanh()).double(), data(6, 4)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y) + 0.1 * sum(p.square().sum() for p in model.parameters())

    return Case(Objective(model, loss, (x, y)), lambda: loss(model(x), y))


def distillation() -> Case:
    model, teacher, (x, _) = network(4, 3), network(4, 3).requires_grad_(False), data(6, 4)
    y = teacher(x + 0.2).softmax(1)
    loss = nn.KLDivLoss(reduction="batchmean")
    return Case(
        Objective(model, loss, (x, y), forward=lambda model, x: model(x).log_softmax(1)),
        lambda: loss(model(x).log_softmax(1), y),
    )


def heads() -> Case:
    """Two outputs, two targets, one loss."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core, self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = torch.tanh(self.core(x))
            return {"class": self.one(h), "size": self.two(h)}

    torch.manual_seed(0)
    model, (x, y) = Two().double(), data(6, 4)
    targets = {"class": y, "size": torch.ones(6, 1, dtype=torch.float64)}

    def loss(out: Any, target: Any) -> Tensor:
        return F.cross_entropy(out["class"], target["class"]) + F.mse_loss(out["size"], target["size"])

    return Case(Objective(model, loss, [(x, targets)]), lambda: loss(model(x), targets))


_case = partial(Situation, GROUP)
SITUATIONS = [
    _case("physics-informed network, derivatives in forward", pinn),
    _case("forces: the loss of a gradient in the inputs", forces),
    _case("score matching, inputs alone", score_matching),
    _case("autoencoder", autoencoder),
    _case("variational autoencoder, noise from torch's generator", vae),
    _case("diffusion with random times", diffusion),
    _case("GAN, the generator", partial(gan, "generator")),
    _case("GAN, the discriminator", partial(gan, "critic")),
    _case("contrastive (InfoNCE)", contrastive),
    _case("weight decay in the loss", penalty),
    _case("distillation from a frozen teacher", distillation),
    _case("two heads: dicts of outputs and targets", heads),
]
