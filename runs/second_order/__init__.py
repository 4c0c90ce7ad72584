"""Second-order approximations on small networks: how good they are, and what they are good for.

    python -m runs.second_order [--quick] [--jobs N]

K-FAC and EKFAC against the exact Gauss-Newton matrix, on digits of 4 x 4 pixels so that it can be formed; how Adam,
Shampoo, SOAP and K-FAC condition it; how unlike the Hessian's blocks are in a CNN and in transformers, and what SGD
loses to Adam on them; and how far steps of K-FAC and Shampoo move the layers of wide networks.
Half an hour in one process; --quick takes about one minute.
"""

from __future__ import annotations

from runs.engine.experiment import Experiment
from runs.second_order import claims, jobs
from runs.second_order.figures import figures

EXPERIMENT = Experiment("second_order", "Second-order methods\n\n" + str(__doc__), jobs.plan, claims.CLAIMS, figures)
