"""Neural collapse: how far the last layer's features and weights are from a simplex (arXiv 2602.16642)."""

from landscape.collapse.measure import gather, gather_agreement, measure
from landscape.collapse.metrics import CollapseMetrics, collapse_metrics
from landscape.collapse.predict import predict_nc0
from landscape.collapse.statistics import CollapseStatistics

__all__ = [
    "CollapseMetrics",
    "CollapseStatistics",
    "collapse_metrics",
    "gather",
    "gather_agreement",
    "measure",
    "predict_nc0",
]
