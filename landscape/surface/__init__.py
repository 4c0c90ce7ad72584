"""The surface: f on planes and lines through parameter space, and what connects two checkpoints."""

from landscape.surface.directions import (
    Frame,
    between_directions,
    between_frame,
    eigen_directions,
    gradient_direction,
    random_directions,
    trajectory_directions,
    trajectory_frame,
)
from landscape.surface.plane import Surface, line, plane

__all__ = [
    "Frame",
    "Surface",
    "between_directions",
    "between_frame",
    "eigen_directions",
    "gradient_direction",
    "line",
    "plane",
    "random_directions",
    "trajectory_directions",
    "trajectory_frame",
]
