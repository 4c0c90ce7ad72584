"""Statistics of several ranks as one: each has its own samples, and all get those of all samples."""

from __future__ import annotations

import torch

from landscape.collapse.statistics import CollapseStatistics
from landscape.ranks import Ranks


@torch.inference_mode(False)
@torch.no_grad()
def merged(own: CollapseStatistics, ranks: Ranks) -> CollapseStatistics:
    """The statistics of the samples of all ranks, on each of them; its own where there is one rank.

    Scatters add up to that around the common means with n_r (m_r - m)(m_r - m)^T of each rank r and class, as in
    `CollapseStatistics.merge`. Two all-reduces, of K (D + 1) and of D^2 + K + 1 numbers.
    """
    if not ranks.several:
        return own
    every = ranks.gathered(own.shift.cpu() if bool(own.counts.any()) else None)
    shifts = [shift for shift in every if shift is not None]
    if not shifts:
        return own
    shift = shifts[0].to(own.device)
    offsets = own.offsets + (own.shift - shift)
    sums = ranks.sum(torch.cat([own.counts.unsqueeze(1), own.counts.unsqueeze(1) * offsets], dim=1))
    counts, means = sums[:, 0], sums[:, 1:] / sums[:, :1].clamp(min=1.0)
    rows = own.counts.sqrt().unsqueeze(1) * (offsets - means)
    parts = [own.scatter + rows.T @ rows, own.traces + rows.square().sum(1), own.misplaced.double().reshape(1)]
    added = ranks.sum(torch.cat([part.reshape(-1) for part in parts]))
    scatter, traces, misplaced = added.split([part.numel() for part in parts])
    together = CollapseStatistics(own.num_classes, own.dim, ignore_index=own.ignore_index)
    state = {"counts": counts, "shift": shift, "offsets": means, "scatter": scatter.reshape(own.dim, -1)}
    state |= {"traces": traces, "misplaced": misplaced.reshape(()).long(), "agreement": torch.zeros_like(own.agreement)}
    rounding = ranks.largest(own.rounding)
    together.load_state_dict(own.state_dict() | state | {"rounding": rounding})
    return together
