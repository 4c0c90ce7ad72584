"""The surface: f on planes and lines through parameter space, and what connects two checkpoints."""

from landscape.surface.align import align
from landscape.surface.barrier import Barrier, barrier
from landscape.surface.directions import eigen_directions, gradient_direction, random_directions
from landscape.surface.dropout import dropout_stability
from landscape.surface.frames import Frame, between_directions, between_frame, trajectory_directions, trajectory_frame
from landscape.surface.path import Along, Path, curvature_along, path
from landscape.surface.plane import Surface, line, plane

__all__ = [
    "Along",
    "Barrier",
    "Frame",
    "Path",
    "Surface",
    "align",
    "barrier",
    "between_directions",
    "between_frame",
    "curvature_along",
    "dropout_stability",
    "eigen_directions",
    "gradient_direction",
    "line",
    "path",
    "plane",
    "random_directions",
    "trajectory_directions",
    "trajectory_frame",
]
