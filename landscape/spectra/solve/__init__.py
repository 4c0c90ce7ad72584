"""Linear systems with a curvature matrix: (A + damping I) x = b."""
