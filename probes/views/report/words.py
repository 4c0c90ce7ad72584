"""What the report says of each kind of probe: its title, what it shows, what it does not show, its formula in TeX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Words(NamedTuple):
    """The words of one kind."""

    title: str
    shows: str
    not_shows: str
    formula: str = ""


WORDS: Mapping[str, Words] = {
    "loss": Words(
        "Loss",
        "The loss on the objective's data, and how steep it is there.",
        "Data that the objective does not have: this is no test error.",
        r"f(\theta) = \frac{1}{N} \sum_{i=1}^{N} \ell(\theta; x_i, y_i)",
    ),
    "spectrum": Words(
        "Spectrum",
        "The outermost eigenvalues: how fast the loss curves along its most curved directions, and how many of these "
        "stand apart from the rest.",
        "The bulk of the spectrum, which is in the density, and directions of negative curvature, unless the smallest "
        "eigenvalues were asked for.",
        r"H v_i = \lambda_i v_i, \quad \lvert \lambda_i - \hat{\lambda}_i \rvert \le \lVert H \hat{v}_i - "
        r"\hat{\lambda}_i \hat{v}_i \rVert",
    ),
    "trace": Words(
        "Trace",
        "The sum of all eigenvalues: the mean curvature over all directions, times their number.",
        "How the curvature is distributed; positive and negative eigenvalues cancel in it.",
        r"\tr \, H = \sum_i \lambda_i \approx \frac{1}{m} \sum_{j=1}^{m} z_j^\top H z_j",
    ),
    "density": Words(
        "Spectral density",
        "Where all eigenvalues lie: the bulk near zero, what is negative, what stands apart.",
        "Single eigenvalues inside the bulk: the curve is smoothed with Gaussians, and has the moments of the "
        "spectrum, not its points.",
        r"\phi(t) = \frac{1}{n} \sum_{i=1}^{n} \frac{1}{\sigma} g(\frac{t - \lambda_i}{\sigma})",
    ),
    "condition": Words(
        "Rank and condition number",
        "How many eigenvalues exceed a threshold, and the ratio of the largest to the smallest of them.",
        "A property of the network alone where there is no gap in the spectrum: κ is then one over the threshold.",
        r"\kappa_\tau = \frac{\lambda_{\max}}{\lambda_r}, \quad \lambda_r > \tau \lambda_{\max} \ge \lambda_{r + 1}",
    ),
    "by-layer": Words(
        "Layer by layer",
        "The curvature along the parameters of one layer at a time, the others held fixed: which layer is sharpest, "
        "and in how many directions.",
        "Directions that move several layers together: the largest eigenvalue of the whole matrix is at least that of "
        "the sharpest layer, and often larger.",
        r"H_{ll} = \frac{\partial^2 f}{\partial \theta_l^2}, \quad \text{stable~rank} = \frac{\lVert H_{ll} "
        r"\rVert_F^2}{\lVert H_{ll} \rVert_2^2}",
    ),
    "heterogeneity": Words(
        "Unlike layers",
        "How far apart the spectra of the layers are: 0 where all are alike, 1 where no two have any part in common.",
        "Which layer is sharper, and anything below the distance of a layer to itself, which is noise. Widths of bins "
        "and of the smoothing decide on the numbers: compare runs at the same ones.",
        r"\text{JS}(p, q)^2 = H(\frac{p + q}{2}) - \frac{H(p) + H(q)}{2}",
    ),
    "gauss-newton": Words(
        "Gauss-Newton conditioning",
        "How unevenly the outputs react to the parameters: the spectrum of the Gauss-Newton matrix, its condition "
        "number, and bounds where the network is linear.",
        "The second derivatives of the network itself, which the Gauss-Newton matrix leaves out.",
        r"G = \frac{1}{N} J^\top J, \quad \kappa(G) = \frac{\lambda_{\max}(G)}{\lambda_r(G)}",
    ),
    "sharpness": Words(
        "Sharpness",
        "The largest curvature, beside the one up to which the optimizer's steps are stable.",
        "Divergence: above the threshold gradient descent often hovers, where a quadratic model no longer holds.",
        r"\lambda_{\max}(H) \quad \text{against} \quad \frac{2}{\eta}",
    ),
    "threshold-spectrum": Words(
        "Eigenvalues above c/η",
        "All directions in which the loss curves more than the learning rate bears, and how many they are.",
        "Divergence: gradient descent hovers where a few directions are unstable; curvature falls again along them.",
        r"\lambda_i > \frac{c}{\eta}",
    ),
    "batch-sharpness": Words(
        "Batch sharpness",
        "The curvature of mini-batches along their own gradients, which is what SGD feels.",
        "The curvature of the whole loss: it can be far below while this is at the threshold.",
        r"\frac{1}{B} \sum_{b=1}^{B} \frac{g_b^\top H_b g_b}{\lVert g_b \rVert^2}",
    ),
    "critical-sharpness": Words(
        "Critical sharpness",
        "How large a step along one direction may be before it raises the loss, as a curvature.",
        "Any other direction; and no second derivative at all.",
        r"\frac{2}{\eta_c}, \quad \eta_c = \min \eta > 0 : f(\theta - \eta d) > f(\theta)",
    ),
    "critical-step-curve": Words(
        "Critical step",
        "How large a step along the gradient may be before it raises the loss, beside the largest that is stable and "
        "the learning rate: how much room a warm-up leaves.",
        "What steps of momentum or an adaptive optimizer may be: they go another way.",
        r"\eta_c = \min \eta > 0 : f(\theta - \eta \nabla f) > f(\theta), \quad \frac{2}{\lambda_{\max}(H)}",
    ),
    "relative-critical-sharpness": Words(
        "Relative critical sharpness",
        "How large a step for one loss may be before it raises another one, as a curvature of that other one.",
        "Any other direction than the update's. Where the other loss rises at once there is no such step, and the "
        "value is infinite: the slope says how fast.",
        r"\frac{2}{\eta_c}, \quad \eta_c = \min \eta > 0 : f_{\text{watched}}(\theta - \eta \Delta_{\text{moves}}) > "
        r"f_{\text{watched}}(\theta)",
    ),
    "sam-sharpness": Words(
        "Rise of the loss nearby",
        "How much higher the loss is at the worst point that was found within a given distance.",
        "The true maximum in that ball: it is found to first order.",
        r"\max_{\lVert d \rVert \le \rho} f(\theta + d) - f(\theta)",
    ),
    "gradient": Words(
        "Gradient and its noise",
        "Loss, gradient, and the batch size from which on more data in a batch helps little.",
        "A best batch size: the noise scale is of this point of training, and for steps along the gradient.",
        r"\text{noise~scale} = \frac{\tr \Sigma}{\lVert \nabla f \rVert^2}",
    ),
    "alignment": Words(
        "Alignment",
        "How much of the gradient (or of an update) lies in the directions of largest curvature.",
        "Whether moving there lowers the loss: much of the motion in these directions goes to and fro.",
        r"\sum_{i=1}^{k} \frac{\langle g, v_i \rangle^2}{\lVert g \rVert^2}",
    ),
    "hgp": Words(
        "Gradients of two sets",
        "How alike two sets of data are in their gradients and in their Hessians times these, beside random parts of "
        "one set, which differ by noise.",
        "Sets of another size: both numbers are of parts of the size that is told, and smaller ones differ more.",
        r"\frac{\lVert H_1 g_1 - H_2 g_2 \rVert}{\lVert H_1 g_1 \rVert + \lVert H_2 g_2 \rVert}",
    ),
    "updates": Words(
        "Updates",
        "How far each tensor moved in a step, relative to its own size.",
        "Whether it moved in a good direction. The guide at 1/1000 is a rule of thumb.",
        r"\frac{\lVert \Delta \theta_l \rVert}{\lVert \theta_l \rVert}",
    ),
    "function-class": Words(
        "Function class",
        "Which conditions on the way to the end point hold along this run, and with which constants.",
        "Anything away from this path: a condition that holds along it may fail everywhere else.",
        r"\langle \nabla f_k(x_k), x_k - x_K \rangle \ge \alpha (f_k(x_k) - f_k(x_K)) - \beta (f_k(x_k) - f_k^\star)",
    ),
    "neural-collapse": Words(
        "Neural collapse",
        "Whether features of a class come together, their means form a simplex, and the last layer follows them.",
        "Generalisation: collapse is of the training data.",
        r"\text{NC1} = \frac{1}{K} \tr(\Sigma_W \Sigma_B^\dagger), \quad \text{NC0} = \lVert W^\top 1 \rVert",
    ),
    "effective-rank": Words(
        "Ranks of layers",
        "In how many directions the activations of each layer and its weights spread, and how many of its units are "
        "never on: representations that collapse lose directions, and units that sleep no longer learn.",
        "Which directions they are, or whether they serve the task: noise has the highest rank of all. Ranks of "
        "activations depend on the data: compare runs on the same.",
        r"\exp ( -\sum_i p_i \log p_i ), \quad p_i = \frac{s_i}{\sum_j s_j}",
    ),
    "attention-entropy": Words(
        "Entropy of attention",
        "How widely each head spreads its attention over the positions that it sees, beside the least that spectral "
        "norms of weights and inputs allow. Attention that collapses onto few positions goes with unstable training.",
        "What a head attends to. The bound is loose, most so for long sequences: where it is near 0 collapse is "
        "possible, and need not happen.",
        r"-\sum_j p_j \log p_j \ge \log (1 + (T - 1) \beta) + s (T^2 - T)^{1/2} \frac{\beta}{1 + (T - 1) \beta}",
    ),
    "dual-gradient": Words(
        "Gradient in dual norms",
        "The gradient in the norms that the layers' steps are measured in, and its ratio to f - f*.",
        "The lowest loss that can be reached: the infimum is given, not measured.",
        r"\mu = \frac{\sum_l \lVert \nabla_l f \rVert_{\star}}{f - f^\star}",
    ),
    "batch-rule": Words(
        "Batch and step size",
        "How smooth the loss is, how steep above its infimum and how noisy, in the norms that the layers' steps are "
        "measured in; and the batch and step size that a rule for a given number T of loss terms makes of them.",
        "The rule's constant factors, which a tuned run has to give: what holds is how batch and step size change with "
        "the number of terms and with the model. L is between two points of the run, not the largest there is.",
        r"B = ( T \frac{\mu \rho \sigma}{L} )^{2/3}, \quad b = \frac{2}{3} \frac{B}{T}",
    ),
    "surface": Words(
        "Loss surface",
        "The loss on a plane or line through the parameters, exact at every point, and where its quadratic model ends.",
        "Other directions: a plane is two of as many as there are parameters, and random ones show little of the sharp "
        "ones. Networks that lie off the plane: they are drawn where they are projected, and their loss is another.",
        r"f(\theta + x d_1 + y d_2) \approx f + g^\top d + \frac{1}{2} d^\top H d",
    ),
    "snapshots": Words(
        "Snapshots",
        "How far the parameters are from the first snapshot and from the last, and how long the path between was.",
        "The loss along the path, or what lies between two snapshots: straight lines are the shortest there can have "
        "been.",
        r"\frac{\lVert \theta_t - \theta_0 \rVert}{\lVert \theta_0 \rVert}, \quad \sum_{s \le t} \lVert \theta_s - "
        r"\theta_{s - 1} \rVert",
    ),
    "connection": Words(
        "Between two networks",
        "How far the loss rises on the way from one network to the other: on the straight line, on the line to the "
        "other with its hidden units in the order of the first, and on a path that was trained to be low.",
        "The lowest path there is: a barrier that was found is an upper bound, and between the points the loss may be "
        "higher.",
        r"\max_t f(\theta_t) - (1 - t) f(\theta_a) - t f(\theta_b)",
    ),
    "solver": Words(
        "Steps of the solver",
        "What the solver's model promised at each step, what came of it, and the constant that it used.",
        "The whole loss, where the step was taken on a batch.",
        r"\text{ratio} = \frac{f(\theta) - f(\theta + s)}{m(0) - m(s)}",
    ),
}
OTHER = Words(
    "Other records",
    "Numbers of a probe that is not one of this package.",
    "What they mean: their fields' descriptions are all that is known here.",
)


def papers(text: str) -> list[tuple[str, str]]:
    """The papers of an entry of the registry, each with its address where it is on arXiv."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        known = re.fullmatch(r"\d{4}\.\d{4,5}", part)
        found.append((f"arXiv {part}", f"https://arxiv.org/abs/{part}") if known else (part, ""))
    return found
