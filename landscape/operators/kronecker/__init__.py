"""Curvature as Kronecker products, layer by layer: K-FAC and EKFAC."""
