"""The monitor: probes measured inside a training loop when they are due, within a budget of its time."""

from probes.monitor.measure import Outcome, measure_once
from probes.monitor.monitor import Monitor

__all__ = ["Monitor", "Outcome", "measure_once"]
