"""Sharpness: how curved the loss is where training stands, against what its optimizer bears."""

from landscape.operators.preconditioned import Preconditioned
from landscape.sharpness.alignment import Alignment, alignment
from landscape.sharpness.batch import BatchSharpness, batch_sharpness
from landscape.sharpness.critical import CriticalSharpness, critical_sharpness
from landscape.sharpness.gradients import GradientStatistics, gradient_statistics
from landscape.sharpness.layer_constants import LayerConstants, layer_constants, rule_batch
from landscape.sharpness.products import GradientProducts, gradient_products
from landscape.sharpness.relative import RelativeCriticalSharpness, relative_critical_sharpness
from landscape.sharpness.sam import SAMSharpness, sam_sharpness
from landscape.sharpness.stability import Stability, plain_threshold, stability
from landscape.sharpness.stationary import Stationary, second_order_stationary

__all__ = [
    "Alignment",
    "BatchSharpness",
    "CriticalSharpness",
    "GradientProducts",
    "GradientStatistics",
    "LayerConstants",
    "Preconditioned",
    "RelativeCriticalSharpness",
    "SAMSharpness",
    "Stability",
    "Stationary",
    "alignment",
    "batch_sharpness",
    "critical_sharpness",
    "gradient_products",
    "gradient_statistics",
    "layer_constants",
    "plain_threshold",
    "relative_critical_sharpness",
    "rule_batch",
    "sam_sharpness",
    "second_order_stationary",
    "stability",
]
